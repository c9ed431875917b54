//! Constants of the graph to tensors of libtorch and back.

use tch::{Device, Kind, Tensor};

use crate::graph::{DType, TensorData};
use crate::{Error, Result};

/// Types that libtorch computes with as the standard says.
const KINDS: [(DType, Kind); 10] = [
    (DType::F32, Kind::Float),
    (DType::U8, Kind::Uint8),
    (DType::I8, Kind::Int8),
    (DType::I16, Kind::Int16),
    (DType::I32, Kind::Int),
    (DType::I64, Kind::Int64),
    (DType::Bool, Kind::Bool),
    (DType::F16, Kind::Half),
    (DType::F64, Kind::Double),
    (DType::BF16, Kind::BFloat16),
];

/// Types that only quantization and what moves elements know, and what holds their values: libtorch's
/// arithmetic with it is not theirs (it does not wrap or saturate at their range).
const CARRIED: [(DType, Kind); 12] = [
    (DType::F8E4M3FN, Kind::Float8e4m3fn),
    (DType::F8E4M3FNUZ, Kind::Float8e4m3fnuz),
    (DType::F8E5M2, Kind::Float8e5m2),
    (DType::F8E5M2FNUZ, Kind::Float8e5m2fnuz),
    (DType::F4E2M1, Kind::Float),
    (DType::U16, Kind::Int),
    (DType::U32, Kind::Int64),
    (DType::I7, Kind::Int8),
    (DType::U4, Kind::Uint8),
    (DType::I4, Kind::Int8),
    (DType::U2, Kind::Uint8),
    (DType::I2, Kind::Int8),
];

/// libtorch's name of an element type.
///
/// # Errors
/// Types with which libtorch cannot compute: uint16, uint32, uint64, floats of 8 bits, all of fewer bits.
pub fn kind_of(dtype: DType) -> Result<Kind> {
    let row = KINDS.iter().find(|row| row.0 == dtype);
    row.map(|row| row.1)
        .ok_or_else(|| Error::user(format!("{} cannot be computed with", dtype.name())))
}

/// What holds the values of an element type: [`kind_of`], or a wider type that tensors of it are made with.
///
/// # Errors
/// uint64 and float8e8m0.
pub fn carrier_of(dtype: DType) -> Result<Kind> {
    match CARRIED.iter().find(|row| row.0 == dtype) {
        Some(row) => Ok(row.1),
        None => kind_of(dtype),
    }
}

/// ONNX's name of an element type.
///
/// # Errors
/// Complex and quantized types of libtorch.
pub fn dtype_of(kind: Kind) -> Result<DType> {
    let float8 = &CARRIED[..4];
    let row = KINDS.iter().chain(float8).find(|row| row.1 == kind);
    row.map(|row| row.0).ok_or_else(|| Error::bug(format!("no element type for {kind:?}")))
}

/// Whether a tensor's elements are floating.
pub fn is_float(tensor: &Tensor) -> bool {
    matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

/// A tensor of the same shape with a copy of the elements, on `device`; of a type that libtorch cannot compute
/// with, the values in a wider one ([`carrier_of`]).
pub fn to_tensor(data: &TensorData, device: Device) -> Result<Tensor> {
    let kind = carrier_of(data.dtype)?;
    if data.is_empty() {
        return Ok(Tensor::f_empty(&data.shape, (kind, device))?);
    }
    let tensor = match data.dtype {
        DType::U16 => {
            let words = data.bytes.chunks_exact(2);
            let values: Vec<i32> =
                words.map(|w| i32::from(u16::from_le_bytes([w[0], w[1]]))).collect();
            Tensor::f_from_slice(&values)?.f_reshape(&data.shape)?
        }
        DType::U32 => {
            let words = data.bytes.chunks_exact(4);
            let values: Vec<i64> =
                words.map(|w| i64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]]))).collect();
            Tensor::f_from_slice(&values)?.f_reshape(&data.shape)?
        }
        dtype if dtype.bits() < 8 => unpack(data, kind)?,
        _ => Tensor::f_from_data_size(&data.bytes, &data.shape, kind)?,
    };
    Ok(if device == Device::Cpu { tensor } else { tensor.f_to_device(device)? })
}

