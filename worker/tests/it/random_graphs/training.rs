//! Fine-tuning a few steps: gradients are numbers, and what is written back is what was trained.

use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program, Scales, Trainable};
use tch::{Kind, Tensor};

use super::check::{Held, Named, fail};
use super::variant::{Variant, deployed};
use super::world::{Values, World, outputs, worst};

const STEPS: usize = 2;
/// Share of its own size that a step changes an element by, at most: scales stay above 0.
const STEP: f64 = 1e-2;
/// Least SQNR between the trained program and the model that it was written back to, dB.
const SAME: f64 = 80.0;

/// Trains a model with pairs by its outputs' mean square, with frozen and with learned scales, and deploys what comes of it.
pub fn check(simulated: &Model, world: &World, variant: &Variant) -> Held<()> {
    if !Trainable::of(simulated).blocked.is_empty() {
        // `finetune` refuses it by name.
        return Ok(());
    }
    for scales in [Scales::Frozen, Scales::Learned] {
        let what = |what: &str| format!("{:?}, {scales:?}: {what}", variant.target);
        let options = Options { scales, ..Options::default() };
        let mut program = Program::compile(simulated, &options).named(&what("compile"))?;
        program.train(true);
        for _ in 0..STEPS {
            step(&mut program, world, &what)?;
        }
        program.train(false);
        let mut trained = simulated.clone();
        program.write_back(&mut trained).named(&what("write back"))?;
        let names = outputs(&trained);
        let _no_grad = tch::no_grad_guard();
        let made = program.forward(&[world.images.shallow_clone()], Mode::Eval, &mut |_, _| Ok(()));
        let expected: Values = names.iter().cloned().zip(made.named(&what("run"))?).collect();
        let found = world.libtorch(&trained, &names).named(&what("the trained model"))?;
        let (name, decibels) = worst(&expected, &found);
        if decibels < SAME {
            return fail(
                &what("it is written back as another"),
                format!("{name}: {decibels:.1} dB"),
            );
        }
        deployed(&trained, world, variant)?;
    }
    Ok(())
}

fn step(program: &mut Program, world: &World, what: &dyn Fn(&str) -> String) -> Held<()> {
    let made = program.forward(&[world.images.shallow_clone()], Mode::Train, &mut |_, _| Ok(()));
    let made = made.named(&what("run"))?;
    let floats = made.iter().filter(|value| value.kind() == Kind::Float && value.requires_grad());
    let Some(loss) = floats.map(|value| value.square().mean(Kind::Float)).reduce(|a, b| a + b)
    else {
        return Ok(());
    };
    let gradients = program.gradients(&loss).named(&what("backward"))?;
    let _no_grad = tch::no_grad_guard();
    for (parameter, gradient) in program.parameters().iter().zip(gradients) {
        if !gradient.defined() {
            continue;
        }
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        let size = largest(&gradient);
        if !size.is_finite() {
            return fail(&what("a gradient is no number"), &parameter.name);
        }
        if size > 0.0 {
            let own = largest(&parameter.tensor);
            let mut tensor = parameter.tensor.shallow_clone();
            let most = tensor.abs() * STEP;
            let by = (gradient * (STEP * own / size)).minimum(&most).maximum(&most.neg());
            let _ = tensor.g_sub_(&by);
        }
    }
    Ok(())
}
