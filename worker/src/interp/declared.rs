//! What a model declares of its inputs, held against what it is given.

use std::collections::HashMap;

use crate::graph::{DType, Dim, Model, ValueInfo};
use crate::ops::Shapes;
use crate::{Error, Result};

/// An input of the graph as the file declares it.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// Its name.
    pub name: String,
    /// Its extents; `None`: the file does not say.
    shape: Option<Vec<Dim>>,
}

impl Declared {
    pub fn of(input: &ValueInfo) -> Self {
        Self { name: input.name.clone(), shape: input.shape.clone() }
    }

    /// Refuses a tensor of another shape, before anything is computed. `named`: the extents that names such as `width`
    /// have had so far.
    ///
    /// The first axis may have any extent: files of a fixed batch are executed with other batches.
    pub fn check(&self, size: &[i64], named: &mut HashMap<String, i64>) -> Result<()> {
        let Some(shape) = &self.shape else { return Ok(()) };
        let mut fits = shape.len() == size.len();
        for (dim, &extent) in shape.iter().zip(size).skip(1) {
            fits &= match dim {
                Dim::Fixed(fixed) => *fixed == extent,
                Dim::Named(name) => *named.entry(name.clone()).or_insert(extent) == extent,
                Dim::Unknown => true,
            };
        }
        if fits {
            return Ok(());
        }
        let declared: Vec<String> = shape.iter().map(shown).collect();
        let error = Error::user(format!(
            "the model's input `{}` is [{}], it was given {size:?}; only the first axis may differ",
            self.name,
            declared.join(", ")
        ));
        Err(match help(shape, size) {
            Some(help) => error.help(help),
            None => error,
        })
    }
}

/// Refuses inputs of sizes that do not fit the model, before anything runs: `sizes` in the order of the graph's inputs.
///
/// # Errors
/// The input whose declared shape is another, or the first node that cannot run, with its operator and opset.
pub fn check_sizes(model: &Model, sizes: &[&[i64]]) -> Result<()> {
    let mut named = HashMap::new();
    for (input, size) in model.graph.inputs.iter().zip(sizes) {
        Declared::of(input).check(size, &mut named)?;
    }
    match Shapes::of_sizes(model, sizes).misfits.first() {
        None => Ok(()),
        Some(misfit) => {
            let place = model.place(&model.graph.nodes[misfit.node]);
            let error =
                Error::user(format!("inputs of {sizes:?} do not fit the model: {}", misfit.reason));
            Err(error.at(place))
        }
    }
}

/// What to do about images that do not fit.
fn help(shape: &[Dim], size: &[i64]) -> Option<String> {
    let [_, _, height, width] = shape else { return None };
    match (height, width) {
        _ if has_channels_last(shape) => Some(CHANNELS_LAST.to_owned()),
        (Dim::Fixed(high), Dim::Fixed(wide)) if size[2..] != [*high, *wide] => Some(format!(
            "end the data set's geometry at that size: transform = [{{ resize = [{high}, {wide}] }}, …]"
        )),
        _ => None,
    }
}

/// What to do where a file wants its channels last.
pub const CHANNELS_LAST: &str = "images are [channels, height, width] here (NCHW), and the file wants channels last (NHWC): export it without the permutation";

/// Whether images `[batch, …]` of this shape have their channels last: they are gray or of three colors.
fn has_channels_last(shape: &[Dim]) -> bool {
    let few = |dim: &Dim| matches!(dim, Dim::Fixed(1 | 3));
    matches!(shape, [_, first, _, last] if few(last) && !few(first))
}

/// Refuses a model that images cannot be fed to: they are `[batch, channels, height, width]` of float32, decoded and normalized.
///
/// # Errors
/// An input with its channels last; one of integers, or of other floats that are computed with as they come.
pub fn check_image_inputs(model: &Model) -> Result<()> {
    let image = |input: &&ValueInfo| input.shape.as_ref().is_some_and(|shape| shape.len() == 4);
    for input in model.graph.inputs.iter().filter(image) {
        let shape = input.shape.as_deref().unwrap_or_default();
        if has_channels_last(shape) {
            let shape: Vec<String> = shape.iter().map(shown).collect();
            return Err(Error::user(format!(
                "its input `{}` is [{}], and images are fed as [batch, channels, height, width]",
                input.name,
                shape.join(", ")
            ))
            .help(CHANNELS_LAST));
        }
        check_float32(model, input)?;
    }
    Ok(())
}

