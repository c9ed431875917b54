//! What is known of a graph's values before anything runs, by the rules of its operators.

use std::borrow::Cow;
use std::collections::HashMap;

use super::table;
use crate::Result;
use crate::graph::{DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use crate::shapes::{Asked, Atom, Extent, Fact};

/// A node whose inputs do not fit, whatever the free dimensions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its index in the graph.
    pub node: usize,
    /// What does not fit.
    pub reason: String,
}

/// What is known of a graph's values.
pub struct Shapes<'a> {
    facts: HashMap<&'a str, Fact>,
    /// Initializers, and what `Constant` nodes hold.
    constants: HashMap<&'a str, Cow<'a, TensorData>>,
    /// Types of values whose elements are known.
    dtypes: HashMap<&'a str, DType>,
    /// Nodes that cannot run; nothing is known of what they make.
    pub misfits: Vec<Misfit>,
}

impl<'a> Shapes<'a> {
    /// As the file declares its inputs; named dimensions are at least 1.
    pub fn declared(model: &'a Model) -> Self {
        Self::of(model, &|input, axis, dim| match dim {
            Dim::Fixed(extent) => (*extent).into(),
            Dim::Named(name) => Atom::Named(name.as_str().into()).into(),
            Dim::Unknown => Atom::Input(input.name.as_str().into(), axis).into(),
        })
    }

    /// As the file declares its inputs, but for their first axes, which are free: a file of a fixed batch may be executed with
    /// another.
    pub fn of_any_batch(model: &'a Model) -> Self {
        Self::of(model, &|input, axis, dim| match dim {
            Dim::Fixed(extent) if axis > 0 => (*extent).into(),
            Dim::Named(name) => Atom::Named(name.as_str().into()).into(),
            _ => Atom::Input(input.name.as_str().into(), axis).into(),
        })
    }

    /// For inputs of these sizes, in the graph's order; those that are left out are as the file declares them.
    pub fn of_sizes(model: &'a Model, sizes: &[&[i64]]) -> Self {
        let mut shapes = Self::with(HashMap::new());
        for (index, input) in model.graph.inputs.iter().enumerate() {
            let fact = match sizes.get(index) {
                Some(size) => Fact::shaped(size.iter().map(|&extent| extent.into()).collect()),
                None => input_fact(input, &|input, axis, _| {
                    Atom::Input(input.name.as_str().into(), axis).into()
                }),
            };
            shapes.facts.insert(&input.name, fact);
        }
        shapes.walk(model);
        shapes
    }

    fn of(model: &'a Model, extent: &dyn Fn(&ValueInfo, usize, &Dim) -> Extent) -> Self {
        let inputs = model.graph.inputs.iter();
        let facts = inputs.map(|input| (input.name.as_str(), input_fact(input, extent))).collect();
        let mut shapes = Self::with(facts);
        shapes.walk(model);
        shapes
    }

    fn with(facts: HashMap<&'a str, Fact>) -> Self {
        Self { facts, constants: HashMap::new(), dtypes: HashMap::new(), misfits: Vec::new() }
    }

    /// What is known of a value.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }

    /// The extents of a value.
    pub fn shape(&self, name: &str) -> Option<&[Extent]> {
        self.facts.get(name)?.shape.as_deref()
    }

    /// The elements of a value as a constant, where all of them are known numbers.
    pub fn constant(&self, name: &str) -> Option<TensorData> {
        let fact = self.get(name)?;
        let shape = fact.numbers()?;
        let elements: Option<Vec<i64>> =
            fact.elements.as_ref()?.iter().map(Extent::number).collect();
        let data = TensorData::i64(&shape, &elements?);
        match self.dtypes.get(name)? {
            DType::I64 => Some(data),
            _ => None,
        }
    }

    fn walk(&mut self, model: &'a Model) {
        let graph: &'a Graph = &model.graph;
        let opset = model.opset();
        self.constants.extend(
            graph.initializers.iter().map(|(name, data)| (name.as_str(), Cow::Borrowed(data))),
        );
        for node in graph.nodes.iter().filter(|node| node.is_constant()) {
            if let (Some(output), Ok(data)) = (node.outputs.first(), node.constant()) {
                self.constants.insert(output, Cow::Owned(data));
            }
        }
        self.dtypes.extend(self.constants.iter().map(|(&name, data)| (name, data.dtype)));
        self.facts.extend(self.constants.iter().map(|(&name, data)| (name, Fact::of(data))));
        for (index, node) in graph.nodes.iter().enumerate() {
            let made = match self.node(node, opset) {
                Ok(made) => made,
                Err(error) => {
                    self.misfits.push(Misfit { node: index, reason: error.message });
                    Vec::new()
                }
            };
            for (output, fact) in node.outputs.iter().zip(made) {
                if let (Some(_), Some(dtype)) = (&fact.elements, self.dtype(node)) {
                    self.dtypes.insert(output, dtype);
                }
                self.facts.insert(output, fact);
            }
        }
    }

    /// The type of what a node makes of whole numbers, where its elements are known.
    fn dtype(&self, node: &Node) -> Option<DType> {
        let of = |index: usize| self.dtypes.get(node.input(index)?).copied();
        match node.op_type.as_str() {
            "Shape" | "Size" => Some(DType::I64),
            "Equal" | "Not" => Some(DType::Bool),
            "Cast" => DType::from_onnx(i32::try_from(node.int("to", 0).ok()?).ok()?),
            "ConstantOfShape" => Some(node.tensor("value").ok()??.dtype),
            "Where" => of(1),
            _ => of(0),
        }
    }

    fn node(&self, node: &Node, opset: i64) -> Result<Vec<Fact>> {
        let op = if node.domain.is_empty() { table::find(&node.op_type, opset) } else { None };
        let Some(rule) = op.and_then(|op| op.shapes) else { return Ok(Vec::new()) };
        let inputs = node
            .inputs
            .iter()
            .map(|name| self.facts.get(name.as_str()).cloned().unwrap_or_default());
        let constants =
            node.inputs.iter().map(|name| self.constants.get(name.as_str()).map(Cow::as_ref));
        let constants: Vec<Option<&TensorData>> = constants.collect();
        rule(&Asked { node, opset, inputs: inputs.collect(), constants })
    }
}

fn input_fact(input: &ValueInfo, extent: &dyn Fn(&ValueInfo, usize, &Dim) -> Extent) -> Fact {
    let shape = input.shape.as_ref();
    let shape = shape
        .map(|dims| dims.iter().enumerate().map(|(axis, dim)| extent(input, axis, dim)).collect());
    Fact { shape, elements: None }
}
