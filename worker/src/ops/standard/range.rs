//! `Range`: `start` + i `delta`, before `limit`. <https://onnx.ai/onnx/operators/onnx__Range.html>
//!
//! Opsets: 11.

use tch::{Kind, Tensor};

use crate::ops::kernel::{Op, single};
use crate::shapes::rules;
use crate::torch::is_float;
use crate::{Error, Result};

/// More elements than any tensor has.
const MOST: f64 = (1_u64 << 40) as f64;

/// Three scalars to `[max(ceil((limit − start) / delta), 0)]`.
pub const OP: Op = Op::new("Range", &[11], |_| {
    single(|a| {
        let (start, limit, delta) = (a.get(0)?, a.get(1)?, a.get(2)?);
        let count = if is_float(start) { count_floats } else { count_ints };
        let count = count(start, limit, delta)?;
        let steps = Tensor::f_arange(count, (Kind::Int64, start.device()))?;
        let steps = steps.f_to_kind(start.kind())?;
        Ok(steps.f_mul(&delta.f_reshape([1])?)?.f_add(&start.f_reshape([1])?)?)
    })
})
.without_gradient()
.shapes(rules::range);

fn count_ints(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<i64> {
    let [start, limit, delta] = [start, limit, delta].map(|x| x.f_int64_value(&[]));
    let (start, limit, delta) = (i128::from(start?), i128::from(limit?), i128::from(delta?));
    if delta == 0 {
        return Err(Error::user("`delta` is 0"));
    }
    let (way, step) = if delta > 0 { (limit - start, delta) } else { (start - limit, -delta) };
    bounded(((way + step - 1).max(0) / step) as f64)
}

fn count_floats(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<i64> {
    let [start, limit, delta] = [start, limit, delta].map(|x| x.f_double_value(&[]));
    let (start, limit, delta) = (start?, limit?, delta?);
    if delta == 0.0 {
        return Err(Error::user("`delta` is 0"));
    }
    bounded(((limit - start) / delta).ceil().max(0.0))
}

fn bounded(count: f64) -> Result<i64> {
    if count < MOST { Ok(count as i64) } else { Err(Error::user(format!("{count} elements"))) }
}
