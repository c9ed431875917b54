//! The [`Model`] of [`crate::graph`] to messages.
//!
//! What was kept as it came is written before the fields that are understood, which win where both say something.

use prost::Message;

use super::data_file::DataFile;
use super::proto::{
    OperatorSetIdProto, StringStringEntryProto, graph as in_graph, model as in_model,
    node as in_node,
};
use super::rope::Rope;
use super::{attribute, tensor, value_info, wire};
use crate::graph::{Dim, Graph, Model, Node, ValueInfo};

/// Up to this version a graph's inputs are to name all initializers too.
const INITIALIZERS_ARE_INPUTS: i64 = 3;

/// The encoded message of a model, large constants in `file` if there is one. The same model always gives the
/// same bytes.
pub fn model(model: &Model, file: Option<&mut DataFile>) -> Rope {
    let mut message = Rope::default();
    let end = message.end();
    end.extend_from_slice(&model.opaque);
    wire::put_int(end, in_model::IR_VERSION, model.ir_version);
    wire::put_text(end, in_model::PRODUCER_NAME, &model.producer_name);
    wire::put_text(end, in_model::PRODUCER_VERSION, &model.producer_version);
    wire::put_text(end, in_model::DOMAIN, &model.domain);
    if model.model_version != 0 {
        wire::put_int(end, in_model::MODEL_VERSION, model.model_version);
    }
    wire::put_text(end, in_model::DOC_STRING, &model.doc);
    message.put(in_model::GRAPH, graph(&model.graph, model.ir_version, file));
    let end = message.end();
    for set in &model.opsets {
        let set = OperatorSetIdProto { domain: set.domain.clone(), version: Some(set.version) };
        wire::put_bytes(end, in_model::OPSET_IMPORT, &set.encode_to_vec());
    }
    for (key, value) in &model.metadata {
        let entry = StringStringEntryProto { key: key.clone(), value: value.clone() };
        wire::put_bytes(end, in_model::METADATA_PROPS, &entry.encode_to_vec());
    }
    message
}

fn graph(graph: &Graph, ir_version: i64, mut file: Option<&mut DataFile>) -> Rope {
    let mut message = Rope::default();
    message.end().extend_from_slice(&graph.opaque);
    for node in &graph.nodes {
        message.put(in_graph::NODE, self::node(node));
    }
    wire::put_text(message.end(), in_graph::NAME, &graph.name);
    for (name, data) in &graph.initializers {
        let notes = graph.initializer_notes.get(name).map_or(&[][..], Vec::as_slice);
        let tensor = tensor::encode(name, data, notes, file.as_deref_mut());
        message.put(in_graph::INITIALIZER, tensor);
    }
    for constant in graph.opaque_initializers.values() {
        let field =
            if constant.sparse { in_graph::SPARSE_INITIALIZER } else { in_graph::INITIALIZER };
        message.put(field, tensor::encode_opaque(constant, file.as_deref_mut()));
    }
    let end = message.end();
    wire::put_text(end, in_graph::DOC_STRING, &graph.doc);
    for input in inputs(graph, ir_version) {
        wire::put_bytes(end, in_graph::INPUT, &value_info::encode(&input));
    }
    for output in &graph.outputs {
        wire::put_bytes(end, in_graph::OUTPUT, &value_info::encode(output));
    }
    for value in &graph.value_infos {
        wire::put_bytes(end, in_graph::VALUE_INFO, &value_info::encode(value));
    }
    message
}

/// The graph's inputs with those that have an initializer, in the order in which they were read.
fn inputs(graph: &Graph, ir_version: i64) -> Vec<ValueInfo> {
    let mut inputs = graph.inputs.clone();
    let there = |info: &ValueInfo| graph.is_initializer(&info.name);
    for (place, info) in graph.defaults.iter().filter(|(_, info)| there(info)) {
        inputs.insert((*place).min(inputs.len()), info.clone());
    }
    if ir_version <= INITIALIZERS_ARE_INPUTS {
        for (name, data) in &graph.initializers {
            if !graph.defaults.iter().any(|(_, info)| info.name == *name) {
                let shape = data.shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
                inputs.push(ValueInfo { dtype: Some(data.dtype), ..ValueInfo::f32(name, shape) });
            }
        }
    }
    inputs
}

fn node(node: &Node) -> Rope {
    let mut message = Rope::default();
    let end = message.end();
    end.extend_from_slice(&node.opaque);
    // An optional input that is left out is an empty text, not a field that is left out.
    for input in &node.inputs {
        wire::put_bytes(end, in_node::INPUT, input.as_bytes());
    }
    for output in &node.outputs {
        wire::put_bytes(end, in_node::OUTPUT, output.as_bytes());
    }
    wire::put_text(end, in_node::NAME, &node.name);
    wire::put_text(end, in_node::OP_TYPE, &node.op_type);
    for (name, value) in &node.attributes {
        let note = node.attribute_notes.get(name);
        message.put(in_node::ATTRIBUTE, attribute::encode(name, value, note));
    }
    let end = message.end();
    wire::put_text(end, in_node::DOC_STRING, &node.doc);
    wire::put_text(end, in_node::DOMAIN, &node.domain);
    message
}

/// The attribute of that name that holds a graph, encoded.
#[cfg(test)]
pub fn graph_attribute(name: &str, graph: &Graph) -> crate::graph::Attribute {
    let mut message = Rope::default();
    wire::put_text(message.end(), super::proto::attribute::NAME, name);
    message.put(super::proto::attribute::G, self::graph(graph, 8, None));
    crate::graph::Attribute::Opaque(message.into_bytes().to_vec())
}
