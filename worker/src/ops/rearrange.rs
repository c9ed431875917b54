//! Axes moved, added and removed, tensors joined and picked from:
//! <https://onnx.ai/onnx/operators/onnx__Transpose.html> and its neighbours.
//!
//! Opsets: Transpose 1, 13, 21 to 25; Squeeze and Unsqueeze 11, 13 (axes become an input), 21 to 25; Concat 4, 11, 13;
//! Gather 1, 11 (negative indices), 13.

use tch::{Kind, Tensor};

use super::kernel::{Op, axis_from_front, single};
use crate::Error;

/// `Transpose`; without `perm` the axes are reversed.
pub const TRANSPOSE: Op = Op::new("Transpose", &[1, 13, 21, 23, 24, 25], |prepare| {
    let perm = prepare.node.ints("perm")?.map(<[i64]>::to_vec);
    single(move |a| {
        let input = a.get(0)?;
        let reversed = || (0..input.dim() as i64).rev().collect();
        Ok(input.f_permute(perm.clone().unwrap_or_else(reversed))?)
    })
});

/// `Squeeze`: removes axes of extent 1.
pub const SQUEEZE: Op = Op::new("Squeeze", &[1, 11, 13, 21, 23, 24, 25], |prepare| {
    let fixed = prepare.moved_ints("axes", 13)?;
    let from_input = prepare.opset >= 13;
    single(move |a| {
        let input = a.get(0)?;
        let axes = if from_input { a.ints(1)? } else { fixed.clone() };
        let Some(axes) = axes else { return Ok(input.f_squeeze()?) };
        for &axis in &axes {
            let axis = axis_from_front(axis, input.dim())?;
            if input.size()[axis as usize] != 1 {
                return Err(Error::user(format!(
                    "axis {axis} of {:?} is not of extent 1",
                    input.size()
                )));
            }
        }
        Ok(input.f_squeeze_dims(axes)?)
    })
});

/// `Unsqueeze`: inserts axes of extent 1; `axes` count in the output.
pub const UNSQUEEZE: Op = Op::new("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25], |prepare| {
    let fixed = prepare.moved_ints("axes", 13)?;
    single(move |a| {
        let input = a.get(0)?;
        let axes = match &fixed {
            Some(axes) => Some(axes.clone()),
            None => a.ints(1)?,
        };
        let axes = axes.ok_or_else(|| Error::user("`axes` are missing"))?;
        let rank = input.dim() + axes.len();
        let axes = axes.iter().map(|&axis| axis_from_front(axis, rank));
        let mut axes = axes.collect::<crate::Result<Vec<_>>>()?;
        axes.sort_unstable();
        let start = input.shallow_clone();
        axes.into_iter().try_fold(start, |x, axis| Ok(x.f_unsqueeze(axis)?))
    })
});

/// `Concat`.
pub const CONCAT: Op = Op::new("Concat", &[4, 11, 13], |prepare| {
    let axis = prepare.node.int("axis", 1)?;
    single(move |a| {
        let tensors: Vec<&Tensor> = a.tensors.iter().flatten().copied().collect();
        Ok(Tensor::f_cat(&tensors, axis)?)
    })
});

/// `Gather`: slices of `data` along `axis`, at `indices`.
pub const GATHER: Op = Op::new("Gather", &[1, 11, 13], |prepare| {
    let axis = prepare.node.int("axis", 0)?;
    single(move |a| {
        let (data, indices) = (a.get(0)?, a.get(1)?);
        let size = data.size();
        let axis = axis_from_front(axis, size.len())?;
        let extent = size[axis as usize];
        let flat = indices.f_to_device(data.device())?.f_to_kind(Kind::Int64)?;
        let flat = flat.f_reshape([-1])?;
        let flat = flat.f_where_self(&flat.f_ge(0)?, &flat.f_add_scalar(extent)?)?;
        let mut shape = size[..axis as usize].to_vec();
        shape.extend(indices.size());
        shape.extend(&size[axis as usize + 1..]);
        Ok(data.f_index_select(axis, &flat)?.f_reshape(shape)?)
    })
});
