//! Ways to quantize a graph, and what must hold of each.

use std::collections::HashSet;

use qpipe::stages::build_engine::Backend;
use qpipe::stages::calibrate::Method;
use qpipe::stages::formats::{ActivationType, Activations, Granularity, WeightType, Weights};
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::analysis::{Budget, Comparison, Found, common, floats};
use qpipe_worker::engine::{self, Build, Note, Tapped, Threads};
use qpipe_worker::graph::Model;
use qpipe_worker::onnx;
use qpipe_worker::ops::WEIGHTED;
use qpipe_worker::passes::inference_form;
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::lint::lint;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::ranges::Ranges;

use super::check::{Held, Named, fail, round_trip};
use super::training;
use super::world::{Values, World, outputs, worst};

/// One way.
#[derive(Clone, Debug)]
pub struct Variant {
    pub target: Target,
    pub weights: Weights,
    pub activations: Activations,
    pub per_channel: bool,
    pub include: Option<Vec<String>>,
    pub exclude: Vec<String>,
}

impl Variant {
    fn of(target: Target) -> Self {
        Self {
            target,
            weights: Weights::default(),
            activations: Activations::default(),
            per_channel: true,
            include: None,
            exclude: Vec::new(),
        }
    }

    /// Whether weights have 8 bits and a scale for each channel: then little is lost.
    pub fn is_int8(&self) -> bool {
        self.weights.dtype == WeightType::Int8 && self.per_channel
    }

    /// Whether the rules alone decide: what the user leaves out may stand in the way of others.
    pub fn is_whole(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }
}

/// All targets by themselves, and one further way each: affine activations, one scale a weight, layers left out, weights of 4 bits, also in blocks, floats
/// of 8 bits, weights alone.
pub fn variants(model: &Model, seed: u64) -> Vec<Variant> {
    let own = Target::ALL.map(Variant::of);
    let mut all = own.to_vec();
    // Fast kernels whose sums do not saturate.
    all[2].weights.reduce_range = seed.is_multiple_of(2);
    let mut other = own[(seed / 9 % 3) as usize].clone();
    let layers = model.graph.nodes.iter().filter(|node| WEIGHTED.contains(&node.op_type.as_str()));
    let labels: Vec<String> = layers.map(|node| node.label().to_owned()).collect();
    let label = || labels[seed as usize / 2 % labels.len()].clone();
    match seed % 9 {
        0 => {
            other.target = Target::Onnxruntime;
            other.activations.symmetric = false;
        }
        1 => other.per_channel = false,
        2 if !labels.is_empty() => other.exclude = vec![label()],
        3 if !labels.is_empty() => other.include = Some(vec![label()]),
        4 => {
            other.target = Target::Onnxruntime;
            other.weights.symmetric = false;
            other.activations.symmetric = false;
        }
        5 => {
            other.target = Target::Onnxruntime;
            other.weights.dtype = WeightType::Int4;
        }
        6 => {
            // TensorRT's blocks are of 64 and more.
            other.target = Target::Onnxruntime;
            other.weights.dtype = WeightType::Int4;
            other.weights.granularity = Some(Granularity::PerBlock);
            other.weights.block_size = Some(4);
            other.activations.dtype = Some(ActivationType::Float);
        }
        7 => {
            other.target = Target::Tensorrt;
            other.weights.dtype = WeightType::Float8e4m3fn;
            other.activations.dtype = Some(ActivationType::Float8e4m3fn);
        }
        _ => other.activations.dtype = Some(ActivationType::Float),
    }
    all.push(other);
    all
}

/// Least SQNR of an output of 8 bits against the float model, dB.
const COLLAPSE: f64 = 5.0;
/// Share of its input that each Relu lets through at least where a collapse is one.
const REST: f64 = 0.02;

