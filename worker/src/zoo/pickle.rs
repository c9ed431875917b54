//! PyTorch's state dicts: a zip file with a pickle of the structure and a file for each storage.
//!
//! Only what a state dict is made of is understood, dicts and tensors; nothing of the file is
//! executed, unlike in Python. Format: `torch/serialization.py`; opcodes: Python's `pickletools`.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use zip::ZipArchive;

use super::weights::Tensors;
use crate::graph::{DType, TensorData};
use crate::{Error, Result};

/// Reads what `torch.save(model.state_dict(), …)` wrote; a checkpoint that holds the state dict
/// under `state_dict`, `model_state_dict` or `model` is read too.
pub(super) fn read_state_dict(bytes: &[u8]) -> Result<Tensors> {
    if !bytes.starts_with(b"PK") {
        return Err(Error::user(
            "not a state dict: expected the zip format that torch.save writes since PyTorch 1.6",
        )
        .help("in Python: torch.save(torch.load(\"old.pth\"), \"new.pth\")"));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(zip_error)?;
    let index = archive.file_names().find_map(|name| name.strip_suffix("data.pkl"));
    let folder = index
        .ok_or_else(|| Error::user("not a state dict: the zip file has no data.pkl in it"))?
        .to_owned();
    if read_entry(&mut archive, &format!("{folder}byteorder")).is_ok_and(|order| order == b"big") {
        return Err(Error::user("the state dict was saved on a big-endian machine"));
    }
    let pickle = read_entry(&mut archive, &format!("{folder}data.pkl"))?;
    let Value::Dict(entries) = Machine::new(&pickle).run()? else {
        return Err(Error::user("not a state dict: expected a dict of tensors")
            .help("in Python: torch.save(model.state_dict(), \"weights.pth\")"));
    };
    let mut storages = HashMap::new();
    let mut tensors = Tensors::new();
    for (name, value) in state_dict(entries) {
        let Value::Tensor(tensor) = value else { continue };
        let key = tensor.storage.key.clone();
        if !storages.contains_key(&key) {
            let bytes = read_entry(&mut archive, &format!("{folder}data/{key}"))?;
            storages.insert(key.clone(), bytes);
        }
        let data = tensor.gather(&storages[&key]).map_err(|error| error.at(&name))?;
        tensors.insert(name, data);
    }
    if tensors.is_empty() {
        return Err(Error::user("not a state dict: there is no tensor in it"));
    }
    Ok(tensors)
}

fn zip_error(error: impl std::fmt::Display) -> Error {
    Error::user(format!("not a readable state dict: {error}"))
}

fn read_entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Vec<u8>> {
    let mut entry =
        archive.by_name(name).map_err(|error| zip_error(format_args!("{name}: {error}")))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| zip_error(format_args!("{name}: {error}")))?;
    Ok(bytes)
}

/// The dict of tensors: the file's own, or one level down in a checkpoint.
fn state_dict(entries: Vec<(Value, Value)>) -> Vec<(String, Value)> {
    let named = |entries: Vec<(Value, Value)>| -> Vec<(String, Value)> {
        let named = entries.into_iter().filter_map(|(key, value)| match key {
            Value::Text(key) => Some((key, value)),
            _ => None,
        });
        named.collect()
    };
    let mut entries = named(entries);
    for key in ["state_dict", "model_state_dict", "model"] {
        let inner =
            |(name, value): &(String, Value)| name == key && matches!(value, Value::Dict(_));
        if let Some(index) = entries.iter().position(inner)
            && let Value::Dict(inner) = entries.swap_remove(index).1
        {
            return named(inner);
        }
    }
    entries
}

#[derive(Clone, Debug)]
struct Storage {
    dtype: DType,
    key: String,
}

#[derive(Clone, Debug)]
struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Tensor {
    /// Its elements, row-major, out of its storage's bytes.
    fn gather(&self, storage: &[u8]) -> Result<TensorData> {
        let size = self.storage.dtype.size();
        let count: usize = self.shape.iter().product();
        let mut bytes = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            let start = (self.offset + at) * size;
            let element = storage.get(start..start + size).ok_or_else(|| {
                Error::user("the tensor reaches beyond its storage: the file is damaged")
            })?;
            bytes.extend_from_slice(element);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(TensorData {
            dtype: self.storage.dtype,
            shape: self.shape.iter().map(|&extent| extent as i64).collect(),
            bytes: Bytes::from(bytes),
        })
    }
}

