//! External data inside of what is kept encoded: sub-graphs, functions, tensors of attributes.
//!
//! A kept message is written back as it came, maybe into another folder, so it may not point to files.

use bytes::Bytes;

use super::external::External;
use super::proto::{attribute, function, graph, node, sparse, tensor as number, training};
use super::wire::{self, fields};
use super::{proto, tensor};
use crate::{Error, Result};

/// Protobuf's readers refuse messages that are nested deeper.
const DEEPEST: usize = 100;

/// A kind of message that may hold tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Attribute,
    Function,
    Graph,
    Node,
    Sparse,
    Tensor,
    Training,
}

impl Kind {
    fn field(self, number: u32) -> Option<Self> {
        match (self, number) {
            (Self::Attribute, attribute::T | attribute::TENSORS) => Some(Self::Tensor),
            (Self::Attribute, attribute::G | attribute::GRAPHS) => Some(Self::Graph),
            (Self::Attribute, attribute::SPARSE_TENSOR | attribute::SPARSE_TENSORS) => {
                Some(Self::Sparse)
            }
            (Self::Function, function::NODE) | (Self::Graph, graph::NODE) => Some(Self::Node),
            (Self::Function, function::ATTRIBUTE_PROTO) | (Self::Node, node::ATTRIBUTE) => {
                Some(Self::Attribute)
            }
            (Self::Graph, graph::INITIALIZER) => Some(Self::Tensor),
            (Self::Graph, graph::SPARSE_INITIALIZER) => Some(Self::Sparse),
            (Self::Sparse, sparse::VALUES | sparse::INDICES) => Some(Self::Tensor),
            (Self::Training, training::INITIALIZATION | training::ALGORITHM) => Some(Self::Graph),
            _ => None,
        }
    }

    /// The kind of a field of `ModelProto` that is kept encoded.
    pub fn of_model(number: u32) -> Option<Self> {
        match number {
            proto::model::FUNCTIONS => Some(Self::Function),
            proto::model::TRAINING_INFO => Some(Self::Training),
            _ => None,
        }
    }
}

/// The message with external data put in; itself, where there is none.
///
/// # Errors
/// External data that cannot be read; messages nested too deeply.
pub fn inline(kind: Kind, message: &Bytes, external: &mut External) -> Result<Bytes> {
    let changed = message_of(kind, message, external, 0)?;
    Ok(changed.map_or_else(|| message.clone(), Bytes::from))
}

fn message_of(
    kind: Kind,
    message: &Bytes,
    external: &mut External,
    depth: usize,
) -> Result<Option<Vec<u8>>> {
    if depth > DEEPEST {
        return Err(Error::user(format!(
            "sub-graphs are nested deeper than {DEEPEST} messages, which no reader of protobuf takes"
        )));
    }
    if kind == Kind::Tensor {
        return tensor_of(message, external);
    }
    let mut changed: Option<Vec<u8>> = None;
    let mut done = 0;
    for field in fields(message) {
        let field = field?;
        let inner = match kind.field(field.number) {
            Some(kind) => message_of(kind, &field.bytes()?, external, depth + 1)?,
            None => None,
        };
        if changed.is_none() && inner.is_some() {
            changed = Some(message[..done].to_vec());
        }
        done += field.raw.len();
        match (&mut changed, inner) {
            (Some(changed), Some(inner)) => wire::put_bytes(changed, field.number, &inner),
            (Some(changed), None) => changed.extend_from_slice(&field.raw),
            (None, _) => {}
        }
    }
    Ok(changed)
}

fn tensor_of(message: &Bytes, external: &mut External) -> Result<Option<Vec<u8>>> {
    let (mut entries, mut is_external) = (Vec::new(), false);
    for field in fields(message) {
        let field = field?;
        match field.number {
            number::EXTERNAL_DATA => entries.push(tensor::entry(&field)?),
            number::DATA_LOCATION => is_external = field.int()? == number::EXTERNAL,
            _ => {}
        }
    }
    if !is_external {
        return Ok(None);
    }
    let data = external.copied(&entries)?;
    let mut changed = tensor::rest(message)?;
    wire::put_bytes(&mut changed, number::RAW_DATA, &data);
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_external_data_is_shared() {
        let mut graph = Vec::new();
        wire::put_bytes(&mut graph, graph::INITIALIZER, b"\x42\x01w");
        let graph = Bytes::from(graph);
        let same = inline(Kind::Graph, &graph, &mut External::beside(None)).unwrap();
        assert_eq!(same.as_ptr(), graph.as_ptr());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let nested = |levels: usize| {
            let mut message = Vec::new();
            for level in 0..levels {
                let number = [attribute::G, node::ATTRIBUTE, graph::NODE][level % 3];
                let mut outer = Vec::new();
                wire::put_bytes(&mut outer, number, &message);
                message = outer;
            }
            Bytes::from(message)
        };
        let mut external = External::beside(None);
        // The outermost is a graph where the count of levels is a multiple of three.
        assert!(inline(Kind::Graph, &nested(99), &mut external).is_ok());
        let error = inline(Kind::Graph, &nested(30_000), &mut external).unwrap_err();
        assert!(error.message.contains("nested deeper than 100"), "{error}");
    }
}
