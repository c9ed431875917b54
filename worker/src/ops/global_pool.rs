//! Pooling over all of space: <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html>.
//!
//! Opsets 1, 22 (bfloat16). Any number of spatial axes.

use tch::Tensor;

use super::kernel::{Op, single};
use crate::{Error, Result};

/// `GlobalAveragePool`: `[N, C, spatial…]` to `[N, C, 1…]`.
pub const GLOBAL_AVERAGE_POOL: Op = Op::new("GlobalAveragePool", &[1, 22], |_| {
    single(|a| {
        let input = a.get(0)?;
        Ok(input.f_mean_dim(spatial(input)?, true, None)?)
    })
});

/// `GlobalMaxPool`: `[N, C, spatial…]` to `[N, C, 1…]`.
pub const GLOBAL_MAX_POOL: Op = Op::new("GlobalMaxPool", &[1, 22], |_| {
    single(|a| {
        let input = a.get(0)?;
        Ok(input.f_amax(spatial(input)?, true)?)
    })
});

fn spatial(input: &Tensor) -> Result<Vec<i64>> {
    if input.dim() < 3 {
        return Err(Error::user(format!("input of shape {:?} has no space", input.size())));
    }
    Ok((2..input.dim() as i64).collect())
}
