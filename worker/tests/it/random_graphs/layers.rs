//! Layers with a weight.

use qpipe_worker::graph::Attribute;

use super::draft::{Draft, Value};

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// The output's extent of a window.
pub fn windowed(extent: i64, pads: i64, kernel: i64, dilation: i64, stride: i64) -> i64 {
    (extent + pads - dilation * (kernel - 1) - 1) / stride + 1
}

pub fn conv(draft: &mut Draft, input: &Value) -> Option<()> {
    let channels = draft.pick(&[4, 8, 8, 12, 16]);
    conv_to(draft, input, channels).map(drop)
}

/// A convolution with groups, dilation, stride and padding of all kinds.
pub fn conv_to(draft: &mut Draft, input: &Value, channels: i64) -> Option<Value> {
    let &[from, height, width] = &input.shape[..] else { return None };
    let [kh, kw] = draft.pick(&[[1, 1], [3, 3], [3, 3], [1, 3], [2, 2]]);
    let groups: Vec<i64> = [1, 2, 4, from]
        .into_iter()
        .filter(|group| from % group == 0 && channels % group == 0)
        .collect();
    let group = if draft.chance(60) { 1 } else { draft.pick(&groups) };
    let dilation = if kh == 3 && height > 6 && draft.chance(15) { 2 } else { 1 };
    let stride = if height > 6 && width > 6 && draft.chance(20) { 2 } else { 1 };
    let reach = [dilation * (kh - 1), dilation * (kw - 1)];
    // Top and left, bottom and right.
    let pads = match draft.below(4) {
        0 => [reach[0], 0, 0, reach[1]],
        1 => [0, reach[1], reach[0], 0],
        _ => [reach[0] / 2, reach[1] / 2, reach[0] - reach[0] / 2, reach[1] - reach[1] / 2],
    };
    let out = [
        windowed(height, pads[0] + pads[2], kh, dilation, stride),
        windowed(width, pads[1] + pads[3], kw, dilation, stride),
    ];
    let weight = draft.weight(&[channels, from / group, kh, kw], from / group * kh * kw, 0);
    let bias = (!draft.chance(30)).then(|| draft.random_constant(&[channels], 0.0, 0.3));
    let inputs: Vec<&str> =
        [Some(input.name.as_str()), Some(&weight), bias.as_deref()].into_iter().flatten().collect();
    let made = draft.node("Conv", &inputs, &[channels, out[0], out[1]]);
    for (key, value, default) in [
        ("pads", pads.to_vec(), vec![0; 4]),
        ("strides", vec![stride; 2], vec![1; 2]),
        ("dilations", vec![dilation; 2], vec![1; 2]),
    ] {
        if value != default || draft.chance(50) {
            draft.set(key, ints(&value));
        }
    }
    if group != 1 {
        draft.set("group", Attribute::Int(group));
    }
    Some(made)
}

pub fn conv_transpose(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[from, height, width] = &input.shape[..] else { return None };
    if height > 8 || width > 8 {
        return None;
    }
    let channels = draft.pick(&[4, 8]);
    let group = if from % 4 == 0 && draft.chance(25) { draft.pick(&[2, 4]) } else { 1 };
    let (kernel, pads, more) = draft.pick(&[(2, 0, 0), (3, 1, 1), (3, 0, 0), (4, 1, 0)]);
    let out = |extent: i64| (extent - 1) * 2 + kernel - 2 * pads + more;
    let weight = draft.weight(&[from, channels / group, kernel, kernel], from / group * 2, 1);
    let bias = draft.chance(60).then(|| draft.random_constant(&[channels], 0.0, 0.3));
    let inputs: Vec<&str> =
        [Some(input.name.as_str()), Some(&weight), bias.as_deref()].into_iter().flatten().collect();
    draft.node("ConvTranspose", &inputs, &[channels, out(height), out(width)]);
    draft.set("strides", ints(&[2, 2]));
    draft.set("pads", ints(&[pads; 4]));
    draft.set("output_padding", ints(&[more; 2]));
    if group != 1 {
        draft.set("group", Attribute::Int(group));
    }
    Some(())
}

