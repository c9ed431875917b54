//! The file beside a model that holds its weights: <https://onnx.ai/onnx/repo-docs/ExternalData.html>.

use std::collections::HashMap;
use std::io::{self, Write};

use bytes::Bytes;

use super::proto::StringStringEntryProto;

/// Tensors of fewer bytes stay in the model's own file, as in Python's `onnx`.
const SMALLEST: usize = 1024;

/// What the offsets of small tensors are multiples of.
const ALIGNMENT: u64 = 64;

/// What those of tensors from 1 MiB are multiples of: a page anywhere, so that runtimes can map them.
const PAGE: u64 = 64 << 10;

const LARGE: u64 = 1 << 20;

/// The tensors of a file of external data, with their places. Each is kept once, however many share it.
pub struct DataFile {
    location: String,
    tensors: Vec<(u64, Bytes)>,
    places: HashMap<(usize, usize), u64>,
    length: u64,
}

impl DataFile {
    /// An empty file that goes by the name `location`, relative to the model.
    pub fn new(location: &str) -> Self {
        let location = location.to_owned();
        Self { location, tensors: Vec::new(), places: HashMap::new(), length: 0 }
    }

    /// Gives a tensor its place; `None`: it stays where the model is.
    pub fn place(&mut self, bytes: &Bytes) -> Option<[StringStringEntryProto; 3]> {
        if bytes.len() < SMALLEST {
            return None;
        }
        let identity = (bytes.as_ptr() as usize, bytes.len());
        let offset = self.places.get(&identity).copied().unwrap_or_else(|| {
            let length = bytes.len() as u64;
            let alignment = if length >= LARGE { PAGE } else { ALIGNMENT };
            let offset = self.length.next_multiple_of(alignment);
            self.tensors.push((offset, bytes.clone()));
            self.places.insert(identity, offset);
            self.length = offset + length;
            offset
        });
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        Some([
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ])
    }

    /// Whether no tensor was placed in it.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Writes the file.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut written = 0;
        for (offset, bytes) in &self.tensors {
            io::copy(&mut io::Read::take(io::repeat(0), offset - written), to)?;
            to.write_all(bytes)?;
            written = offset + bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_aligned_and_shared_tensors_are_kept_once() {
        let mut file = DataFile::new("m.data");
        let (small, large) = (Bytes::from(vec![1; 1025]), Bytes::from(vec![2; 1 << 20]));
        assert!(file.place(&Bytes::from(vec![0; 1023])).is_none());
        let values = |entries: [StringStringEntryProto; 3]| entries.map(|entry| entry.value);
        assert_eq!(values(file.place(&small).unwrap()), ["m.data", "0", "1025"]);
        assert_eq!(values(file.place(&large).unwrap()), ["m.data", "65536", "1048576"]);
        assert_eq!(values(file.place(&small.clone()).unwrap()), ["m.data", "0", "1025"]);
        let mut written = Vec::new();
        file.write(&mut written).unwrap();
        assert_eq!(written.len(), 65536 + (1 << 20));
        assert_eq!((written[1024], written[1025], written[65535], written[65536]), (1, 0, 0, 2));
    }
}
