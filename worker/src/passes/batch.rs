//! The batch dimension of a model's inputs and outputs.

use std::collections::HashSet;

use crate::graph::{Dim, Graph, Model, TensorData};
use crate::ops::Shapes;
use crate::shapes::Extent;
use crate::{Error, Result};

/// What to do where a file is for one batch alone.
pub const EXPORT_ANY_BATCH: &str = "export it from PyTorch with a dynamic batch axis (`dynamic_shapes`, or `dynamic_axes` and `input_names` of the older exporter)";

/// Fixes the first extent of inputs and outputs, or frees it (`None`). Types of values in between are dropped: they
/// may hold the old one. A Reshape to the old fixed batch copies the extent of its input instead.
///
/// A model that computes something else with another batch than that of its export, since a node keeps that, stays as it is where the batch was to be freed.
///
/// # Errors
/// An input whose shape is not known or that has no extent. A fixed batch that a node contradicts.
pub fn set_batch(model: &mut Model, batch: Option<u32>) -> Result<()> {
    let old = fixed_batch(model);
    let before = old.map(|_| model.clone());
    let graph = &mut model.graph;
    let extent = || batch.map_or_else(|| Dim::Named("batch".to_owned()), |n| Dim::Fixed(n.into()));
    for input in &mut graph.inputs {
        let first = input.shape.as_mut().and_then(|shape| shape.first_mut()).ok_or_else(|| {
            Error::user(format!("input `{}` has no batch dimension", input.name))
                .help("export the model with an input of shape [batch, channels, height, width]")
        })?;
        *first = extent();
    }
    for output in &mut graph.outputs {
        if let Some(first) = output.shape.as_mut().and_then(|shape| shape.first_mut()) {
            *first = extent();
        }
    }
    graph.value_infos.clear();
    let (Some(old), Some(before)) = (old, before) else { return Ok(()) };
    if batch.map(i64::from) == Some(old) {
        return Ok(());
    }
    copy_extent(model, old)?;
    match (kept_batch(model, old), batch) {
        (None, _) => Ok(()),
        (Some(_), None) => {
            *model = before;
            Ok(())
        }
        (Some(why), Some(_)) => {
            *model = before;
            Err(Error::user(format!(
                "the file was exported for a batch of {old}, which it keeps: {why}"
            ))
            .help(EXPORT_ANY_BATCH))
        }
    }
}

/// The batch that a model declares, where it is fixed.
pub fn fixed_batch(model: &Model) -> Option<i64> {
    model.graph.inputs.iter().find_map(|input| match input.shape.as_deref()?.first()? {
        Dim::Fixed(extent) => Some(*extent),
        _ => None,
    })
}

/// Refuses a batch of another size than a model is for that keeps that of its export ([`set_batch`] has freed all others).
///
/// # Errors
/// Both, and what to do.
pub fn check_batch(model: &Model, batch: usize) -> Result<()> {
    match fixed_batch(model) {
        Some(own) if usize::try_from(own) != Ok(batch) => Err(Error::user(format!(
            "the model keeps the batch of its export, {own}, and is to be run with {batch} images at a time"
        ))
        .help(format!("{EXPORT_ANY_BATCH}; or say batch_size = {own}"))),
        _ => Ok(()),
    }
}

/// Why a model cannot be run with another batch than `old`, as far as that is known before anything runs: a node whose inputs do not fit, or an
/// output that has as many rows as before.
pub fn kept_batch(model: &Model, old: i64) -> Option<String> {
    let other = old + 1;
    let (own, changed) = (input_sizes(model, old)?, input_sizes(model, other)?);
    let of = |sizes: &[Vec<i64>]| {
        let sizes: Vec<&[i64]> = sizes.iter().map(Vec::as_slice).collect();
        Shapes::of_sizes(model, &sizes)
    };
    let shapes = of(&changed);
    if let Some(misfit) = shapes.misfits.first() {
        // What is wrong with any batch is told where it runs.
        let is_new = of(&own).misfits.iter().all(|known| known.node != misfit.node);
        return is_new.then(|| {
            let place = model.graph.nodes[misfit.node].place();
            format!("{place}: with {other} images, {}", misfit.reason)
        });
    }
    let computed = of_images(&model.graph);
    let rows = |name: &str| shapes.shape(name)?.first()?.number();
    let output = model.graph.outputs.iter().find(|output| {
        computed.contains(output.name.as_str()) && rows(&output.name) == Some(old)
    })?;
    Some(format!("its output `{}` has {old} rows for {other} images", output.name))
}

