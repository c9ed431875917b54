//! Where the libraries are that are opened at run time: ONNX Runtime and TensorRT-RTX.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Environment variable that names the ONNX Runtime library, as in the `ort` crate.
pub const ONNXRUNTIME_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Environment variable that names the folder of the TensorRT-RTX libraries.
pub const TENSORRT_RTX_VARIABLE: &str = "TENSORRT_RTX_DIR";

/// The ONNX Runtime library: what `ORT_DYLIB_PATH` names, else the one that the project fetched,
/// else one beside this program or in `../lib`.
pub fn onnxruntime() -> Result<PathBuf> {
    let get = "`make deps` fetches it, or ORT_DYLIB_PATH=/path/to/libonnxruntime.so names your own \
               (1.24 or later)";
    if let Some(path) = named(ONNXRUNTIME_VARIABLE) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(missing_named(ONNXRUNTIME_VARIABLE, &path, "a file").help(get))
        };
    }
    let fetched = option_env!("QPIPE_ONNXRUNTIME_DIR").map(PathBuf::from);
    let folders: Vec<PathBuf> = fetched.into_iter().chain(beside_program()).collect();
    find(&folders, "libonnxruntime.so")
        .ok_or_else(|| missing("the ONNX Runtime library (libonnxruntime.so)", &folders).help(get))
}

/// The TensorRT-RTX library (`libtensorrt_rtx.so.*`): in the folder that `TENSORRT_RTX_DIR` names,
/// else the one that the project fetched, else one beside this program or in `../lib`.
pub fn tensorrt_rtx() -> Result<PathBuf> {
    let get = "`make deps-tensorrt-rtx` fetches it, or TENSORRT_RTX_DIR=/path/to/lib names the \
               folder of your own";
    let library = "libtensorrt_rtx.so";
    if let Some(folder) = named(TENSORRT_RTX_VARIABLE) {
        let found = find(&[folder.clone(), folder.join("lib")], library);
        return found.ok_or_else(|| {
            let what = format!("a folder with {library} in it");
            missing_named(TENSORRT_RTX_VARIABLE, &folder, &what).help(get)
        });
    }
    let fetched = option_env!("QPIPE_TENSORRT_RTX_DIR").map(PathBuf::from);
    let folders: Vec<PathBuf> = fetched.into_iter().chain(beside_program()).collect();
    find(&folders, library).ok_or_else(|| {
        missing(&format!("the TensorRT-RTX library ({library})"), &folders).help(get)
    })
}

/// Version of an ONNX Runtime library, asked of itself.
///
/// # Errors
/// A file that is not one, or that does not load.
pub fn onnxruntime_version(path: &Path) -> Result<String> {
    /// The beginning of `OrtApiBase` in `onnxruntime_c_api.h`, the same in all versions.
    #[repr(C)]
    struct ApiBase {
        get_api: extern "C" fn(u32) -> *const std::ffi::c_void,
        get_version_string: extern "C" fn() -> *const std::ffi::c_char,
    }
    let broken = |reason: String| {
        Error::machine(format!("{}: {reason}", path.display()))
            .help("expected ONNX Runtime's shared library, 1.24 or later")
    };
    // SAFETY: the library's initialisers are those of ONNX Runtime, which the user or `make deps` put there.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| broken(error.to_string()))?;
    // SAFETY: the symbol has this type since ONNX Runtime 1.0.
    let base = unsafe { library.get::<extern "C" fn() -> *const ApiBase>(b"OrtGetApiBase\0") };
    let base = base.map_err(|error| broken(error.to_string()))?();
    if base.is_null() {
        return Err(broken("OrtGetApiBase gave nothing".to_owned()));
    }
    // SAFETY: not null, and it lives as long as the library.
    let version = unsafe { ((*base).get_version_string)() };
    // SAFETY: a C string, which lives as long as the library.
    let version = unsafe { std::ffi::CStr::from_ptr(version) }.to_string_lossy().into_owned();
    // It stays loaded: unloading a library with threads of its own is asking for trouble.
    std::mem::forget(library);
    Ok(version)
}

/// The path in an environment variable, absolute; an empty one counts as not set.
fn named(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(std::path::absolute(&value).unwrap_or_else(|_| value.into()))
}

fn beside_program() -> Vec<PathBuf> {
    let program = std::env::current_exe().and_then(|program| program.canonicalize());
    let folder = program.ok().and_then(|program| program.parent().map(Path::to_path_buf));
    folder.map_or_else(Vec::new, |folder| vec![folder.clone(), folder.join("../lib")])
}

/// The first file `library` or `library.VERSION` in these folders; of several, the highest version.
fn find(folders: &[PathBuf], library: &str) -> Option<PathBuf> {
    folders.iter().find_map(|folder| {
        let mut found: Vec<(Vec<u64>, PathBuf)> = std::fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let rest = path.file_name()?.to_str()?.strip_prefix(library)?;
                let version = match rest {
                    "" => Vec::new(),
                    _ => rest
                        .strip_prefix('.')?
                        .split('.')
                        .map(str::parse)
                        .collect::<Result<_, _>>()
                        .ok()?,
                };
                Some((version, path))
            })
            .collect();
        found.sort();
        found.pop().map(|(_, path)| path)
    })
}

fn missing_named(variable: &str, path: &Path, expected: &str) -> Error {
    Error::machine(format!("{variable}={}: expected {expected}", path.display()))
}

fn missing(what: &str, folders: &[PathBuf]) -> Error {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Error::machine(format!("{what} is not in {}", folders.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_is_taken_and_look_alikes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            ["libx.so.1.9", "libx.so.1.10.2", "libx.so.1.10.2.txt", "libx_extra.so.7", "libx.sox"];
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let folders = [folder.path().join("absent"), folder.path().to_path_buf()];
        assert_eq!(find(&folders, "libx.so"), Some(folder.path().join("libx.so.1.10.2")));
        assert_eq!(find(&folders, "liby.so"), None);
    }

    #[test]
    fn errors_name_the_place_and_the_way_out() {
        let error = missing("the library", &[PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(error.message, "the library is not in /a, /b");
        let error = missing_named("X_DIR", Path::new("/nowhere"), "a file");
        assert_eq!(error.message, "X_DIR=/nowhere: expected a file");
    }
}
