//! The file for a TensorRT that is strongly typed, as all are since 11: what earlier versions may compute in FP16 is cast to it in the file.

use std::path::PathBuf;

use qpipe::stages::build_engine::Precision;

use super::Version;
use crate::engine::Build;
use crate::quant::finalize;
use crate::{Error, Result, onnx, passes};

const FILE: &str = "float16.onnx";

/// A file that is built and then of no use: gone with this value, and its weights, which may lie in a file of their own, with it.
pub struct Typed(tempfile::TempDir);

impl Typed {
    /// Where it lies.
    pub fn path(&self) -> PathBuf {
        self.0.path().join(FILE)
    }
}

/// Writes the file that is built instead of the request's, where it takes another; `None`: the request's own.
///
/// # Errors
/// What the cast refuses.
pub fn file(request: &Build, version: Version, quantized: bool) -> Result<Option<Typed>> {
    if wanted(request.precision, version, quantized) { cast(request).map(Some) } else { Ok(None) }
}

/// Writes the model with its float part cast to FP16, in the engine's folder.
///
/// # Errors
/// What the cast refuses.
pub fn cast(request: &Build) -> Result<Typed> {
    let mut model = request.model.clone();
    // Integers of weights are those of the simulation, whatever type their scales have.
    finalize::store_weights(&mut model)?;
    passes::to_half(&mut model).map_err(|error| error.key("precision"))?;
    let folder = request.folder;
    let typed = Typed(tempfile::tempdir_in(folder).map_err(|error| Error::io(folder, &error))?);
    onnx::write(&model, &typed.path())?;
    Ok(typed)
}

fn wanted(precision: Option<Precision>, version: Version, quantized: bool) -> bool {
    let float16 = match precision {
        None | Some(Precision::Int8) => quantized,
        Some(Precision::Fp16) => true,
        Some(_) => false,
    };
    version.major >= 11 && float16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strongly_typed_versions_need_another_file() {
        let (v10, v11) = (Version::new(10, 9, 0), Version::new(11, 0, 0));
        assert!(wanted(None, v11, true) && wanted(Some(Precision::Int8), v11, true));
        assert!(wanted(Some(Precision::Fp16), v11, false));
        assert!(!wanted(None, v10, true) && !wanted(Some(Precision::Fp16), v10, false));
        assert!(!wanted(None, v11, false) && !wanted(Some(Precision::Int8Fp32), v11, true));
    }
}
