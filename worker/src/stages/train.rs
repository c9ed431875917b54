//! `train`: floating-point training.

use qpipe::stages::contract::Metrics;
use qpipe::stages::train::Train;

use super::training::{Settings, train};
use super::{Context, model::model};
use crate::Result;
use crate::interp::Scales;

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Train = context.config()?;
    let model = model(context, &config.model)?;
    let settings = Settings {
        epochs: config.epochs,
        batch_size: config.batch_size,
        optimizer: config.optimizer,
        schedule: config.schedule,
        accumulate: config.accumulate,
        average: config.ema,
        best_by: config.best_by,
        early_stop: config.early_stop,
        clip_norm: config.clip_norm,
        amp: config.amp,
        scales: Scales::Frozen,
        frozen_statistics: false,
        scale_ema: None,
        lesson: None,
        label_smoothing: config.label_smoothing,
        class_weights: config.class_weights,
        max_steps: config.max_steps,
        epoch_zero: false,
        cudnn_benchmark: config.cudnn_benchmark,
    };
    train(context, model, settings)
}
