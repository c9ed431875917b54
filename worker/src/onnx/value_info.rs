//! `ValueInfoProto` to [`ValueInfo`] and back.

use bytes::Bytes;
use prost::Message;

use super::proto::{DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto};
use super::wire;
use crate::graph::{DType, Dim, Model, ValueInfo};
use crate::{Error, Result};

/// A longer type is no type; it bounds the dimensions that are made of it.
const LONGEST: usize = 1 << 20;

const NAME: u32 = 1;
const TYPE: u32 = 2;

/// The type of a value that is encoded in `encoded`.
pub fn decode(encoded: &Bytes) -> Result<ValueInfo> {
    if encoded.len() > LONGEST {
        let error = format!("the type of a value takes {} bytes", encoded.len());
        return Err(Error::user(error).help("the file is not an ONNX model"));
    }
    let proto = ValueInfoProto::decode(encoded.clone()).map_err(|error| {
        Error::user(format!("the type of a value is not valid protobuf: {error}"))
    })?;
    let tensor = proto.r#type.and_then(|r#type| r#type.tensor_type);
    let dtype = tensor.as_ref().and_then(|tensor| DType::from_onnx(tensor.elem_type));
    let shape = match tensor.and_then(|tensor| tensor.shape) {
        Some(shape) => Some(shape.dim.into_iter().map(dim).collect::<Result<_>>()),
        None => None,
    };
    let shape = shape.transpose().map_err(|error| error.at(format!("value `{}`", proto.name)))?;
    let mut info = ValueInfo { name: proto.name, dtype, shape, opaque: None };
    let says_more = plain(&info) != *encoded;
    info.opaque = says_more.then(|| encoded.to_vec());
    Ok(info)
}

/// What a value is that is no tensor of numbers; `None` of one that is, or of which nothing is said.
pub fn foreign(info: &ValueInfo) -> Option<&'static str> {
    let encoded = Bytes::from(info.opaque.clone().filter(|_| info.dtype.is_none())?);
    let part = |message: &Bytes, number: u32| {
        wire::fields(message).filter_map(Result::ok).find(|field| field.number == number)
    };
    let encoded = part(&encoded, TYPE)?.bytes().ok()?;
    // `TypeProto`: of its fields one is there.
    let others = [
        (4, "a sequence"),
        (5, "a map"),
        (8, "a sparse tensor"),
        (9, "a value that may be missing"),
    ];
    if let Some((_, what)) = others.iter().find(|(number, _)| part(&encoded, *number).is_some()) {
        return Some(what);
    }
    match TypeProto::decode(encoded).ok()?.tensor_type?.elem_type {
        0 => None,
        8 => Some(STRINGS),
        14 | 15 => Some("a tensor of complex numbers"),
        _ => Some("a tensor of a type that is not known here"),
    }
}

/// What [`foreign`] calls `tensor(string)`.
pub const STRINGS: &str = "a tensor of strings";

/// Refuses a model with an input that is no tensor of numbers: images are.
///
/// # Errors
/// The input and what it is.
pub fn check_numbers(model: &Model) -> Result<()> {
    let inputs = model.graph.inputs.iter();
    let Some((name, what)) = inputs.filter_map(|info| Some((&info.name, foreign(info)?))).next()
    else {
        return Ok(());
    };
    Err(Error::user(format!("its input `{name}` is {what}, and what is fed to it are numbers"))
        .help("cut the model behind what makes numbers of it: its rest can be executed, trained and quantized"))
}

/// Exporters write extents that they do not know as 0 or -1 now and then; a negative one says nothing.
fn dim(proto: DimensionProto) -> Result<Dim> {
    match (proto.dim_value, proto.dim_param) {
        (Some(value), _) if value >= 0 => Ok(Dim::Fixed(value)),
        (Some(value), _) if value < -1 => {
            Err(Error::user(format!("its type has a negative extent: {value}")))
        }
        (_, Some(name)) if !name.is_empty() => Ok(Dim::Named(name)),
        _ => Ok(Dim::Unknown),
    }
}

/// The message of a value's type. What an unchanged one said beyond our fields is said again.
pub fn encode(info: &ValueInfo) -> Vec<u8> {
    let Some(encoded) = info.opaque.clone().map(Bytes::from) else { return plain(info) };
    match decode(&encoded) {
        Ok(same) if same == *info => encoded.to_vec(),
        Ok(_) if info.dtype.is_none() => renamed(&info.name, &encoded),
        Ok(_) => changed(info, encoded),
        Err(_) => plain(info),
    }
}

fn plain(info: &ValueInfo) -> Vec<u8> {
    proto(info).encode_to_vec()
}

