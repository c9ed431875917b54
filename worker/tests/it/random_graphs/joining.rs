//! What joins values, and what divides them.

use qpipe_worker::graph::{Attribute, TensorData};

use super::draft::{Draft, Value};
use super::layers::conv_to;

/// An addition, product or the like with another value: of the same extents, or one that is repeated along the positions.
pub fn residual(draft: &mut Draft, input: &Value) -> Option<()> {
    let broadcast = draft.chance(20);
    let fits = |other: &Value| match (&input.shape[..], &other.shape[..]) {
        ([c, h, w], [oc, oh, ow]) if broadcast => {
            other != input
                && (oc == c || *oc == 1)
                && [(oh, h), (ow, w)].iter().all(|(o, own)| o == own || **o == 1)
        }
        (own, other) => own == other,
    };
    let other = draft.choose(fits)?;
    let op = draft.pick(&["Add", "Add", "Add", "Add", "Add", "Mul", "Sub", "Max"]);
    let inputs =
        if draft.chance(50) { [&input.name, &other.name] } else { [&other.name, &input.name] };
    let inputs = inputs.map(String::as_str);
    draft.node(op, &inputs, &input.shape);
    Some(())
}

/// A residual block: two layers and the value before them.
pub fn residual_block(draft: &mut Draft, input: &Value) -> Option<()> {
    let channels = *input.shape.first()?;
    let first = conv_to(draft, input, channels)?;
    let first = draft.node("Relu", &[&first.name], &first.shape);
    let second = conv_to(draft, &first, channels)?;
    if second.shape != input.shape {
        return None;
    }
    let sum = draft.node("Add", &[&second.name, &input.name], &input.shape);
    if draft.chance(70) {
        draft.node("Relu", &[&sum.name], &sum.shape);
    }
    Some(())
}

/// An addition of, or a multiplication by, a constant of a number a channel, or of one.
pub fn constant(draft: &mut Draft, input: &Value) -> Option<()> {
    let op = draft.pick(&["Add", "Mul", "Sub", "Div"]);
    let extents: Vec<i64> = match &input.shape[..] {
        _ if draft.chance(30) => vec![],
        [channels, _, _] => vec![*channels, 1, 1],
        [.., last] => vec![*last],
        [] => return None,
    };
    let values: Vec<f32> =
        draft.random(&extents, 1.0, 0.2).into_iter().map(|value| value.abs().max(0.3)).collect();
    let constant = draft.constant(TensorData::f32(&extents, &values));
    let inputs = if op != "Div" && draft.chance(50) {
        [constant.as_str(), &input.name]
    } else {
        [input.name.as_str(), &constant]
    };
    draft.node(op, &inputs, &input.shape);
    Some(())
}

/// Squeeze and excite.
pub fn squeeze_excite(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, _, _] = &input.shape[..] else { return None };
    let pooled = super::pooling::means(draft, input, true)?;
    let small = (channels / 2).max(1);
    let [down, up] = [[channels, small], [small, channels]];
    let layer = |draft: &mut Draft, from: &Value, [inputs, outputs]: [i64; 2]| {
        let weight = draft.weight(&[outputs, inputs, 1, 1], inputs, 0);
        let bias = draft.random_constant(&[outputs], 0.0, 0.3);
        draft.node("Conv", &[&from.name, &weight, &bias], &[outputs, 1, 1])
    };
    let squeezed = layer(draft, &pooled, down);
    let bent = draft.node("Relu", &[&squeezed.name], &squeezed.shape);
    let excited = layer(draft, &bent, up);
    let gate = draft.pick(&["Sigmoid", "HardSigmoid"]);
    let gate = draft.node(gate, &[&excited.name], &excited.shape);
    let inputs =
        if draft.chance(50) { [&input.name, &gate.name] } else { [&gate.name, &input.name] };
    draft.node("Mul", &inputs.map(String::as_str), &input.shape);
    Some(())
}

/// Two or three values of the same positions, one of them twice now and then, and a constant of one image's channels never.
pub fn concat(draft: &mut Draft, input: &Value) -> Option<()> {
    let rank = input.shape.len();
    let axis = if rank == 3 { 0 } else { draft.below(rank) };
    let fits = |other: &Value| {
        other.shape.len() == rank
            && (0..rank).all(|at| at == axis || other.shape[at] == input.shape[at])
    };
    let count = draft.pick(&[1, 1, 2]);
    let mut joined = vec![input.clone()];
    for _ in 0..count {
        let other = draft.choose(fits)?;
        let place = draft.below(joined.len() + 1);
        joined.insert(place, other);
    }
    let extent = joined.iter().map(|value| value.shape[axis]).sum();
    if extent > 40 {
        return None;
    }
    let mut shape = input.shape.clone();
    shape[axis] = extent;
    let names: Vec<&str> = joined.iter().map(|value| value.name.as_str()).collect();
    draft.node("Concat", &names, &shape);
    let axis = if draft.chance(30) { axis as i64 - rank as i64 } else { axis as i64 + 1 };
    draft.set("axis", Attribute::Int(axis));
    Some(())
}

/// The axis that is divided, of those behind the batch, and its extent.
fn axis(draft: &mut Draft, input: &Value) -> Option<(usize, i64)> {
    let axis =
        if draft.chance(70) && input.shape.len() == 3 { 0 } else { draft.below(input.shape.len()) };
    let extent = input.shape[axis];
    (extent > 3).then_some((axis, extent))
}

pub fn split(draft: &mut Draft, input: &Value) -> Option<()> {
    let (axis, extent) = axis(draft, input)?;
    let first = if extent % 2 == 0 && draft.chance(60) {
        extent / 2
    } else {
        1 + draft.below(extent as usize - 1) as i64
    };
    let shapes = [first, extent - first].map(|part| {
        let mut shape = input.shape.clone();
        shape[axis] = part;
        shape
    });
    let even = first * 2 == extent && draft.chance(50);
    if even {
        draft.nodes("Split", &[&input.name], &shapes);
        if draft.opset >= 18 {
            draft.set("num_outputs", Attribute::Int(2));
        }
    } else {
        let parts = draft.ints(&[first, extent - first]);
        draft.nodes("Split", &[&input.name, &parts], &shapes);
    }
    draft.set("axis", Attribute::Int(axis as i64 + 1));
    Some(())
}

pub fn slice(draft: &mut Draft, input: &Value) -> Option<()> {
    let (axis, extent) = axis(draft, input)?;
    let begin = draft.below(extent as usize - 1) as i64;
    let length = 1 + draft.below((extent - begin) as usize) as i64;
    let step = draft.pick(&[1, 1, 1, 2]);
    let mut shape = input.shape.clone();
    shape[axis] = (length + step - 1) / step;
    let end = if begin + length == extent { i64::MAX } else { begin + length };
    let begin = if draft.chance(30) { begin - extent } else { begin };
    let ints: Vec<String> =
        [begin, end, axis as i64 + 1, step].into_iter().map(|value| draft.ints(&[value])).collect();
    draft.node("Slice", &[&input.name, &ints[0], &ints[1], &ints[2], &ints[3]], &shape);
    Some(())
}
