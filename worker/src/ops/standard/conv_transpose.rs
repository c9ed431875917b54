//! `ConvTranspose`: the gradient of a convolution with respect to its input.
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>
//!
//! Opsets: 1, 11 (defaults of strides and dilations), 22 (bfloat16). `[N, C, spatial…]`, `[C, M / group, kernel…]`,
//! `[M]` to `[N, M, spatial…]`; one to three spatial axes, all attributes. Where pads follow from `output_shape`
//! the odd one goes to the begin, as the standard says, or with SAME_UPPER to the end; what it adds is at the end.

use tch::Tensor;

use crate::graph::Node;
use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::{Error, Result};

pub const OP: Op = Op::new("ConvTranspose", &[1, 11, 22], |prepare| {
    let attributes = Attributes::of(prepare.node)?;
    single(move |a| attributes.run(a.get(0)?, a.get(1)?, a.optional(2)))
})
.shapes(rules::conv_transpose);

#[derive(Clone, Copy, PartialEq, Eq)]
enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
}

struct Attributes {
    kernel_shape: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
    dilations: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    output_padding: Option<Vec<i64>>,
    output_shape: Option<Vec<i64>>,
    auto_pad: AutoPad,
    groups: i64,
}

impl Attributes {
    fn of(node: &Node) -> Result<Self> {
        let list = |name: &str| Ok::<_, Error>(node.ints(name)?.map(<[i64]>::to_vec));
        // Up to 2^31, so that no length overflows.
        let most = i64::from(i32::MAX);
        let at_least = |name: &str, least: i64| match list(name)? {
            Some(values) if values.iter().any(|value| !(least..=most).contains(value)) => {
                Err(Error::user(format!("`{name}` {values:?}, expected {least} to {most} each")))
            }
            values => Ok(values),
        };
        let mut pads = at_least("pads", -most)?;
        let auto_pad = match node.text("auto_pad", "NOTSET")? {
            "NOTSET" => AutoPad::Explicit,
            "VALID" => {
                pads = None;
                AutoPad::Explicit
            }
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => return Err(Error::user(format!("`auto_pad` = {other} is not defined"))),
        };
        Ok(Self {
            kernel_shape: list("kernel_shape")?,
            strides: at_least("strides", 1)?,
            dilations: at_least("dilations", 1)?,
            pads,
            output_padding: at_least("output_padding", 0)?,
            output_shape: at_least("output_shape", 0)?,
            auto_pad,
            groups: node.int("group", 1)?,
        })
    }

    fn run(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (size, weight_size) = (input.size(), weight.size());
        let rank = size.len().saturating_sub(2);
        let kernel = weight_size.get(2..).unwrap_or_default();
        let fits = kernel.len() == rank && (1..=3).contains(&rank);
        if !fits || self.kernel_shape.as_ref().is_some_and(|shape| shape != kernel) {
            return Err(Error::user(format!(
                "an input of shape {size:?}, a weight of shape {weight_size:?} and `kernel_shape` {:?} do not fit",
                self.kernel_shape
            )));
        }
        let strides = list("strides", &self.strides, rank, 1)?;
        let dilations = list("dilations", &self.dilations, rank, 1)?;
        let extra = list("output_padding", &self.output_padding, rank, 0)?;
        // Length of each axis before pads take from it.
        let whole: Vec<i64> = (0..rank)
            .map(|i| strides[i] * (size[i + 2] - 1) + (kernel[i] - 1) * dilations[i] + 1)
            .collect();
        let (begin, end) = self.pads(&size[2..], &strides, &whole, &extra)?;
        let native = (0..rank).all(|i| {
            // libtorch takes pads alike at both ends and less output padding than a step.
            begin[i] >= 0 && begin[i] == end[i] && extra[i] < strides[i].max(dilations[i])
        });
        if native {
            return self.transposed(input, weight, bias, [strides, begin, dilations, extra]);
        }
        let zeros = vec![0; rank];
        let none = [strides, zeros.clone(), dilations, zeros];
        let full = self.transposed(input, weight, None, none)?;
        let margins = (0..rank).rev().flat_map(|i| [-begin[i], extra[i] - end[i]]);
        let cut = full.f_constant_pad_nd(margins.collect::<Vec<_>>())?;
        let Some(bias) = bias else { return Ok(cut) };
        let mut shape = vec![1; rank + 2];
        shape[1] = -1;
        Ok(cut.f_add(&bias.f_reshape(shape)?)?)
    }