/// Holds a prepared model to what must hold of it quantized so, and where it is to be `trained`, of what comes of that; the least SQNR of the outputs
/// against the float model.
pub fn check(
    model: &Model,
    ranges: &Ranges,
    method: Method,
    world: &World,
    variant: &Variant,
    trained: bool,
) -> Held<f64> {
    let named = |what: &str| format!("{:?}: {what}", variant.target);
    let quantized = || quantize(model, ranges, method, variant);
    let simulated = quantized()?;
    onnx::check(&simulated).named(&named("the standard's rules of the model with pairs"))?;
    round_trip(&simulated)?;
    lints(&simulated, variant)?;
    let names = outputs(model);
    let expected = world.libtorch(model, &names).named(&named("float"))?;
    let found = world.libtorch(&simulated, &names).named(&named("simulation"))?;
    // A small channel of what has one scale has few steps: as an output by itself it says nothing.
    let producers = model.graph.producers();
    let is_part = |name: &str| {
        let mut open = vec![name];
        while let Some(&index) = open.pop().and_then(|name| producers.get(name)) {
            let node = &model.graph.nodes[index];
            match node.op_type.as_str() {
                "Split" | "Slice" | "Gather" => return true,
                op if WEIGHTED.contains(&op) => {}
                _ => open.extend(node.inputs.first().map(String::as_str)),
            }
        }
        false
    };
    let whole = expected.iter().filter(|(name, _)| !is_part(name));
    let whole = whole.map(|(name, value)| (name.clone(), value.shallow_clone())).collect();
    let (name, decibels) = worst(&whole, &found);
    // The others may cut off what is large.
    if method == Method::Max && variant.is_int8() && decibels < COLLAPSE {
        let left = left(model, &name, world).named(&named("float"))?;
        if left > REST {
            return fail(
                &named("a collapse"),
                format!("{name}: {decibels:.1} dB, {left} of its values; {variant:?}"),
            );
        }
    }

    deployed(&simulated, world, variant)?;
    let mut exported = simulated.clone();
    finalize(&mut exported, None).named(&named("finalize"))?;
    let mut again = quantized()?;
    finalize(&mut again, None).named(&named("finalize"))?;
    let bytes = |model: &Model| onnx::to_bytes(model).named(&named("write"));
    if bytes(&exported)? != bytes(&again)? {
        return fail(&named("an export made again is another file"), "");
    }
    if trained {
        training::check(&simulated, world, variant)?;
    }
    Ok(decibels)
}

/// The least share of the largest magnitude that a Relu or Clip on the way to a value lets through: where all of a tensor is less than a step or two of
/// what it was computed from, no 8 bits hold it. 1 without any.
fn left(model: &Model, name: &str, world: &World) -> Result<f64, String> {
    let producers = model.graph.producers();
    let (mut open, mut seen, mut cuts) = (vec![name], HashSet::new(), Vec::new());
    while let Some(name) = open.pop() {
        let Some(&index) = producers.get(name) else { continue };
        if seen.insert(index) {
            let node = &model.graph.nodes[index];
            open.extend(node.inputs.iter().map(String::as_str));
            if ["Relu", "Clip"].contains(&node.op_type.as_str()) {
                cuts.push((&node.inputs[0], &node.outputs[0]));
            }
        }
    }
    let names: Vec<String> = cuts.iter().flat_map(|cut| [cut.0.clone(), cut.1.clone()]).collect();
    let values = world.libtorch(model, &names)?;
    let most = |name: &String| values[name].abs().max().double_value(&[]);
    Ok(cuts.iter().map(|(before, after)| most(after) / most(before)).fold(1.0, f64::min))
}

/// The model with the pairs of a variant.
pub fn quantize(model: &Model, ranges: &Ranges, method: Method, variant: &Variant) -> Held<Model> {
    let named = |what: &str| format!("{:?}: {what}", variant.target);
    let formats =
        Formats::of(Some(variant.weights), Some(variant.activations), variant.per_channel);
    let request = Request {
        target: variant.target,
        method,
        include: variant.include.as_deref(),
        exclude: &variant.exclude,
        formats,
    };
    let plan = plan(&model.graph, ranges, &request).named(&named("plan"))?;
    let mut quantized = model.clone();
    insert(&mut quantized, &plan).named(&named("insert"))?;
    Ok(quantized)
}

