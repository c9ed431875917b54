//! What changes the positions of an image: pooling, resizing, padding.

use qpipe_worker::graph::Attribute;

use super::draft::{Draft, Value};
use super::layers::windowed;

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// MaxPool or AveragePool.
pub fn pool(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    let (kernel, stride, pads) = draft.pick(&[
        (2, 2, [0; 4]),
        (3, 1, [1; 4]),
        (3, 2, [1; 4]),
        (3, 2, [0, 0, 1, 1]),
        (2, 1, [0, 1, 1, 0]),
    ]);
    if height < 4 || width < 4 {
        return None;
    }
    let out = [
        windowed(height, pads[0] + pads[2], kernel, 1, stride),
        windowed(width, pads[1] + pads[3], kernel, 1, stride),
    ];
    let op = draft.pick(&["MaxPool", "AveragePool"]);
    draft.node(op, &[&input.name], &[channels, out[0], out[1]]);
    draft.set("kernel_shape", ints(&[kernel; 2]));
    draft.set("strides", ints(&[stride; 2]));
    draft.set("pads", ints(&pads));
    if op == "AveragePool" && draft.chance(40) {
        draft.set("count_include_pad", Attribute::Int(1));
    }
    Some(())
}

pub fn global(draft: &mut Draft, input: &Value) -> Option<()> {
    let keep = draft.chance(60);
    means(draft, input, keep).map(drop)
}

/// Means over all positions, `[C, 1, 1]` or `[C]`, in one of the forms of exporters.
pub fn means(draft: &mut Draft, input: &Value, keep: bool) -> Option<Value> {
    let &[channels, _, _] = &input.shape[..] else { return None };
    if draft.chance(50) {
        let op = if draft.chance(15) { "GlobalMaxPool" } else { "GlobalAveragePool" };
        let pooled = draft.node(op, &[&input.name], &[channels, 1, 1]);
        if keep {
            return Some(pooled);
        }
        return Some(draft.node("Flatten", &[&pooled.name], &[channels]));
    }
    let shape = if keep { vec![channels, 1, 1] } else { vec![channels] };
    let axes = draft.pick(&[[2, 3], [-2, -1], [-1, -2]]);
    Some(mean(draft, input, &axes, keep, &shape))
}

/// A ReduceMean in the form of the opset.
pub fn mean(draft: &mut Draft, input: &Value, axes: &[i64], keep: bool, shape: &[i64]) -> Value {
    let made = if draft.opset >= 18 {
        let axes = draft.ints(axes);
        draft.node("ReduceMean", &[&input.name, &axes], shape)
    } else {
        let made = draft.node("ReduceMean", &[&input.name], shape);
        draft.set("axes", ints(axes));
        made
    };
    if !keep {
        draft.set("keepdims", Attribute::Int(0));
    }
    made
}

/// A mean over one axis, of channels or tokens.
pub fn mean_of_axis(draft: &mut Draft, input: &Value) -> Option<()> {
    if input.shape.len() < 2 {
        return None;
    }
    let axis = draft.below(input.shape.len());
    let keep = draft.chance(50);
    let mut shape = input.shape.clone();
    if keep {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    mean(draft, input, &[axis as i64 + 1], keep, &shape);
    Some(())
}

pub fn resize(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    if height > 8 || width > 8 {
        return None;
    }
    let shape = [channels, 2 * height, 2 * width];
    let inputs = if draft.chance(70) {
        [
            String::new(),
            draft.constant(qpipe_worker::graph::TensorData::f32(&[4], &[1.0, 1.0, 2.0, 2.0])),
        ]
    } else {
        [String::new(), String::new()]
    };
    let sizes = inputs[1].is_empty().then(|| draft.raw("Shape", &[&input.name]));
    let sizes = sizes.map(|whole| {
        let (from, to) = (draft.ints(&[0]), draft.ints(&[2]));
        let first = draft.raw("Slice", &[&whole, &from, &to]);
        let last = draft.ints(&shape[1..]);
        let joined = draft.raw("Concat", &[&first, &last]);
        draft.set("axis", Attribute::Int(0));
        joined
    });
    let inputs: Vec<&str> =
        [input.name.as_str(), &inputs[0], &inputs[1]].into_iter().chain(sizes.as_deref()).collect();
    draft.node("Resize", &inputs, &shape);
    let text = |text: &str| Attribute::String(text.as_bytes().to_vec());
    if draft.chance(50) {
        draft.set("mode", text("linear"));
        let how = draft.pick(&["half_pixel", "align_corners", "pytorch_half_pixel"]);
        draft.set("coordinate_transformation_mode", text(how));
    } else if draft.chance(70) {
        draft.set("coordinate_transformation_mode", text("asymmetric"));
        draft.set("nearest_mode", text("floor"));
    }
    Some(())
}

pub fn pad(draft: &mut Draft, input: &Value) -> Option<()> {
    let &[channels, height, width] = &input.shape[..] else { return None };
    let [top, left, bottom, right] = draft.pick(&[[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 1]]);
    if height < 3 || width < 3 || height > 14 {
        return None;
    }
    let pads = draft.ints(&[0, 0, top, left, 0, 0, bottom, right]);
    let mode = draft.pick(&["constant", "constant", "reflect", "edge"]);
    let value = (mode == "constant" && draft.chance(50))
        .then(|| draft.constant(qpipe_worker::graph::TensorData::f32(&[], &[0.5])));
    let inputs: Vec<&str> =
        [Some(input.name.as_str()), Some(&pads), value.as_deref()].into_iter().flatten().collect();
    draft.node("Pad", &inputs, &[channels, height + top + bottom, width + left + right]);
    if mode != "constant" {
        draft.set("mode", Attribute::String(mode.as_bytes().to_vec()));
    }
    Some(())
}
