//! Batch normalization: <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>.
//!
//! Opsets 9, 14 (`training_mode`), 15 (types). `training_mode` = 1 in a file is refused: whether the batch's
//! statistics are taken is the caller's choice here. In training the running statistics are updated in place
//! as PyTorch does (unbiased variance); ONNX's `momentum` is one less PyTorch's.

use super::kernel::{Kernel, Op, Prepare, single};
use crate::{Error, Result};

/// `BatchNormalization`.
pub const BATCH_NORMALIZATION: Op = Op::new("BatchNormalization", &[9, 14, 15], prepare);

/// Input index of the running mean.
pub const RUNNING_MEAN: usize = 3;
/// Input index of the running variance.
pub const RUNNING_VAR: usize = 4;

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
