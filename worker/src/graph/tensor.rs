//! Constant tensors: initializers and tensor attributes.

use bytes::Bytes;

use crate::{Error, Result};

/// Element types, numbered as in ONNX's `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DType {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    Bool,
    F16,
    F64,
    U32,
    U64,
    BF16,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    U4,
    I4,
    F4E2M1,
    F8E8M0,
    U2,
    I2,
    /// int8 of which a quantizer uses −64 to 63 only. ONNX has no such type: it is an int8 there, with a note beside it that only we read.
    I7,
}

impl DType {
    /// Type, ONNX's number and name, bits of an element.
    const TABLE: [(Self, i32, &'static str, usize); 24] = [
        (Self::F32, 1, "float", 32),
        (Self::U8, 2, "uint8", 8),
        (Self::I8, 3, "int8", 8),
        (Self::U16, 4, "uint16", 16),
        (Self::I16, 5, "int16", 16),
        (Self::I32, 6, "int32", 32),
        (Self::I64, 7, "int64", 64),
        (Self::Bool, 9, "bool", 8),
        (Self::F16, 10, "float16", 16),
        (Self::F64, 11, "double", 64),
        (Self::U32, 12, "uint32", 32),
        (Self::U64, 13, "uint64", 64),
        (Self::BF16, 16, "bfloat16", 16),
        (Self::F8E4M3FN, 17, "float8e4m3fn", 8),
        (Self::F8E4M3FNUZ, 18, "float8e4m3fnuz", 8),
        (Self::F8E5M2, 19, "float8e5m2", 8),
        (Self::F8E5M2FNUZ, 20, "float8e5m2fnuz", 8),
        (Self::U4, 21, "uint4", 4),
        (Self::I4, 22, "int4", 4),
        (Self::F4E2M1, 23, "float4e2m1", 4),
        (Self::F8E8M0, 24, "float8e8m0", 8),
        (Self::U2, 25, "uint2", 2),
        (Self::I2, 26, "int2", 2),
        // Behind int8, which is what the number stands for.
        (Self::I7, 3, "int7", 8),
    ];

    fn row(self) -> (i32, &'static str, usize) {
        let row = Self::TABLE.iter().find(|row| row.0 == self).expect("every type has a row");
        (row.1, row.2, row.3)
    }

    /// ONNX's number.
    pub fn onnx(self) -> i32 {
        self.row().0
    }

    /// The type with ONNX's number; `None` for strings and complex types.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The type with ONNX's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// ONNX's name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type of the standard's in which elements are stored.
    pub fn stored(self) -> Self {
        if self == Self::I7 { Self::I8 } else { self }
    }

    /// Bits of an element.
    pub fn bits(self) -> usize {
        self.row().2
    }

    /// Bytes of an element; 1 for types of which a byte holds several.
    pub fn size(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// Bytes that `count` elements take: those of less than a byte lie together, the first in the lowest bits.
    /// `None`: more than there is memory.
    pub fn byte_count(self, count: usize) -> Option<usize> {
        let bytes = if self.bits() < 8 {
            count.div_ceil(8 / self.bits())
        } else {
            count.checked_mul(self.size())?
        };
        (bytes <= isize::MAX as usize).then_some(bytes)
    }
}

/// A constant tensor: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    /// Element type.
    pub dtype: DType,
    /// Extents; empty for a scalar.
    pub shape: Vec<i64>,
    /// Elements, little-endian; [`DType::byte_count`] bytes for all of `shape`.
    pub bytes: Bytes,
}

macro_rules! elements {
    ($make:ident, $take:ident, $type:ty, $dtype:expr) => {
        #[doc = concat!("A tensor of `", stringify!($type), "`; `values` fill `shape` row by row.")]
        pub fn $make(shape: &[i64], values: &[$type]) -> Self {
            debug_assert_eq!(shape.iter().product::<i64>() as usize, values.len());
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Self { dtype: $dtype, shape: shape.to_vec(), bytes: bytes.into() }
        }

        #[doc = concat!("The elements, if they are `", stringify!($type), "`.")]
        pub fn $take(&self) -> Result<Vec<$type>> {
            if self.dtype != $dtype {
                return Err(Error::user(format!(
                    "expected a tensor of {}, found {}",
                    $dtype.name(),
                    self.dtype.name()
                )));
            }
            let chunks = self.bytes.chunks_exact(size_of::<$type>());
            Ok(chunks.map(|c| <$type>::from_le_bytes(c.try_into().expect("exact"))).collect())
        }
    };
}

impl TensorData {
    elements!(f32, to_f32, f32, DType::F32);
    elements!(i64, to_i64, i64, DType::I64);
    elements!(i32, to_i32, i32, DType::I32);
    elements!(i8, to_i8, i8, DType::I8);
    elements!(u8, to_u8, u8, DType::U8);

    /// The elements, where they are whole numbers of at least a byte (or truth values, as 0 and 1) and fit.
    pub fn whole_numbers(&self) -> Option<Vec<i64>> {
        let of = |size: usize, signed: bool| {
            let each = self.bytes.chunks_exact(size).map(move |chunk| {
                let fill = if signed && chunk[size - 1] > 0x7f { 0xff } else { 0 };
                let mut bytes = [fill; 8];
                bytes[..size].copy_from_slice(chunk);
                i64::from_le_bytes(bytes)
            });
            Some(each.collect())
        };
        match self.dtype {
            DType::Bool | DType::U8 => of(1, false),
            DType::I8 | DType::I7 => of(1, true),
            DType::U16 => of(2, false),
            DType::I16 => of(2, true),
            DType::U32 => of(4, false),
            DType::I32 => of(4, true),
            DType::I64 => of(8, true),
            _ => None,
        }
    }

    /// Count of elements.
    pub fn len(&self) -> usize {
        if self.dtype.bits() < 8 {
            // The last byte may hold fewer than the others.
            return self.shape.iter().map(|&extent| extent as usize).product();
        }
        self.bytes.len() / self.dtype.size()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_keep_their_sign() {
        assert_eq!(TensorData::i8(&[2], &[-3, 4]).whole_numbers(), Some(vec![-3, 4]));
        assert_eq!(TensorData::u8(&[1], &[200]).whole_numbers(), Some(vec![200]));
        assert_eq!(TensorData::i32(&[1], &[-70_000]).whole_numbers(), Some(vec![-70_000]));
        assert_eq!(TensorData::i64(&[1], &[i64::MIN]).whole_numbers(), Some(vec![i64::MIN]));
        assert_eq!(TensorData::f32(&[1], &[1.0]).whole_numbers(), None);
    }
}
