//! Layers quantized by themselves and left out: what `sensitivity` measures from shared values is what whole models give, and any set of layers that
//! stays in float leaves a model that is deployed as it was simulated.

use qpipe::stages::calibrate::Method;
use qpipe::stages::sensitivity::Measure;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use qpipe_worker::analysis::{Fidelity, Options, Outcome, Seen, measure};
use qpipe_worker::data::{Loader, Order};
use qpipe_worker::graph::Model;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::ranges::Ranges;
use qpipe_worker::search::{Closure, Set};

use super::check::{FLOAT, Held, Named, fail};
use super::variant::{Variant, deployed, quantize, variants};
use super::world::{World, outputs, worst};

const BATCH: usize = 16;
/// By what sums in another order differ, dB, and from where on nothing is lost.
const SAME: f64 = 0.05;
const EXACT: f64 = 90.0;

/// All of it, of one way to quantize.
pub fn apart(model: &Model, ranges: &Ranges, world: &World, seed: u64) -> Held<()> {
    let all = variants(model, seed);
    // What leaves out no layer of its own.
    let Some(variant) = all.iter().cycle().skip(seed as usize % all.len()).find(|v| v.is_whole())
    else {
        return Ok(());
    };
    let request = Request {
        target: variant.target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::of(Some(variant.weights), Some(variant.activations), variant.per_channel),
    };
    let plan = plan(&model.graph, ranges, &request).named("apart: plan")?;
    let layers: Vec<usize> =
        (0..plan.layers.len()).filter(|&index| plan.layers[index].quantized).collect();
    if layers.is_empty() {
        return Ok(());
    }
    let labels: Vec<String> = layers.iter().map(|&at| plan.layers[at].node.clone()).collect();
    measured(model, ranges, world, &request, variant)?;
    left_out(model, ranges, world, variant, &labels)?;
    let closure = Closure::of(&model.graph, &layers);
    let set: Set = (0..layers.len()).filter(|at| (seed >> (at % 16)) & 1 == 1).collect();
    let closed = closure.close(&set);
    if !closed.is_superset(&set) || closure.close(&closed) != closed {
        return fail("apart: a closed set is none", format!("{set:?}, {closed:?} of {labels:?}"));
    }
    let exclude: Vec<String> = closed.iter().map(|&at| labels[at].clone()).collect();
    let mixed = Variant { exclude, ..variant.clone() };
    deployed(&quantize(model, ranges, Method::Max, &mixed)?, world, &mixed).map_err(
        |mut failure| {
            failure.what = format!("mixed: {}", failure.what);
            failure.detail += &format!("; {mixed:?}");
            failure
        },
    )
}

/// Without any layer it is the float model; with each node named it is the one without names.
fn left_out(
    model: &Model,
    ranges: &Ranges,
    world: &World,
    variant: &Variant,
    labels: &[String],
) -> Held<()> {
    let names = outputs(model);
    let float = Variant { exclude: labels.to_vec(), ..variant.clone() };
    let float = quantize(model, ranges, Method::Max, &float)?;
    if let Some(node) = float.graph.nodes.iter().find(|node| node.op_type == "QuantizeLinear") {
        return fail("apart: a pair without a layer", node.label());
    }
    let expected = world.libtorch(model, &names).named("apart: float")?;
    let found = world.libtorch(&float, &names).named("apart: all left out")?;
    let (name, decibels) = worst(&expected, &found);
    if decibels < FLOAT {
        return fail("apart: all left out is another model", format!("{name}: {decibels:.1} dB"));
    }
    // Nodes that only move values are named too: those that are not stay float.
    let include = model.graph.nodes.iter().map(|node| node.label().to_owned()).collect();
    let named = Variant { include: Some(include), ..variant.clone() };
    let named = quantize(model, ranges, Method::Max, &named)?;
    if named.graph != quantize(model, ranges, Method::Max, variant)?.graph {
        return fail("apart: all nodes by name are another model", format!("{labels:?}"));
    }
    Ok(())
}

/// `sensitivity` against whole models.
fn measured(
    model: &Model,
    ranges: &Ranges,
    world: &World,
    request: &Request,
    variant: &Variant,
) -> Held<()> {
    let options = Options {
        request: *request,
        version: TensorrtVersion::NEWEST,
        measure: &[Measure::Alone, Measure::Without],
        samples: usize::MAX,
        batch_size: BATCH,
        seed: 1,
        threads: 1,
    };
    let report = measure(model, ranges, &world.dataset, &options, &|_, _| ());
    let report = report.named("sensitivity")?;
    let hold = |what: &str, found: Option<Outcome>, quantized: &Model| -> Held<()> {
        let expected = whole(model, quantized, world).named("sensitivity: whole")?;
        let found = found.map(|outcome| outcome.fidelity.sqnr_db.unwrap_or(f64::INFINITY));
        match found {
            Some(found) if (found - expected).abs() < SAME || found.min(expected) > EXACT => Ok(()),
            found => fail(
                "sensitivity: a whole model gives another figure",
                format!("{what}: {found:?} dB, whole {expected} dB; {variant:?}"),
            ),
        }
    };
    let quantized = quantize(model, ranges, Method::Max, variant)?;
    hold("all", Some(report.quantized), &quantized)?;
    for layer in &report.layers {
        let only = Variant { include: Some(vec![layer.node.clone()]), ..variant.clone() };
        hold(&layer.node, layer.alone, &quantize(model, ranges, Method::Max, &only)?)?;
        let without = Variant { exclude: vec![layer.node.clone()], ..variant.clone() };
        hold(&layer.node, layer.without, &quantize(model, ranges, Method::Max, &without)?)?;
    }
    Ok(())
}

/// SQNR of all outputs over all images, dB.
fn whole(model: &Model, quantized: &Model, world: &World) -> Result<f64, String> {
    let text = |error: qpipe_worker::Error| error.to_string();
    let (mut float, mut other) =
        (Seen::new(model, &[]).map_err(text)?, Seen::new(quantized, &[]).map_err(text)?);
    let mut fidelity = Fidelity::default();
    for batch in Loader::new(&world.dataset, BATCH, Order::Sequential, false, 1) {
        let images = batch.map_err(text)?.images;
        let (expected, found) =
            (float.run(&images).map_err(text)?.0, other.run(&images).map_err(text)?.0);
        for (expected, found) in expected.iter().zip(&found) {
            fidelity.add(expected, found).map_err(text)?;
        }
    }
    Ok(fidelity.figures().sqnr_db.unwrap_or(f64::INFINITY))
}
