//! What `train` and `finetune` share: the classifier, the loop, the outputs.

use serde_json::json;

use qpipe::stages::contract::Metrics;
use qpipe::stages::training::{Optimizer, Schedule};

use super::model::{write_json, write_model};
use super::{Context, Events};
use crate::Result;
use crate::data::Dataset;
use crate::graph::Model;
use crate::interp::check_trainable;
use crate::train::{Classifier, Fit, Watch};

/// Settings of a training that its contract names.
pub struct Settings {
    pub epochs: u32,
    pub batch_size: u32,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    pub label_smoothing: f64,
    pub max_steps: Option<u64>,
    pub epoch_zero: bool,
}

/// Trains `model` and writes the outputs `model` and `history`.
pub fn train(context: &Context, model: Model, settings: Settings) -> Result<Metrics> {
    // Before any data is read: what cannot be trained needs none.
    check_trainable(&model)?;
    let open = |port: &str| -> Result<Dataset> {
        let (spec, paths) = context.data(port)?;
        let dataset = Dataset::open(spec, paths)?;
        for note in dataset.notes() {
            context.events.warn(format!("{port}: {note}"));
        }
        Ok(dataset)
    };
    let (train, valid) = (open("train")?, open("valid")?);
    let mut classifier = Classifier::new(model, &train)?;
    valid.check_labels(classifier.classes)?;
    context.events.log(format!(
        "{} parameters; {} training and {} validation images of {} classes",
        classifier.program.parameters().iter().map(|p| p.tensor.numel()).sum::<usize>(),
        train.len(),
        valid.len(),
        classifier.classes
    ));
    let fit = Fit {
        train: &train,
        valid: &valid,
        epochs: settings.epochs,
        batch_size: settings.batch_size as usize,
        optimizer: settings.optimizer,
        schedule: settings.schedule,
        label_smoothing: settings.label_smoothing,
        max_steps: settings.max_steps,
        epoch_zero: settings.epoch_zero,
        seed: context.task.seed,
        threads: context.task.threads,
        checkpoints: &context.task.checkpoints,
    };
    let fitted = fit.run(&mut classifier, &mut Told(context.events))?;
    classifier.program.write_back(&mut classifier.model)?;
    write_model(&classifier.model, context.output("model")?)?;
    write_json(&fitted.history, context.output("history")?)?;
    let best = &fitted.history[fitted.best];
    Ok(Metrics::from([
        ("epochs".to_owned(), json!(settings.epochs)),
        ("best_epoch".to_owned(), json!(best.epoch)),
        ("valid_loss".to_owned(), json!(best.valid_loss)),
        ("valid_top1".to_owned(), json!(best.valid_top1)),
    ]))
}

struct Told<'a>(&'a Events);

impl Watch for Told<'_> {
    fn progress(&mut self, done: u64, total: u64, message: &str) {
        self.0.progress(done, total, "steps", message);
    }

    fn log(&mut self, message: String) {
        self.0.log(message);
    }
}
