//! Nodes of graphs within attributes: the branches of an If, the bodies of a Loop and a Scan.

use bytes::Bytes;

use super::proto::{attribute, graph, node as in_node};
use super::wire::{Field, fields};
use crate::graph::{Attribute, Node};

/// The nodes of all graphs that a node's attributes hold, and of graphs within those: names, operators, inputs and outputs, without
/// attributes. They are executed by nobody here, but a runtime must know their operators, and they may read any value of the
/// graph around them.
pub fn within(node: &Node) -> Vec<Node> {
    let encoded = node.attributes.values().filter_map(|value| match value {
        Attribute::Opaque(encoded) => Some((Kind::Attribute, Bytes::copy_from_slice(encoded))),
        _ => None,
    });
    // No recursion: a stranger's file may be of any depth.
    let mut open: Vec<(Kind, Bytes)> = encoded.collect();
    let mut found = Vec::new();
    while let Some((kind, message)) = open.pop() {
        let mut inner = Node::default();
        // What is damaged was an error when the file was read.
        for field in fields(&message).map_while(Result::ok) {
            match (kind, field.number) {
                (Kind::Attribute, attribute::G | attribute::GRAPHS) => {
                    open.extend(field.bytes().ok().map(|bytes| (Kind::Graph, bytes)));
                }
                (Kind::Graph, graph::NODE) => {
                    open.extend(field.bytes().ok().map(|bytes| (Kind::Node, bytes)));
                }
                (Kind::Node, in_node::ATTRIBUTE) => {
                    open.extend(field.bytes().ok().map(|bytes| (Kind::Attribute, bytes)));
                }
                (Kind::Node, _) => read(&field, &mut inner),
                _ => {}
            }
        }
        if kind == Kind::Node {
            found.push(inner);
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Attribute,
    Graph,
    Node,
}

fn read(field: &Field, node: &mut Node) {
    let Ok(text) = field.text() else { return };
    match field.number {
        in_node::INPUT => node.inputs.push(text),
        in_node::OUTPUT => node.outputs.push(text),
        in_node::NAME => node.name = text,
        in_node::OP_TYPE => node.op_type = text,
        in_node::DOMAIN if text != "ai.onnx" => node.domain = text,
        _ => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::onnx::wire::{put_bytes, put_text};

    /// A node whose attribute holds a graph of one node, which reads `input`; within another graph where asked.
    pub fn branch(name: &str, op_type: &str, input: &str, output: &str, deep: bool) -> Node {
        let mut node = Vec::new();
        put_text(&mut node, in_node::INPUT, input);
        put_text(&mut node, in_node::NAME, "inner");
        put_text(&mut node, in_node::OP_TYPE, op_type);
        let mut attribute = graph_of(&node);
        if deep {
            let mut outer = Vec::new();
            put_text(&mut outer, in_node::OP_TYPE, "If");
            put_bytes(&mut outer, in_node::ATTRIBUTE, &attribute);
            attribute = graph_of(&outer);
        }
        Node::new(name, "If", &["condition"], &[output])
            .with("then_branch", Attribute::Opaque(attribute))
    }

    fn graph_of(node: &[u8]) -> Vec<u8> {
        let (mut inner, mut attribute) = (Vec::new(), Vec::new());
        put_bytes(&mut inner, graph::NODE, node);
        put_bytes(&mut attribute, attribute::G, &inner);
        attribute
    }

    use crate::onnx::proto::attribute;

    #[test]
    fn nodes_of_graphs_within_graphs_are_found() {
        let named = |deep| -> Vec<(String, String, Vec<String>)> {
            let nodes = within(&branch("if", "MatMulInteger", "x", "y", deep));
            nodes.into_iter().map(|node| (node.name, node.op_type, node.inputs)).collect()
        };
        let inner = ("inner".to_owned(), "MatMulInteger".to_owned(), vec!["x".to_owned()]);
        assert_eq!(named(false), std::slice::from_ref(&inner));
        assert_eq!(named(true), [(String::new(), "If".to_owned(), Vec::new()), inner]);
        assert!(within(&Node::new("r", "Relu", &["x"], &["y"])).is_empty());
    }
}
