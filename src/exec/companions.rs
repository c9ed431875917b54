//! Files that an input names and that are read with it: the images of a table, the external data
//! of an ONNX model.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use crate::stages::csv;

pub(crate) mod fuzzing;

/// The images that a table (`path` column, relative to the table) names; none if it cannot be read:
/// the stage that reads it says what is wrong.
pub fn of_table(table: &Path) -> Vec<PathBuf> {
    let Ok(text) = std::fs::read_to_string(table) else { return Vec::new() };
    let mut records = csv::records(&text).unwrap_or_default().into_iter();
    let header = records.next().map(|(_, header)| header).unwrap_or_default();
    let Some(column) = header.iter().position(|name| name.trim() == "path") else {
        return Vec::new();
    };
    let folder = table.parent().unwrap_or(table);
    records.filter_map(|(_, record)| Some(folder.join(record.get(column)?.trim()))).collect()
}

/// The files that a model keeps tensors in, relative to the model
/// (<https://onnx.ai/onnx/repo-docs/ExternalData.html>); none if it is no ONNX file.
pub fn of_model(model: &Path) -> Vec<PathBuf> {
    let folder = model.parent().unwrap_or(model);
    let mut names = Vec::new();
    let read = File::open(model).and_then(|file| {
        let length = file.metadata()?.len();
        walk(&mut BufReader::new(file), length, Message::Model, DEPTH, &mut names)
    });
    if read.is_err() {
        return Vec::new();
    }
    names.sort();
    names.dedup();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// How deep messages may lie within each other, as in the libraries that read protobuf: a subgraph
/// takes three of them. A file of others' must not overflow the stack.
const DEPTH: u32 = 100;

/// The messages of an ONNX file on the way to a tensor's external data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
    Entry,
}

impl Message {
    /// What a field holds, by the field numbers of `onnx.proto`; `None`: nothing of interest.
    fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => {
                Some(Self::Tensor)
            }
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Tensor, 13) => Some(Self::Entry),
            _ => None,
        }
    }
}

/// Walks over the fields of a message that ends at `end`; what is of no interest is skipped, so
/// that a model's weights are not read.
fn walk(
    file: &mut BufReader<File>,
    end: u64,
    message: Message,
    depth: u32,
    names: &mut Vec<String>,
) -> io::Result<()> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let below = depth.checked_sub(1).ok_or_else(broken)?;
    let (mut key, mut value) = (String::new(), String::new());
    let mut position = file.stream_position()?;
    while position < end {
        let tag = varint(file)?;
        let length = match tag & 7 {
            0 => {
                varint(file)?;
                0
            }
            1 => 8,
            2 => varint(file)?,
            5 => 4,
            _ => return Err(broken()),
        };
        let start = file.stream_position()?;
        let next = start.checked_add(length).filter(|next| *next <= end).ok_or_else(broken)?;
        match (message, tag >> 3) {
            (Message::Entry, 1) if tag & 7 == 2 => key = text(file, length)?,
            (Message::Entry, 2) if tag & 7 == 2 => value = text(file, length)?,
            (_, number) => match message.field(number).filter(|_| tag & 7 == 2) {
                Some(inner) => walk(file, next, inner, below, names)?,
                None => file.seek_relative(i64::try_from(length).map_err(|_| broken())?)?,
            },
        }
        position = next;
    }
    if message == Message::Entry && key == "location" {
        names.push(value);
    }
    Ok(())
}

fn varint(file: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn text(file: &mut impl Read, length: u64) -> io::Result<String> {
    if length > 1 << 16 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that holds bytes.
    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for mut value in [number << 3 | 2, content.len() as u64] {
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        }
        [bytes, content.to_vec()].concat()
    }

    #[test]
    fn external_data_is_found_in_initializers_and_constants() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let outside = [entry("location", "w.data"), entry("offset", "7")].concat();
        let inside = field(9, &[1; 300]);
        let constant = field(5, &field(5, &entry("location", "c.data")));
        let graph =
            [field(5, &inside), field(5, &outside), field(5, &outside), field(1, &constant)]
                .concat();
        std::fs::write(&path, [vec![8, 10], field(7, &graph)].concat()).unwrap();
        let expected = ["c.data", "w.data"].map(|name| folder.path().join(name));
        assert_eq!(of_model(&path), expected);
        std::fs::write(&path, "no model at all").unwrap();
        assert!(of_model(&path).is_empty());
    }

    #[test]
    fn a_model_of_endless_depth_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let nested = |times: usize| {
            let entry = field(13, &[field(1, b"location"), field(2, b"w")].concat());
            // Back to front, so that each level costs its header only.
            let mut reversed: Vec<u8> = field(5, &entry).into_iter().rev().collect();
            for _ in 0..times {
                for number in [6, 5, 1] {
                    let length = reversed.len();
                    let header = &field(number, &vec![0; length])[..];
                    reversed.extend(header[..header.len() - length].iter().rev());
                }
            }
            let graph: Vec<u8> = reversed.into_iter().rev().collect();
            std::fs::write(&path, field(7, &graph)).unwrap();
            of_model(&path).len()
        };
        assert_eq!(nested(30), 1);
        assert_eq!(nested(10_000), 0);
    }
}
