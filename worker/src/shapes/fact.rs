//! A fact about a value, and what a rule is asked.

use super::extent::{Atom, Extent};
use crate::graph::{DType, Node, TensorData};
use crate::{Error, Result};

/// Elements of the longest vector that is kept track of.
pub const LONGEST: usize = 64;

/// What is known of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// Its extents; `None`: not even its rank is known.
    pub shape: Option<Vec<Extent>>,
    /// The elements, row by row, of a tensor of at most [`LONGEST`] integers (or truth values, as 0 and 1).
    pub elements: Option<Vec<Extent>>,
}

impl Fact {
    /// A value of a known shape.
    pub fn shaped(shape: Vec<Extent>) -> Self {
        Self { shape: Some(shape), elements: None }
    }

    /// That of a constant.
    pub fn of(data: &TensorData) -> Self {
        let whole = matches!(data.dtype, DType::I64 | DType::I32 | DType::Bool);
        let small = data.len() <= LONGEST;
        let elements = if whole && small { data.whole_numbers() } else { None };
        Self {
            shape: Some(data.shape.iter().map(|&extent| extent.into()).collect()),
            elements: elements.map(|elements| elements.into_iter().map(Extent::from).collect()),
        }
    }

    /// A vector of integers.
    pub fn vector(elements: Vec<Extent>) -> Self {
        let shape = Some(vec![Extent::from(elements.len() as i64)]);
        Self { shape, elements: Some(elements).filter(|elements| elements.len() <= LONGEST) }
    }

    /// The extents, where all of them are numbers.
    pub fn numbers(&self) -> Option<Vec<i64>> {
        self.shape.as_ref()?.iter().map(Extent::number).collect()
    }
}

/// Extents as text: `[batch, 3, 224, 224]`.
pub fn shown(shape: &[Extent]) -> String {
    let extents: Vec<String> = shape.iter().map(Extent::to_string).collect();
    format!("[{}]", extents.join(", "))
}

/// A node whose outputs are asked for.
pub struct Asked<'a> {
    /// The node.
    pub node: &'a Node,
    /// The operator set that the model imports.
    pub opset: i64,
    /// What is known of its inputs; nothing of those that are left out.
    pub inputs: Vec<Fact>,
    /// Its inputs, where they are constants.
    pub constants: Vec<Option<&'a TensorData>>,
}

/// What follows for a node's outputs from what is known of its inputs; fewer facts than outputs say nothing of the others.
///
/// # Errors
/// What cannot be, whatever the free dimensions are: shapes that do not fit.
pub type Rule = fn(&Asked) -> Result<Vec<Fact>>;

impl Asked<'_> {
    /// The extents of input `index`.
    pub fn shape(&self, index: usize) -> Option<&[Extent]> {
        self.inputs.get(index)?.shape.as_deref()
    }

    /// The elements of input `index`.
    pub fn elements(&self, index: usize) -> Option<&[Extent]> {
        self.inputs.get(index)?.elements.as_deref()
    }

    /// The elements of input `index`, where all of them are numbers.
    pub fn ints(&self, index: usize) -> Option<Vec<i64>> {
        self.elements(index)?.iter().map(Extent::number).collect()
    }

    /// Input `index` as float32, where it is a constant.
    pub fn floats(&self, index: usize) -> Option<Vec<f32>> {
        self.constants.get(index).copied().flatten()?.to_f32().ok()
    }

    /// Whether input `index` is there.
    pub fn has(&self, index: usize) -> bool {
        self.node.input(index).is_some()
    }

    /// What is an attribute before opset `since` and then input `index`; or not there, or computed at run time.
    pub fn moved(&self, name: &str, index: usize, since: i64) -> Result<Moved> {
        if self.opset < since {
            let fixed = self.node.ints(name)?;
            return Ok(fixed.map_or(Moved::Absent, |values| Moved::Known(values.to_vec())));
        }
        if !self.has(index) {
            return Ok(Moved::Absent);
        }
        Ok(self.ints(index).map_or(Moved::Unknown, Moved::Known))
    }

    /// The extent of an axis of output `output`, of which nothing is known.
    pub fn free(&self, output: usize, axis: usize) -> Extent {
        let name = self.node.outputs.get(output).map_or("", String::as_str);
        Atom::Axis(name.into(), axis).into()
    }

    /// `extent`, or one of which nothing is known.
    pub fn or_free(&self, extent: Option<Extent>, output: usize, axis: usize) -> Extent {
        extent.unwrap_or_else(|| self.free(output, axis))
    }

    /// A shape of which only the rank is known.
    pub fn of_rank(&self, output: usize, rank: usize) -> Fact {
        Fact::shaped((0..rank).map(|axis| self.free(output, axis)).collect())
    }
}

/// A list of integers that opsets moved from an attribute to an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is left out.
    Absent,
    /// It is computed at run time.
    Unknown,
    /// It is known.
    Known(Vec<i64>),
}

/// Refuses two extents that differ whatever the free dimensions are; `what` says of what.
pub fn must_equal(a: &Extent, b: &Extent, what: impl FnOnce() -> String) -> Result<()> {
    if a.never_equals(b) { Err(Error::user(what())) } else { Ok(()) }
}

/// `axis` from the front of a shape of rank `rank`.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let from_front = from_front.and_then(|axis| usize::try_from(axis).ok());
    from_front
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Error::user(format!("axis {axis} of a tensor of rank {rank}")))
}
