//! What is said of shapes before anything runs, held to what runs.

use std::collections::HashMap;

use qpipe_worker::graph::{Dim, Model};
use qpipe_worker::ops::Shapes;
use qpipe_worker::shapes::{Atom, Extent, Fact};
use tch::{Kind, Tensor};

/// How much was known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Values whose shape was known, given those of the inputs.
    pub shapes: usize,
    /// Values in all.
    pub values: usize,
    /// Values of which all elements were known.
    pub elements: usize,
}

impl std::ops::AddAssign for Known {
    fn add_assign(&mut self, other: Self) {
        self.shapes += other.shapes;
        self.values += other.values;
        self.elements += other.elements;
    }
}

/// Names of all values that nodes make.
pub fn values(model: &Model) -> Vec<String> {
    let made =
        model.graph.nodes.iter().filter(|node| !node.is_constant()).flat_map(|node| &node.outputs);
    made.filter(|name| !name.is_empty()).cloned().collect()
}

/// What a value turned out to be: its size, and its elements where they are whole and few.
pub type Made = (Vec<i64>, Option<Vec<i64>>);

/// As the watcher of a program sees it.
pub fn made(tensor: &Tensor) -> Made {
    let whole =
        matches!(tensor.kind(), Kind::Int64 | Kind::Int | Kind::Bool) && tensor.numel() <= 64;
    let elements = || Vec::try_from(tensor.to_kind(Kind::Int64).reshape([-1])).unwrap();
    (tensor.size(), whole.then(elements))
}

/// Compares what is known of a model's values, with free dimensions and for the sizes of these inputs, with what they were.
pub fn compare(
    model: &Model,
    inputs: &[Tensor],
    found: &HashMap<String, Made>,
) -> Result<Known, String> {
    let mut bound: HashMap<Atom, i64> = HashMap::new();
    for (input, tensor) in model.graph.inputs.iter().zip(inputs) {
        let dims = input.shape.as_deref().unwrap_or_default();
        for (axis, (dim, &extent)) in dims.iter().zip(&tensor.size()).enumerate() {
            if let Dim::Named(name) = dim {
                bound.insert(Atom::Named(name.as_str().into()), extent);
            }
            bound.insert(Atom::Input(input.name.as_str().into(), axis), extent);
        }
    }
    let sizes: Vec<Vec<i64>> = inputs.iter().map(Tensor::size).collect();
    let sizes: Vec<&[i64]> = sizes.iter().map(Vec::as_slice).collect();
    let mut known = Known::default();
    for (form, shapes) in
        [("free", Shapes::of_any_batch(model)), ("given", Shapes::of_sizes(model, &sizes))]
    {
        if let Some(misfit) = shapes.misfits.first() {
            let place = model.graph.nodes[misfit.node].place();
            return Err(format!("{form}: {place} is refused: {}", misfit.reason));
        }
        known = Known { values: found.len(), ..Known::default() };
        for (name, (size, elements)) in found {
            let nothing = Fact::default();
            let fact = shapes.get(name).unwrap_or(&nothing);
            let evaluate = |extents: &[Extent]| -> Vec<Option<i64>> {
                extents
                    .iter()
                    .map(|extent| extent.evaluate(&|atom| bound.get(atom).copied()))
                    .collect()
            };
            for (what, said, is) in [
                ("shape", &fact.shape, Some(size)),
                ("elements", &fact.elements, elements.as_ref()),
            ] {
                let (Some(said), Some(is)) = (said, is) else { continue };
                let values = evaluate(said);
                if values.len() != is.len()
                    || values.iter().zip(is).any(|(said, is)| said.is_some_and(|said| said != *is))
                {
                    return Err(format!(
                        "{form}: {what} of `{name}` is {is:?}, it was said to be {values:?}"
                    ));
                }
                let whole = usize::from(values.iter().all(Option::is_some));
                if what == "shape" { known.shapes += whole } else { known.elements += whole }
            }
        }
    }
    Ok(known)
}
