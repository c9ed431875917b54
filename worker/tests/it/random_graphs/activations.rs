//! Functions of single elements, as operators and from their parts.

use qpipe_worker::graph::Attribute;

use super::draft::{Draft, Value};

/// One of them, behind a value of any extents.
pub fn activation(draft: &mut Draft, input: &Value) -> Option<()> {
    let (x, shape) = (input.name.as_str(), &input.shape[..]);
    match draft.below(15) {
        0..=3 => drop(draft.node("Relu", &[x], shape)),
        4 => clip(draft, x, shape),
        5 => drop(draft.node("HardSwish", &[x], shape)),
        6 => {
            let gate = draft.raw("Sigmoid", &[x]);
            product(draft, x, &gate, shape);
        }
        7 => {
            draft.node("LeakyRelu", &[x], shape);
            draft.set("alpha", Attribute::Float(0.1));
        }
        8 => {
            // A slope for each channel: of images along the first axis behind the batch.
            let extents: Vec<i64> = match shape {
                [channels, _, _] => vec![*channels, 1, 1],
                [.., last] => vec![*last],
                [] => return None,
            };
            let slope = draft.random_constant(&extents, 0.25, 0.05);
            draft.node("PRelu", &[x, &slope], shape);
        }
        9 => drop(draft.node("Sigmoid", &[x], shape)),
        10 => gelu(draft, x, shape),
        11 => {
            let gate = draft.raw("HardSigmoid", &[x]);
            draft.set("alpha", Attribute::Float(1.0 / 6.0));
            product(draft, x, &gate, shape);
        }
        12 => drop(draft.node("Tanh", &[x], shape)),
        13 => {
            draft.node("Elu", &[x], shape);
        }
        _ => drop(draft.node("Identity", &[x], shape)),
    }
    Some(())
}

fn product(draft: &mut Draft, x: &str, gate: &str, shape: &[i64]) {
    let inputs = if draft.chance(50) { [x, gate] } else { [gate, x] };
    draft.node("Mul", &inputs, shape);
}

/// Bounds on both sides, on one, or none.
fn clip(draft: &mut Draft, x: &str, shape: &[i64]) {
    let least = draft.pick(&[0.0, 0.0, -1.0]);
    let least = draft.constant(qpipe_worker::graph::TensorData::f32(&[], &[least]));
    let most = draft.constant(qpipe_worker::graph::TensorData::f32(&[], &[6.0]));
    let inputs: &[&str] = match draft.below(6) {
        0 => &[x, &least],
        1 => &[x, "", &most],
        _ => &[x, &least, &most],
    };
    draft.node("Clip", inputs, shape);
}

/// As an operator where the opset has it, else of an Erf or by a Tanh.
fn gelu(draft: &mut Draft, x: &str, shape: &[i64]) {
    if draft.opset >= 20 && draft.chance(50) {
        draft.node("Gelu", &[x], shape);
        return;
    }
    let root = draft.number(std::f32::consts::SQRT_2);
    let scaled = draft.raw("Div", &[x, &root]);
    let bent = draft.raw("Erf", &[&scaled]);
    let one = draft.number(1.0);
    let sum = draft.raw("Add", &[&bent, &one]);
    let half = draft.number(0.5);
    if draft.chance(50) {
        let product = draft.raw("Mul", &[x, &sum]);
        draft.node("Mul", &[&product, &half], shape);
    } else {
        let halved = draft.raw("Mul", &[x, &half]);
        draft.node("Mul", &[&halved, &sum], shape);
    }
}
