//! A node and its attributes.

use bytes::Bytes;
use indexmap::IndexMap;

use super::TensorData;
use crate::{Error, Result};

/// An operator applied to values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Unique within a graph where the exporter gave one; may be empty.
    pub name: String,
    /// Operator, such as `Conv`.
    pub op_type: String,
    /// Operator set; empty is the standard's own.
    pub domain: String,
    /// Names of inputs; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Names of outputs; an empty name is an optional output left out.
    pub outputs: Vec<String>,
    /// Attributes in file order.
    pub attributes: IndexMap<String, Attribute>,
    /// Encoded `AttributeProto`s that say more than their value (documentation, a tensor's name), by name; written
    /// back as they came as long as the value is the same.
    pub attribute_notes: IndexMap<String, Bytes>,
    /// Documentation, kept.
    pub doc: String,
    /// Encoded `NodeProto` fields that nothing here understands, written back as they came.
    pub opaque: Vec<u8>,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Attribute {
    Int(i64),
    Float(f32),
    String(Vec<u8>),
    Tensor(TensorData),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<Vec<u8>>),
    /// Of a type that nothing here executes (graphs, sparse tensors): its `AttributeProto`, encoded, written back as it came.
    Opaque(Vec<u8>),
}

impl Node {
    /// A node of the standard's operator set.
    pub fn new(name: &str, op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            inputs: owned(inputs),
            outputs: owned(outputs),
            ..Self::default()
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    /// Name of input `index`, `None` where it is left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What the node goes by: its name, or that of its first output where it has none.
    pub fn label(&self) -> &str {
        if self.name.is_empty() {
            self.outputs.first().map_or("", String::as_str)
        } else {
            &self.name
        }
    }

    /// For messages: `node "layer1.0.conv1" (Conv)`.
    pub fn place(&self) -> String {
        format!("node \"{}\" ({})", self.label(), self.op_type)
    }

    /// Its operator with its domain where that is not the standard's: `Relu`, `com.microsoft.Gelu`.
    pub fn operator(&self) -> String {
        match self.domain.as_str() {
            "" => self.op_type.clone(),
            domain => format!("{domain}.{}", self.op_type),
        }
    }

    /// Whether it is a `Constant`, which is taken for an initializer.
    pub fn is_constant(&self) -> bool {
        self.op_type == "Constant" && self.domain.is_empty()
    }

    /// The value of a `Constant`, <https://onnx.ai/onnx/operators/onnx__Constant.html>.
    ///
    /// # Errors
    /// One that is no dense tensor of numbers.
    pub fn constant(&self) -> Result<TensorData> {
        match self.attributes.first() {
            Some((_, Attribute::Tensor(data))) => Ok(data.clone()),
            Some((_, Attribute::Float(value))) => Ok(TensorData::f32(&[], &[*value])),
            Some((_, Attribute::Int(value))) => Ok(TensorData::i64(&[], &[*value])),
            Some((_, Attribute::Floats(v))) => Ok(TensorData::f32(&[v.len() as i64], v)),
            Some((_, Attribute::Ints(v))) => Ok(TensorData::i64(&[v.len() as i64], v)),
            _ => Err(Error::user("holds no dense number")),
        }
    }

    fn mismatch(&self, attribute: &str, expected: &str) -> Error {
        Error::user(format!("attribute `{attribute}` is not {expected}")).at(self.place())
    }

    /// An integer attribute, or its default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(_) => Err(self.mismatch(name, "an integer")),
        }
    }

    /// A float attribute, or its default.
    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(_) => Err(self.mismatch(name, "a float")),
        }
    }

    /// A list of integers, `None` where it is left out.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(self.mismatch(name, "a list of integers")),
        }
    }

    /// A list of floats, `None` where it is left out.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(_) => Err(self.mismatch(name, "a list of floats")),
        }
    }

    /// A text attribute, or its default.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::String(value)) => {
                std::str::from_utf8(value).map_err(|_| self.mismatch(name, "UTF-8 text"))
            }
            Some(_) => Err(self.mismatch(name, "a text")),
        }
    }

    /// A tensor attribute, `None` where it is left out.
    pub fn tensor(&self, name: &str) -> Result<Option<&TensorData>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(_) => Err(self.mismatch(name, "a tensor")),
        }
    }
}
