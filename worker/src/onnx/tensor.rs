//! `TensorProto` to [`TensorData`] and back.

use bytes::Bytes;
use prost::Message;

use super::data_file::DataFile;
use super::external::External;
use super::proto::{StringStringEntryProto, tensor as number};
use super::rope::Rope;
use super::wire::{self, Field, fields};
use crate::graph::{DType, OpaqueTensor, TensorData};
use crate::{Error, Result};

/// Key of a tensor's metadata that says which of the stored type's values a quantizer uses, where these are not all: the name of a type
/// that ONNX does not have.
const RANGE: &str = "qpipe.range";

/// More dimensions than any runtime takes.
const MOST_DIMENSIONS: usize = 64;

/// A tensor from an encoded `TensorProto`, such as the `.pb` files of ONNX's own tests: its name and itself.
pub fn parse_tensor(bytes: Bytes) -> Result<(String, TensorData)> {
    let tensor = decode(&bytes, &mut External::beside(None)).map_err(|e| e.at("the tensor"))?;
    match tensor.content {
        Content::Known(data) => Ok((tensor.name, data)),
        Content::Opaque(_) => Err(Error::user(format!(
            "tensor `{}`: element type {} is not supported",
            tensor.name, tensor.data_type
        ))),
    }
}

/// What a `TensorProto` holds.
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// ONNX's number of its element type.
    pub data_type: i64,
    /// Encoded fields beyond name, type, shape and elements.
    pub notes: Vec<u8>,
    /// The constant.
    pub content: Content,
}

/// A constant.
pub enum Content {
    /// Of a type that is understood.
    Known(TensorData),
    /// Of another.
    Opaque(OpaqueTensor),
}

/// The tensor that is encoded in `message`.
pub fn decode(message: &Bytes, external: &mut External) -> Result<Tensor> {
    let (mut name, mut data_type, mut dims) = (String::new(), 0, Vec::new());
    let (mut raw, mut entries, mut is_external) = (None, Vec::new(), false);
    let (mut typed, mut notes, mut segments) = (Vec::new(), Vec::new(), false);
    let mut range = None;
    for field in fields(message) {
        let field = field?;
        match field.number {
            number::DIMS => field.ints(|dim| dims.push(dim))?,
            number::DATA_TYPE => data_type = field.int()?,
            number::NAME => name = field.text()?,
            number::RAW_DATA => raw = Some(field.bytes()?),
            number::EXTERNAL_DATA => entries.push(entry(&field)?),
            number::DATA_LOCATION => is_external = field.int()? == number::EXTERNAL,
            number::SEGMENT => segments = true,
            number::METADATA_PROPS => {
                // A stranger's, of whatever kind, stays as it is.
                let own = entry(&field).ok().filter(|entry| entry.key == RANGE);
                match own.and_then(|entry| DType::from_name(&entry.value)) {
                    Some(dtype) => range = Some(dtype),
                    None => notes.extend_from_slice(&field.raw),
                }
            }
            number::FLOAT_DATA
            | number::INT32_DATA
            | number::INT64_DATA
            | number::DOUBLE_DATA
            | number::UINT64_DATA => typed.push(field),
            _ => notes.extend_from_slice(&field.raw),
        }
    }
    let place = |error: Error| error.at(format!("tensor `{name}`"));
    if segments {
        let error = Error::user("is stored in segments, which are not supported");
        return Err(place(error));
    }
    if is_external {
        raw = Some(external.bytes(&entries).map_err(place)?);
    }
    let dtype = i32::try_from(data_type).ok().and_then(DType::from_onnx);
    let narrower = |dtype| range.filter(|range: &DType| range.stored() == dtype).unwrap_or(dtype);
    let dtype = dtype.map(narrower);
    let Some(dtype) = dtype else {
        let data = raw.filter(|raw| !raw.is_empty());
        let content =
            Content::Opaque(OpaqueTensor { sparse: false, message: rest(message)?, data });
        return Ok(Tensor { name, data_type, notes, content });
    };
    let size = size(dtype, &dims).map_err(place)?;
    let bytes = match raw {
        Some(raw) => raw,
        None => elements(dtype, &typed).map_err(place)?,
    };
    if bytes.len() != size {
        return Err(place(Error::user(format!(
            "has {} bytes of data, but shape {dims:?} of {} needs {size}",
            bytes.len(),
            dtype.name(),
        ))));
    }
    let content = Content::Known(TensorData { dtype, shape: dims, bytes });
    Ok(Tensor { name, data_type, notes, content })
}

