//! Empirical bias correction (Nagel et al. 2019, section 4.2 and appendix D, <https://arxiv.org/abs/1906.04721>).
//!
//! Rounding shifts the mean of what a layer makes, channel by channel; the shift over calibration images is taken from the bias.

use tch::{Device, Kind, Tensor};

use super::layer::{Layer, own_bias};
use super::walk::Walk;
use crate::Result;
use crate::graph::TensorData;

/// How far the means of channels were from the float layer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// Largest over channels, by the standard deviation of what the float layer makes: no unit.
    pub largest: f64,
    /// Whether the bias was corrected: MatMul has none.
    pub corrected: bool,
}

/// Compares the outputs of a layer that has just run in both walks, and corrects the quantized one's bias and outputs.
pub(super) fn correct(float: &Walk, quantized: &mut Walk, layer: &Layer) -> Result<Shift> {
    let _no_grad = tch::no_grad_guard();
    let output = quantized.graph().nodes[layer.node].outputs[0].clone();
    let (expected, square) = moments(&float.values(&output)?, layer.output_axis)?;
    let (found, _) = moments(&quantized.values(&output)?, layer.output_axis)?;
    let difference = expected.f_sub(&found)?;
    let mean = expected.f_mean(Kind::Double)?.f_double_value(&[])?;
    let deviation = (square - mean * mean).max(0.0).sqrt();
    let largest = difference.f_abs()?.f_max()?.f_double_value(&[])?;
    let largest = if deviation > 0.0 { largest / deviation } else { 0.0 };
    let Some(bias) = own_bias(quantized.graph_mut(), layer)? else {
        return Ok(Shift { largest, corrected: false });
    };
    let difference: Vec<f64> = Vec::try_from(difference.f_to_device(Device::Cpu)?.f_contiguous()?)?;
    let data = &quantized.graph().initializers[&bias];
    let values = data.to_f32()?;
    let corrected: Vec<f32> = values
        .iter()
        .zip(&difference)
        .map(|(&value, &shift)| (f64::from(value) + shift) as f32)
        .collect();
    let by: Vec<f32> =
        corrected.iter().zip(&values).map(|(after, before)| after - before).collect();
    let data = TensorData::f32(&data.shape.clone(), &corrected);
    quantized.graph_mut().initializers.insert(bias, data);
    let mut shape = vec![1_i64; quantized.values(&output)?.first().map_or(0, Tensor::dim)];
    let axis = if layer.output_axis < 0 {
        shape.len().saturating_sub(1)
    } else {
        layer.output_axis as usize
    };
    if let Some(extent) = shape.get_mut(axis) {
        *extent = -1;
    }
    quantized.shift(&output, &Tensor::f_from_slice(&by)?.f_reshape(&shape)?)?;
    Ok(Shift { largest, corrected: true })
}

/// The mean of each channel over all batches and places, `[C]` in double precision, and the mean of all squares.
fn moments(batches: &[Tensor], axis: i64) -> Result<(Tensor, f64)> {
    let (mut sum, mut square, mut count) = (None::<Tensor>, 0.0, 0);
    for batch in batches {
        let channels = batch.f_movedim_int(axis, 0)?.f_flatten(1, -1)?.f_to_kind(Kind::Double)?;
        square += channels.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let each = channels.f_sum_dim_intlist(1, false, Kind::Double)?;
        count += channels.size()[1];
        sum = Some(match sum {
            Some(sum) => sum.f_add(&each)?,
            None => each,
        });
    }
    let sum = sum.ok_or_else(|| crate::Error::bug("no batch"))?;
    let all = (count * sum.size()[0]).max(1) as f64;
    Ok((sum.f_div_scalar(count.max(1) as f64)?, square / all))
}
