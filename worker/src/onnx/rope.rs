//! An encoded message in pieces: large tensors are shared with the model, not copied.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};

use super::wire;

/// From this size on bytes are shared; below, a copy is cheaper than a piece of their own.
const SHARED: usize = 4096;

/// An encoded message in pieces.
#[derive(Default)]
pub struct Rope {
    pieces: Vec<Bytes>,
    last: Vec<u8>,
    length: u64,
}

impl Rope {
    /// Count of bytes.
    pub fn len(&self) -> u64 {
        self.length + self.last.len() as u64
    }

    /// Where fields are appended.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.last
    }

    fn share(&mut self, bytes: Bytes) {
        if !self.last.is_empty() {
            let last = Bytes::from(std::mem::take(&mut self.last));
            self.length += last.len() as u64;
            self.pieces.push(last);
        }
        self.length += bytes.len() as u64;
        self.pieces.push(bytes);
    }

    /// Appends bytes of field `number`.
    pub fn put_bytes(&mut self, number: u32, bytes: &Bytes) {
        wire::put_length(&mut self.last, number, bytes.len() as u64);
        if bytes.len() < SHARED {
            self.last.extend_from_slice(bytes);
        } else {
            self.share(bytes.clone());
        }
    }

    /// Appends an embedded message of field `number`.
    pub fn put(&mut self, number: u32, message: Self) {
        wire::put_length(&mut self.last, number, message.len());
        for piece in message.pieces {
            if piece.len() < SHARED {
                self.last.extend_from_slice(&piece);
            } else {
                self.share(piece);
            }
        }
        self.last.extend_from_slice(&message.last);
    }

    /// Writes all of it.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for piece in &self.pieces {
            to.write_all(piece)?;
        }
        to.write_all(&self.last)
    }

    /// A copy in one piece; of a message that is a single piece, that one.
    pub fn into_bytes(self) -> Bytes {
        if self.pieces.is_empty() {
            return self.last.into();
        }
        let mut whole = BytesMut::with_capacity(self.len() as usize);
        for piece in &self.pieces {
            whole.extend_from_slice(piece);
        }
        whole.extend_from_slice(&self.last);
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_message() {
        let large = Bytes::from(vec![7; SHARED]);
        let mut inner = Rope::default();
        wire::put_text(inner.end(), 1, "name");
        inner.put_bytes(9, &large);
        wire::put_int(inner.end(), 2, 5);
        let mut outer = Rope::default();
        outer.put(7, inner);
        outer.put_bytes(8, &Bytes::from_static(b"small"));
        assert!(outer.pieces.iter().any(|piece| piece.as_ptr() == large.as_ptr()), "shared");

        let mut expected = Vec::new();
        wire::put_text(&mut expected, 1, "name");
        wire::put_bytes(&mut expected, 9, &large);
        wire::put_int(&mut expected, 2, 5);
        let mut whole = Vec::new();
        wire::put_bytes(&mut whole, 7, &expected);
        wire::put_bytes(&mut whole, 8, b"small");
        assert_eq!(outer.len(), whole.len() as u64);
        let mut written = Vec::new();
        outer.write(&mut written).unwrap();
        assert_eq!(written, whole);
        assert_eq!(outer.into_bytes(), whole);
    }
}
