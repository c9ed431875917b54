//! A model to a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::data_file::DataFile;
use super::external::{self, External};
use super::rope::Rope;
use super::{decode, encode};
use crate::graph::Model;
use crate::{Error, Result};

/// Protobuf's own limit of a message; no reader takes a larger one.
const LARGEST: u64 = i32::MAX as u64;

/// The bytes of the model's file, weights inside; the same model always gives the same bytes.
pub fn to_bytes(model: &Model) -> Result<Bytes> {
    one_message(model).map(Rope::into_bytes)
}

fn one_message(model: &Model) -> Result<Rope> {
    let message = encode::model(model, None);
    if message.len() <= LARGEST {
        return Ok(message);
    }
    Err(Error::user(format!(
        "the model takes {} bytes, more than one ONNX file holds",
        message.len()
    ))
    .help("one file of ONNX holds less than 2 GiB; use a smaller model, or float16 weights"))
}

/// Writes a model as one file: to a temporary file beside `path` first, synced, then renamed.
///
/// # Errors
/// A model over 2 GiB; a folder that cannot be written to.
pub fn write_one_file(model: &Model, path: &Path) -> Result<()> {
    let message = one_message(model).map_err(|error| error.at(path.display()))?;
    publish(path, |file| message.write(file)).map_err(|error| Error::io(path, &error))
}

/// Writes a model. Its weights go into a file of external data beside it where they came from one, or where one
/// file would be over 2 GiB.
///
/// That file's name holds the digest of its content, and `path` is replaced after it is whole: whatever happens
/// meanwhile, the model at `path` is the old one with its weights or the new one with its own. The file of weights
/// of the model that was replaced is removed, if it was written here.
///
/// # Errors
/// A graph over 2 GiB without its weights; a folder that cannot be written to.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    if !model.external_data && encode::model(model, None).len() <= LARGEST {
        return write_one_file(model, path);
    }
    let io = |error: io::Error| Error::io(path, &error);
    let digest = digest(model).map_err(io)?;
    let location = location(path, &digest)?;
    let mut data = DataFile::new(&location);
    let message = encode::model(model, Some(&mut data));
    if data.is_empty() {
        return write_one_file(model, path);
    }
    if message.len() > LARGEST {
        return Err(Error::user(format!(
            "the graph takes {} bytes without its weights, more than an ONNX file holds",
            message.len()
        ))
        .at(path.display())
        .help("large tensors in attributes of nodes and in sub-graphs stay in the model's file: make them initializers"));
    }
    let data_path = folder(path).join(&location);
    let existed = data_path.exists();
    let former = data_of(path);
    publish(&data_path, |file| data.write(file)).map_err(|error| Error::io(&data_path, &error))?;
    if let Err(error) = publish(path, |file| message.write(file)) {
        if !existed {
            // The error that is told is that of the model; the weights alone are of no use.
            let _ = fs::remove_file(&data_path);
        }
        return Err(io(error));
    }
    for file in former.into_iter().filter(|file| *file != data_path) {
        // Nothing refers to it any more; that it takes up space is no reason to fail.
        let _ = fs::remove_file(file);
    }
    Ok(())
}

/// A digest of the weights, for the file's name.
fn digest(model: &Model) -> io::Result<String> {
    struct Sink(Sha256);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut data = DataFile::new("");
    encode::model(model, Some(&mut data));
    let mut sink = Sink(Sha256::new());
    data.write(&mut sink)?;
    Ok(sink.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// `model.onnx.0123456789abcdef.data`.
fn location(path: &Path, digest: &str) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::user("a model with external data needs a file name in UTF-8").at(path.display())
    })?;
    Ok(format!("{name}.{digest}.data"))
}

fn folder(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// The files of weights that [`write()`] made for the model at `path`.
fn data_of(path: &Path) -> Vec<PathBuf> {
    let Ok(bytes) = external::map(path) else { return Vec::new() };
    let mut external = External::beside(Some(path));
    if decode::model(&bytes, &mut external).is_err() {
        return Vec::new();
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let ours = |file: &PathBuf| {
        let file = file.file_name().and_then(|file| file.to_str());
        let middle = file.and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let digest = middle.and_then(|middle| middle.strip_suffix(".data"));
        digest.is_some_and(|d| d.len() == 16 && d.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let files =
        external.files().map(|file| folder(path).join(file.file_name().unwrap_or_default()));
    files.filter(ours).collect()
}

/// A file under its name only when it is whole and on the disk.
fn publish(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; a model is readable like any file of the user's.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".model").tempfile_in(folder(path))?;
    write(&mut file)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