/// What stands on the pickle machine's stack.
#[derive(Clone, Debug)]
enum Value {
    Mark,
    /// `None`, a boolean, a float or an object of no interest.
    Other,
    Int(i64),
    Text(String),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// `module.name` of a class or function.
    Global(String),
    Storage(Storage),
    Tensor(Tensor),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: Vec::new(), memo: HashMap::new() }
    }

    fn damaged(&self) -> Error {
        Error::user(format!("not a readable state dict: damaged pickle at byte {}", self.at))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(|| self.damaged())?;
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| self.damaged())?;
        self.at = end;
        Ok(bytes)
    }

    /// A little-endian unsigned number of `count` bytes.
    fn number(&mut self, count: usize) -> Result<u64> {
        Ok(self.take(count)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    }

    fn text(&mut self, count: usize) -> Result<String> {
        let bytes = self.take(count)?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.damaged())
    }

    fn line(&mut self) -> Result<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.damaged())?;
        let text = self.text(length)?;
        self.at += 1;
        Ok(text)
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or_else(|| self.damaged())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let mark = mark.ok_or_else(|| self.damaged())?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn pop_tuple(&mut self, count: usize) -> Result<Vec<Value>> {
        let start = self.stack.len().checked_sub(count).ok_or_else(|| self.damaged())?;
        Ok(self.stack.split_off(start))
    }

    fn get(&mut self, index: u32) -> Result<()> {
        let value = self.memo.get(&index).cloned().ok_or_else(|| self.damaged())?;
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, index: u32) -> Result<()> {
        let value = self.stack.last().cloned().ok_or_else(|| self.damaged())?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) {
        if let Some(Value::Dict(entries)) = self.stack.last_mut() {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                entries.push((key, value));
            }
        }
    }

    fn run(mut self) -> Result<Value> {
        loop {
            let opcode = self.take(1)?[0];
            let value = match opcode {
                b'.' => return self.pop(),
                0x80 => self.take(1).map(|_| None)?,    // PROTO
                0x95 => self.take(8).map(|_| None)?,    // FRAME
                b'(' => Some(Value::Mark),              // MARK
                b'}' => Some(Value::Dict(Vec::new())),  // EMPTY_DICT
                b')' => Some(Value::Tuple(Vec::new())), // EMPTY_TUPLE
                b']' | b'N' | 0x88 | 0x89 => Some(Value::Other), // EMPTY_LIST, NONE, NEWTRUE, NEWFALSE
                b'G' => self.take(8).map(|_| Some(Value::Other))?, // BINFLOAT
                b'K' => Some(Value::Int(self.number(1)? as i64)), // BININT1
                b'M' => Some(Value::Int(self.number(2)? as i64)), // BININT2
                b'J' => Some(Value::Int(i64::from(self.number(4)? as u32 as i32))), // BININT
                0x8a => Some(self.long()?),                      // LONG1
                b'X' => {
                    let length = self.number(4)? as usize; // BINUNICODE
                    Some(Value::Text(self.text(length)?))
                }
                0x8c => {
                    let length = self.number(1)? as usize; // SHORT_BINUNICODE
                    Some(Value::Text(self.text(length)?))
                }
                b'c' => Some(Value::Global(format!("{}.{}", self.line()?, self.line()?))),
                0x93 => Some(self.stack_global()?),
                b't' => Some(Value::Tuple(self.pop_to_mark()?)), // TUPLE
                0x85 => Some(Value::Tuple(self.pop_tuple(1)?)),
                0x86 => Some(Value::Tuple(self.pop_tuple(2)?)),
                0x87 => Some(Value::Tuple(self.pop_tuple(3)?)),
                b'Q' => Some(self.storage()?), // BINPERSID
                b'R' => Some(self.reduce()?),  // REDUCE
                _ => {
                    self.rearrange(opcode)?;
                    None
                }
            };
            self.stack.extend(value);
        }
    }

    /// Opcodes that put nothing new on the stack.
    fn rearrange(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'q' => {
                let index = self.number(1)? as u32; // BINPUT
                self.put(index)
            }
            b'r' => {
                let index = self.number(4)? as u32; // LONG_BINPUT
                self.put(index)
            }
            0x94 => self.put(self.memo.len() as u32), // MEMOIZE
            b'h' => {
                let index = self.number(1)? as u32; // BINGET
                self.get(index)
            }
            b'j' => {
                let index = self.number(4)? as u32; // LONG_BINGET
                self.get(index)
            }
            b's' => {
                let items = self.pop_tuple(2)?; // SETITEM
                self.set_items(items);
                Ok(())
            }
            b'u' => {
                let items = self.pop_to_mark()?; // SETITEMS
                self.set_items(items);
                Ok(())
            }
            b'a' | b'b' => self.pop().map(|_| ()), // APPEND, BUILD: lists and attributes do not matter
            b'e' => self.pop_to_mark().map(|_| ()), // APPENDS
            other => Err(Error::user(format!(
                "not a plain state dict: pickle opcode 0x{other:02x} at byte {}",
                self.at - 1
            ))
            .help("in Python: torch.save(model.state_dict(), \"weights.pth\")")),
        }
    }

    fn long(&mut self) -> Result<Value> {
        let count = self.number(1)? as usize;
        if count > 8 {
            return self.take(count).map(|_| Value::Other);
        }
        let bits = 64 - 8 * count as u32;
        let number = self.number(count)?;
        Ok(Value::Int(if count == 0 { 0 } else { (number << bits) as i64 >> bits }))
    }

    fn stack_global(&mut self) -> Result<Value> {
        match &self.pop_tuple(2)?[..] {
            [Value::Text(module), Value::Text(name)] => {
                Ok(Value::Global(format!("{module}.{name}")))
            }
            _ => Err(self.damaged()),
        }
    }

    /// `('storage', torch.FloatStorage, '0', 'cpu', 1728)`.
    fn storage(&mut self) -> Result<Value> {
        let id = self.pop()?;
        let Value::Tuple(parts) = &id else { return Err(self.damaged()) };
        let [Value::Text(_), Value::Global(class), Value::Text(key), ..] = &parts[..] else {
            return Err(self.damaged());
        };
        let dtype = match class.as_str() {
            "torch.FloatStorage" => DType::F32,
            "torch.HalfStorage" => DType::F16,
            "torch.BFloat16Storage" => DType::BF16,
            "torch.DoubleStorage" => DType::F64,
            "torch.LongStorage" => DType::I64,
            "torch.IntStorage" => DType::I32,
            "torch.CharStorage" => DType::I8,
            "torch.ByteStorage" => DType::U8,
            "torch.BoolStorage" => DType::Bool,
            other => return Err(Error::user(format!("tensors of {other} cannot be read"))),
        };
        Ok(Value::Storage(Storage { dtype, key: key.clone() }))
    }

    /// A call: of an OrderedDict or of the functions that make a tensor; all others make nothing.
    fn reduce(&mut self) -> Result<Value> {
        let (Value::Tuple(arguments), function) = (self.pop()?, self.pop()?) else {
            return Err(self.damaged());
        };
        let Value::Global(function) = function else { return Ok(Value::Other) };
        match function.as_str() {
            "collections.OrderedDict" => Ok(Value::Dict(Vec::new())),
            "torch._utils._rebuild_parameter" => {
                arguments.into_iter().next().ok_or_else(|| self.damaged())
            }
            "torch._utils._rebuild_tensor_v2" => {
                let [
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ..,
                ] = &arguments[..]
                else {
                    return Err(self.damaged());
                };
                let extents = |values: &[Value]| -> Result<Vec<usize>> {
                    let extent = |value: &Value| match value {
                        Value::Int(extent) => usize::try_from(*extent).ok(),
                        _ => None,
                    };
                    let extents = values.iter().map(extent).collect::<Option<_>>();
                    extents.ok_or_else(|| self.damaged())
                };
                Ok(Value::Tensor(Tensor {
                    storage: storage.clone(),
                    offset: usize::try_from(*offset).map_err(|_| self.damaged())?,
                    shape: extents(shape)?,
                    strides: extents(strides)?,
                }))
            }
            _ => Ok(Value::Other),
        }
    }
}
