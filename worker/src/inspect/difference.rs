//! In what two models differ.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::numbers::max_difference;
use super::summary::{Value, opsets};
use crate::graph::{Attribute, Graph, Model, Node, TensorData};
use crate::{Error, Result, onnx};

/// In what two models differ. Nodes are the same node if they have the same name, or else the same first output.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Whether they do not.
    pub same: bool,
    /// Of what surrounds the graph: format, producer, operator sets, metadata, documentation.
    pub model: Vec<Changed>,
    /// Inputs and outputs: name, and type before and after.
    pub interface: Vec<Changed>,
    /// Nodes only in the second.
    pub added_nodes: Vec<String>,
    /// Nodes only in the first.
    pub removed_nodes: Vec<String>,
    /// Nodes in both, and what changed in each: operator, inputs, outputs, attributes.
    pub changed_nodes: Vec<(String, Vec<Changed>)>,
    /// Whether nodes of both stand in another order.
    pub reordered: bool,
    /// Initializers only in the second, with their type.
    pub added_initializers: Vec<(String, String)>,
    /// Initializers only in the first, with their type.
    pub removed_initializers: Vec<(String, String)>,
    /// Initializers that differ.
    pub changed_initializers: Vec<TensorChange>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// What it is.
    pub what: String,
    /// Before; `None`: it was not there.
    pub old: Option<String>,
    /// After; `None`: it is gone.
    pub new: Option<String>,
}

/// A constant that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// Type before: `float [64, 3, 7, 7]`.
    pub old: String,
    /// Type after.
    pub new: String,
    /// Largest difference of two elements; `None` where shapes differ, a NaN stands against a number, or the
    /// type is none of whole bytes (float 8, 4 bits).
    pub max_difference: Option<f64>,
}

impl Difference {
    /// Reads and compares two files.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(a: &Path, b: &Path) -> Result<Self> {
        Ok(Self::of(&onnx::read(a)?, &onnx::read(b)?))
    }

    /// Compares two models.
    pub fn of(a: &Model, b: &Model) -> Self {
        let mut difference = Self { model: surroundings(a, b), ..Self::default() };
        difference.interface(&a.graph, &b.graph);
        difference.nodes(&a.graph, &b.graph);
        difference.initializers(&a.graph, &b.graph);
        difference.same = difference == Self::default();
        difference
    }

    /// As JSON, indented.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::bug(error.to_string()))
    }

    fn interface(&mut self, a: &Graph, b: &Graph) {
        let named = |what: &str, values: &[crate::graph::ValueInfo]| -> Vec<(String, String)> {
            let kind = |info| format!("{what} {}", Value::of(info).name);
            values.iter().map(|info| (kind(info), Value::of(info).kind())).collect()
        };
        for (what, a, b) in [("input", &a.inputs, &b.inputs), ("output", &a.outputs, &b.outputs)] {
            let (old, new) = (named(what, a), named(what, b));
            let names = |values: &[(String, String)]| -> Vec<String> {
                values.iter().map(|value| value.0.clone()).collect()
            };
            let (before, after) = (names(&old), names(&new));
            self.interface.extend(changes(old, new));
            let (mut sorted_before, mut sorted_after) = (before.clone(), after.clone());
            sorted_before.sort();
            sorted_after.sort();
            if sorted_before == sorted_after && before != after {
                let listed = |names: Vec<String>| Some(names.join(", "));
                let what = format!("order of {what}s");
                self.interface.push(Changed { what, old: listed(before), new: listed(after) });
            }
        }
    }

    fn nodes(&mut self, a: &Graph, b: &Graph) {
        let pairs = pairs(a, b);
        let paired: HashSet<usize> = pairs.iter().flatten().copied().collect();
        let mut last = None;
        for (node, pair) in a.nodes.iter().zip(&pairs) {
            let Some(other) = *pair else {
                self.removed_nodes.push(called(node));
                continue;
            };
            self.reordered |= last.is_some_and(|last| last > other);
            last = Some(other);
            let changed = node_changes(node, &b.nodes[other]);
            if !changed.is_empty() {
                self.changed_nodes.push((called(node), changed));
            }
        }
        let added = b.nodes.iter().enumerate().filter(|(index, _)| !paired.contains(index));
        self.added_nodes = added.map(|(_, node)| called(node)).collect();
    }

    fn initializers(&mut self, a: &Graph, b: &Graph) {
        for (name, old) in &a.initializers {
            match b.initializers.get(name) {
                None => self.removed_initializers.push((name.clone(), kind(old))),
                Some(new) if new == old => {}
                Some(new) => self.changed_initializers.push(TensorChange {
                    name: name.clone(),
                    old: kind(old),
                    new: kind(new),
                    max_difference: max_difference(old, new),
                }),
            }
        }
        let added = b.initializers.iter().filter(|(name, _)| !a.initializers.contains_key(*name));
        self.added_initializers = added.map(|(name, data)| (name.clone(), kind(data))).collect();
    }
}

