//! `BatchNormalization`: per channel, (x − mean) / √(variance + `epsilon`) scale + bias (Ioffe and Szegedy 2015,
//! <https://arxiv.org/abs/1502.03167>). <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>
//!
//! Opsets: 9, 14 (`training_mode`), 15 (types). `training_mode` = 1 in a file is refused: whether the batch's statistics
//! are taken is the caller's choice here. In training the running statistics are updated in place as PyTorch
//! does (unbiased variance); ONNX's `momentum` is one less PyTorch's.

use crate::graph::Node;
use crate::ops::kernel::{Kernel, Op, Prepare, single};
use crate::{Error, Result};

const NAME: &str = "BatchNormalization";

pub const OP: Op = Op::new(NAME, &[9, 14, 15], prepare).limits("training mode and its outputs");

const RUNNING_MEAN: usize = 3;
const RUNNING_VAR: usize = 4;

/// Indices of the inputs that a node changes in training: running mean and variance.
pub fn running_statistics(node: &Node) -> &'static [usize] {
    if node.op_type == NAME { &[RUNNING_MEAN, RUNNING_VAR] } else { &[] }
}

/// `[N, C, …]` and scale, bias, mean, variance of `[C]` to `[N, C, …]`.
fn prepare(prepare: &Prepare) -> Result<Kernel> {
    let node = prepare.node;
    prepare.require_int("training_mode", 0)?;
    if node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return Err(Error::user("outputs besides the first are not supported"));
    }
    let epsilon = f64::from(node.float("epsilon", 1e-5)?);
    let momentum = f64::from(node.float("momentum", 0.9)?);
    single(move |arguments| {
        let inputs = [1, 2, RUNNING_MEAN, RUNNING_VAR].map(|index| arguments.get(index));
        let [scale, bias, mean, variance] = inputs;
        Ok(arguments.get(0)?.f_batch_norm(
            Some(scale?),
            Some(bias?),
            Some(mean?),
            Some(variance?),
            arguments.training,
            1.0 - momentum,
            epsilon,
            true,
        )?)
    })
}
