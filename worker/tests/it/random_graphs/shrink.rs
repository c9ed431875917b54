//! A smaller graph that fails in the same way.

use std::collections::HashMap;
use std::fmt::Write;

use qpipe_worker::graph::{Attribute, Dim, Model, ValueInfo};
use qpipe_worker::passes::remove_dead;

use super::world::World;

/// The smallest graph that is found by taking nodes away for which `fails` still holds.
pub fn shrink(mut model: Model, world: &World, fails: &dyn Fn(&Model) -> bool) -> Model {
    while let Some(smaller) = smaller(&model, world).into_iter().find(|model| fails(model)) {
        model = smaller;
    }
    model
}

/// Graphs with fewer nodes: cut at a value, with fewer outputs, with a node that hands its input on.
fn smaller(model: &Model, world: &World) -> Vec<Model> {
    let names: Vec<String> =
        model.graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
    let Ok(values) = world.libtorch(model, &names) else { return Vec::new() };
    let shapes: HashMap<&str, Vec<i64>> = values
        .iter()
        .filter(|(_, value)| value.kind() == tch::Kind::Float)
        .map(|(name, value)| (name.as_str(), value.size()))
        .collect();
    let batch = world.images.size()[0];
    let mut found = Vec::new();
    for name in names.iter().filter(|name| {
        shapes.get(name.as_str()).is_some_and(|shape| shape.len() > 1 && shape[0] == batch)
    }) {
        let dims = shapes[name.as_str()][1..].iter().map(|&extent| Dim::Fixed(extent));
        let dims = std::iter::once(Dim::Named("n".to_owned())).chain(dims).collect();
        let mut cut = model.clone();
        cut.graph.outputs = vec![ValueInfo::f32(name, dims)];
        found.push(cut);
    }
    for index in 0..model.graph.outputs.len() {
        let mut without = model.clone();
        without.graph.outputs.remove(index);
        if !without.graph.outputs.is_empty() {
            found.push(without);
        }
    }
    for (index, node) in model.graph.nodes.iter().enumerate() {
        let output = node.outputs[0].as_str();
        for input in &node.inputs {
            let (own, other) = (shapes.get(output), shapes.get(input.as_str()));
            let is_input = input == "input" && own.is_some_and(|own| *own == world.images.size());
            if model.graph.is_output(output) || !(is_input || own.is_some() && own == other) {
                continue;
            }
            let mut bypassed = model.clone();
            bypassed.graph.nodes.remove(index);
            for node in &mut bypassed.graph.nodes {
                node.inputs
                    .iter_mut()
                    .filter(|name| *name == output)
                    .for_each(|name| name.clone_from(input));
            }
            found.push(bypassed);
        }
    }
    let count = model.graph.nodes.len() + model.graph.outputs.len();
    found.retain_mut(|model| {
        remove_dead(model).is_ok() && model.graph.nodes.len() + model.graph.outputs.len() < count
    });
    found.sort_by_key(|model| model.graph.nodes.len());
    found
}

/// A graph as text, a node a line.
pub fn describe(model: &Model) -> String {
    let mut text = String::new();
    for node in model.graph.nodes.iter().filter(|node| !node.is_constant()) {
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|name| match model.graph.initializers.get(name) {
                Some(data) if data.len() < 7 && data.whole_numbers().is_some() => {
                    format!("{:?}", data.whole_numbers().unwrap_or_default())
                }
                Some(data) => format!("{name}{:?}", data.shape),
                None => name.clone(),
            })
            .collect();
        let attributes: Vec<String> = node
            .attributes
            .iter()
            .map(|(key, value)| match value {
                Attribute::Ints(ints) => format!(" {key}={ints:?}"),
                Attribute::Int(int) => format!(" {key}={int}"),
                Attribute::Float(float) => format!(" {key}={float}"),
                Attribute::String(text) => format!(" {key}={}", String::from_utf8_lossy(text)),
                _ => format!(" {key}"),
            })
            .collect();
        writeln!(
            text,
            "  {} = {}({}){}",
            node.outputs.join(", "),
            node.op_type,
            inputs.join(", "),
            attributes.concat()
        )
        .expect("a string");
    }
    let outputs: Vec<&str> =
        model.graph.outputs.iter().map(|output| output.name.as_str()).collect();
    writeln!(text, "  outputs {}", outputs.join(", ")).expect("a string");
    text
}
