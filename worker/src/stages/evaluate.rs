//! `evaluate`: accuracy in simulation or of an engine.

use std::io::Write;
use std::path::Path;

use qpipe::stages::contract::Metrics;
use qpipe::stages::evaluate::{Evaluate, Task};
use serde_json::json;
use tch::Tensor;

use super::run_engine::{check_engine, run_engine};
use super::{
    Context, confusion,
    model::{model, write_json},
};
use crate::data::{Dataset, Loader, Order};
use crate::engine::Threads;
use crate::quant::finalize;
use crate::train::{Classifier, LEAST, NO_CLASSIFIER, Score};
use crate::{Error, Result, engine, interp, passes};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Evaluate = context.config()?;
    if config.task == Task::Detection {
        return super::evaluate_boxes::run(context, &config);
    }
    let dataset = context.dataset("data")?;
    dataset.check_labels(usize::MAX).map_err(|error| error.key("data"))?;
    let total = dataset.len() as u64;
    let batch = config.batch_size as usize;
    let threads = context.task.threads;
    let mut logits = Vec::new();
    let mut each = |done: u64, values: &Tensor| {
        append(values, &mut logits)?;
        context.events.progress(done, total, "images", "");
        Ok(())
    };
    let (subject, backend, score) = match &config.model {
        Some(source) => {
            let mut model = model(context, source)?;
            interp::check_image_inputs(&model).map_err(|error| error.key("model"))?;
            // What is deployed rounds weights and biases to integers too.
            passes::simplify(&mut model)?;
            finalize::finalize(&mut model, None)?;
            let mut classifier = Classifier::new(model, &dataset)?;
            let ending = classifier.model.graph.ending().map(|node| node.op_type.as_str());
            classifier.probabilities = probabilities(context, ending);
            classifier.confusion = true;
            let score = classifier.score(&dataset, batch, threads, None, &mut each)?;
            ("simulation", "libtorch".to_owned(), score)
        }
        None => {
            let (backend, score) =
                on_engine(context, context.need("engine")?, &dataset, batch, threads, &mut each)?;
            ("engine", backend, score)
        }
    };
    let figures = score.figures();
    if let Some(fewer) = dataset.fewer_classes(score.classes()) {
        context.events.warn_of("data", fewer);
    }
    if score.not_finite() > 0 {
        context.events.warn(format!(
            "{} of {} images have logits that are NaN or infinite: a NaN counts as wrong{}",
            score.not_finite(),
            figures.samples,
            if figures.loss.is_finite() { "" } else { ", and there is no loss" }
        ));
    }
    let metrics = Metrics::from([
        ("subject".to_owned(), json!(subject)),
        ("backend".to_owned(), json!(backend)),
        ("samples".to_owned(), json!(figures.samples)),
        ("loss".to_owned(), json!(figures.loss)),
        ("top1".to_owned(), json!(figures.top1)),
        ("top5".to_owned(), json!(figures.top5)),
    ]);
    write_json(&metrics, context.output("metrics")?)?;
    confusion::write(dataset.classes(), &score, context.output("confusion")?)?;
    write_npy(&logits, score.classes(), context.output("logits")?)?;
    Ok(metrics)
}

/// Whether a model that ends in this operator gives probabilities, whose loss is another than that of logits; says so.
fn probabilities(context: &Context, ending: Option<&str>) -> bool {
    match ending {
        Some("Softmax") => context.events.warn(format!(
            "the model ends in a Softmax: `loss` is that of its probabilities, −ln p of the label (p at least {LEAST:e}), not of their softmax"
        )),
        Some("Sigmoid") => context.events.warn(
            "the model ends in a Sigmoid: `loss` takes its outputs for logits, and compares with that of the same model alone; export it without its end for the loss of its logits",
        ),
        _ => {}
    }
    ending == Some("Softmax")
}

/// Scores an engine; the name of its backend and the score.
fn on_engine(
    context: &Context,
    folder: &Path,
    dataset: &Dataset,
    batch: usize,
    threads: usize,
    each: &mut dyn FnMut(u64, &Tensor) -> Result<()>,
) -> Result<(String, Score)> {
    let (note, mut engine) = engine::load(folder, &Threads::Free(threads))?;
    check_engine(&note, dataset)?;
    if !note.is_classifier() {
        let error = match note.outputs().len() {
            1 => Error::user("the engine's output is not [batch, classes]: it is no classifier"),
            count => Error::user(format!("the engine has {count} outputs: expected logits only")),
        };
        return Err(error.help(NO_CLASSIFIER).key("engine"));
    }
    dataset.check_labels(note.classes)?;
    let probabilities = probabilities(context, note.ending.as_deref());
    let score = Score::new(note.classes).of_probabilities(probabilities);
    let mut score = score.with_confusion(true);
    let batch = note.run_of(batch) * engine.at_once();
    let mut done = 0;
    for loaded in Loader::new(dataset, batch, Order::Sequential, false, threads) {
        let loaded = loaded?;
        let count = loaded.labels.size()[0] as usize;
        let values = run_engine(engine.as_mut(), &note, &loaded.images)?.remove(0);
        let values =
            Tensor::f_from_slice(&values)?.f_reshape([count as i64, note.classes as i64])?;
        score.add(&values, &loaded.labels)?;
        done += count as u64;
        each(done, &values)?;
    }
    Ok((note.backend, score))
}

fn append(values: &Tensor, logits: &mut Vec<f32>) -> Result<()> {
    let values = values.f_detach()?.f_to_kind(tch::Kind::Float)?.f_contiguous()?;
    let (count, start) = (values.numel(), logits.len());
    logits.resize(start + count, 0.0);
    values.f_copy_data(&mut logits[start..], count)?;
    Ok(())
}

/// NumPy's format 1.0, <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>:
/// float32 `[N, columns]`, row by row.
fn write_npy(values: &[f32], columns: usize, path: &Path) -> Result<()> {
    let rows = values.len() / columns.max(1);
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version, length and header together are a multiple of 64 bytes.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let io = |error: std::io::Error| Error::io(path, &error);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(io)?);
    let mut write = || {
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for value in values {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()
    };
    write().map_err(io)
}
