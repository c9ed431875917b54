//! Weights behind operators that move their elements, as exporters write them: a Linear of PyTorch reads `Transpose(DQ(Q(weight)))`.

use qpipe::stages::insert_qdq::Target;

use super::view::PairView;
use crate::graph::Node;

/// Operators that give all elements of their first input, in another order or with other extents.
const MOVERS: [&str; 6] = ["Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"];

/// Operators between which and a layer ONNX Runtime moves pairs, so that they move integers: seen of 1.32, which leaves Flatten and Resize.
/// TensorRT commutes with all of them.
const PASSED: [&str; 7] =
    ["Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"];

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
    back(view, value, moves)
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

fn moves(node: &Node) -> bool {
    node.domain.is_empty() && MOVERS.contains(&node.op_type.as_str())
}

/// Whether the runtime moves pairs from one side of a node to the other.
fn is_passed(view: &PairView, node: &Node) -> bool {
    let flat = view.target != Some(Target::Onnxruntime) && node.op_type == "Flatten";
    node.domain.is_empty() && (flat || PASSED.contains(&node.op_type.as_str()))
}

/// The value whose pair a layer reads that reads `value`: behind what the runtime moves pairs over.
pub fn carried<'a>(view: &PairView<'a>, value: &'a str) -> &'a str {
    back(view, value, |node| is_passed(view, node)).value
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
        "Identity" => Some(shape.to_vec()),
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