/// Exports a model with pairs; what is deployed must compute what the model does.
pub fn deployed(simulated: &Model, world: &World, variant: &Variant) -> Held<()> {
    let named = |what: &str| format!("{:?}: {what}", variant.target);
    let mut exported = simulated.clone();
    finalize(&mut exported, None).named(&named("finalize"))?;
    onnx::check(&exported).named(&named("the standard's rules of the exported model"))?;
    round_trip(&exported)?;
    let names = common(simulated, &exported);
    let expected = world.libtorch(simulated, &names).named(&named("simulation"))?;
    let names = floats(&names, &expected);
    let mut read = onnx::to_bytes(&exported).and_then(onnx::parse).named(&named("read back"))?;
    inference_form(&mut read).named(&named("read back"))?;
    let form = world.libtorch(&read, &names).named(&named("the exported form on libtorch"))?;
    hold(&exported, &expected, form.into(), &named("the exported form computes something else"))?;
    let unfused = world.onnxruntime(&exported, &names);
    let unfused = unfused.named(&named("ONNX Runtime refuses the exported form"))?;
    hold(
        &exported,
        &expected,
        unfused.into(),
        &named("ONNX Runtime computes something else, unfused"),
    )?;
    if variant.target == Target::Onnxruntime {
        fused(&exported, &expected, world, &named("ONNX Runtime computes something else, fused"))?;
    }
    Ok(())
}

/// Our own placement must have nothing that our lint finds.
fn lints(model: &Model, variant: &Variant) -> Held<()> {
    let findings = lint(&model.graph, Some(variant.target));
    let finding = findings.into_iter().find(|finding| match finding.rule {
        "per-tensor-weight" => variant.per_channel,
        // What these find depends on neighbours, which the user left out.
        "double-pair" | "zero-point" | "scale" | "weight-axis" | "moving-scale" => true,
        _ => variant.is_whole(),
    });
    match finding {
        Some(found) => fail(
            &format!("{:?}: lint {}", variant.target, found.rule),
            format!("{} ({}): {}", found.node, found.operator, found.what),
        ),
        None => Ok(()),
    }
}

/// What roundings that fall the other way cost at most, as `export-onnx` has it.
const BUDGET: Budget = Budget { sqnr_db: 10.0, agreement: 0.0, sudden_db: 6.0 };

fn hold(model: &Model, expected: &Values, found: Found, what: &str) -> Held<()> {
    let mut comparison = Comparison::new(what);
    comparison.add(expected, &found).named(what)?;
    comparison.hold(model, BUDGET).named(what)
}

/// The engine: its outputs, and what its integer kernels give.
fn fused(model: &Model, expected: &Values, world: &World, what: &str) -> Held<()> {
    let folder = tempfile::tempdir_in(world.path()).named(what)?;
    let path = folder.path().join("exported.onnx");
    onnx::write_one_file(model, &path).named(what)?;
    let request = Build {
        path: &path,
        model,
        folder: folder.path(),
        batch: 1,
        compute_capability: None,
        threads: 1,
        precision: None,
        saturate: false,
        tensorrt: Default::default(),
        tell: &|_| (),
    };
    engine::build(Backend::Onnxruntime, &request).named(what)?;
    let note = Note::read(folder.path()).named(what)?;
    let names = outputs(model);
    let mut engine = engine::load(folder.path(), &Threads::Free(1)).named(what)?.1;
    let pixels = Vec::<f32>::try_from(world.images.contiguous().view([-1])).expect("floats");
    let made = engine.run(&pixels, world.images.size()[0] as usize).named(what)?;
    let outputs = names.iter().zip(made).map(|(name, made)| {
        (name.clone(), tch::Tensor::from_slice(&made).reshape(expected[name].size()))
    });
    let mut found = Found::default();
    if let Some(mut inner) =
        Tapped::fused(folder.path(), &note, model, world.path(), 1).named(what)?
    {
        found.values = world.values(&mut inner).named(what)?;
        found.inner = found.values.keys().cloned().collect();
    }
    for (name, made) in outputs {
        found.inner.remove(&name);
        found.values.insert(name, made);
    }
    hold(model, expected, found, what)
}