/// `conv1 (Conv)`.
fn called(node: &Node) -> String {
    format!("{} ({})", node.label(), node.operator())
}

fn kind(data: &TensorData) -> String {
    format!("{} {:?}", data.dtype.name(), data.shape)
}

/// For each node of `a` the same node of `b`.
fn pairs(a: &Graph, b: &Graph) -> Vec<Option<usize>> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut by_output: HashMap<&str, usize> = HashMap::new();
    for (index, node) in b.nodes.iter().enumerate() {
        if !node.name.is_empty() {
            by_name.insert(&node.name, index);
        }
        if let Some(output) = node.outputs.first() {
            by_output.insert(output, index);
        }
    }
    let named = a.nodes.iter().map(|node| by_name.remove(node.name.as_str()));
    let mut pairs: Vec<Option<usize>> = named.collect();
    let mut taken: HashSet<usize> = pairs.iter().flatten().copied().collect();
    for (node, pair) in a.nodes.iter().zip(&mut pairs).filter(|(_, pair)| pair.is_none()) {
        let output = node.outputs.first().and_then(|output| by_output.get(output.as_str()));
        *pair = output.copied().filter(|&index| taken.insert(index));
    }
    pairs
}

fn node_changes(a: &Node, b: &Node) -> Vec<Changed> {
    let list = |names: &[String]| names.join(", ");
    let fields = |node: &Node| {
        let mut fields = vec![
            ("name".to_owned(), node.name.clone()),
            ("operator".to_owned(), node.operator()),
            ("inputs".to_owned(), list(&node.inputs)),
            ("outputs".to_owned(), list(&node.outputs)),
            ("documentation".to_owned(), node.doc.clone()),
        ];
        let attributes = node.attributes.iter();
        fields.extend(attributes.map(|(name, value)| (format!("attribute {name}"), shown(value))));
        fields
    };
    let mut changed = changes(fields(a), fields(b));
    for (name, old) in &a.attributes {
        // What shows the same may be of other values.
        if let Some(new) = b.attributes.get(name)
            && old != new
            && shown(old) == shown(new)
        {
            let what = format!("attribute {name}");
            changed.push(Changed { what, old: Some(shown(old)), new: Some(shown(new)) });
        }
    }
    changed
}

fn shown(attribute: &Attribute) -> String {
    let text = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
    match attribute {
        Attribute::Int(value) => value.to_string(),
        Attribute::Float(value) => value.to_string(),
        Attribute::String(value) => text(value),
        Attribute::Tensor(data) => kind(data),
        Attribute::Ints(values) => format!("{values:?}"),
        Attribute::Floats(values) => format!("{values:?}"),
        Attribute::Strings(values) => {
            format!("[{}]", values.iter().map(|value| text(value)).collect::<Vec<_>>().join(", "))
        }
        Attribute::Opaque(bytes) => format!("{} encoded bytes", bytes.len()),
    }
}

fn surroundings(a: &Model, b: &Model) -> Vec<Changed> {
    let fields = |model: &Model| {
        let mut fields = vec![
            ("format".to_owned(), format!("IR {}", model.ir_version)),
            ("producer".to_owned(), model.producer_name.clone()),
            ("producer's version".to_owned(), model.producer_version.clone()),
            ("domain".to_owned(), model.domain.clone()),
            ("version".to_owned(), model.model_version.to_string()),
            ("documentation".to_owned(), model.doc.clone()),
            ("graph's name".to_owned(), model.graph.name.clone()),
            ("graph's documentation".to_owned(), model.graph.doc.clone()),
        ];
        let sets = opsets(model).into_iter();
        fields
            .extend(sets.map(|(domain, version)| (format!("opset {domain}"), version.to_string())));
        let metadata = model.metadata.iter();
        fields.extend(metadata.map(|(key, value)| (format!("metadata {key}"), value.clone())));
        fields
    };
    let mut changed = changes(fields(a), fields(b));
    if a.opaque != b.opaque || a.graph.opaque != b.graph.opaque {
        let size = |model: &Model| {
            Some(format!("{} encoded bytes", model.opaque.len() + model.graph.opaque.len()))
        };
        let what = "parts that qpipe does not read".to_owned();
        changed.push(Changed { what, old: size(a), new: size(b) });
    }
    changed
}

/// Fields that differ: those of the first in their order, then those that only the second has.
fn changes(old: Vec<(String, String)>, new: Vec<(String, String)>) -> Vec<Changed> {
    let mut rest: BTreeMap<usize, (String, String)> = new.into_iter().enumerate().collect();
    let mut changed = Vec::new();
    for (what, old) in old {
        let place = rest.iter().find(|(_, field)| field.0 == what).map(|(&place, _)| place);
        let new = place.and_then(|place| rest.remove(&place)).map(|field| field.1);
        if new.as_deref() != Some(&old) {
            changed.push(Changed { what, old: Some(old), new });
        }
    }
    changed.extend(rest.into_values().map(|(what, new)| Changed {
        what,
        old: None,
        new: Some(new),
    }));
    changed
}

#[cfg(test)]
mod tests;
