//! `finetune`: quantization-aware training.

use qpipe::stages::contract::Metrics;
use qpipe::stages::finetune::Finetune;

use super::training::{Settings, train};
use super::{Context, model::model};
use crate::{Error, Result};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Finetune = context.config()?;
    let model = model(context, &config.model)?;
    if !model.graph.nodes.iter().any(|node| node.op_type == "QuantizeLinear") {
        return Err(Error::user("the model has no Q/DQ pairs: there is nothing to fine-tune for")
            .help("fine-tune the output of an `insert-qdq` stage: model = \"ptq.model\""));
    }
    let settings = Settings {
        epochs: config.resolved_epochs(),
        batch_size: config.batch_size,
        optimizer: config.resolved_optimizer(),
        schedule: config.schedule,
        label_smoothing: 0.0,
        max_steps: config.max_steps,
        // So that the result is never worse than what came in, on the validation data.
        epoch_zero: true,
    };
    train(context, model, settings)
}
