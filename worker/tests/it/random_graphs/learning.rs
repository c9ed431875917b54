//! Training of random graphs: what was learned is what is exported, and gradients are those of the loss.

use qpipe::stages::calibrate::Method;
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Parameter, Program, Scales, Trainable};
use qpipe_worker::onnx;
use qpipe_worker::passes::share_pair_scales;
use qpipe_worker::quant::ranges::Ranges;
use tch::{Kind, Tensor};

use super::check::{Held, Named, fail, round_trip};
use super::variant::{deployed, quantize, variants};
use super::world::{World, outputs};

const STEPS: usize = 3;
/// Largest change of a constant in a step, by its norm.
const STEP: f64 = 0.01;
/// By how much a constant is moved along its gradient.
const WIDTHS: [f64; 7] = [1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5];
/// What a loss is off by at random, as a share of the magnitudes that it sums up.
const ROUNDING: f64 = 2e-8;

/// A sum of all outputs with fixed factors: a plain sum is blind to what a normalization takes away, and one of both signs has slopes
/// that cancel out but for kinks. Also what the magnitudes sum up to.
fn loss(program: &mut Program, world: &World) -> Held<(Tensor, f64)> {
    // A background of one value would cross a kink all at once.
    let wave = Tensor::arange(world.images.numel() as i64, (Kind::Float, tch::Device::Cpu));
    let images = &world.images + (wave * 1.313_f64).sin().reshape(world.images.size()) * 0.3;
    let made = program.forward(&[images], Mode::Train, &mut |_, _| Ok(()));
    let zero = || Tensor::from(0.0_f64);
    let (mut sum, mut size) = (zero(), zero());
    for value in made.named("train: forward")? {
        let numbers = Tensor::arange(value.numel() as i64, (Kind::Double, tch::Device::Cpu));
        let factors = (numbers * 2.399_f64).sin() * 0.5 + 1.0;
        let terms = &value * factors.reshape(value.size());
        size += terms.abs().sum(Kind::Double).detach();
        sum += terms.sum(Kind::Double);
    }
    Ok((sum, size.double_value(&[])))
}

/// Gradients of all parameters that the loss depends on.
fn gradients<'p>(program: &'p Program, loss: &Tensor) -> Held<Vec<(&'p Parameter, Tensor)>> {
    let made = program.gradients(loss).named("train: backward")?;
    let mut found = Vec::new();
    for (parameter, gradient) in program.parameters().iter().zip(made) {
        if !gradient.defined() {
            continue;
        }
        if gradient.isfinite().all().int64_value(&[]) == 0 {
            return fail("train: a gradient is not finite", &parameter.name);
        }
        found.push((parameter, gradient));
    }
    Ok(found)
}

