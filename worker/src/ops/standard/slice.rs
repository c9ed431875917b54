//! `Slice`: from `starts` to `ends` along `axes`, in `steps`, which may be negative. <https://onnx.ai/onnx/operators/onnx__Slice.html>
//!
//! Opsets: 1 (all attributes, no steps), 10 (all inputs), 11 (negative axes), 13 (bfloat16).

use tch::{Kind, Tensor};

use crate::ops::kernel::{Op, axis_from_front, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("Slice", &[1, 10, 11, 13], |prepare| {
    let fixed = ["starts", "ends", "axes"].map(|name| prepare.moved_ints(name, 10));
    let [starts, ends, axes] = fixed;
    let (starts, ends, axes) = (starts?, ends?, axes?);
    let from_input = prepare.opset >= 10;
    single(move |a| {
        let given = |index, fixed: &Option<Vec<i64>>| {
            if from_input { a.ints(index) } else { Ok(fixed.clone()) }
        };
        let missing = |name: &str| Error::user(format!("`{name}` are missing"));
        let starts = given(1, &starts)?.ok_or_else(|| missing("starts"))?;
        let ends = given(2, &ends)?.ok_or_else(|| missing("ends"))?;
        let axes = given(3, &axes)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = a.ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let lengths = [ends.len(), axes.len(), steps.len()];
        if lengths != [starts.len(); 3] {
            return Err(Error::user("starts, ends, axes and steps differ in length"));
        }
        let mut part = a.get(0)?.shallow_clone();
        for (index, &axis) in axes.iter().enumerate() {
            part = slice(&part, axis, starts[index], ends[index], steps[index])?;
        }
        Ok(part)
    })
})
.shapes(rules::slice);

/// One axis; bounds beyond the tensor are its ends, as in NumPy.
fn slice(x: &Tensor, axis: i64, start: i64, end: i64, step: i64) -> Result<Tensor> {
    let axis = axis_from_front(axis, x.dim())?;
    let extent = x.size()[axis as usize];
    let from_front = |bound: i64| if bound < 0 { bound.saturating_add(extent) } else { bound };
    match step {
        0 => Err(Error::user("a step of 0")),
        1.. => {
            let bound = |bound| from_front(bound).clamp(0, extent);
            Ok(x.f_slice(axis, bound(start), bound(end).max(bound(start)), step)?)
        }
        _ => {
            // Down from `start` to before `end`; -1 is before the first.
            let bound = |bound| from_front(bound).clamp(-1, extent - 1);
            let (start, end) = (bound(start), bound(end));
            let count = ((start - end).max(0) + step.abs() - 1) / step.abs();
            let indices: Vec<i64> = (0..count).map(|index| start + index * step).collect();
            let indices = Tensor::f_from_slice(&indices)?.f_to_device(x.device())?;
            Ok(x.f_index_select(axis, &indices.f_to_kind(Kind::Int64)?)?)
        }
    }
}
