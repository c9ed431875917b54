//! Messages to the [`Model`] of [`crate::graph`].

use std::collections::HashSet;

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;

use super::external::External;
use super::fields;
use super::proto::{
    AttributeProto, DimensionProto, GRAPH_FIELDS, GRAPH_INITIALIZER, GraphProto, MODEL_FIELDS,
    ModelProto, NODE_FIELDS, NodeProto, TensorProto, TypeProto, ValueInfoProto, attribute_type,
};
use super::tensor;
use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, OperatorSet, ValueInfo};
use crate::{Error, Result};

/// The oldest format in which operator sets are versioned.
const OLDEST_IR_VERSION: i64 = 3;

fn malformed(what: &str) -> impl Fn(prost::DecodeError) -> Error {
    move |error| {
        Error::user(format!("{what} is not valid protobuf: {error}"))
            .help("the file is truncated, or is not an ONNX model")
    }
}

/// The model encoded in `bytes`.
pub fn model(bytes: Bytes, external: &mut External) -> Result<Model> {
    let opaque = fields::others(&bytes, MODEL_FIELDS).map_err(malformed("the model"))?;
    let proto = ModelProto::decode(bytes).map_err(malformed("the model"))?;
    let ir_version = proto.ir_version.unwrap_or(0);
    let graph = proto.graph.ok_or_else(|| {
        Error::user("there is no graph in it").help("the file is not an ONNX model")
    })?;
    if ir_version < OLDEST_IR_VERSION {
        return Err(Error::user(format!(
            "IR version {ir_version}; versions from {OLDEST_IR_VERSION} are supported"
        ))
        .help("export the model again, or convert it with onnx.version_converter"));
    }
    let opsets = proto.opset_import.into_iter();
    let opsets = opsets
        .map(|set| OperatorSet { domain: set.domain, version: set.version.unwrap_or(1) })
        .collect();
    let metadata = proto.metadata_props.into_iter().map(|entry| (entry.key, entry.value));
    Ok(Model {
        ir_version,
        opsets,
        producer_name: proto.producer_name,
        producer_version: proto.producer_version,
        domain: proto.domain,
        model_version: proto.model_version,
        doc: proto.doc_string,
        metadata: metadata.collect(),
        graph: decode_graph(graph, external)?,
        opaque,
    })
}

fn decode_graph(bytes: Bytes, external: &mut External) -> Result<Graph> {
    let mut opaque = fields::others(&bytes, GRAPH_FIELDS).map_err(malformed("the graph"))?;
    let proto = GraphProto::decode(bytes).map_err(malformed("the graph"))?;
    let mut initializers = IndexMap::with_capacity(proto.initializer.len());
    let mut kept = HashSet::new();
    for encoded in proto.initializer {
        let message = TensorProto::decode(encoded.clone()).map_err(malformed("an initializer"))?;
        let name = message.name.clone();
        if let Some(data) = tensor::decode(message, external)? {
            if initializers.insert(name.clone(), data).is_some() {
                return Err(Error::user(format!("two initializers are named `{name}`")));
            }
        } else {
            fields::append(&mut opaque, GRAPH_INITIALIZER, &encoded);
            kept.insert(name);
        }
    }
    let nodes = proto.node.into_iter().enumerate();
    let nodes = nodes.map(|(index, node)| decode_node(index, node, external));
    let mut inputs = value_infos(proto.input)?;
    inputs.retain(|input| !initializers.contains_key(&input.name) && !kept.contains(&input.name));
    Ok(Graph {
        name: proto.name,
        nodes: nodes.collect::<Result<_>>()?,
        inputs,
        outputs: value_infos(proto.output)?,
        initializers,
        value_infos: value_infos(proto.value_info)?,
        doc: proto.doc_string,
        opaque,
    })
}

fn decode_node(index: usize, bytes: Bytes, external: &mut External) -> Result<Node> {
    let what = format!("node {index}");
    let opaque = fields::others(&bytes, NODE_FIELDS).map_err(malformed(&what))?;
    let proto = NodeProto::decode(bytes).map_err(malformed(&what))?;
    let mut node = Node {
        name: proto.name,
        op_type: proto.op_type,
        domain: if proto.domain == "ai.onnx" { String::new() } else { proto.domain },
        inputs: proto.input,
        outputs: proto.output,
        attributes: IndexMap::with_capacity(proto.attribute.len()),
        doc: proto.doc_string,
        opaque,
    };
    for encoded in proto.attribute {
        let (name, value) = attribute(encoded, external).map_err(|e| e.at(node.place()))?;
        if node.attributes.insert(name.clone(), value).is_some() {
            return Err(Error::user(format!("two attributes `{name}`")).at(node.place()));
        }
    }
    Ok(node)
}

fn attribute(encoded: Bytes, external: &mut External) -> Result<(String, Attribute)> {
    let proto = AttributeProto::decode(encoded.clone()).map_err(malformed("an attribute"))?;
    let opaque = || Attribute::Opaque(encoded.to_vec());
    let value = match proto.r#type {
        attribute_type::FLOAT => Attribute::Float(proto.f.unwrap_or(0.0)),
        attribute_type::INT => Attribute::Int(proto.i.unwrap_or(0)),
        attribute_type::STRING => Attribute::String(proto.s.unwrap_or_default()),
        attribute_type::FLOATS => Attribute::Floats(proto.floats),
        attribute_type::INTS => Attribute::Ints(proto.ints),
        attribute_type::STRINGS => Attribute::Strings(proto.strings),
        attribute_type::TENSOR => match proto.t {
            Some(message) => {
                tensor::decode(message, external)?.map_or_else(opaque, Attribute::Tensor)
            }
            None => opaque(),
        },
        _ => opaque(),
    };
    Ok((proto.name, value))
}

fn value_infos(encoded: Vec<Bytes>) -> Result<Vec<ValueInfo>> {
    encoded.into_iter().map(value_info).collect()
}

fn value_info(encoded: Bytes) -> Result<ValueInfo> {
    let proto =
        ValueInfoProto::decode(encoded.clone()).map_err(malformed("the type of a value"))?;
    let tensor = proto.r#type.and_then(|TypeProto { tensor_type }| tensor_type);
    let dtype = tensor.as_ref().and_then(|tensor| DType::from_onnx(tensor.elem_type));
    let shape = tensor.and_then(|tensor| tensor.shape);
    let shape = shape.map(|shape| shape.dim.into_iter().map(dim).collect());
    let opaque = dtype.is_none().then(|| encoded.to_vec());
    Ok(ValueInfo { name: proto.name, dtype, shape, opaque })
}

fn dim(proto: DimensionProto) -> Dim {
    match (proto.dim_value, proto.dim_param) {
        (Some(value), _) if value >= 0 => Dim::Fixed(value),
        (_, Some(name)) if !name.is_empty() => Dim::Named(name),
        _ => Dim::Unknown,
    }
}
