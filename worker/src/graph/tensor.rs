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
}

impl DType {
    const TABLE: [(Self, i32, &'static str, usize); 13] = [
        (Self::F32, 1, "float", 4),
        (Self::U8, 2, "uint8", 1),
        (Self::I8, 3, "int8", 1),
        (Self::U16, 4, "uint16", 2),
        (Self::I16, 5, "int16", 2),
        (Self::I32, 6, "int32", 4),
        (Self::I64, 7, "int64", 8),
        (Self::Bool, 9, "bool", 1),
        (Self::F16, 10, "float16", 2),
        (Self::F64, 11, "double", 8),
        (Self::U32, 12, "uint32", 4),
        (Self::U64, 13, "uint64", 8),
        (Self::BF16, 16, "bfloat16", 2),
    ];

    fn row(self) -> (i32, &'static str, usize) {
        let row = Self::TABLE.iter().find(|row| row.0 == self).expect("every type has a row");
        (row.1, row.2, row.3)
    }

    /// ONNX's number.
    pub fn onnx(self) -> i32 {
        self.row().0
    }

    /// The type with ONNX's number; `None` for strings, complex and sub-byte types.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// ONNX's name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        self.row().2
    }
}

/// A constant tensor: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    /// Element type.
    pub dtype: DType,
    /// Extents; empty for a scalar.
    pub shape: Vec<i64>,
    /// Elements, little-endian; `shape` × size of an element bytes.
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

    /// Count of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
