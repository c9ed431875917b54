//! Which libtorch this is.

use std::path::Path;

use crate::{Error, Result};

/// Version of libtorch that tch 0.24 belongs to.
pub const LIBTORCH: &str = "2.11.0";

/// The libtorch that this process has loaded, and the version that the file beside it tells: path and version.
///
/// # Errors
/// A libtorch without such a file.
pub fn loaded() -> Result<(String, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps")
        .map_err(|error| Error::io(Path::new("/proc/self/maps"), &error))?;
    let path = maps.lines().filter_map(|line| Some(line[line.find('/')?..].to_owned()));
    let path = path.into_iter().find(|path| path.ends_with("/libtorch_cpu.so"));
    let path = path.ok_or_else(|| Error::bug("libtorch_cpu.so is not loaded"))?;
    let root = Path::new(&path).parent().and_then(Path::parent);
    // libtorch's archive has `build-version`, the wheel `version.py`.
    let version = root.and_then(|root| {
        let archive = std::fs::read_to_string(root.join("build-version")).ok();
        archive.map(|text| text.trim().to_owned()).or_else(|| {
            let text = std::fs::read_to_string(root.join("version.py")).ok()?;
            let line = text.lines().find(|line| line.starts_with("__version__"))?;
            Some(line.split('\'').nth(1)?.to_owned())
        })
    });
    Ok((path, version.unwrap_or_else(|| LIBTORCH.to_owned())))
}
