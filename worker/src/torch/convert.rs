//! Constants of the graph to tensors of libtorch and back.

use tch::{Device, Kind, Tensor};

use crate::graph::{DType, TensorData};
use crate::{Error, Result};

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

/// libtorch's name of an element type.
///
/// # Errors
/// uint16, uint32 and uint64, with which libtorch cannot compute.
pub fn kind_of(dtype: DType) -> Result<Kind> {
    let row = KINDS.iter().find(|row| row.0 == dtype);
    row.map(|row| row.1)
        .ok_or_else(|| Error::user(format!("{} cannot be computed with", dtype.name())))
}

/// ONNX's name of an element type.
///
/// # Errors
/// Complex and quantized types of libtorch.
pub fn dtype_of(kind: Kind) -> Result<DType> {
    let row = KINDS.iter().find(|row| row.1 == kind);
    row.map(|row| row.0).ok_or_else(|| Error::bug(format!("no element type for {kind:?}")))
}

/// Whether a tensor's elements are floating.
pub fn is_float(tensor: &Tensor) -> bool {
    matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

/// A tensor of the same shape with a copy of the elements, on `device`.
pub fn to_tensor(data: &TensorData, device: Device) -> Result<Tensor> {
    let kind = kind_of(data.dtype)?;
    if data.is_empty() {
        return Ok(Tensor::f_empty(&data.shape, (kind, device))?);
    }
    let tensor = Tensor::f_from_data_size(&data.bytes, &data.shape, kind)?;
    Ok(if device == Device::Cpu { tensor } else { tensor.f_to_device(device)? })
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
    fn scalars_and_empty_tensors_come_back() {
        for data in [TensorData::i64(&[], &[7]), TensorData::f32(&[0, 4], &[])] {
            let tensor = to_tensor(&data, Device::Cpu).unwrap();
            assert_eq!(tensor_data(&tensor).unwrap(), data);
        }
    }
}
