//! Shapes that a model computes, where they are known: exporters write a Reshape's shape as a chain of Shape, Gather and Concat.

use crate::Result;
use crate::graph::{Model, Node, TensorData};
use crate::ops::Shapes;
use crate::shapes::Extent;

/// Makes initializers of whole numbers that follow from the shapes of the inputs, whatever the batch; and of the shapes of
/// Reshape and Expand where they follow but for one axis, or for axes that stay as they are.
///
/// The first axis of an input is taken as free even where the file fixes it.
pub fn fold(model: &mut Model) -> Result<usize> {
    let shapes = Shapes::of_any_batch(model);
    let (mut constants, mut moved) = (Vec::new(), Vec::new());
    for (index, node) in
        model.graph.nodes.iter().enumerate().filter(|(_, node)| !node.is_constant())
    {
        if let [output] = &node.outputs[..]
            && !model.graph.is_output(output)
            && let Some(data) = shapes.constant(output)
        {
            constants.push((index, output.clone(), data));
        } else if let Some(data) = partly(node, &shapes, model) {
            moved.push((index, data));
        }
    }
    let folded = constants.len() + moved.len();
    let graph = &mut model.graph;
    for (index, data) in moved {
        let name = graph.fresh_name(&format!("{}_shape", graph.nodes[index].label()));
        graph.initializers.insert(name.clone(), data);
        graph.nodes[index].inputs[1] = name;
    }
    let mut indices = constants.iter().map(|(index, ..)| *index).peekable();
    let nodes = std::mem::take(&mut graph.nodes).into_iter().enumerate();
    graph.nodes = nodes
        .filter(|(index, _)| indices.next_if_eq(index).is_none())
        .map(|(_, node)| node)
        .collect();
    graph.initializers.extend(constants.into_iter().map(|(_, name, data)| (name, data)));
    Ok(folded)
}

/// The shape that a Reshape or Expand is given, as a constant that means the same.
fn partly(node: &Node, shapes: &Shapes, model: &Model) -> Option<TensorData> {
    let shape = node.input(1).filter(|name| !model.graph.is_initializer(name))?;
    if !node.domain.is_empty() || shapes.constant(shape).is_some() {
        return None;
    }
    let wanted = shapes.get(shape)?.elements.as_deref()?;
    let input = shapes.shape(node.input(0)?)?;
    let values = match node.op_type.as_str() {
        "Reshape" if model.opset() >= 5 => {
            reshape(wanted, input, node.int("allowzero", 0).ok()? == 0)?
        }
        "Expand" => expand(wanted, input)?,
        _ => return None,
    };
    Some(TensorData::i64(&[values.len() as i64], &values))
}

/// With 0 for extents that stay, and -1 for one that is left.
fn reshape(wanted: &[Extent], input: &[Extent], zero_copies: bool) -> Option<Vec<i64>> {
    let mut open = wanted.iter().any(|extent| extent.number() == Some(-1));
    let each = wanted.iter().enumerate().map(|(axis, extent)| {
        if let Some(number) = extent.number() {
            return Some(number);
        }
        if zero_copies && extent.is_natural() && input.get(axis) == Some(extent) {
            return Some(0);
        }
        // An element that is not known may be -1 itself.
        (extent.is_natural() && !std::mem::replace(&mut open, true)).then_some(-1)
    });
    each.collect()
}

/// With 1 for extents that stay.
fn expand(wanted: &[Extent], input: &[Extent]) -> Option<Vec<i64>> {
    let offset = wanted.len().checked_sub(input.len());
    let each = wanted.iter().enumerate().map(|(axis, extent)| {
        if let Some(number) = extent.number() {
            return Some(number);
        }
        let own = axis.checked_sub(offset?).and_then(|axis| input.get(axis));
        (own == Some(extent)).then_some(1)
    });
    each.collect()
}