/// Convolution, normalization, activation.
pub fn block(draft: &mut Draft, input: &Value) -> Option<()> {
    let channels = draft.pick(&[4, 8, 8, 16]);
    let made = conv_to(draft, input, channels)?;
    let made = if draft.chance(50) { batch_norm(draft, &made)? } else { made };
    super::activations::activation(draft, &made)
}

pub fn norm(draft: &mut Draft, input: &Value) -> Option<()> {
    batch_norm(draft, input).map(drop)
}

fn batch_norm(draft: &mut Draft, input: &Value) -> Option<Value> {
    let channels = *input.shape.first().filter(|_| input.shape.len() == 3)?;
    let scale = draft.random_constant(&[channels], 1.0, 0.2);
    let shift = draft.random_constant(&[channels], 0.0, 0.2);
    let mean = draft.random_constant(&[channels], 0.0, 0.2);
    let deviations: Vec<f32> =
        draft.random(&[channels], 1.0, 0.2).into_iter().map(|v| v.abs().max(0.1)).collect();
    let variance = draft.constant(qpipe_worker::graph::TensorData::f32(&[channels], &deviations));
    let inputs = [input.name.as_str(), &scale, &shift, &mean, &variance];
    Some(draft.node("BatchNormalization", &inputs, &input.shape.clone()))
}

/// A Gemm of vectors, in all its forms.
pub fn gemm(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[from] = &input.shape[..] else { return None };
    let to = draft.pick(&[4, 8, 10, 16]);
    let turned = draft.chance(50);
    let weight = if turned {
        draft.weight(&[to, from], from, 0)
    } else {
        draft.weight(&[from, to], from, 1)
    };
    let bias = match draft.below(4) {
        0 => None,
        1 => Some(draft.random_constant(&[1, to], 0.0, 0.3)),
        2 => Some(draft.random_constant(&[1], 0.0, 0.3)),
        _ => Some(draft.random_constant(&[to], 0.0, 0.3)),
    };
    let read_turned = draft.chance(10);
    let input = if read_turned {
        let name = draft.raw("Transpose", &[&input.name]);
        draft.set("perm", ints(&[1, 0]));
        name
    } else {
        input.name.clone()
    };
    let inputs: Vec<&str> =
        [Some(input.as_str()), Some(&weight), bias.as_deref()].into_iter().flatten().collect();
    draft.node("Gemm", &inputs, &[to]);
    for (key, set) in [("transB", turned), ("transA", read_turned)] {
        if set {
            draft.set(key, Attribute::Int(1));
        }
    }
    for key in ["alpha", "beta"] {
        if draft.chance(15) {
            let factor = draft.pick(&[0.5, 2.0]);
            draft.set(key, Attribute::Float(factor));
        }
    }
    Some(())
}

pub fn linear(draft: &mut Draft, input: &Value) -> Option<()> {
    let width = draft.pick(&[4, 8, 12, 16]);
    linear_to(draft, input, width).map(drop)
}

/// A MatMul with a constant, and a bias on either side of an Add, or none. The constant has a third axis now and then.
pub fn linear_to(draft: &mut Draft, input: &Value, to: i64) -> Option<Value> {
    let from = *input.shape.last()?;
    let weight = if input.shape.len() == 2 && draft.chance(10) {
        draft.random_constant(&[1, from, to], 0.0, (1.0 / from as f32).sqrt())
    } else {
        draft.weight(&[from, to], from, 1)
    };
    let mut shape = input.shape.clone();
    *shape.last_mut()? = to;
    let made = draft.node("MatMul", &[&input.name, &weight], &shape);
    if draft.chance(25) {
        return Some(made);
    }
    let bias = draft.random_constant(&[to], 0.0, 0.3);
    let inputs =
        if draft.chance(50) { [bias.as_str(), &made.name] } else { [made.name.as_str(), &bias] };
    Some(draft.node("Add", &inputs, &shape))
}
