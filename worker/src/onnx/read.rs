//! A model from a file.

use std::path::Path;

use bytes::Bytes;

use super::decode;
use super::external::{self, External};
use super::recognize::recognize;
use crate::graph::Model;
use crate::{Error, Result};

/// Reads a model. The file and those of external data are mapped into memory; weights are slices of the maps, so
/// that only what is looked at is read from the disk.
///
/// # Errors
/// The file, and within it the node or tensor, that cannot be read.
pub fn read(path: &Path) -> Result<Model> {
    let bytes = external::map(path)?;
    if bytes.is_empty() {
        return Err(Error::user("the file is empty").at(path.display()));
    }
    let model = decode::model(&bytes, &mut External::beside(Some(path)));
    model.map_err(|error| named(error, &bytes).at(path.display()))
}

/// The model encoded in `bytes`; external data is refused, since it has no folder to lie in.
pub fn parse(bytes: Bytes) -> Result<Model> {
    decode::model(&bytes, &mut External::beside(None)).map_err(|error| named(error, &bytes))
}

/// The error of what is no model at all says what it is.
fn named(error: Error, bytes: &[u8]) -> Error {
    match recognize(bytes) {
        Some(kind) => Error::user(format!("it is not an ONNX model, but {kind}")),
        None => error,
    }
}
