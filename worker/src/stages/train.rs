//! `train`: floating-point training.

use qpipe::stages::contract::Metrics;
use qpipe::stages::train::Train;

use super::training::{Settings, train};
use super::{Context, model::model};
use crate::Result;

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Train = context.config()?;
    let model = model(context, &config.model)?;
    let settings = Settings {
        epochs: config.epochs,
        batch_size: config.batch_size,
        optimizer: config.optimizer,
        schedule: config.schedule,
        label_smoothing: config.label_smoothing,
        max_steps: config.max_steps,
        epoch_zero: false,
    };
    train(context, model, settings)
}
