//! Tensors kept in files beside the model: <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::proto::StringStringEntryProto;
use crate::{Error, Result};

/// Maps a whole file into memory; the map lives as long as a slice of the result.
pub fn map(path: &Path) -> Result<Bytes> {
    let io = |error: std::io::Error| Error::io(path, &error);
    // Looked at first: to open a pipe waits for who writes to it.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::user("it is not a file").at(path.display()));
    }
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is private and read only. Artifacts are published by rename and never written
    // in place; a user's file that another program truncates meanwhile ends this one process only.
    let map = unsafe { memmap2::Mmap::map(&file) };
    Ok(Bytes::from_owner(map.map_err(|error| Error::io(path, &error))?))
}

/// As much can be put into a model's own file, which holds less than 2 GiB.
const MOST_COPIED: usize = i32::MAX as usize;

/// The files beside one model, each mapped once.
pub struct External {
    folder: Option<PathBuf>,
    maps: HashMap<PathBuf, Bytes>,
    copied: usize,
}

impl External {
    /// Files beside the model at `model`; `None`: the model is not in a file and may name none.
    pub fn beside(model: Option<&Path>) -> Self {
        let folder = model.map(|path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        });
        Self { folder, maps: HashMap::new(), copied: 0 }
    }

    /// Whether the model has external data.
    pub fn used(&self) -> bool {
        !self.maps.is_empty()
    }

    /// The files that the model refers to, links followed.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.maps.keys()
    }

    /// The bytes that `entries` point to, for a message that they are copied into.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes); more than a model's own file holds in all.
    pub fn copied(&mut self, entries: &[StringStringEntryProto]) -> Result<Bytes> {
        let bytes = self.bytes(entries)?;
        self.copied = self.copied.saturating_add(bytes.len());
        if self.copied > MOST_COPIED {
            return Err(Error::user(
                "sub-graphs and attributes hold more than 2 GiB of external data",
            ));
        }
        Ok(bytes)
    }

    /// The bytes that `entries` (`location`, `offset`, `length`) point to.
    ///
    /// # Errors
    /// A location that leaves the model's folder, a file that is not there, a range beyond its end.
    pub fn bytes(&mut self, entries: &[StringStringEntryProto]) -> Result<Bytes> {
        let find = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = find("location").filter(|text| !text.is_empty());
        let location = location.ok_or_else(|| Error::user("external data without a `location`"))?;
        let number = |key: &str| match find(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
                Error::user(format!("external data: `{key}` is `{text}`, not a count of bytes"))
            }),
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let path = self.resolve(location)?;
        if !self.maps.contains_key(&path) {
            let bytes = map(&path)?;
            self.maps.insert(path.clone(), bytes);
        }
        let file = &self.maps[&path];
        let end = match length {
            Some(length) => offset.checked_add(length),
            None => Some(file.len()),
        };
        match end {
            Some(end) if offset <= end && end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(Error::user(format!(
                "{}: has {} bytes, but the model asks for {} at offset {offset}",
                path.display(),
                file.len(),
                length.map_or_else(|| "the rest".to_owned(), |n| n.to_string()),
            ))
            .help("the file of external data is truncated or belongs to another model")),
        }
    }

    /// A path inside the model's folder, links followed.
    fn resolve(&self, location: &str) -> Result<PathBuf> {
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::user("the model refers to external data, but is not in a file itself")
        })?;
        let outside = || {
            Error::user(format!("external data `{location}` lies outside of the model's folder"))
                .help("only files in the folder of the model, or below it, are read")
        };
        let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(location).components().all(inside) {
            return Err(outside());
        }
        let path = folder.join(location);
        if location.contains('\0') {
            return Err(Error::user("the location of external data holds a NUL byte"));
        }
        let real = path.canonicalize().map_err(|error| {
            Error::io(&path, &error)
                .help("the model keeps its weights in this file: it has to lie beside the model")
        })?;
        let folder = folder.canonicalize().map_err(|error| Error::io(folder, &error))?;
        if real.starts_with(&folder) { Ok(real) } else { Err(outside()) }
    }
}
