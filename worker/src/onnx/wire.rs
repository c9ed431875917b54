//! The fields of an encoded protobuf message, one after another: <https://protobuf.dev/programming-guides/encoding>.
//!
//! Nothing is copied: a field is a slice of its message. What is not understood can so be kept as it came,
//! and a file of any size costs no more than what is made of it.

use bytes::{Buf, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

use crate::{Error, Result};

/// A field of a message.
pub struct Field {
    /// Its number in `onnx.proto`.
    pub number: u32,
    /// Key and value as they are encoded.
    pub raw: Bytes,
    value: Value,
}

enum Value {
    Varint(u64),
    Fixed(Bytes),
    Bytes(Bytes),
    /// Groups are older than ONNX; nothing that is understood is one.
    Group,
}

/// The fields of `message` in their order; the last is an error where it is cut short.
pub fn fields(message: &Bytes) -> impl Iterator<Item = Result<Field>> + use<> {
    let mut rest = message.clone();
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest.clear();
        }
        Some(field)
    })
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::user(format!("is not valid protobuf: {why}"))
        .help("the file is truncated or damaged, or is not an ONNX model")
}

fn next(rest: &mut Bytes) -> Result<Field> {
    let start = rest.clone();
    let (number, wire_type) = decode_key(rest).map_err(malformed)?;
    let value = match wire_type {
        WireType::Varint => Value::Varint(decode_varint(rest).map_err(malformed)?),
        WireType::ThirtyTwoBit => Value::Fixed(take(rest, 4)?),
        WireType::SixtyFourBit => Value::Fixed(take(rest, 8)?),
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(malformed)?;
            Value::Bytes(take(rest, length)?)
        }
        WireType::StartGroup | WireType::EndGroup => {
            let context = DecodeContext::default();
            skip_field(wire_type, number, rest, context).map_err(malformed)?;
            Value::Group
        }
    };
    let raw = start.slice(..start.len() - rest.len());
    Ok(Field { number, raw, value })
}

fn take(rest: &mut Bytes, length: u64) -> Result<Bytes> {
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        _ => {
            let left = rest.len();
            Err(malformed(format!("a field of {length} bytes begins {left} bytes before the end")))
        }
    }
}

impl Field {
    fn mismatch(&self, expected: &str) -> Error {
        malformed(format!("field {} is not {expected}", self.number))
    }

    /// An embedded message, or bytes.
    pub fn bytes(&self) -> Result<Bytes> {
        match &self.value {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(self.mismatch("a message")),
        }
    }

    /// A text.
    pub fn text(&self) -> Result<String> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes)
            .map(str::to_owned)
            .map_err(|_| self.mismatch("a text: its bytes are not UTF-8"))
    }

    /// An integer or a number of an enumeration.
    pub fn int(&self) -> Result<i64> {
        match self.value {
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.mismatch("an integer")),
        }
    }

    /// Calls `each` with the integers of a repeated field, packed or one to a field.
    pub fn ints(&self, mut each: impl FnMut(i64)) -> Result<()> {
        match &self.value {
            Value::Varint(value) => each(*value as i64),
            Value::Bytes(packed) => {
                let mut packed = packed.clone();
                while packed.has_remaining() {
                    each(decode_varint(&mut packed).map_err(malformed)? as i64);
                }
            }
            _ => return Err(self.mismatch("a list of integers")),
        }
        Ok(())
    }

    /// Numbers of a fixed width, packed or one to a field, little-endian.
    pub fn fixed(&self) -> Result<Bytes> {
        match &self.value {
            Value::Fixed(bytes) | Value::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(self.mismatch("a list of numbers")),
        }
    }

    /// Whether it holds what a field has that is left out: zero or nothing.
    pub fn is_default(&self) -> bool {
        match &self.value {
            Value::Varint(value) => *value == 0,
            Value::Fixed(bytes) => bytes.iter().all(|byte| *byte == 0),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Group => false,
        }
    }
}

/// Appends field `number`, bytes or an embedded message, to an encoded message.
pub fn put_bytes(message: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_length(message, number, payload.len() as u64);
    message.extend_from_slice(payload);
}

/// Appends what stands before `length` bytes of field `number`.
pub fn put_length(message: &mut Vec<u8>, number: u32, length: u64) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(length, message);
}

/// Appends the text of field `number`, unless it is empty.
pub fn put_text(message: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(message, number, text.as_bytes());
    }
}

/// Appends the integer of field `number`.
pub fn put_int(message: &mut Vec<u8>, number: u32, value: i64) {
    encode_key(number, WireType::Varint, message);
    encode_varint(value as u64, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_slices_of_the_message() {
        let mut message = Vec::new();
        put_int(&mut message, 1, -1);
        put_text(&mut message, 2, "");
        put_text(&mut message, 25, "functions");
        let message = Bytes::from(message);
        let read: Vec<Field> = fields(&message).collect::<Result<_>>().unwrap();
        assert_eq!(read.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 25]);
        assert_eq!(read[0].int().unwrap(), -1);
        assert_eq!(read[1].text().unwrap(), "functions");
        assert_eq!(read[1].bytes().unwrap().as_ptr(), message[14..].as_ptr());
        assert_eq!([&read[0].raw[..], &read[1].raw[..]].concat(), message);
        assert!(read[0].text().unwrap_err().message.contains("field 1 is not a message"));
    }

    #[test]
    fn packed_and_single_numbers_are_the_same() {
        for message in [&b"\x0a\x02\x01\x02"[..], b"\x08\x01\x08\x02"] {
            let mut read = Vec::new();
            for field in fields(&Bytes::copy_from_slice(message)) {
                field.unwrap().ints(|value| read.push(value)).unwrap();
            }
            assert_eq!(read, [1, 2]);
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let mut message = Vec::new();
        put_text(&mut message, 3, "truncated");
        let groups = vec![0x0b; 10_000];
        let endless = [vec![0x08], vec![0xff; 20]].concat();
        for message in
            [message[..5].to_vec(), b"\x0a\xff\xff\xff\xff\x0f".to_vec(), groups, endless]
        {
            let read: Vec<_> = fields(&message.into()).collect();
            assert!(read.last().unwrap().is_err());
        }
    }
}
