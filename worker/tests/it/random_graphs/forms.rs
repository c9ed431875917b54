//! The same graph in the forms in which files have it.

use qpipe_worker::graph::{Attribute, Model, Node, ValueInfo};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::{onnx, passes};

use super::check::{FLOAT, Held, Named, everything, fail};
use super::world::{Values, World, outputs, worst};

type Form = (&'static str, fn(&Model) -> Option<Model>);

const FORMS: &[Form] = &[
    ("initializers listed as inputs, IR version 3", listed),
    ("nodes in place of initializers", nodes),
    ("initializers in place of nodes", initializers),
    ("names with / : and spaces", renamed),
    ("nodes without names", unnamed),
    ("opset 18", |model| raised(model, 18)),
    ("opset 21", |model| raised(model, 21)),
];

/// Each form (a third of them in the default run), read from a file, computes what ONNX Runtime makes of the graph, also when it is prepared.
pub fn forms(model: &Model, world: &World, expected: &Values, seed: u64) -> Held<()> {
    for opsets in [&OLDER[..], &NEWER] {
        declared(model, world, expected, opsets[seed as usize % opsets.len()])?;
    }
    for (index, (what, form)) in FORMS.iter().enumerate() {
        if !everything() && !(seed as usize + index).is_multiple_of(3) {
            continue;
        }
        let what = format!("import, {what}");
        let Some(model) = form(model) else { continue };
        onnx::check(&model).named(&format!("{what}: the standard's rules"))?;
        let mut read = reread(&model, world).named(&format!("{what}: write and read"))?;
        same(&read, world, expected, &what)?;
        prepare(&mut read).named(&format!("{what}: prepare"))?;
        same(&read, world, expected, &format!("{what}, prepared"))?;
    }
    Ok(())
}

fn same(model: &Model, world: &World, expected: &Values, what: &str) -> Held<()> {
    // Outputs stand in the same order, whatever they are called.
    let names = outputs(model);
    let mut found = world.libtorch(model, &names).named(what)?;
    if names.iter().any(|name| !expected.contains_key(name)) {
        found = found.into_iter().map(|(name, value)| (original(&name), value)).collect();
    }
    let (name, decibels) = worst(expected, &found);
    if decibels < FLOAT { fail(what, format!("{name}: {decibels:.1} dB")) } else { Ok(()) }
}

/// Through files: one, and one beside it with the weights.
fn reread(model: &Model, world: &World) -> Result<Model, String> {
    let folder = tempfile::tempdir_in(world.path()).map_err(|error| error.to_string())?;
    let path = folder.path().join("model.onnx");
    let mut model = model.clone();
    model.external_data = true;
    let text = |error: qpipe_worker::Error| error.to_string();
    onnx::write(&model, &path).map_err(text)?;
    onnx::read(&path).map_err(text)
}

fn listed(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    model.ir_version = 3;
    let place = model.graph.inputs.len();
    for (index, (name, data)) in model.graph.initializers.iter().enumerate() {
        let dims = data.shape.iter().map(|&extent| qpipe_worker::graph::Dim::Fixed(extent));
        let info = ValueInfo { dtype: Some(data.dtype), ..ValueInfo::f32(name, dims.collect()) };
        model.graph.defaults.push((place + index, info));
    }
    Some(model)
}

fn nodes(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    let constants =
        std::mem::take(&mut model.graph.initializers).into_iter().map(|(name, data)| {
            Node::new(&format!("{name}_made"), "Constant", &[], &[&name])
                .with("value", Attribute::Tensor(data))
        });
    let constants: Vec<Node> = constants.collect();
    model.graph.nodes.splice(0..0, constants);
    Some(model)
}

fn initializers(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    for node in model.graph.nodes.iter().filter(|node| node.is_constant()) {
        model.graph.initializers.insert(node.outputs[0].clone(), node.constant().ok()?);
    }
    model.graph.nodes.retain(|node| !node.is_constant());
    Some(model)
}

const BEFORE: &str = "/model: block.0/";

fn original(name: &str) -> String {
    name.strip_prefix(BEFORE).unwrap_or(name).replace(" : ", "_")
}

fn renamed(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    let graph = &mut model.graph;
    let inputs: Vec<String> = graph.inputs.iter().map(|input| input.name.clone()).collect();
    let new = |name: &str| {
        if name.is_empty() || inputs.iter().any(|input| input == name) {
            return name.to_owned();
        }
        format!("{BEFORE}{}", name.replace('_', " : "))
    };
    for node in &mut graph.nodes {
        node.name = new(&node.name);
        node.inputs.iter_mut().for_each(|name| *name = new(name));
        node.outputs.iter_mut().for_each(|name| *name = new(name));
    }
    graph.outputs.iter_mut().for_each(|output| output.name = new(&output.name));
    let constants = std::mem::take(&mut graph.initializers);
    graph.initializers = constants.into_iter().map(|(name, data)| (new(&name), data)).collect();
    Some(model)
}

fn unnamed(model: &Model) -> Option<Model> {
    let mut model = model.clone();
    model.graph.nodes.iter_mut().for_each(|node| node.name.clear());
    Some(model)
}

/// By our own pass, which refuses what means something else.
fn raised(model: &Model, opset: i64) -> Option<Model> {
    let mut model = model.clone();
    passes::raise_opset(&mut model, opset).ok()?;
    Some(model)
}

/// Numbers that files have.
const OLDER: [i64; 6] = [9, 10, 11, 12, 13, 16];
const NEWER: [i64; 2] = [18, 21];

/// The model as it is under another number: it is what ONNX Runtime makes of it. Where that refuses it for what the operators of that opset do
/// not have, we do too, or know what was meant.
fn declared(model: &Model, world: &World, own: &Values, opset: i64) -> Held<()> {
    let what = format!("import, declared as opset {opset}");
    let mut model = model.clone();
    model.opsets[0].version = opset;
    let names = outputs(&model);
    match world.onnxruntime(&model, &names) {
        // It takes LayerNormalization of any opset; that is the only one.
        Ok(_) if model.graph.nodes.iter().any(|node| is_later(node, opset)) => Ok(()),
        Ok(expected) => same(&model, world, &expected, &what),
        Err(refusal) if misplaced(&refusal) => match world.libtorch(&model, &names) {
            Ok(found) if worst(own, &found).1 < FLOAT => {
                fail(&format!("{what}: only ONNX Runtime refuses it"), refusal)
            }
            _ => Ok(()),
        },
        // It has no kernels of some old definitions.
        Err(_) => Ok(()),
    }
}

fn is_later(node: &Node, opset: i64) -> bool {
    node.op_type == "LayerNormalization" && opset < 17
}

/// Attributes and inputs that an operator does not have.
fn misplaced(refusal: &str) -> bool {
    ["Unrecognized attribute", "not in range"].iter().any(|text| refusal.contains(text))
}
