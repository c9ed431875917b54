//! `build-engine`: what a runtime makes of an ONNX file.

use qpipe::stages::build_engine::BuildEngine;
use qpipe::stages::contract::Metrics;
use qpipe::stages::model_source::ModelSource;
use serde_json::json;

use super::{Context, model::write_json};
use crate::engine::{self, Build};
use crate::{Error, Result, onnx};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: BuildEngine = context.config()?;
    if matches!(config.model, ModelSource::Zoo(_)) {
        return Err(Error::user(
            "an engine is built from an exported model, not from an architecture",
        )
        .help("put an `export-onnx` stage in between"));
    }
    let path = context.need("model")?;
    let model = onnx::read(path)?;
    let folder = context.output("engine")?;
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
    let layers = engine::build(
        config.backend,
        &Build {
            path,
            model: &model,
            folder,
            batch: config.batch,
            compute_capability: config.compute_capability,
            threads: context.task.threads,
        },
    )?;
    write_json(&layers, context.output("layers")?)?;
    let int8 = layers.iter().filter(|layer| layer.precision == "int8").count();
    Ok(Metrics::from([
        ("layers".to_owned(), json!(layers.len())),
        ("int8_layers".to_owned(), json!(int8)),
    ]))
}
