//! Weights behind operators that move their elements, as exporters write them: a Linear of PyTorch reads `Transpose(DQ(Q(weight)))`.

use std::collections::HashSet;

use qpipe::stages::insert_qdq::Target;

use super::view::PairView;
use crate::graph::{DType, Node};

/// Operators that give all elements of their first input, in another order or with other extents.
const MOVERS: [&str; 6] = ["Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// Operators between which and a layer ONNX Runtime moves pairs, so that they move integers: seen of 1.32, which leaves Flatten and Resize.
/// TensorRT commutes with all of them.
const PASSED: [&str; 8] =
    ["Dropout", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"];

/// A value, and what moves its elements on the way to its reader.
pub struct Moved<'a> {
    /// The value.
    pub value: &'a str,
    /// The movers, the reader's first.
    movers: Vec<&'a Node>,
}

/// What a weight is before it is moved: a constant, and its pair.
pub struct Weight<'a> {
    /// The constant.
    pub constant: &'a str,
    /// What dequantizes it.
    pub dequantize: Option<&'a Node>,
    /// Between the constant and its pair.
    before: Vec<&'a Node>,
    /// Between the pair, or the constant where there is none, and the layer.
    behind: Vec<&'a Node>,
}

/// Goes back from a value to the first that is not just another one's elements.
pub fn origin<'a>(view: &PairView<'a>, value: &'a str) -> Moved<'a> {
    back(view, value, |node| moves(view, node))
}

/// The same, over nodes for which `passes` holds.
fn back<'a>(view: &PairView<'a>, mut value: &'a str, passes: impl Fn(&Node) -> bool) -> Moved<'a> {
    let mut movers = Vec::new();
    // A stranger's graph may have a cycle.
    while movers.len() < view.graph.nodes.len()
        && let Some(node) = view.producer(value).filter(|node| passes(node))
        && let Some(input) = node.input(0)
    {
        movers.push(node);
        value = input;
    }
    Moved { value, movers }
}

fn moves(view: &PairView, node: &Node) -> bool {
    node.domain.is_empty() && MOVERS.contains(&node.op_type.as_str()) || is_passed_cast(view, node)
}

/// Whether a Cast of a weight or a value leaves its layer integer: TensorRT-RTX 1.7 makes one kernel of both, ONNX Runtime 1.32 drops a Cast
/// to float32 alone.
fn is_passed_cast(view: &PairView, node: &Node) -> bool {
    let to = || node.int("to", 0).ok().and_then(|to| DType::from_onnx(i32::try_from(to).ok()?));
    let known = |to: DType| match view.target {
        Some(Target::Onnxruntime) => {
            to == DType::F32 && node.input(0).is_some_and(|name| !is_half(view, name))
        }
        _ => matches!(to, DType::F32 | DType::F16 | DType::BF16),
    };
    node.domain.is_empty() && node.op_type == "Cast" && to().is_some_and(known)
}

/// Whether a value is of 16 bits: that of a pair by its scale, that of a Cast by what it makes; of others the graph does not say it.
pub fn is_half(view: &PairView, value: &str) -> bool {
    let halves = [DType::F16, DType::BF16];
    let made = view.producer(value);
    match made.map(|node| (node, node.op_type.as_str())) {
        Some((node, "DequantizeLinear")) => {
            let scale = node.input(1).and_then(|name| view.constant(name));
            scale.is_some_and(|scale| halves.contains(&scale.dtype))
        }
        Some((node, "Cast")) => {
            let to = node.int("to", 0).unwrap_or(0);
            halves.iter().any(|half| i64::from(half.onnx()) == to)
        }
        _ => false,
    }
}

/// Whether the runtime moves pairs from one side of a node to the other.
pub fn is_passed(view: &PairView, node: &Node) -> bool {
    let flat = view.target != Some(Target::Onnxruntime) && node.op_type == "Flatten";
    node.domain.is_empty() && (flat || PASSED.contains(&node.op_type.as_str()))
        || is_passed_cast(view, node)
}

/// The value whose pair a layer reads that reads `value`: behind what the runtime moves pairs over.
pub fn carried<'a>(view: &PairView<'a>, value: &'a str) -> &'a str {
    back(view, value, |node| is_passed(view, node)).value
}

/// What keeps a layer that reads `value` from the pair of it: a node that gives the same elements, but over which the runtime moves no pairs.
pub fn barrier<'a>(view: &PairView<'a>, value: &'a str) -> Option<&'a Node> {
    let Moved { value, movers } =
        back(view, value, |node| is_passed(view, node) || moves(view, node));
    view.dequantize(value)?;
    movers.into_iter().find(|node| !is_passed(view, node))
}

impl<'a> Moved<'a> {
    /// What moves its elements.
    pub fn movers(&self) -> impl Iterator<Item = &'a Node> {
        self.movers.iter().copied()
    }
}

/// The DequantizeLinear nodes that a value is made of: one, or on TensorRT, which moves them over a Concat, one for each value that is joined;
/// `None`: not all of it is dequantized.
pub fn pairs<'a>(view: &PairView<'a>, value: &'a str) -> Option<Vec<&'a Node>> {
    let joins = view.target != Some(Target::Onnxruntime);
    let (mut open, mut seen, mut found) = (vec![value], HashSet::new(), Vec::new());
    while let Some(value) = open.pop() {
        let value = carried(view, value);
        match view.producer(value) {
            Some(node) if node.op_type == "DequantizeLinear" => found.push(node),
            Some(node) if joins && node.op_type == "Concat" => {
                // A stranger's graph may have a cycle.
                open.extend(node.inputs.iter().map(String::as_str).filter(|it| seen.insert(*it)));
            }
            _ => return None,
        }
    }
    (!found.is_empty()).then_some(found)
}