/// The sizes of a model's inputs with that batch; `None` where another extent is free.
pub fn input_sizes(model: &Model, batch: i64) -> Option<Vec<Vec<i64>>> {
    let each = model.graph.inputs.iter().map(|input| {
        let extents = input.shape.as_deref()?.iter().enumerate().map(|(axis, dim)| match dim {
            _ if axis == 0 => Some(batch),
            Dim::Fixed(extent) => Some(*extent),
            _ => None,
        });
        extents.collect()
    });
    each.collect()
}

/// Values that are computed from an input.
fn of_images(graph: &Graph) -> HashSet<&str> {
    let mut found: HashSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    for node in &graph.nodes {
        if node.inputs.iter().any(|input| found.contains(input.as_str())) {
            found.extend(node.outputs.iter().map(String::as_str));
        }
    }
    found
}

/// Reshapes whose constant shape begins with the old batch begin with 0, "as the input", instead; with -1 where the batch is a factor of the input's first axis,
/// such as the heads of all images. One at a time: what the next ones read follows from it.
fn copy_extent(model: &mut Model, old: i64) -> Result<()> {
    let mut next = 0;
    while let Some((index, shape)) = begins_with(model, old, next)? {
        next = index + 1;
        let graph = &mut model.graph;
        let fresh = graph.fresh_name(&graph.nodes[index].inputs[1].clone());
        graph.initializers.insert(fresh.clone(), TensorData::i64(&[shape.len() as i64], &shape));
        graph.nodes[index].inputs[1] = fresh;
        graph.nodes[index].attributes.shift_remove("allowzero");
    }
    Ok(())
}

/// The first Reshape from a node on whose constant shape begins with the old batch, and the shape that it is to have.
fn begins_with(model: &Model, old: i64, from: usize) -> Result<Option<(usize, Vec<i64>)>> {
    let graph = &model.graph;
    let mut shapes = None;
    for (index, node) in graph.nodes.iter().enumerate().skip(from) {
        if node.op_type != "Reshape" {
            continue;
        }
        let allows_zero = node.int("allowzero", 0)? != 0;
        let Some(data) = node.input(1).and_then(|name| graph.initializers.get(name)) else {
            continue;
        };
        let mut shape = data.to_i64()?;
        // `[1, …]` of a weight's Reshape is not the batch.
        let of_constant = node.input(0).is_some_and(|input| graph.initializers.contains_key(input));
        // PyTorch's dynamo exporter allows extents of 0 and has none; one that is there means another thing.
        if shape.first() != Some(&old) || of_constant || (allows_zero && shape.contains(&0)) {
            continue;
        }
        let shapes = shapes.get_or_insert_with(|| Shapes::of_any_batch(model));
        let input = node.input(0).and_then(|input| shapes.shape(input));
        if let Some(first) = first_extent(graph, shapes, input, &shape[1..]) {
            shape[0] = first;
            return Ok(Some((index, shape)));
        }
    }
    Ok(None)
}

