//! `TensorProto` to [`TensorData`] and back.

use bytes::Bytes;
use prost::Message;

use super::external::External;
use super::proto::TensorProto;
use crate::graph::{DType, TensorData};
use crate::{Error, Result};

const EXTERNAL: i32 = 1;

/// A tensor from an encoded `TensorProto`, such as the `.pb` files of ONNX's own tests: its name and itself.
pub fn parse_tensor(bytes: Bytes) -> Result<(String, TensorData)> {
    let proto = TensorProto::decode(bytes)
        .map_err(|error| Error::user(format!("not an ONNX tensor: {error}")))?;
    let name = proto.name.clone();
    let number = proto.data_type;
    let data = decode(proto, &mut External::beside(None))?;
    let data = data.ok_or_else(|| {
        Error::user(format!("tensor `{name}`: element type {number} is not supported"))
    })?;
    Ok((name, data))
}

/// The tensor in `proto`; `None` where its element type is not one of [`DType`].
pub fn decode(proto: TensorProto, external: &mut External) -> Result<Option<TensorData>> {
    let Some(dtype) = DType::from_onnx(proto.data_type) else { return Ok(None) };
    let name = proto.name.clone();
    let place = || format!("tensor `{name}`");
    let count = element_count(&proto.dims).map_err(|error| error.at(place()))?;
    let size = dtype.byte_count(count);
    let size = size.ok_or_else(|| Error::user("is too large").at(place()))?;
    if proto.segment.is_some() {
        return Err(Error::user("is stored in segments, which are not supported").at(place()));
    }
    let shape = proto.dims.clone();
    let bytes = if proto.data_location == Some(EXTERNAL) {
        external.bytes(&proto.external_data).map_err(|error| error.at(place()))?
    } else if let Some(raw) = proto.raw_data {
        raw
    } else {
        typed(dtype, proto)
    };
    if bytes.len() != size {
        return Err(Error::user(format!(
            "has {} bytes of data, but shape {shape:?} of {} needs {size}",
            bytes.len(),
            dtype.name(),
        ))
        .at(place()));
    }
    Ok(Some(TensorData { dtype, shape, bytes }))
}

fn element_count(dims: &[i64]) -> Result<usize> {
    dims.iter().try_fold(1usize, |count, &dim| {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::user(format!("has a negative extent: {dims:?}")))?;
        count.checked_mul(dim).ok_or_else(|| Error::user(format!("is too large: {dims:?}")))
    })
}

/// Elements from the field that the standard assigns to their type.
fn typed(dtype: DType, proto: TensorProto) -> Bytes {
    let narrow = proto.int32_data.iter();
    let bytes: Vec<u8> = match dtype {
        DType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I32 => narrow.flat_map(|v| v.to_le_bytes()).collect(),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            narrow.flat_map(|v| [v.to_le_bytes()[0], v.to_le_bytes()[1]]).collect()
        }
        DType::I8
        | DType::U8
        | DType::Bool
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::U4
        | DType::I4
        | DType::F4E2M1
        | DType::U2
        | DType::I2 => narrow.map(|v| v.to_le_bytes()[0]).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => proto.uint64_data.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect(),
    };
    bytes.into()
}

/// The message of a tensor, its elements as `raw_data`.
pub fn encode(name: &str, data: &TensorData) -> TensorProto {
    TensorProto {
        dims: data.shape.clone(),
        data_type: data.dtype.onnx(),
        name: name.to_owned(),
        raw_data: Some(data.bytes.clone()),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(proto: &TensorProto) -> Result<TensorData> {
        parse_tensor(proto.encode_to_vec().into()).map(|(_, data)| data)
    }

    #[test]
    fn typed_fields_become_little_endian_bytes() {
        let float = TensorProto {
            dims: vec![2],
            data_type: 1,
            float_data: vec![1.5, -2.0],
            ..TensorProto::default()
        };
        assert_eq!(parse(&float).unwrap(), TensorData::f32(&[2], &[1.5, -2.0]));
        let int8 = TensorProto {
            dims: vec![2],
            data_type: 3,
            int32_data: vec![-128, 127],
            ..TensorProto::default()
        };
        assert_eq!(parse(&int8).unwrap().to_i8().unwrap(), [-128, 127]);
        // Three elements of 4 bits lie in two bytes, one byte an entry.
        let int4 = TensorProto {
            dims: vec![3],
            data_type: 22,
            int32_data: vec![0x7F, 0x08],
            ..TensorProto::default()
        };
        let int4 = parse(&int4).unwrap();
        assert_eq!((int4.bytes.as_ref(), int4.len()), (&[0x7F, 0x08][..], 3));
    }

    #[test]
    fn hostile_shapes_are_errors() {
        let huge = TensorProto {
            dims: vec![i64::MAX, i64::MAX],
            data_type: 1,
            name: "w".to_owned(),
            ..TensorProto::default()
        };
        assert!(parse(&huge).unwrap_err().message.starts_with("tensor `w`: is too large"));
        let negative = TensorProto { dims: vec![-1], data_type: 1, ..TensorProto::default() };
        assert!(parse(&negative).unwrap_err().message.contains("negative extent"));
        let short = TensorProto { dims: vec![3], data_type: 1, ..TensorProto::default() };
        assert!(parse(&short).unwrap_err().message.contains("needs 12"));
    }
}