/// How many scales and zero points the pairs have of which a value is made; those that are no constants count as one.
pub fn scales(view: &PairView, value: &str) -> Option<usize> {
    let mut known = Vec::new();
    for pair in pairs(view, value)? {
        let parameters = view.parameters(pair);
        if !known.contains(&parameters) {
            known.push(parameters);
        }
    }
    Some(known.len())
}

impl<'a> Weight<'a> {
    /// That of a value that a layer reads; `None`: it is computed.
    pub fn of(view: &PairView<'a>, read: &'a str) -> Option<Self> {
        let Moved { value, movers: behind } = origin(view, read);
        let dequantize = view.dequantize(value);
        let Moved { value, movers: before } = origin(view, view.behind(value).unwrap_or(value));
        view.is_constant(value).then_some(Self { constant: value, dequantize, before, behind })
    }

    /// Its shape as the layer reads it.
    pub fn shape(&self, view: &PairView) -> Option<Vec<i64>> {
        self.behind
            .iter()
            .rev()
            .try_fold(self.pair_shape(view)?, |shape, node| moved(view, node, &shape))
    }

    /// Its shape as its pair has it.
    fn pair_shape(&self, view: &PairView) -> Option<Vec<i64>> {
        let shape = view.constant(self.constant)?.shape.clone();
        self.before.iter().rev().try_fold(shape, |shape, node| moved(view, node, &shape))
    }

    /// The axis that one of its pair's becomes in what the layer reads; `None`: it is no axis of its own there.
    pub fn axis(&self, view: &PairView, axis: i64) -> Option<i64> {
        let mut shape = self.pair_shape(view)?;
        let mut axis =
            usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
        for node in self.behind.iter().rev() {
            let next = moved(view, node, &shape)?;
            axis = match node.op_type.as_str() {
                "Transpose" => {
                    permutation(node, shape.len())?.iter().position(|&from| from == axis)?
                }
                _ => same_axis(&shape, axis, &next)?,
            };
            shape = next;
        }
        i64::try_from(axis).ok()
    }
}

/// The axis of the same extent and stride.
fn same_axis(from: &[i64], axis: usize, to: &[i64]) -> Option<usize> {
    let place = |shape: &[i64], axis: usize| -> Option<(i64, i64)> {
        Some((*shape.get(axis)?, product(shape.get(axis + 1..)?)?))
    };
    let own = place(from, axis)?;
    (0..to.len()).find(|&axis| place(to, axis) == Some(own))
}

fn product(extents: &[i64]) -> Option<i64> {
    extents.iter().try_fold(1_i64, |product, &extent| product.checked_mul(extent))
}

/// For each axis of what a Transpose gives that of its input.
fn permutation(node: &Node, rank: usize) -> Option<Vec<usize>> {
    let Some(named) = node.ints("perm").ok()? else { return Some((0..rank).rev().collect()) };
    let axes: Vec<usize> =
        named.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    (axes.len() == rank && axes.iter().all(|&axis| axis < rank)).then_some(axes)
}

/// The shape that a mover gives; `None`: the graph does not say it.
fn moved(view: &PairView, node: &Node, shape: &[i64]) -> Option<Vec<i64>> {
    let rank = shape.len() as i64;
    match node.op_type.as_str() {
        "Cast" | "Identity" => Some(shape.to_vec()),
        "Transpose" => {
            permutation(node, shape.len())?.iter().map(|&axis| shape.get(axis).copied()).collect()
        }
        "Flatten" => {
            let axis = node.int("axis", 1).ok()?;
            let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
            Some(vec![product(shape.get(..axis)?)?, product(shape.get(axis..)?)?])
        }
        "Reshape" => {
            let asked = view.constant(node.input(1)?)?.whole_numbers()?;
            let keep = |(axis, &extent): (usize, &i64)| match extent {
                0 => shape.get(axis).copied(),
                extent => Some(extent),
            };
            let mut made: Vec<i64> = asked.iter().enumerate().map(keep).collect::<Option<_>>()?;
            if let Some(rest) = made.iter().position(|&extent| extent < 0) {
                made[rest] = 1;
                made[rest] = product(shape)?.checked_div(product(&made)?)?;
            }
            (product(&made)? == product(shape)?).then_some(made)
        }
        "Squeeze" => {
            let axes = axes(view, node, rank)?;
            let kept = shape.iter().enumerate().filter(|(axis, extent)| match &axes {
                Some(axes) => !axes.contains(&(*axis as i64)),
                None => **extent != 1,
            });
            Some(kept.map(|(_, extent)| *extent).collect())
        }
        _ => {
            let own = match node.input(1) {
                Some(axes) => view.constant(axes)?.len(),
                None => node.ints("axes").ok()??.len(),
            };
            let rank = rank + own as i64;
            let axes = axes(view, node, rank)??;
            let mut rest = shape.iter();
            (0..rank)
                .map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() })
                .collect()
        }
    }
}

/// The axes of a Squeeze or Unsqueeze, from the front: an input, or before opset 13 an attribute; `Some(None)`: it names none.
fn axes(view: &PairView, node: &Node, rank: i64) -> Option<Option<Vec<i64>>> {
    let named = match node.input(1) {
        Some(axes) => Some(view.constant(axes)?.whole_numbers()?),
        None => node.ints("axes").ok()?.map(<[i64]>::to_vec),
    };
    let front = |axis: i64| if axis < 0 { axis + rank } else { axis };
    Some(named.map(|axes| axes.into_iter().map(front).collect()))
}
