//! Height and width of a model's images.

use crate::graph::{Dim, Model};
use crate::{Error, Result};

/// Axes of height and width of an image input, `[batch, channels, height, width]`.
const AXES: [usize; 2] = [2, 3];

/// Fixes height and width of the images where the model leaves them free, wherever it gives them the same name. Types of values in between are
/// dropped: they may hold the names.
///
/// # Errors
/// No input of rank 4; one of another fixed size; two sizes for sides of one name.
pub fn set_image_size(model: &mut Model, size: [u32; 2]) -> Result<()> {
    let graph = &mut model.graph;
    let mut named = Vec::new();
    let mut images = 0;
    for input in &mut graph.inputs {
        let Some(shape) = input.shape.as_mut().filter(|shape| shape.len() == 4) else { continue };
        images += 1;
        let fits = AXES.iter().zip(size).all(|(&axis, pixels)| match shape[axis] {
            Dim::Fixed(extent) => extent == i64::from(pixels),
            _ => true,
        });
        if !fits {
            let [height, width] = AXES.map(|axis| match &shape[axis] {
                Dim::Fixed(extent) => extent.to_string(),
                _ => "free".to_owned(),
            });
            return Err(Error::user(format!(
                "input `{}` takes images of {height} × {width}, and `image_size` says {} × {}",
                input.name, size[0], size[1]
            ))
            .help("leave `image_size` out, or export the file for that size, or with height and width free (`dynamic=True` of Ultralytics, `dynamic_axes` of \
                   PyTorch)"));
        }
        if let (Dim::Named(height), Dim::Named(width)) = (&shape[AXES[0]], &shape[AXES[1]])
            && height == width
            && size[0] != size[1]
        {
            return Err(Error::user(format!(
                "input `{}` takes square images, both sides are `{height}`, and `image_size` says {} × {}",
                input.name, size[0], size[1]
            ))
            .help("give one number, or export the file with height and width under two names"));
        }
        for (axis, pixels) in AXES.into_iter().zip(size) {
            let fixed = Dim::Fixed(i64::from(pixels));
            if let Dim::Named(name) = std::mem::replace(&mut shape[axis], fixed.clone()) {
                named.push((name, fixed));
            }
        }
    }
    if images == 0 {
        return Err(Error::user(
            "no input is [batch, channels, height, width]: `image_size` has nothing to fix",
        )
        .help("leave `image_size` out"));
    }
    for dim in graph.outputs.iter_mut().filter_map(|output| output.shape.as_mut()).flatten() {
        if let Dim::Named(name) = dim
            && let Some((_, fixed)) = named.iter().find(|(known, _)| known == name)
        {
            *dim = fixed.clone();
        }
    }
    graph.value_infos.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Node, ValueInfo};

    fn named(name: &str) -> Dim {
        Dim::Named(name.to_owned())
    }

    fn of_shape(shape: Vec<Dim>) -> Model {
        let graph = Graph {
            nodes: vec![Node::new("n", "Relu", &["x"], &["y"])],
            inputs: vec![ValueInfo::f32("x", shape.clone())],
            outputs: vec![ValueInfo::f32("y", shape)],
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    #[test]
    fn free_height_and_width_are_fixed_wherever_they_are_named() {
        let batch = || named("batch");
        let mut model = of_shape(vec![batch(), Dim::Fixed(3), named("height"), Dim::Unknown]);
        set_image_size(&mut model, [32, 48]).unwrap();
        let input = [batch(), Dim::Fixed(3), Dim::Fixed(32), Dim::Fixed(48)];
        assert_eq!(model.graph.inputs[0].shape.as_deref(), Some(&input[..]));
        let output = [batch(), Dim::Fixed(3), Dim::Fixed(32), Dim::Unknown];
        assert_eq!(model.graph.outputs[0].shape.as_deref(), Some(&output[..]));
        // Once more the same, and never another.
        set_image_size(&mut model, [32, 48]).unwrap();
        let error = set_image_size(&mut model, [48, 32]).unwrap_err();
        assert_eq!(
            error.message,
            "input `x` takes images of 32 × 48, and `image_size` says 48 × 32"
        );
        assert_eq!(model.graph.inputs[0].shape.as_deref(), Some(&input[..]));
    }

    #[test]
    fn sides_of_one_name_have_one_size() {
        let square = || of_shape(vec![named("batch"), Dim::Fixed(3), named("side"), named("side")]);
        let error = set_image_size(&mut square(), [32, 48]).unwrap_err();
        assert!(error.message.contains("both sides are `side`"), "{error:?}");
        let mut model = square();
        set_image_size(&mut model, [32, 32]).unwrap();
        assert_eq!(model.graph.outputs[0].shape, model.graph.inputs[0].shape);
    }

    #[test]
    fn a_model_without_images_is_refused() {
        let mut model = of_shape(vec![named("batch"), Dim::Fixed(3)]);
        let error = set_image_size(&mut model, [32, 32]).unwrap_err();
        assert!(error.message.starts_with("no input is [batch, channels"), "{error:?}");
    }
}
