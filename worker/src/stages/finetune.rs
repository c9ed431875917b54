//! `finetune`: quantization-aware training.

use qpipe::stages::contract::Metrics;
use qpipe::stages::finetune::{BatchNormMode, Finetune, Scales};

use super::Context;
use super::model::{model, model_at};
use super::training::{Lesson, Settings, train};
use crate::interp::check_trainable;
use crate::passes::share_pair_scales;
use crate::quant::prepare::prepare;
use crate::{Error, Result, interp};

/// Runs the stage.
pub fn run(context: &Context) -> Result<Metrics> {
    let config: Finetune = context.config()?;
    let mut model = model(context, &config.model)?;
    let has = |op_type: &str| model.graph.nodes.iter().any(|node| node.op_type == op_type);
    if !has("QuantizeLinear") {
        if has("DequantizeLinear") {
            // It has no pairs, but it is no float model either.
            check_trainable(&model)?;
        }
        return Err(Error::user("the model has no Q/DQ pairs: there is nothing to fine-tune for")
            .help("fine-tune the output of an `insert-qdq` stage: model = \"ptq.model\""));
    }
    let norms = model.graph.nodes.iter().any(|node| node.op_type == "BatchNormalization");
    if config.batch_norm == BatchNormMode::Trained && !norms {
        return Err(Error::user(
            "batch_norm = \"trained\", but the model has no BatchNormalization",
        )
        .help("it is folded by default; keep it with batch_norm = \"kept\" in `insert-qdq`"));
    }
    share_pair_scales(&mut model.graph);
    let lesson = match &config.teacher {
        Some(source) => {
            let mut teacher = model_at(context, source, "teacher", "teacher_weights")?;
            // The names of layers and values are then those that the quantized model has.
            prepare(&mut teacher).map_err(|error| error.at("the teacher"))?;
            Some(Lesson { teacher, settings: config.distillation.clone().unwrap_or_default() })
        }
        None => None,
    };
    let settings = Settings {
        epochs: config.resolved_epochs(),
        batch_size: config.batch_size,
        optimizer: config.resolved_optimizer(),
        schedule: config.schedule,
        accumulate: config.accumulate,
        average: config.ema,
        best_by: config.best_by,
        early_stop: config.early_stop,
        clip_norm: config.clip_norm,
        amp: config.amp,
        scales: match config.scales {
            Scales::Frozen => interp::Scales::Frozen,
            Scales::Lsq => interp::Scales::Learned,
            Scales::Ema => interp::Scales::Followed,
        },
        frozen_statistics: config.batch_norm == BatchNormMode::Frozen,
        scale_ema: (config.scales == Scales::Ema).then(|| config.scale_ema.unwrap_or_default()),
        lesson,
        label_smoothing: config.label_smoothing,
        class_weights: config.class_weights,
        max_steps: config.max_steps,
        // So that the result is never worse than what came in, on the validation data.
        epoch_zero: true,
        cudnn_benchmark: config.cudnn_benchmark,
    };
    train(context, model, settings)
}