/// Refuses an input that float32 numbers cannot be fed to. Other floats that are cast at once are the same to who casts them.
fn check_float32(model: &Model, input: &ValueInfo) -> Result<()> {
    let Some(dtype) = input.dtype.filter(|&dtype| dtype != DType::F32) else { return Ok(()) };
    let float = matches!(dtype, DType::F64 | DType::F16 | DType::BF16);
    let mut readers = model.graph.nodes.iter().filter(|node| node.inputs.contains(&input.name));
    if float && readers.all(|node| node.op_type == "Cast") {
        return Ok(());
    }
    Err(Error::user(format!(
        "its input `{}` is of {}, and images are fed as float32 numbers, normalized by `transform`",
        input.name,
        dtype.name()
    ))
    .help(match float {
        true => "export the model with a float32 input",
        false => {
            "export the model from behind its Cast, without the normalization that `transform` does"
        }
    }))
}

fn shown(dim: &Dim) -> String {
    match dim {
        Dim::Fixed(extent) => extent.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Graph, Node, TensorData};

    #[test]
    fn a_size_that_the_layers_cannot_take_names_the_layer() {
        let free = |name: &str| Dim::Named(name.to_owned());
        let mut graph = Graph {
            inputs: vec![ValueInfo::f32(
                "x",
                vec![free("batch"), Dim::Fixed(3), free("h"), free("w")],
            )],
            nodes: vec![
                Node::new("pool", "MaxPool", &["x"], &["p"])
                    .with("kernel_shape", Attribute::Ints(vec![4, 4]))
                    .with("strides", Attribute::Ints(vec![4, 4])),
                Node::new("flat", "Flatten", &["p"], &["f"]),
                Node::new("fc", "MatMul", &["f", "w"], &["y"]),
            ],
            ..Graph::default()
        };
        graph.initializers.insert("w".to_owned(), TensorData::f32(&[48, 2], &[0.0; 96]));
        let model = Model::new(graph, 17);
        assert!(check_sizes(&model, &[&[8, 3, 16, 16]]).is_ok());
        let error = check_sizes(&model, &[&[8, 3, 16, 24]]).unwrap_err();
        assert_eq!(
            error.message,
            "node \"fc\" (MatMul), opset 17: inputs of [[8, 3, 16, 24]] do not fit the model: a product of [8, 72] and [48, 2]: 72 and 48 differ"
        );
        let error = check_sizes(&model, &[&[8, 3, 2, 16]]).unwrap_err();
        assert!(
            error.message.contains("\"pool\" (MaxPool)") && error.message.contains("window of 4"),
            "{error}"
        );
        assert!(check_sizes(&model, &[&[8, 1, 16, 16]]).unwrap_err().message.contains("input `x`"));
    }

    #[test]
    fn only_the_first_axis_and_free_ones_may_differ() {
        let side = || Dim::Named("side".to_owned());
        let input = ValueInfo::f32("x", vec![Dim::Fixed(1), Dim::Fixed(3), side(), side()]);
        let declared = Declared::of(&input);
        let check = |size: &[i64]| declared.check(size, &mut HashMap::new());
        assert!(check(&[8, 3, 64, 64]).is_ok());
        let message = check(&[8, 1, 64, 64]).unwrap_err().message;
        assert!(message.contains("input `x` is [1, 3, side, side], it was given [8, 1, 64, 64]"));
        assert!(check(&[8, 3, 64, 32]).is_err(), "one name has one extent");
        assert!(check(&[8, 3, 64]).is_err());
        let unknown = ValueInfo { shape: None, ..input };
        assert!(Declared::of(&unknown).check(&[5], &mut HashMap::new()).is_ok());
    }
}
