//! The [`Model`] of [`crate::graph`] to messages.

use bytes::Bytes;
use prost::Message;

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    attribute_type,
};
use super::tensor;
use crate::graph::{Attribute, Dim, Graph, Model, Node, ValueInfo};

/// The encoded message of a model. The same model always gives the same bytes.
pub fn model(model: &Model) -> Vec<u8> {
    let opsets = model
        .opsets
        .iter()
        .map(|set| OperatorSetIdProto { domain: set.domain.clone(), version: Some(set.version) });
    let metadata = model
        .metadata
        .iter()
        .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() });
    let proto = ModelProto {
        ir_version: Some(model.ir_version),
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        domain: model.domain.clone(),
        model_version: model.model_version,
        doc_string: model.doc.clone(),
        graph: Some(graph(&model.graph).into()),
        opset_import: opsets.collect(),
        metadata_props: metadata.collect(),
    };
    followed_by(proto.encode_to_vec(), &model.opaque)
}

fn followed_by(mut message: Vec<u8>, opaque: &[u8]) -> Vec<u8> {
    message.extend_from_slice(opaque);
    message
}

fn graph(graph: &Graph) -> Vec<u8> {
    let initializer = graph.initializers.iter();
    let proto = GraphProto {
        node: graph.nodes.iter().map(node).collect(),
        name: graph.name.clone(),
        initializer: initializer
            .map(|(name, data)| tensor::encode(name, data).encode_to_vec().into())
            .collect(),
        doc_string: graph.doc.clone(),
        input: graph.inputs.iter().map(value_info).collect(),
        output: graph.outputs.iter().map(value_info).collect(),
        value_info: graph.value_infos.iter().map(value_info).collect(),
    };
    followed_by(proto.encode_to_vec(), &graph.opaque)
}

fn node(node: &Node) -> Bytes {
    let proto = NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op_type.clone(),
        attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        doc_string: node.doc.clone(),
        domain: node.domain.clone(),
    };
    followed_by(proto.encode_to_vec(), &node.opaque).into()
}

fn attribute(name: &str, value: &Attribute) -> Bytes {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    proto.r#type = match value {
        Attribute::Opaque(encoded) => return encoded.clone().into(),
        Attribute::Int(value) => {
            proto.i = Some(*value);
            attribute_type::INT
        }
        Attribute::Float(value) => {
            proto.f = Some(*value);
            attribute_type::FLOAT
        }
        Attribute::String(value) => {
            proto.s = Some(value.clone());
            attribute_type::STRING
        }
        Attribute::Tensor(value) => {
            proto.t = Some(tensor::encode("", value));
            attribute_type::TENSOR
        }
        Attribute::Ints(values) => {
            proto.ints = values.clone();
            attribute_type::INTS
        }
        Attribute::Floats(values) => {
            proto.floats = values.clone();
            attribute_type::FLOATS
        }
        Attribute::Strings(values) => {
            proto.strings = values.clone();
            attribute_type::STRINGS
        }
    };
    proto.encode_to_vec().into()
}

fn value_info(info: &ValueInfo) -> Bytes {
    if let Some(encoded) = &info.opaque {
        return encoded.clone().into();
    }
    let shape = info.shape.as_ref();
    let shape = shape.map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = info.dtype.map(|dtype| TensorTypeProto { elem_type: dtype.onnx(), shape });
    let r#type = tensor.map(|tensor| TypeProto { tensor_type: Some(tensor) });
    ValueInfoProto { name: info.name.clone(), r#type }.encode_to_vec().into()
}

fn dim(dim: &Dim) -> DimensionProto {
    match dim {
        Dim::Fixed(value) => DimensionProto { dim_value: Some(*value), dim_param: None },
        Dim::Named(name) => DimensionProto { dim_value: None, dim_param: Some(name.clone()) },
        Dim::Unknown => DimensionProto::default(),
    }
}