/// Elements of 4 or 2 bits, of which the first lies in the lowest bits of a byte.
fn unpack(data: &TensorData, kind: Kind) -> Result<Tensor> {
    let bits = data.dtype.bits();
    let codes = data.bytes.iter().flat_map(|byte| {
        (0..8 / bits).map(move |place| (byte >> (place * bits)) & ((1_u8 << bits) - 1))
    });
    let signed = |code: u8| ((code << (8 - bits)) as i8) >> (8 - bits);
    let codes = codes.take(data.len());
    let tensor = match data.dtype {
        DType::F4E2M1 => Tensor::f_from_slice(&codes.map(float4).collect::<Vec<f32>>())?,
        DType::I4 | DType::I2 => Tensor::f_from_slice(&codes.map(signed).collect::<Vec<i8>>())?,
        _ => Tensor::f_from_slice(&codes.collect::<Vec<u8>>())?,
    };
    Ok(tensor.f_to_kind(kind)?.f_reshape(&data.shape)?)
}

/// The value of a float4e2m1: a sign, two bits of exponent, one of mantissa.
fn float4(code: u8) -> f32 {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let magnitude = MAGNITUDES[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// A constant with a copy of the tensor's elements, row by row whatever its memory layout.
pub fn tensor_data(tensor: &Tensor) -> Result<TensorData> {
    let dtype = dtype_of(tensor.f_kind()?)?;
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let count = tensor.numel();
    let mut bytes = vec![0; count * dtype.size()];
    if count > 0 {
        tensor.f_copy_data_u8(&mut bytes, count)?;
    }
    Ok(TensorData { dtype, shape: tensor.size(), bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_row_by_row() {
        let data = TensorData::f32(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let tensor = to_tensor(&data, Device::Cpu).unwrap();
        assert_eq!(tensor_data(&tensor).unwrap(), data);
        let turned = tensor_data(&tensor.transpose(0, 1)).unwrap();
        assert_eq!(turned.to_f32().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn small_types_are_unpacked_from_the_lowest_bits() {
        let values = |dtype, count, bytes: &'static [u8]| {
            let bytes = bytes::Bytes::from_static(bytes);
            let tensor = to_tensor(&TensorData { dtype, shape: vec![count], bytes }, Device::Cpu);
            let tensor = tensor.unwrap().to_kind(Kind::Float);
            tensor_data(&tensor).unwrap().to_f32().unwrap()
        };
        assert_eq!(values(DType::I4, 3, &[0x8F, 0x07]), [-1.0, -8.0, 7.0]);
        assert_eq!(values(DType::U4, 3, &[0x8F, 0x07]), [15.0, 8.0, 7.0]);
        assert_eq!(values(DType::I2, 5, &[0b10_01_00_11, 1]), [-1.0, 0.0, 1.0, -2.0, 1.0]);
        assert_eq!(values(DType::U2, 4, &[0b10_01_00_11]), [3.0, 0.0, 1.0, 2.0]);
        assert_eq!(values(DType::F4E2M1, 2, &[0xF1]), [0.5, -6.0]);
        assert_eq!(values(DType::U16, 1, &[0xFF, 0xFF]), [65535.0]);
        assert_eq!(values(DType::U32, 1, &[0, 0, 0, 0xFF]), [4_278_190_080.0]);
        assert_eq!(values(DType::F8E4M3FN, 2, &[0x7E, 0x81]), [448.0, -0.001_953_125]);
        assert_eq!(values(DType::F8E5M2, 1, &[0x7B]), [57344.0]);
    }

    #[test]
    fn scalars_and_empty_tensors_come_back() {
        for data in [TensorData::i64(&[], &[7]), TensorData::f32(&[0, 4], &[])] {
            let tensor = to_tensor(&data, Device::Cpu).unwrap();
            assert_eq!(tensor_data(&tensor).unwrap(), data);
        }
    }
}
