//! The PTQ ladder on random graphs: each rung leaves a valid model and does what it says.

use qpipe::stages::calibrate::Method;
use qpipe_worker::graph::Model;
use qpipe_worker::onnx;
use qpipe_worker::quant::ladder::{
    Activation6, Adaround, Options, Unit, equalize, measured_moments, reconstruct,
};
use qpipe_worker::quant::ranges::Ranges;

use super::check::{FLOAT, Held, Named, fail, round_trip};
use super::variant::{Variant, deployed, quantize, variants};
use super::world::{World, outputs, worst};

const SAMPLES: usize = 32;

/// All rungs.
pub fn climbed(model: &Model, ranges: &Ranges, world: &World, seed: u64) -> Held<()> {
    absorbed(model, world)?;
    let all = variants(model, seed);
    let variant = &all[seed as usize % all.len()];
    for (unit, bias_correction) in
        [(None, true), (Some(Unit::Layer), false), (Some(Unit::Block), true)]
    {
        reconstructed(
            &quantize(model, ranges, Method::Max, variant)?,
            world,
            variant,
            unit,
            bias_correction,
        )?;
    }
    Ok(())
}

/// Equalized with bounds that become a Relu, high biases absorbed.
fn absorbed(model: &Model, world: &World) -> Held<()> {
    let what = "equalize with relu6 and absorb_bias";
    let moments = measured_moments(model, &world.dataset, (SAMPLES, 8, 1, 1), &|_, _| ());
    let moments = moments.named("moments")?;
    let mut equalized = model.clone();
    let done = equalize(&mut equalized, Activation6::Relu, Some(&moments)).named(what)?;
    valid(&equalized, what)?;
    let names = outputs(&equalized);
    let expected = world.libtorch(model, &names).named(what)?;
    let found = world.libtorch(&equalized, &names).named(what)?;
    let other = world.onnxruntime(&equalized, &names).named(what)?;
    let (name, decibels) = worst(&other, &found);
    if decibels < FLOAT {
        return fail(
            &format!("{what}: libtorch is not ONNX Runtime"),
            format!("{name}: {decibels} dB"),
        );
    }
    let (name, decibels) = worst(&expected, &found);
    let taken = done.absorbed.iter().any(|pair| pair.channels > 0);
    if done.replaced.is_empty() && !taken && decibels < FLOAT {
        return fail(&format!("{what}: the model is another"), format!("{name}: {decibels} dB"));
    }
    if decibels == f64::NEG_INFINITY {
        return fail(&format!("{what}: no numbers"), name);
    }
    Ok(())
}

fn valid(model: &Model, what: &str) -> Held<()> {
    onnx::check(model).named(&format!("{what}: the standard's rules"))?;
    round_trip(model)
}

fn reconstructed(
    quantized: &Model,
    world: &World,
    variant: &Variant,
    unit: Option<Unit>,
    bias_correction: bool,
) -> Held<()> {
    let what = format!("reconstruct {unit:?}, bias {bias_correction}");
    let adaround = unit.map(|unit| Adaround {
        unit,
        drop: 0.0,
        iterations: 20,
        lr: 0.01,
        batch_size: 16,
        regularization: 0.01,
        beta: [20.0, 2.0],
        warm_up: 0.2,
    });
    let options = Options {
        samples: SAMPLES,
        batch_size: 16,
        bias_correction,
        adaround,
        seed: 1,
        threads: 1,
    };
    let made = reconstruct(quantized.clone(), &world.dataset, &options, &|_, _, _| ());
    let (model, report) = match made {
        // float8 and zero points: nothing to learn, which is said.
        Err(error) if error.message.contains("no layer whose float weight") => return Ok(()),
        made => made.named(&what)?,
    };
    valid(&model, &what)?;
    for layer in &report {
        let told = format!("{layer:?}; {variant:?}");
        let numbers = [layer.nearest_error, layer.learned_error, layer.mean_shift];
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return fail(&format!("{what}: a figure is no number"), told);
        }
        if let (Some(nearest), Some(learned)) = (layer.nearest_error, layer.learned_error)
            && learned > nearest * 1.000_01 + 1e-12
        {
            return fail(&format!("{what}: an error grew"), told);
        }
    }
    if let Some(detail) = off_grid(quantized, &model, &report_learned(&report))? {
        return fail(&format!("{what}: a weight lies beside its grid"), detail);
    }
    deployed(&model, world, variant).map_err(|mut failure| {
        failure.what = format!("{what}: {}", failure.what);
        failure.detail += &format!("; {variant:?}");
        failure
    })
}

fn report_learned(report: &[qpipe_worker::quant::ladder::Reconstructed]) -> Vec<&str> {
    let learned = report.iter().filter(|layer| layer.learned_error.is_some());
    learned.map(|layer| layer.node.as_str()).collect()
}

/// A learned weight that its own pair changes.
fn off_grid(before: &Model, model: &Model, learned: &[&str]) -> Held<Option<String>> {
    let graph = &model.graph;
    let producers = graph.producers();
    for node in graph.nodes.iter().filter(|node| learned.contains(&node.label())) {
        let inputs = node.inputs.iter().filter_map(|name| producers.get(name.as_str()));
        for dequantize in inputs.map(|&index| &graph.nodes[index]) {
            let Some(&quantize) = producers.get(dequantize.inputs[0].as_str()) else { continue };
            let quantize = &graph.nodes[quantize];
            if quantize.op_type != "QuantizeLinear" {
                continue;
            }
            let name = &quantize.inputs[0];
            let (Some(weight), Some(old)) =
                (graph.initializers.get(name), before.graph.initializers.get(name))
            else {
                continue;
            };
            let named = "weight";
            if weight.shape != old.shape {
                return Ok(Some(format!("{name}: another shape")));
            }
            if quantize.attributes.contains_key("block_size") {
                continue;
            }
            let scales = graph.initializers[&quantize.inputs[1]].to_f32().named(named)?;
            let axis = quantize.int("axis", 1).named(named)?;
            let axis = if axis < 0 { axis + weight.shape.len() as i64 } else { axis } as usize;
            let inner: usize = weight.shape[axis + 1..].iter().product::<i64>() as usize;
            for (index, value) in weight.to_f32().named(named)?.into_iter().enumerate() {
                let scale = scales[index / inner % scales.len()];
                let steps = value / scale;
                if (steps - steps.round()).abs() > 1e-3 || steps.abs() > 128.01 {
                    return Ok(Some(format!("{name}[{index}]: {steps} steps")));
                }
            }
        }
    }
    Ok(None)
}
