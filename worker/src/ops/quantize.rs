//! Quantization: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>.
//!
//! Opsets 10, 13 (`axis`), 19, 21 (`output_dtype`, blocks), 23 to 25. int8, uint8, int16 and, to dequantize,
//! int32; per tensor or per channel. Refused: blocks, types of 4 bits, float 8, uint16.
//!
//! A quantization followed by a dequantization with the same constants is one step, [`FakeQuantize`], with
//! the straight-through gradient inside the range (Jacob et al. 2018, <https://arxiv.org/abs/1712.05877>).

use tch::{Device, Kind, Tensor};

use super::kernel::{Kernel, Op, Prepare, axis_from_front, single};
use crate::graph::{DType, Node, TensorData};
use crate::{Error, Result, torch};

/// `QuantizeLinear`: saturate(round half to even(x / scale) + zero point).
pub const QUANTIZE_LINEAR: Op = Op::new("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25], quantize);

/// `DequantizeLinear`: (x − zero point) scale.
pub const DEQUANTIZE_LINEAR: Op =
    Op::new("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25], dequantize);

/// Least and greatest value of a quantized type.
pub fn range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::I8 => Some((-128, 127)),
        DType::U8 => Some((0, 255)),
        DType::I16 => Some((-32768, 32767)),
        _ => None,
    }
}

/// The type that a QuantizeLinear gives, from its zero point or attribute.
pub fn output_dtype(node: &Node, zero_point: Option<DType>) -> Result<DType> {
    match (zero_point, node.int("output_dtype", 0)?) {
        (Some(dtype), _) => Ok(dtype),
        (None, 0) => Ok(DType::U8),
        (None, number) => DType::from_onnx(i32::try_from(number).unwrap_or(0))
            .ok_or_else(|| Error::user(format!("`output_dtype` = {number} is not supported"))),
    }
}

fn common(prepare: &Prepare) -> Result<i64> {
    prepare.require_int("block_size", 0)?;
    prepare.require_int("precision", 0)?;
    prepare.node.int("axis", 1)
}

/// Scale or zero point of `[C]` in the shape that broadcasts along `axis`.
fn along(parameter: &Tensor, input: &Tensor, axis: i64) -> Result<Tensor> {
    if parameter.numel() == 1 {
        return Ok(parameter.f_reshape([0_i64; 0])?);
    }
    let axis = axis_from_front(axis, input.dim())? as usize;
    let channels = input.size()[axis];
    if parameter.dim() != 1 || parameter.size()[0] != channels {
        return Err(Error::user(format!(
            "scale or zero point of shape {:?} for {channels} channels",
            parameter.size()
        )));
    }
    let mut shape = vec![1; input.dim()];
    shape[axis] = -1;
    Ok(parameter.f_reshape(shape)?)
}

fn quantize(prepare: &Prepare) -> Result<Kernel> {
    let axis = common(prepare)?;
    let fixed = output_dtype(prepare.node, None)?;
    let has_zero_point = prepare.node.input(2).is_some();
    single(move |arguments| {
        let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
        let zero_point = arguments.optional(2);
        let dtype = match zero_point {
            Some(zero_point) if has_zero_point => torch::dtype_of(zero_point.kind())?,
            _ => fixed,
        };
        let (low, high) = range(dtype).ok_or_else(|| {
            Error::user(format!("quantization to {} is not supported", dtype.name()))
        })?;
        let rounded = x.f_div(&along(scale, x, axis)?)?.f_round()?;
        let moved = match zero_point {
            Some(zero) => rounded.f_add(&along(zero, x, axis)?.f_to_kind(Kind::Float)?)?,
            None => rounded,
        };
        Ok(moved.f_clamp(low, high)?.f_to_kind(torch::kind_of(dtype)?)?)
    })
}

fn dequantize(prepare: &Prepare) -> Result<Kernel> {
    let axis = common(prepare)?;
    single(move |arguments| {
        let (x, scale) = (arguments.get(0)?, arguments.get(1)?);
        let kind = if x.kind() == Kind::Int { Kind::Double } else { scale.kind() };
        let centred = match arguments.optional(2) {
            // In integers wide enough: two int8 may be 255 apart.
            Some(zero) => x
                .f_to_kind(Kind::Int64)?
                .f_sub(&along(zero, x, axis)?.f_to_kind(Kind::Int64)?)?
                .f_to_kind(kind)?,
            None => x.f_to_kind(kind)?,
        };
        Ok(centred.f_mul(&along(scale, x, axis)?.f_to_kind(kind)?)?.f_to_kind(scale.kind())?)
    })
}

/// Constants of a quantization that is executed as fake quantization.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeQuantize {
    scale: Vec<f32>,
    zero_point: Vec<i32>,
    axis: i64,
    range: (i64, i64),
}

impl FakeQuantize {
    /// From the constants of a QuantizeLinear or DequantizeLinear; `None` where it must be executed as it stands.
    pub fn of(
        node: &Node,
        scale: &TensorData,
        zero_point: Option<&TensorData>,
    ) -> Result<Option<Self>> {
        if scale.dtype != DType::F32 || node.int("block_size", 0)? != 0 || scale.is_empty() {
            return Ok(None);
        }
        let scale = scale.to_f32()?;
        let dtype = output_dtype(node, zero_point.map(|zero| zero.dtype))?;
        let zero_point = match (zero_point, dtype) {
            (None, _) => vec![0; scale.len()],
            (Some(zero), DType::I8) => zero.to_i8()?.into_iter().map(i32::from).collect(),
            (Some(zero), DType::U8) => zero.to_u8()?.into_iter().map(i32::from).collect(),
            _ => return Ok(None),
        };
        let Some(range) = range(dtype) else { return Ok(None) };
        if zero_point.len() != scale.len() {
            return Ok(None);
        }
        // The axis of a single scale says nothing.
        let axis = if scale.len() == 1 { 1 } else { node.int("axis", 1)? };
        if let Some(bad) = scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            return Err(
                Error::user(format!("scale {bad} is not a positive number")).at(node.place())
            );
        }
        Ok(Some(Self { scale, zero_point, axis, range }))
    }

    /// What runs it.
    pub fn kernel(self, device: Device) -> Result<Kernel> {
        let (low, high) = self.range;
        if let ([scale], [zero_point]) = (&self.scale[..], &self.zero_point[..]) {
            let (scale, zero_point) = (f64::from(*scale), i64::from(*zero_point));
            return single(move |arguments| {
                let x = arguments.get(0)?;
                Ok(x.f_fake_quantize_per_tensor_affine(scale, zero_point, low, high)?)
            });
        }
        let scale = Tensor::f_from_slice(&self.scale)?.f_to_device(device)?;
        let zero_point = Tensor::f_from_slice(&self.zero_point)?.f_to_device(device)?;
        let axis = self.axis;
        single(move |arguments| {
            let x = arguments.get(0)?;
            let axis = axis_from_front(axis, x.dim())?;
            Ok(x.f_fake_quantize_per_channel_affine(&scale, &zero_point, axis, low, high)?)
        })
    }
}