    /// libtorch's own; `[strides, pads, dilations, output padding]`. By the name of its axes: on a CPU autocast does not know `convolution`.
    fn transposed(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        [strides, pads, dilations, extra]: [Vec<i64>; 4],
    ) -> Result<Tensor> {
        let groups = self.groups;
        Ok(match strides.len() {
            1 => input.f_conv_transpose1d(weight, bias, strides, pads, extra, groups, dilations)?,
            2 => input.f_conv_transpose2d(weight, bias, strides, pads, extra, groups, dilations)?,
            _ => input.f_conv_transpose3d(weight, bias, strides, pads, extra, groups, dilations)?,
        })
    }

    /// How much is cut from the begin and the end of each axis, before `extra` is added to the end.
    fn pads(
        &self,
        spatial: &[i64],
        strides: &[i64],
        whole: &[i64],
        extra: &[i64],
    ) -> Result<(Vec<i64>, Vec<i64>)> {
        let rank = spatial.len();
        let same = || spatial.iter().zip(strides).map(|(input, stride)| input * stride).collect();
        let lengths: Option<Vec<i64>> = match &self.output_shape {
            // Old exporters give the whole shape, batch and channels too.
            Some(shape) if shape.len() == rank + 2 => Some(shape[2..].to_vec()),
            Some(_) => Some(list("output_shape", &self.output_shape, rank, 0)?),
            None if self.auto_pad != AutoPad::Explicit => Some(same()),
            None => None,
        };
        let Some(lengths) = lengths else {
            let pads = list("pads", &self.pads, 2 * rank, 0)?;
            return Ok((pads[..rank].to_vec(), pads[rank..].to_vec()));
        };
        let split = lengths.iter().enumerate().map(|(i, length)| {
            let total = whole[i] + extra[i] - length;
            // An output longer than what the input reaches goes on at the end.
            if total < 0 {
                return (0, total);
            }
            let small = total / 2;
            if self.auto_pad == AutoPad::SameUpper {
                (small, total - small)
            } else {
                (total - small, small)
            }
        });
        Ok(split.unzip())
    }
}

fn list(name: &str, values: &Option<Vec<i64>>, count: usize, default: i64) -> Result<Vec<i64>> {
    match values {
        None => Ok(vec![default; count]),
        Some(values) if values.len() == count => Ok(values.clone()),
        Some(values) => Err(Error::user(format!("`{name}` {values:?}, expected {count} of them"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;

    #[test]
    fn what_output_shape_adds_and_takes_is_where_the_standard_says() {
        let run = |length: i64, auto_pad: &str| {
            let node = Node::new("n", "ConvTranspose", &["x", "w"], &["y"])
                .with("strides", Attribute::Ints(vec![2]))
                .with("output_shape", Attribute::Ints(vec![length]))
                .with("auto_pad", Attribute::String(auto_pad.into()));
            let x = Tensor::from_slice(&[1.0_f32, 2.0]).reshape([1, 1, 2]);
            let w = Tensor::from_slice(&[1.0_f32, 10.0, 100.0]).reshape([1, 1, 3]);
            let y = Attributes::of(&node).unwrap().run(&x, &w, None).unwrap();
            crate::torch::tensor_data(&y).unwrap().to_f32().unwrap()
        };
        assert_eq!(run(5, "NOTSET"), [1.0, 10.0, 102.0, 20.0, 200.0]);
        assert_eq!(run(4, "NOTSET"), [10.0, 102.0, 20.0, 200.0]);
        assert_eq!(run(4, "SAME_UPPER"), [1.0, 10.0, 102.0, 20.0]);
        assert_eq!(run(7, "NOTSET"), [1.0, 10.0, 102.0, 20.0, 200.0, 0.0, 0.0]);
    }
}
