//! `train`: floating-point training from scratch or from given weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;
use super::training::{
    Amp, BestBy, ClassWeights, EarlyStop, Optimizer, Schedule, WeightAverage,
    check_cudnn_benchmark, default_accumulate,
};

/// Trains a classifier in floating point; the epoch with the best validation accuracy is kept.
///
/// Outputs: `model` (best epoch, ONNX), `history` (JSON, an array with an entry an epoch: train loss, valid loss,
/// train and valid accuracy, learning rate).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The network, and the weights it starts from.
    pub model: ModelSource,
    /// Training data.
    pub train: Ref,
    /// Validation data, on which the best epoch is chosen.
    pub valid: Ref,
    /// Passes over the training data.
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Images a step.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Optimizer and learning rate.
    pub optimizer: Optimizer,
    /// Course of the learning rate.
    #[serde(default = "default_schedule")]
    pub schedule: Schedule,
    /// Batches a step: their gradients are averaged, so that a step is that of one batch this many times as large.
    #[serde(default = "default_accumulate")]
    #[schemars(range(min = 1, max = 65536))]
    pub accumulate: u32,
    /// Keep a moving average of the weights, and validate it: `ema = { decay = 0.999 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<WeightAverage>,
    /// By what the best epoch, which is kept, is chosen. Default: `top1`.
    #[serde(default, skip_serializing_if = "BestBy::is_top1")]
    pub best_by: BestBy,
    /// Stop when the validation accuracy, or with `best_by = "loss"` the loss, gets no better: `early_stop = { patience = 5 }`. The learning rate goes as for all `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Scale the gradients of a step down to this norm, all parameters together, where it is larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip_norm: Option<f64>,
    /// Automatic mixed precision. Default: none, everything is float32 (convolutions TF32 on GPUs that have it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amp: Option<Amp>,
    /// Label smoothing (Szegedy 2016).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_smoothing: f64,
    /// Weights of the classes in the loss: `"balanced"`, or one for each class, such as `[1.0, 3.0]`. Default: all count the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Stop each epoch after this many steps, and each validation after as many batches, the first of the data; for trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Compute the same bits each time on a GPU too: deterministic algorithms only, and no tuning of convolutions. Slower; an operator that has no
    /// such algorithm is refused. On a CPU training is deterministic as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// Let cuDNN try its algorithms for convolutions of whole batches, and take the fastest (`torch.backends.cudnn.benchmark`): 10 to 30 s at the first
    /// step, and steps that are up to 5 % faster. Default: from 20,000 steps on; of shorter trainings it would take more than it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cudnn_benchmark: Option<bool>,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

fn default_batch_size() -> u32 {
    64
}

fn default_schedule() -> Schedule {
    Schedule::Cosine { final_factor: 0.0, warmup_epochs: 0.0 }
}

impl Contract for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 5;
    const ABOUT: &'static str = "train a classifier in floating point";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("train", &self.train, &[PortType::Data]));
        inputs.push(Input::reference("valid", &self.valid, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("model", PortType::Model, "model.onnx"),
            Output::new("history", PortType::File, "history.json"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        vec![self.device.fact()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(self.device.check());
        problems.extend(check_cudnn_benchmark(self.deterministic, self.cudnn_benchmark));
        problems.extend(self.class_weights.as_ref().and_then(ClassWeights::check));
        problems
    }
}
