//! `build-engine`: what a runtime makes of an ONNX file.

use std::path::Path;

use qpipe::stages::build_engine::{Backend, BuildEngine};
use qpipe::stages::contract::Metrics;
use qpipe::stages::model_source::ModelSource;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::Context;
use super::forms::{BUDGET, Forms, Wanted, any_batch, random_images};
use super::inner::Inner;
use super::model::write_json;
use crate::analysis::{Seen, common, floats};
use crate::engine::{self, Build, tensorrt};
use crate::graph::Model;
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
    let tell = |told: engine::Told| context.events.told(told);
    let built = engine::build(
        config.backend,
        &Build {
            path,
            model: &model,
            folder,
            batch: config.batch,
            compute_capability: config.compute_capability,
            threads: context.task.threads,
            precision: config.precision,
            saturate: config.saturate,
            tensorrt: tensorrt::Wishes {
                flags: config.flags.clone(),
                tune: config.tune,
                timing_cache: if config.timing_cache {
                    tensorrt::Caching::Shared
                } else {
                    tensorrt::Caching::Off
                },
                min_batch: config.min_batch.unwrap_or(1),
                max_batch: config.max_batch,
            },
            tell: &tell,
        },
    )?;
    write_json(&built.layers, context.output("layers")?)?;
    let int8 = built.layers.iter().filter(|layer| layer.precision == "int8").count();
    let mut metrics = Metrics::from([
        ("layers".to_owned(), json!(built.layers.len())),
        ("int8_layers".to_owned(), json!(int8)),
    ]);
    metrics.extend(built.metrics);
    if config.verify {
        let note = engine::Note::read(folder)?;
        if means_what_it_computes(config.backend, &note) {
            metrics.extend(compare(context, &model, folder, &note)?);
        }
    }
    Ok(metrics)
}

/// Whether an engine can be run here and is to compute what its file says: one of TensorRT-RTX is built too where no GPU can load it, and of
/// a float model in INT8 TensorRT makes the ranges up.
fn means_what_it_computes(backend: Backend, note: &engine::Note) -> bool {
    backend != Backend::TensorrtRtx && !note.on_gpu.as_ref().is_some_and(|on| on.made_up_ranges)
}

/// Compares what the engine computes with the file that it was built from, on libtorch, on normally distributed images: outputs and inner
/// values, of a large fixed batch outputs alone, since all values of a step are held at once. Of TensorRT and libtorch outputs alone; where those
/// are refused, inner values are looked at too ([`Inner`]).
fn compare(
    context: &Context,
    model: &Model,
    engine: &Path,
    note: &engine::Note,
) -> Result<Metrics> {
    let free = any_batch(model)?;
    let Some(mut images) = random_images(&free, context.task.seed)? else {
        return Ok(Metrics::new());
    };
    let names = common(&free, model);
    let (outputs, mut expected) = Seen::new(&free, &names)?.run(&images)?;
    let names = floats(&names, &expected);
    let few = images.size()[0];
    let batch = note.run_of(few as usize) as i64;
    if batch != few {
        let index = Tensor::f_arange(batch, (Kind::Int64, Device::Cpu))?.f_remainder(few)?;
        images = images.f_index_select(0, &index)?;
        let names = free.graph.outputs.iter().map(|output| output.name.clone());
        let rows = outputs
            .iter()
            .map(|output| output.f_index_select(0, &index.f_to_device(output.device())?));
        expected = names.zip(rows).map(|(name, rows)| Ok((name, rows?))).collect::<Result<_>>()?;
    }
    let wanted = Wanted { engine: Some(engine), inner: batch == few, ..Wanted::default() };
    let mut forms = Forms::new(context, model, &names, wanted)?;
    forms.step(&images, &expected)?;
    let inner = Inner {
        context,
        engine,
        exported: model,
        reference: &free,
        names: &names,
        images: &images,
    };
    forms.hold(context, BUDGET, &|error| inner.explain(error, BUDGET))?;
    let worst = forms.comparisons().next().and_then(|(_, comparison)| comparison.worst_sqnr());
    Ok(Metrics::from([("engine_sqnr_db".to_owned(), json!(worst))]))
}
