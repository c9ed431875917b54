//! `AttributeProto` to [`Attribute`] and back.

use bytes::Bytes;
use prost::Message;

use super::external::External;
use super::inline::{Kind, inline};
use super::proto::{AttributeProto, attribute as number, attribute_type, tensor as tensor_number};
use super::rope::Rope;
use super::tensor::{self, Content};
use super::wire::{self, fields};
use crate::graph::Attribute;
use crate::{Error, Result};

/// An attribute as it was read.
pub struct Read {
    pub name: String,
    pub value: Attribute,
    /// Its message, where that says more than its name and value.
    pub note: Option<Bytes>,
}

/// The attribute that is encoded in `encoded`.
pub fn decode(encoded: &Bytes, external: &mut External) -> Result<Read> {
    let encoded = inline(Kind::Attribute, encoded, external)?;
    let (name, value) = content(&encoded)?;
    let opaque = matches!(value, Attribute::Opaque(_));
    let note = if !opaque && says_more(&encoded, &value)? { Some(encoded) } else { None };
    Ok(Read { name, value, note })
}

/// Name and value; external data is in place already.
fn content(encoded: &Bytes) -> Result<(String, Attribute)> {
    let proto = AttributeProto::decode(encoded.clone())
        .map_err(|error| Error::user(format!("an attribute is not valid protobuf: {error}")))?;
    let opaque = || Attribute::Opaque(encoded.to_vec());
    let value = match proto.r#type {
        attribute_type::FLOAT => Attribute::Float(proto.f.unwrap_or(0.0)),
        attribute_type::INT => Attribute::Int(proto.i.unwrap_or(0)),
        attribute_type::STRING => Attribute::String(proto.s.unwrap_or_default()),
        attribute_type::FLOATS => Attribute::Floats(proto.floats),
        attribute_type::INTS => Attribute::Ints(proto.ints),
        attribute_type::STRINGS => Attribute::Strings(proto.strings),
        attribute_type::TENSOR => match proto.t {
            Some(message) => {
                let tensor = tensor::decode(&message, &mut External::beside(None));
                match tensor.map_err(|e| e.at(format!("attribute `{}`", proto.name)))?.content {
                    Content::Known(data) => Attribute::Tensor(data),
                    Content::Opaque(_) => opaque(),
                }
            }
            None => opaque(),
        },
        _ => opaque(),
    };
    Ok((proto.name, value))
}

/// The field of an attribute's value, and whether it is there exactly once.
fn field_of(value: &Attribute) -> Option<(u32, bool)> {
    Some(match value {
        Attribute::Float(_) => (number::F, true),
        Attribute::Int(_) => (number::I, true),
        Attribute::String(_) => (number::S, true),
        Attribute::Tensor(_) => (number::T, true),
        Attribute::Floats(_) => (number::FLOATS, false),
        Attribute::Ints(_) => (number::INTS, false),
        Attribute::Strings(_) => (number::STRINGS, false),
        Attribute::Opaque(_) => return None,
    })
}

fn says_more(encoded: &Bytes, value: &Attribute) -> Result<bool> {
    const PLAIN: [u32; 3] =
        [tensor_number::DIMS, tensor_number::DATA_TYPE, tensor_number::RAW_DATA];
    let Some((own, once)) = field_of(value) else { return Ok(false) };
    let mut count = 0;
    for field in fields(encoded) {
        let field = field?;
        match field.number {
            number::NAME | number::TYPE => {}
            own_field if own_field == own => count += 1,
            _ => return Ok(true),
        }
        if field.number == number::T {
            for inner in fields(&field.bytes()?) {
                if !PLAIN.contains(&inner?.number) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(once && count != 1)
}

/// The message of an attribute: `note`, the one that it was read from, as long as the value is the same.
pub fn encode(name: &str, value: &Attribute, note: Option<&Bytes>) -> Rope {
    let mut message = Rope::default();
    let kept = match (value, note) {
        (Attribute::Opaque(encoded), _) => Some(encoded.as_slice()),
        // Compared in its encoded form: a value that is not a number is equal to itself there.
        (_, Some(note))
            if content(note).is_ok_and(|(old, kept)| old == name && same(&kept, value)) =>
        {
            Some(&note[..])
        }
        _ => None,
    };
    if let Some(kept) = kept {
        message.end().extend_from_slice(kept);
        return message;
    }
    put_value(&mut message, name, value);
    message
}

fn same(a: &Attribute, b: &Attribute) -> bool {
    match (a, b) {
        (Attribute::Float(a), Attribute::Float(b)) => a.to_bits() == b.to_bits(),
        (Attribute::Floats(a), Attribute::Floats(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        (a, b) => a == b,
    }
}

fn put_value(message: &mut Rope, name: &str, value: &Attribute) {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    proto.r#type = match value {
        Attribute::Opaque(_) => return,
        Attribute::Int(value) => {
            proto.i = Some(*value);
            attribute_type::INT
        }
        Attribute::Float(value) => {
            proto.f = Some(*value);
            attribute_type::FLOAT
        }
        Attribute::String(value) => {
            proto.s = Some(value.clone());
            attribute_type::STRING
        }
        Attribute::Tensor(value) => {
            wire::put_text(message.end(), number::NAME, name);
            message.put(number::T, tensor::encode("", value, &[], None));
            wire::put_int(message.end(), number::TYPE, attribute_type::TENSOR.into());
            return;
        }
        Attribute::Ints(values) => {
            proto.ints = values.clone();
            attribute_type::INTS
        }
        Attribute::Floats(values) => {
            proto.floats = values.clone();
            attribute_type::FLOATS
        }
        Attribute::Strings(values) => {
            proto.strings = values.clone();
            attribute_type::STRINGS
        }
    };
    message.end().extend_from_slice(&proto.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Read {
        decode(&Bytes::copy_from_slice(message), &mut External::beside(None)).unwrap()
    }

    fn written(read: &Read, value: &Attribute) -> Bytes {
        encode(&read.name, value, read.note.as_ref()).into_bytes()
    }

    #[test]
    fn documentation_stays_with_the_value_that_it_describes() {
        let mut message = written(
            &Read { name: "axis".to_owned(), value: Attribute::Int(1), note: None },
            &Attribute::Int(1),
        )
        .to_vec();
        assert!(read(&message).note.is_none());
        wire::put_text(&mut message, 13, "the channels");
        let read = read(&message);
        assert_eq!(written(&read, &read.value), message);
        assert!(!written(&read, &Attribute::Int(2)).ends_with(b"the channels"));
    }

    #[test]
    fn the_name_of_a_constants_tensor_is_kept() {
        let mut tensor = Vec::new();
        wire::put_int(&mut tensor, tensor_number::DATA_TYPE, 1);
        wire::put_text(&mut tensor, tensor_number::NAME, "pi");
        wire::put_bytes(&mut tensor, tensor_number::RAW_DATA, &f32::NAN.to_le_bytes());
        let mut message = Vec::new();
        wire::put_text(&mut message, number::NAME, "value");
        wire::put_bytes(&mut message, number::T, &tensor);
        wire::put_int(&mut message, number::TYPE, attribute_type::TENSOR.into());
        let read = read(&message);
        assert!(matches!(read.value, Attribute::Tensor(_)));
        assert_eq!(written(&read, &read.value), message);
    }
}