/// What a Reshape's shape begins with in place of the old batch: 0 or -1; `None` where that is not the batch.
fn first_extent(
    graph: &Graph,
    shapes: &Shapes,
    input: Option<&[Extent]>,
    rest: &[i64],
) -> Option<i64> {
    let Some(input) = input else { return Some(0) };
    let batch = graph.inputs.iter().find_map(|input| shapes.shape(&input.name)?.first())?;
    if input.first() == Some(batch) {
        return Some(0);
    }
    if rest.iter().any(|extent| *extent < 1) {
        return None;
    }
    let all = input.iter().try_fold(Extent::from(1), |all, extent| all.times(extent))?;
    let wanted = rest.iter().try_fold(batch.clone(), |all, extent| all.times(&(*extent).into()))?;
    (all == wanted).then_some(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, ValueInfo};

    /// Of one image `[1, 6, 4]`, by Reshapes to constant shapes.
    fn reshaped(to: &[&[i64]]) -> Model {
        let mut graph = Graph::default();
        let mut last = "x".to_owned();
        for (index, shape) in to.iter().enumerate() {
            let (name, output) = (format!("s{index}"), format!("y{index}"));
            graph.initializers.insert(name.clone(), TensorData::i64(&[shape.len() as i64], shape));
            graph.nodes.push(Node::new(&output, "Reshape", &[&last, &name], &[&output]));
            last = output;
        }
        let dims = |extents: &[i64]| extents.iter().copied().map(Dim::Fixed).collect();
        graph.inputs.push(ValueInfo::f32("x", dims(&[1, 6, 4])));
        graph.outputs.push(ValueInfo::f32(&last, dims(to.last().unwrap())));
        Model::new(graph, 17)
    }

    fn freed(to: &[&[i64]]) -> (Vec<Vec<i64>>, Option<i64>) {
        let mut model = reshaped(to);
        set_batch(&mut model, None).unwrap();
        let shape = |node: &Node| model.graph.initializers[&node.inputs[1]].to_i64().unwrap();
        (model.graph.nodes.iter().map(shape).collect(), fixed_batch(&model))
    }

    #[test]
    fn what_begins_with_the_batch_follows_it() {
        // Parts of an image, which are joined, and are parts of it again.
        let parts: [&[i64]; 3] = [&[1, 24], &[-1, 4], &[1, 6, 4]];
        assert_eq!(freed(&parts), (vec![vec![0, 24], vec![-1, 4], vec![-1, 6, 4]], None));
        assert_eq!(freed(&[&[1, -1]]), (vec![vec![0, -1]], None));
    }

    #[test]
    fn a_model_that_keeps_its_batch_stays_as_it_is() {
        // As an attention's heads, of which there are 6 with one image.
        let heads: [&[i64]; 2] = [&[6, 1, 4], &[1, 6, 4]];
        assert_eq!(freed(&heads), (vec![vec![6, 1, 4], vec![1, 6, 4]], Some(1)));
        let mut model = reshaped(&heads);
        check_batch(&model, 1).unwrap();
        let help = check_batch(&model, 4).unwrap_err().help.unwrap();
        assert!(help.ends_with("or say batch_size = 1"), "{help}");
        set_batch(&mut model, Some(1)).unwrap();
        assert_eq!(fixed_batch(&model), Some(1));
        let error = set_batch(&mut model, Some(3)).unwrap_err();
        assert!(
            error
                .message
                .starts_with("the file was exported for a batch of 1, which it keeps: node \"y0\""),
            "{error:?}"
        );
        assert_eq!(fixed_batch(&model), Some(1));
        // One row, whatever the batch.
        let mut model = reshaped(&[&[-1]]);
        let indices = TensorData::i64(&[2], &[3, 5]);
        model.graph.initializers.insert("i".to_owned(), indices);
        model.graph.initializers.insert("one".to_owned(), TensorData::i64(&[2], &[1, 2]));
        model.graph.nodes.push(Node::new("gather", "Gather", &["y0", "i"], &["g"]));
        model.graph.nodes.push(Node::new("row", "Reshape", &["g", "one"], &["row"]));
        model.graph.outputs[0].name = "row".to_owned();
        set_batch(&mut model, None).unwrap();
        assert_eq!(fixed_batch(&model), Some(1));
        let error = set_batch(&mut model, Some(2)).unwrap_err();
        assert!(error.message.ends_with("its output `row` has 1 rows for 2 images"), "{error:?}");
    }
}
