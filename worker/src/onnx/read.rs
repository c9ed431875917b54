//! A model from a file.

use std::path::Path;

use bytes::Bytes;

use super::decode;
use super::external::{self, External};
use crate::graph::Model;
use crate::{Error, Result};

/// Reads a model. The file is mapped into memory; weights stored as raw data are slices of the map.
///
/// # Errors
/// The file, and within it the node or tensor, that cannot be read.
pub fn read(path: &Path) -> Result<Model> {
    let bytes = external::map(path)?;
    let in_file = |error: Error| error.at(path.display());
    if bytes.is_empty() {
        return Err(in_file(Error::user("the file is empty")));
    }
    decode::model(bytes, &mut External::beside(Some(path))).map_err(in_file)
}

/// The model encoded in `bytes`; external data is refused, since it has no folder to lie in.
pub fn parse(bytes: Bytes) -> Result<Model> {
    decode::model(bytes, &mut External::beside(None))
}