/// An entry of `external_data` or of the metadata.
pub fn entry(field: &Field) -> Result<StringStringEntryProto> {
    StringStringEntryProto::decode(field.bytes()?)
        .map_err(|error| Error::user(format!("external data: {error}")))
}

/// A tensor's message without raw elements, and without where they lie.
pub fn rest(message: &Bytes) -> Result<Vec<u8>> {
    const ELEMENTS: [u32; 3] = [number::RAW_DATA, number::EXTERNAL_DATA, number::DATA_LOCATION];
    let mut rest = Vec::new();
    for field in fields(message) {
        let field = field?;
        if !ELEMENTS.contains(&field.number) {
            rest.extend_from_slice(&field.raw);
        }
    }
    Ok(rest)
}

/// Bytes of a tensor.
fn size(dtype: DType, dims: &[i64]) -> Result<usize> {
    if dims.len() > MOST_DIMENSIONS {
        let error = format!("has {} dimensions; up to {MOST_DIMENSIONS} are read", dims.len());
        return Err(Error::user(error));
    }
    let count = dims.iter().try_fold(1usize, |count, &dim| {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::user(format!("has a negative extent: {dims:?}")))?;
        count.checked_mul(dim).ok_or_else(|| Error::user(format!("is too large: {dims:?}")))
    })?;
    dtype.byte_count(count).ok_or_else(|| Error::user(format!("is too large: {dims:?}")))
}

/// Elements from the field that the standard assigns to their type. Packed floats are in the file as they
/// are in memory, so they are not copied.
fn elements(dtype: DType, typed: &[Field]) -> Result<Bytes> {
    let field = match dtype {
        DType::F32 => number::FLOAT_DATA,
        DType::F64 => number::DOUBLE_DATA,
        DType::I64 => number::INT64_DATA,
        DType::U64 | DType::U32 => number::UINT64_DATA,
        _ => number::INT32_DATA,
    };
    let chunks: Vec<&Field> = typed.iter().filter(|chunk| chunk.number == field).collect();
    if matches!(dtype, DType::F32 | DType::F64) {
        if let [whole] = chunks[..] {
            return whole.fixed();
        }
        let mut bytes = Vec::new();
        for chunk in chunks {
            bytes.extend_from_slice(&chunk.fixed()?);
        }
        return Ok(bytes.into());
    }
    let (mut bytes, size) = (Vec::new(), dtype.size());
    for chunk in chunks {
        chunk.ints(|value| bytes.extend_from_slice(&value.to_le_bytes()[..size]))?;
    }
    Ok(bytes.into())
}

/// The message of a tensor, its elements as `raw_data` or in `file`.
pub fn encode(name: &str, data: &TensorData, notes: &[u8], file: Option<&mut DataFile>) -> Rope {
    let mut message = Rope::default();
    let end = message.end();
    end.extend_from_slice(notes);
    for dim in &data.shape {
        wire::put_int(end, number::DIMS, *dim);
    }
    wire::put_int(end, number::DATA_TYPE, data.dtype.onnx().into());
    wire::put_text(end, number::NAME, name);
    if data.dtype != data.dtype.stored() {
        let (key, value) = (RANGE.to_owned(), data.dtype.name().to_owned());
        let entry = StringStringEntryProto { key, value };
        wire::put_bytes(end, number::METADATA_PROPS, &entry.encode_to_vec());
    }
    put_elements(&mut message, &data.bytes, file);
    message
}

/// The message of a constant that is not understood.
pub fn encode_opaque(tensor: &OpaqueTensor, file: Option<&mut DataFile>) -> Rope {
    let mut message = Rope::default();
    message.end().extend_from_slice(&tensor.message);
    if let Some(data) = &tensor.data {
        put_elements(&mut message, data, file);
    }
    message
}

