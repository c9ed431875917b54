//! Where the libraries of TensorRT 11 are: those of pip's package, of NVIDIA's archive, or where the loader finds them.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Environment variable that names TensorRT's folder.
pub const FOLDER_VARIABLE: &str = "TENSORRT_DIR";

/// The library's file name.
pub const TENSORRT: &str = "libnvinfer.so.11";

/// That of its ONNX parser.
pub const PARSER: &str = "libnvonnxparser.so.11";

/// That of NVIDIA's plugins.
pub const PLUGINS: &str = "libnvinfer_plugin.so.11";

/// Folders below the one that is named: of pip's package `tensorrt_cu13_libs` (which is itself `tensorrt_libs`), of NVIDIA's archive.
const BELOW: [&str; 3] = ["", "lib", "tensorrt_libs"];

/// Path of a library: in the folder that `folder` names, else its name alone, which the loader looks for (`LD_LIBRARY_PATH`, `ldconfig`).
///
/// # Errors
/// A folder without it.
pub fn find(folder: Option<&Path>, name: &str) -> Result<PathBuf> {
    let Some(folder) = folder else { return Ok(PathBuf::from(name)) };
    let mut places = BELOW.iter().map(|below| folder.join(below).join(name));
    places.find(|place| place.is_file()).ok_or_else(|| Error::Library {
        what: format!("{FOLDER_VARIABLE}={}", folder.display()),
        reason: format!("expected a folder with {name} in it, in lib or in tensorrt_libs"),
    })
}

/// Version of a library as it says itself: `NV_TENSORRT_VERSION`, 110400 of 11.4.0.
///
/// # Errors
/// One that does not load, or is none of TensorRT's.
pub fn version(path: &Path) -> Result<u32> {
    let broken = |reason: String| Error::Library { what: path.display().to_string(), reason };
    // SAFETY: the library's initialisers are those of TensorRT, which the user put there.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| broken(error.to_string()))?;
    // SAFETY: the symbol has this type in all versions (`NvInferRuntime.h`).
    let version = unsafe { library.get::<extern "C" fn() -> i32>(b"getInferLibVersion\0") };
    let version = version.map_err(|error| broken(error.to_string()))?();
    // It stays loaded: unloading a library with threads of its own is asking for trouble.
    std::mem::forget(library);
    u32::try_from(version).map_err(|_| broken(format!("says that it is version {version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_named_has_it_in_one_of_the_usual_places() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(None, TENSORRT).unwrap(), Path::new(TENSORRT));
        let error = find(Some(root.path()), TENSORRT).unwrap_err().to_string();
        assert!(
            error.starts_with("TENSORRT_DIR=")
                && error.ends_with(
                    "expected a folder with libnvinfer.so.11 in it, in lib or in tensorrt_libs"
                ),
            "{error}"
        );
        for below in ["tensorrt_libs", "lib", ""] {
            let place = root.path().join(below).join(TENSORRT);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(&place, "").unwrap();
            assert_eq!(
                find(Some(root.path()), TENSORRT).unwrap().canonicalize().unwrap(),
                place.canonicalize().unwrap()
            );
        }
    }

    #[test]
    fn what_is_no_library_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = version(file.path()).unwrap_err().to_string();
        assert!(error.starts_with(&file.path().display().to_string()), "{error}");
    }
}
