//! `Pad`: margins filled with a constant or from the input; negative ones cut off.
//! <https://onnx.ai/onnx/operators/onnx__Pad.html>
//!
//! Opsets: 2 (`pads` and `value` attributes), 11 (inputs), 13 (bfloat16), 18 (`axes`), 19 (`wrap`), 21 to 25 (types). What is cut off
//! is cut before margins are taken from the input.

use tch::{Kind, Tensor};

use crate::ops::kernel::{Few, Kernel, Op, Prepare, axis_from_front, single};
use crate::shapes::rules;
use crate::{Error, Result, torch};

pub const OP: Op = Op::new("Pad", &[2, 11, 13, 18, 19, 21, 23, 24, 25], prepare).shapes(rules::pad);

/// Longest margin: longer than any tensor, and short enough to be counted.
const LONGEST: i64 = 1 << 31;

/// What a margin is filled with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Constant,
    /// The element at the edge.
    Edge,
    /// The input, mirrored at the element at the edge.
    Reflect,
    /// The input, from the other end.
    Wrap,
}

fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    let mode = match node.text("mode", "constant")? {
        "constant" => Mode::Constant,
        "edge" => Mode::Edge,
        "reflect" => Mode::Reflect,
        "wrap" if prepare.opset >= 19 => Mode::Wrap,
        other => return Err(Error::user(format!("`mode` = {other} is not defined"))),
    };
    let from_input = prepare.opset >= 11;
    let fixed_pads = prepare.moved_ints("pads", 11)?;
    let fixed_value = f64::from(node.float("value", 0.0)?);
    let given_value = Few::new(prepare, 2);
    single(move |a| {
        let input = a.get(0)?;
        let rank = input.dim();
        let pads = if from_input { a.ints(1)? } else { fixed_pads.clone() };
        let pads = pads.ok_or_else(|| Error::user("`pads` are missing"))?;
        let value = match from_input {
            true => given_value.first(a)?.unwrap_or(0.0),
            false => fixed_value,
        };
        let axes = a.ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
        if pads.len() != 2 * axes.len() {
            return Err(Error::user(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let mut margins = vec![(0, 0); rank];
        for (index, &axis) in axes.iter().enumerate() {
            let axis = axis_from_front(axis, rank)? as usize;
            margins[axis] = (pads[index], pads[axes.len() + index]);
        }
        if let Some(pad) = pads.iter().find(|pad| !(-LONGEST..=LONGEST).contains(*pad)) {
            return Err(Error::user(format!("a pad of {pad} elements")));
        }
        if mode == Mode::Constant {
            return Ok(input.f_pad(from_last(&margins), "constant", value)?);
        }
        if let Some(padded) = native(input, &margins, mode)? {
            return Ok(padded);
        }
        let start = input.shallow_clone();
        margins.iter().enumerate().try_fold(start, |x, (axis, &margin)| pad(&x, axis, margin, mode))
    })
}

/// As libtorch counts: from the last axis, before and after.
fn from_last(margins: &[(i64, i64)]) -> Vec<i64> {
    margins.iter().rev().flat_map(|&(begin, end)| [begin, end]).collect()
}

/// Images and their like by libtorch's own kernels.
fn native(input: &Tensor, margins: &[(i64, i64)], mode: Mode) -> Result<Option<Tensor>> {
    let name = match mode {
        Mode::Edge => "replicate",
        Mode::Reflect => "reflect",
        Mode::Constant | Mode::Wrap => return Ok(None),
    };
    let size = input.size();
    let fits = (3..=5).contains(&size.len())
        && torch::is_float(input)
        && input.numel() > 0
        && margins[..2].iter().all(|&margin| margin == (0, 0))
        && margins.iter().zip(&size).skip(2).all(|(&(begin, end), &extent)| {
            (0..extent).contains(&begin) && (0..extent).contains(&end)
        });
    if !fits {
        return Ok(None);
    }
    Ok(Some(input.f_pad(from_last(&margins[2..]), name, None)?))
}

/// One axis, as a selection of its elements.
fn pad(x: &Tensor, axis: usize, (begin, end): (i64, i64), mode: Mode) -> Result<Tensor> {
    if (begin, end) == (0, 0) {
        return Ok(x.shallow_clone());
    }
    let extent = x.size()[axis];
    // What is left after cutting.
    let (first, last) = ((-begin).max(0), extent - 1 - (-end).max(0));
    let (begin, end) = (begin.max(0), end.max(0));
    let left = last - first + 1;
    if left < 1 && (begin, end) != (0, 0) || left < 0 {
        return Err(Error::user(format!("axis {axis} of {extent} has nothing to pad with")));
    }
    let taken: Vec<i64> = (-begin..left + end).map(|at| first + source(at, left, mode)).collect();
    let taken = Tensor::f_from_slice(&taken)?.f_to_kind(Kind::Int64)?.f_to_device(x.device())?;
    Ok(x.f_index_select(axis as i64, &taken)?)
}

/// Which of `extent` elements stands at `at`, which may be before or behind them.
fn source(at: i64, extent: i64, mode: Mode) -> i64 {
    match mode {
        Mode::Constant | Mode::Edge => at.clamp(0, extent - 1),
        Mode::Wrap => at.rem_euclid(extent),
        Mode::Reflect => {
            let period = (2 * (extent - 1)).max(1);
            let at = at.rem_euclid(period);
            at.min(period - at).min(extent - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_longer_than_the_input_go_on() {
        let taken = |mode| (-4..7).map(|at| source(at, 3, mode)).collect::<Vec<_>>();
        assert_eq!(taken(Mode::Edge), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
        assert_eq!(taken(Mode::Reflect), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(taken(Mode::Wrap), [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(source(-2, 1, Mode::Reflect), 0);
    }

    #[test]
    fn what_is_cut_off_is_not_reflected() {
        let x = Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]);
        let padded = pad(&x, 0, (2, -1), Mode::Reflect).unwrap();
        assert_eq!(padded, Tensor::from_slice(&[2.0_f32, 1.0, 0.0, 1.0, 2.0]));
        assert!(pad(&x, 0, (1, -4), Mode::Edge).is_err());
    }
}