fn put_elements(message: &mut Rope, bytes: &Bytes, file: Option<&mut DataFile>) {
    let place = file.and_then(|file| file.place(bytes));
    let Some(entries) = place else {
        message.put_bytes(number::RAW_DATA, bytes);
        return;
    };
    for entry in entries {
        wire::put_bytes(message.end(), number::EXTERNAL_DATA, &entry.encode_to_vec());
    }
    wire::put_int(message.end(), number::DATA_LOCATION, number::EXTERNAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(dims: &[i64], data_type: i64) -> Vec<u8> {
        let mut message = Vec::new();
        for dim in dims {
            wire::put_int(&mut message, number::DIMS, *dim);
        }
        wire::put_int(&mut message, number::DATA_TYPE, data_type);
        wire::put_text(&mut message, number::NAME, "w");
        message
    }

    fn parse(message: &[u8]) -> Result<TensorData> {
        parse_tensor(Bytes::copy_from_slice(message)).map(|(_, data)| data)
    }

    #[test]
    fn typed_fields_become_little_endian_bytes() {
        let packed = [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat();
        let mut float = message(&[2], 1);
        wire::put_bytes(&mut float, number::FLOAT_DATA, &packed);
        let float = Bytes::from(float);
        let (_, data) = parse_tensor(float.clone()).unwrap();
        assert_eq!(data, TensorData::f32(&[2], &[1.5, -2.0]));
        assert!(float.as_ptr_range().contains(&data.bytes.as_ptr()), "packed floats are shared");

        let mut single = message(&[2], 1);
        for value in [1.5f32, -2.0] {
            single.push(((number::FLOAT_DATA << 3) | 5) as u8);
            single.extend_from_slice(&value.to_le_bytes());
        }
        assert_eq!(parse(&single).unwrap(), data);

        let mut int8 = message(&[2], 3);
        wire::put_int(&mut int8, number::INT32_DATA, -128);
        wire::put_int(&mut int8, number::INT32_DATA, 127);
        assert_eq!(parse(&int8).unwrap().to_i8().unwrap(), [-128, 127]);

        // Three elements of 4 bits lie in two bytes, one byte an entry.
        let mut int4 = message(&[3], 22);
        wire::put_bytes(&mut int4, number::INT32_DATA, &[0x7f, 0x08]);
        let int4 = parse(&int4).unwrap();
        assert_eq!((int4.bytes.as_ref(), int4.len()), (&[0x7F, 0x08][..], 3));
    }

    #[test]
    fn a_reduced_range_is_a_note_beside_the_stored_type() {
        let data = TensorData { dtype: DType::I7, shape: vec![2], bytes: vec![0, 0xC0].into() };
        let message = encode("w", &data, &[], None).into_bytes();
        let number = |message: &Bytes| {
            let mut types =
                fields(message).map(Result::unwrap).filter(|f| f.number == number::DATA_TYPE);
            types.next().unwrap().int().unwrap()
        };
        assert_eq!(number(&message), 3, "other readers see int8");
        assert_eq!(parse(&message).unwrap(), data);
        // A note of another kind, or one that does not fit the type, says nothing.
        for (key, value, dtype) in [("qpipe.range", "int7", 2), ("other", "int7", 3)] {
            let mut message = self::message(&[1], dtype);
            wire::put_bytes(&mut message, number::RAW_DATA, &[1]);
            let entry = StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
            wire::put_bytes(&mut message, number::METADATA_PROPS, &entry.encode_to_vec());
            assert_eq!(i64::from(parse(&message).unwrap().dtype.onnx()), dtype, "{key}");
            assert_ne!(parse(&message).unwrap().dtype, DType::I7, "{key}");
        }
    }

    #[test]
    fn hostile_shapes_are_errors() {
        let error = |dims: &[i64]| parse(&message(dims, 1)).unwrap_err().message;
        assert!(error(&[i64::MAX, i64::MAX]).contains("tensor `w`: is too large"));
        assert!(error(&[i64::MAX]).contains("is too large"));
        assert!(error(&[-1]).contains("negative extent"));
        assert!(error(&[0, i64::MIN]).contains("negative extent"));
        assert!(error(&[3]).contains("needs 12"));
        assert!(error(&[1; 65]).contains("has 65 dimensions"));
        let mut long = message(&[1], 1);
        wire::put_bytes(&mut long, number::RAW_DATA, &[0; 5]);
        assert!(parse(&long).unwrap_err().message.contains("has 5 bytes of data"));
    }
}