fn proto(info: &ValueInfo) -> ValueInfoProto {
    let shape = info
        .shape
        .as_ref()
        .map(|dims| TensorShapeProto { dim: dims.iter().map(dimension).collect() });
    let tensor = info.dtype.map(|dtype| TensorTypeProto { elem_type: dtype.onnx(), shape });
    let r#type = tensor.map(|tensor| TypeProto { tensor_type: Some(tensor), denotation: None });
    ValueInfoProto { name: info.name.clone(), r#type, ..ValueInfoProto::default() }
}

fn dimension(dim: &Dim) -> DimensionProto {
    match dim {
        Dim::Fixed(value) => DimensionProto { dim_value: Some(*value), ..Default::default() },
        Dim::Named(name) => DimensionProto { dim_param: Some(name.clone()), ..Default::default() },
        Dim::Unknown => DimensionProto::default(),
    }
}

/// Another name, the type as it is encoded.
fn renamed(name: &str, encoded: &Bytes) -> Vec<u8> {
    let mut message = Vec::new();
    wire::put_text(&mut message, NAME, name);
    let others = wire::fields(encoded).filter_map(Result::ok).filter(|field| field.number != NAME);
    others.for_each(|field| message.extend_from_slice(&field.raw));
    message
}

/// The new type with the documentation and denotations of the old one.
fn changed(info: &ValueInfo, encoded: Bytes) -> Vec<u8> {
    let mut new = proto(info);
    if let Ok(old) = ValueInfoProto::decode(encoded) {
        (new.doc_string, new.metadata_props) = (old.doc_string, old.metadata_props);
        if let (Some(new), Some(old)) = (&mut new.r#type, old.r#type) {
            new.denotation = old.denotation;
            let new = new.tensor_type.as_mut().and_then(|tensor| tensor.shape.as_mut());
            let old = old.tensor_type.and_then(|tensor| tensor.shape);
            if let (Some(new), Some(old)) = (new, old)
                && new.dim.len() == old.dim.len()
            {
                for (new, old) in new.dim.iter_mut().zip(old.dim) {
                    new.denotation = old.denotation;
                }
            }
        }
    }
    new.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented() -> ValueInfo {
        let mut message =
            proto(&ValueInfo::f32("x", vec![Dim::Named("N".to_owned()), Dim::Fixed(3)]));
        message.doc_string = Some("an image".to_owned());
        let r#type = message.r#type.as_mut().unwrap();
        r#type.denotation = Some("IMAGE".to_owned());
        let shape = r#type.tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
        shape.dim[1].denotation = Some("DATA_CHANNEL".to_owned());
        decode(&message.encode_to_vec().into()).unwrap()
    }

    #[test]
    fn documentation_outlives_a_change_of_the_shape() {
        let mut info = documented();
        assert_eq!(encode(&info), *info.opaque.as_ref().unwrap());
        info.shape.as_mut().unwrap()[0] = Dim::Fixed(1);
        let written = ValueInfoProto::decode(&encode(&info)[..]).unwrap();
        assert_eq!(written.doc_string.as_deref(), Some("an image"));
        let r#type = written.r#type.unwrap();
        assert_eq!(r#type.denotation.as_deref(), Some("IMAGE"));
        let dims = r#type.tensor_type.unwrap().shape.unwrap().dim;
        assert_eq!(dims[0].dim_value, Some(1));
        assert_eq!(dims[1].denotation.as_deref(), Some("DATA_CHANNEL"));
    }

    #[test]
    fn a_type_that_is_no_tensor_is_kept_under_another_name() {
        let mut message = Vec::new();
        wire::put_text(&mut message, NAME, "x");
        wire::put_bytes(&mut message, 2, b"\x22\x00");
        let mut info = decode(&message.into()).unwrap();
        info.name = "y".to_owned();
        let again = decode(&encode(&info).into()).unwrap();
        assert_eq!((again.name.as_str(), again.dtype), ("y", None));
        assert!(encode(&info).ends_with(b"\x12\x02\x22\x00"));
    }

    #[test]
    fn negative_extents_are_errors() {
        let message = |value| proto(&ValueInfo::f32("x", vec![Dim::Fixed(value)])).encode_to_vec();
        let error = decode(&message(-2).into()).unwrap_err();
        assert!(error.message.contains("value `x`: its type has a negative extent: -2"), "{error}");
        assert_eq!(decode(&message(-1).into()).unwrap().shape, Some(vec![Dim::Unknown]));
    }

    #[test]
    fn what_is_no_tensor_of_numbers_is_told() {
        let of = |r#type: &[u8]| {
            let mut message = Vec::new();
            wire::put_text(&mut message, NAME, "x");
            wire::put_bytes(&mut message, TYPE, r#type);
            foreign(&decode(&message.into()).unwrap())
        };
        assert_eq!(of(b"\x0a\x02\x08\x01"), None, "float32");
        assert_eq!(of(b"\x0a\x02\x08\x08"), Some(STRINGS));
        assert_eq!(of(b"\x0a\x02\x08\x0e"), Some("a tensor of complex numbers"));
        assert_eq!(of(b"\x22\x00"), Some("a sequence"));
        assert_eq!(of(b"\x0a\x00"), None, "a tensor of which nothing is said");
        assert_eq!(of(b""), None);
        assert_eq!(foreign(&documented()), None);
    }
}
