//! `GlobalLpPool`: the p-norm over all of space. <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>
//!
//! Opsets: 2 (`p` an integer), 22 (bfloat16).

use crate::Error;
use crate::ops::kernel::{Op, single};
use crate::ops::pooling::spatial_axes;
use crate::shapes::rules;

pub const OP: Op = Op::new("GlobalLpPool", &[2, 22], |prepare| {
    let p = prepare.node.int("p", 2)?;
    if p < 1 {
        return Err(Error::user(format!("`p` = {p}, expected at least 1")));
    }
    single(move |a| {
        let input = a.get(0)?;
        let powers = input.f_abs()?.f_pow_tensor_scalar(p)?;
        let sum = powers.f_sum_dim_intlist(spatial_axes(input)?, true, input.kind())?;
        Ok(sum.f_pow_tensor_scalar(1.0 / p as f64)?)
    })
})
.shapes(rules::global_pool);

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::graph::{Attribute, Node};
    use crate::ops::{Arguments, Prepare};

    #[test]
    fn the_norm_of_each_channel() {
        let node = Node::new("n", "GlobalLpPool", &["x"], &["y"]).with("p", Attribute::Int(3));
        let (constants, types) = (vec![None], vec![None]);
        let device = tch::Device::Cpu;
        let prepare = Prepare { node: &node, opset: 17, device, constants, types };
        let kernel = (OP.prepare)(&prepare).unwrap();
        let x = Tensor::from_slice(&[-1.0_f32, 2.0, 0.0, -3.0]).reshape([1, 2, 2]);
        let y = kernel(&Arguments::of(&[Some(&x)])).unwrap().remove(0);
        let expected = Tensor::from_slice(&[9_f32.cbrt(), 3.0]).reshape([1, 2, 1]);
        assert!(y.allclose(&expected, 1e-6, 0.0, false), "{y}");
    }
}
