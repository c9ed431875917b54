//! The fields of an encoded protobuf message, one after another, undecoded.

use bytes::{Buf, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, decode_key, encode_key, encode_varint, skip_field};

/// Copies the fields of `message` whose numbers are not among `known`, as they are encoded.
pub fn others(message: &Bytes, known: &[u32]) -> Result<Vec<u8>, DecodeError> {
    let mut rest = message.clone();
    let mut kept = Vec::new();
    while rest.has_remaining() {
        let start = message.len() - rest.remaining();
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if !known.contains(&number) {
            kept.extend_from_slice(&message[start..message.len() - rest.remaining()]);
        }
    }
    Ok(kept)
}

/// Appends field `number` of length-delimited type to an encoded message.
pub fn append(message: &mut Vec<u8>, number: u32, payload: &[u8]) {
    encode_key(number, prost::encoding::WireType::LengthDelimited, message);
    encode_varint(payload.len() as u64, message);
    message.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_what_is_not_known() {
        let mut message = Vec::new();
        append(&mut message, 1, b"known");
        append(&mut message, 25, b"functions");
        append(&mut message, 7, b"graph");
        let mut expected = Vec::new();
        append(&mut expected, 25, b"functions");
        assert_eq!(others(&message.into(), &[1, 7]).expect("well-formed"), expected);
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        let mut message = Vec::new();
        append(&mut message, 3, b"truncated");
        message.truncate(5);
        assert!(others(&message.into(), &[]).is_err());
    }
}