/// A few steps on a quantized model whose scales follow.
pub fn learned(model: &Model, ranges: &Ranges, world: &World, seed: u64) -> Held<()> {
    let all = variants(model, seed);
    let scales = Scales::Followed;
    for variant in all.iter().cycle().skip(seed as usize % all.len()).take(2) {
        let mut simulated = quantize(model, ranges, Method::Max, variant)?;
        share_pair_scales(&mut simulated.graph);
        if !Trainable::of(&simulated).blocked.is_empty() {
            // `finetune` refuses it by name.
            continue;
        }
        let options = Options { scales, ..Options::default() };
        let mut program = match Program::compile(&simulated, &options) {
            // Only a range around zero, or from zero, can follow.
            Err(error) if scales == Scales::Followed && error.message.contains("not symmetric") => {
                continue;
            }
            program => program.named(&format!("train {scales:?}: compile"))?,
        };
        if program.parameters().is_empty() {
            continue;
        }
        program.train(true);
        for _ in 0..STEPS {
            let loss = loss(&mut program, world)?.0;
            if !loss.requires_grad() {
                return Ok(());
            }
            let gradients = gradients(&program, &loss)?;
            let _no_grad = tch::no_grad_guard();
            for (parameter, gradient) in gradients {
                let norm = gradient.norm().double_value(&[]);
                let own = parameter.tensor.norm().double_value(&[]);
                if norm > 0.0 && own > 0.0 {
                    let mut tensor = parameter.tensor.shallow_clone();
                    let step = &gradient * (STEP * own / norm);
                    let changed = &tensor - step;
                    // As the optimizer keeps scales above zero.
                    let changed = match parameter.role {
                        qpipe_worker::interp::Role::Scale => changed.maximum(&(&tensor * 0.5)),
                        _ => changed,
                    };
                    tensor.copy_(&changed);
                }
            }
            for followed in program.followed() {
                let mut scale = followed.scale.shallow_clone();
                scale.copy_(&(&scale * 1.03));
            }
        }
        program.train(false);
        let what = format!("train {scales:?}");
        program.write_back(&mut simulated).named(&what)?;
        onnx::check(&simulated).named(&what)?;
        round_trip(&simulated)?;
        let names = outputs(&simulated);
        let own = {
            let _no_grad = tch::no_grad_guard();
            let images = [world.images.shallow_clone()];
            program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).named(&what)?
        };
        let written = world.libtorch(&simulated, &names).named(&what)?;
        for (name, own) in names.iter().zip(own) {
            let far = (&own - &written[name]).abs().max().double_value(&[]);
            let most = own.abs().max().double_value(&[]);
            if far.is_nan() || far > 1e-4 * (1.0 + most) {
                return fail(&format!("{what}: what was written computes something else"), name);
            }
        }
        deployed(&simulated, world, variant).map_err(|mut failure| {
            failure.what = format!("{what}: {}", failure.what);
            failure.detail += &format!("; {variant:?}");
            failure
        })?;
    }
    Ok(())
}

/// Gradients of the float model against differences along themselves.
pub fn differences(model: &Model, _: &Ranges, world: &World, _: u64) -> Held<()> {
    if !Trainable::of(model).blocked.is_empty() {
        return Ok(());
    }
    let mut program = Program::compile(model, &Options::default()).named("train: compile")?;
    // A weight of 0 stands on kinks: all that it makes are ties of a MaxPool.
    for parameter in program.parameters() {
        let mut tensor = parameter.tensor.shallow_clone();
        let numbers = Tensor::arange(tensor.numel() as i64, (Kind::Float, tch::Device::Cpu));
        let by = (numbers * 1.713_f64 + 0.3).sin().reshape(tensor.size()) * 0.02;
        tensor.copy_(&(&tensor + by));
    }
    program.train(true);
    let (value, size) = loss(&mut program, world)?;
    if !value.requires_grad() {
        return Ok(());
    }
    let found: Vec<(String, Tensor, Tensor)> = gradients(&program, &value)?
        .into_iter()
        .map(|(parameter, gradient)| {
            (parameter.name.clone(), parameter.tensor.shallow_clone(), gradient.copy())
        })
        .collect();
    let _no_grad = tch::no_grad_guard();
    let middle = value.double_value(&[]);
    for (name, mut tensor, gradient) in found {
        let norm = gradient.norm().double_value(&[]);
        // Its whole effect is rounding: a bias before a normalization by the batch.
        if norm * WIDTHS[0] <= 250.0 * ROUNDING * size {
            continue;
        }
        let direction = gradient / norm;
        let before = tensor.copy();
        let mut slopes = Vec::new();
        let mut right = false;
        // A kink that is crossed spoils one width or one side, not all of them.
        for width in WIDTHS {
            let rounding = ROUNDING * size / width;
            // Rounding alone could give any slope.
            if right || rounding > 0.1 * norm {
                break;
            }
            let mut at = |by: f64| -> Held<f64> {
                tensor.copy_(&(&before + &direction * by));
                Ok(loss(&mut program, world)?.0.double_value(&[]))
            };
            let (after, before) = (at(width)?, at(-width)?);
            for slope in
                [(after - before) / 2.0, after - middle, middle - before].map(|rise| rise / width)
            {
                slopes.push(slope);
                right |= (slope - norm).abs() <= (0.03 * norm + rounding).min(0.1 * norm);
            }
        }
        tensor.copy_(&before);
        if !right {
            return fail(
                "train: a gradient is wrong",
                format!("{name}: {norm}, differences {slopes:?}"),
            );
        }
    }
    Ok(())
}
