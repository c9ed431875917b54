//! Where a stage's model comes from.

use std::path::Path;

use qpipe::stages::contract::PLACEHOLDER;
use qpipe::stages::model_source::{ModelSource, OnnxFile};

use super::Context;
use crate::data::Dataset;
use crate::graph::{Dim, Model};
use crate::{Error, Result, interp, onnx, passes, zoo};

/// The model that `source` names: read from input port `model`, or built by the zoo with the weights at
/// input port `weights`.
pub fn model(context: &Context, source: &ModelSource) -> Result<Model> {
    model_at(context, source, "model", "weights")
}

/// The same at other input ports.
pub fn model_at(
    context: &Context,
    source: &ModelSource,
    port: &'static str,
    weights: &str,
) -> Result<Model> {
    match source {
        ModelSource::Stage(_) | ModelSource::File(_) => {
            let path = context.need(port)?;
            let mut model = onnx::read(path)?;
            if let ModelSource::File(OnnxFile { image_size: Some(size), .. }) = source {
                passes::set_image_size(&mut model, size.height_width())
                    .and_then(|()| check_declared(&model))
                    .map_err(|error| error.at(path.display()).key(port))?;
            }
            passes::inference_form(&mut model).map_err(|error| error.at(path.display()))?;
            Ok(model)
        }
        ModelSource::Zoo(config) => {
            let weights = context.input(weights);
            debug_assert_eq!(
                weights.is_some(),
                config.weights.as_ref().is_some_and(|path| path.0 == PLACEHOLDER)
            );
            zoo::build(config, weights, context.task.seed)
        }
    }
}

/// Refuses a size of the images, as the model declares it, that its layers cannot take.
fn check_declared(model: &Model) -> Result<()> {
    let batch = passes::fixed_batch(model).unwrap_or(1);
    let Some(sizes) = passes::input_sizes(model, batch) else { return Ok(()) };
    let sizes: Vec<&[i64]> = sizes.iter().map(Vec::as_slice).collect();
    interp::check_sizes(model, &sizes)
}

/// Refuses a data set whose images are of a size that the model cannot take, before anything runs. Images that may be of several sizes are
/// held to the model's by the loader, if it takes one alone. And a `batch` that is not the model's own, where that is fixed for good.
pub fn check_images(model: &Model, dataset: &Dataset, batch: usize) -> Result<()> {
    passes::check_batch(model, batch).map_err(|error| error.key("batch_size"))?;
    interp::check_image_inputs(model).map_err(|error| error.key("model"))?;
    let size = match image_size(model) {
        Some(only) => Some(dataset.size_or(only)),
        None => dataset.size(),
    };
    let Some((height, width)) = size else { return Ok(()) };
    let batch = passes::fixed_batch(model).unwrap_or(1);
    let image = [batch, dataset.channels() as i64, height as i64, width as i64];
    interp::check_sizes(model, &[&image]).map_err(|error| error.key("data"))
}

/// Height and width of a model's images, where it takes no others.
fn image_size(model: &Model) -> Option<(usize, usize)> {
    let [_, _, Dim::Fixed(height), Dim::Fixed(width)] =
        model.graph.inputs.first()?.shape.as_deref()?
    else {
        return None;
    };
    Some((usize::try_from(*height).ok()?, usize::try_from(*width).ok()?))
}

/// Writes a model to an output, whole or not at all. An output is one file, so weights are inside of it.
pub fn write_model(model: &Model, path: &Path) -> Result<()> {
    onnx::check(model)?;
    onnx::write_one_file(model, path)
}

/// Writes a value as JSON, indented, with a line end.
pub fn write_json(value: &impl serde::Serialize, path: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::bug(format!("{}: {error}", path.display())))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(|error| Error::io(path, &error))
}
