//! `finetune`: quantization-aware training of a model with Q/DQ pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;
use super::training::{
    Amp, BestBy, ClassWeights, EarlyStop, Optimizer, Schedule, WeightAverage,
    check_cudnn_benchmark, default_accumulate, is_nothing,
};

/// Quantization-aware training: Q/DQ pairs act as fake quantization with a straight-through
/// gradient, at scales that are frozen, learned or follow the data. Every epoch is checkpointed, the best is kept; epoch 0 is the model
/// as it came, so that the result is never worse on the validation data.
///
/// With `recipe = "nvidia"` and `original` (the `train` stage's figures: epochs, peak learning
/// rate), the run takes 10 % of the original epochs (at least 1) at 1 % of the original peak
/// learning rate, half a cosine down to 1 % of that (Wu et al. 2020, NVIDIA's QAT guide).
///
/// Outputs: `model` (best epoch, ONNX with Q/DQ), `history` (JSON, an array with an entry an epoch).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finetune {
    /// The model with Q/DQ pairs.
    pub model: ModelSource,
    /// Training data.
    pub train: Ref,
    /// Validation data, on which the best epoch is chosen.
    pub valid: Ref,
    /// `nvidia`: see above. `custom`: `epochs` and `optimizer` as given.
    #[serde(default)]
    pub recipe: Recipe,
    /// `nvidia`: the float training that is fine-tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// Passes over the training data. Default for `nvidia`: 10 % of the original, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: Option<u32>,
    /// Images a step.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Optimizer. Default for `nvidia`: SGD with momentum 0.9 at 1 % of the original learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
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
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_smoothing: f64,
    /// Weights of the classes in the loss: `"balanced"`, or one for each class, such as `[1.0, 3.0]`. Default: all count the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// What becomes of the scales. `frozen`: they stay as they came. `lsq`: they are parameters, of activations and of weights (LSQ,
    /// Esser et al. 2020), and begin as they came. `ema`: those of activations follow the largest magnitude of each step.
    #[serde(default)]
    pub scales: Scales,
    /// `scales = "ema"` only: how fast, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_ema: Option<ScaleEma>,
    /// BatchNormalization that `insert-qdq` kept. `frozen`: it normalizes by the running statistics, which stay; scale and shift are
    /// trained. `trained`: by each batch's own, as in float training, and the running statistics follow. Default: `frozen`.
    #[serde(default, skip_serializing_if = "BatchNormMode::is_frozen")]
    pub batch_norm: BatchNormMode,
    /// The float model to learn from, such as the one that was quantized: distillation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<ModelSource>,
    /// What to learn from `teacher`. Default: its logits, weight 1, temperature 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
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

/// Which settings follow from the original training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// NVIDIA's recommendation.
    #[default]
    Nvidia,
    /// Everything as given.
    Custom,
}

/// The float training that is fine-tuned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Original {
    /// Its epochs.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Its peak learning rate.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lr: f64,
}

/// What becomes of the scales of Q/DQ pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scales {
    /// They stay as they came.
    #[default]
    Frozen,
    /// They are learned, with the gradient of LSQ; without weight decay, and always above zero. Constants that several pairs share
    /// stay shared.
    Lsq,
    /// Those of activations follow a running largest magnitude; those of weights stay as they came.
    Ema,
}

/// What becomes of BatchNormalization that the model has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchNormMode {
    /// It normalizes by the running statistics, which stay.
    #[default]
    Frozen,
    /// It normalizes by each batch's own statistics, and the running ones follow.
    Trained,
}

impl BatchNormMode {
    fn is_frozen(&self) -> bool {
        *self == Self::Frozen
    }
}

/// How the scales of activations follow their largest magnitudes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleEma {
    /// What a step leaves of the running magnitude.
    #[serde(default = "default_scale_momentum")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub momentum: f64,
    /// Part of all steps after which the scales stay, so that the weights settle at them.
    #[serde(default = "default_scale_until")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub until: f64,
}

impl Default for ScaleEma {
    fn default() -> Self {
        Self { momentum: default_scale_momentum(), until: default_scale_until() }
    }
}

/// What is learned from the teacher; the loss is the weighted sum of all three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight of the cross-entropy with the labels.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0))]
    pub labels: f64,
    /// Weight of the Kullback-Leibler divergence of the classes' probabilities from the teacher's (Hinton et al. 2015).
    #[serde(default = "one")]
    #[schemars(range(min = 0.0))]
    pub logits: f64,
    /// What logits and features are divided by before their softmax; the divergences are multiplied by its square.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Weight of the channel-wise divergence of `layers`: each channel as a distribution over space (Shu et al. 2021, as in YOLOv6).
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub features: f64,
    /// `features` only: layers whose outputs are compared, by node names or globs (`layer4.*`, `op:Conv`); both models must have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { labels: 1.0, logits: 1.0, temperature: 1.0, features: 0.0, layers: Vec::new() }
    }
}

impl Distillation {
    fn check(&self) -> Option<Problem> {
        if self.logits == 0.0 && self.features == 0.0 {
            return Some(
                Problem::at("distillation", "neither `logits` nor `features` has a weight: nothing is learned from the teacher")
                    .help("give one a weight, or leave `teacher` and `distillation` out"),
            );
        }
        match (self.features > 0.0, self.layers.is_empty()) {
            (true, true) => Some(
                Problem::at(
                    "distillation.features",
                    "`features` needs `layers`: whose outputs are compared",
                )
                .help("for example: layers = [\"layer4.*\"]"),
            ),
            (false, false) => Some(
                Problem::at(
                    "distillation.layers",
                    "`layers` are compared only where `features` has a weight",
                )
                .help("add features = 1.0"),
            ),
            _ => None,
        }
    }
}

fn default_scale_momentum() -> f64 {
    0.99
}

fn default_scale_until() -> f64 {
    0.5
}

fn one() -> f64 {
    1.0
}

fn default_batch_size() -> u32 {
    64
}

fn default_schedule() -> Schedule {
    Schedule::Cosine { final_factor: 0.01, warmup_epochs: 0.0 }
}

impl Finetune {
    /// Epochs that will be run.
    ///
    /// [`Contract::check`] has made sure that they are given or follow from the recipe.
    pub fn resolved_epochs(&self) -> u32 {
        self.epochs.or_else(|| self.original.as_ref().map(|o| (o.epochs / 10).max(1))).unwrap_or(1)
    }

    /// Optimizer that will be used.
    pub fn resolved_optimizer(&self) -> Optimizer {
        self.optimizer.clone().unwrap_or_else(|| Optimizer::Sgd {
            lr: self.original.as_ref().map_or(1e-4, |original| original.lr * 0.01),
            momentum: 0.9,
            weight_decay: 0.0,
            nesterov: false,
        })
    }
}

impl Contract for Finetune {
    const NAME: &'static str = "finetune";
    const VERSION: u32 = 5;
    const ABOUT: &'static str = "quantization-aware training (QAT)";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        if let Some(teacher) = &self.teacher {
            inputs.extend(teacher.inputs_at("teacher", "teacher_weights"));
        }
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
        problems.extend(self.teacher.iter().flat_map(|teacher| teacher.check_at("teacher")));
        if self.scale_ema.is_some() && self.scales != Scales::Ema {
            problems.push(
                Problem::at("scale_ema", "`scale_ema` belongs to scales = \"ema\" only")
                    .help("write scales = \"ema\", or leave it out"),
            );
        }
        if let Some(distillation) = &self.distillation {
            if self.teacher.is_none() {
                problems.push(
                    Problem::at("distillation", "there is no `teacher` to learn from")
                        .help("add the float model: teacher = \"fp32.model\""),
                );
            }
            problems.extend(distillation.check());
        }
        let needs = match self.recipe {
            Recipe::Nvidia if self.original.is_some() => return problems,
            Recipe::Nvidia => {
                "recipe \"nvidia\" takes epochs and learning rate from the original training, which is not given"
            }
            Recipe::Custom => "recipe \"custom\" needs `epochs` and `optimizer`",
        };
        if self.epochs.is_none() || self.optimizer.is_none() {
            let help = match self.recipe {
                Recipe::Nvidia => {
                    "add original = { epochs = 30, lr = 0.1 }, or give `epochs` and `optimizer`"
                }
                Recipe::Custom => "give both, or recipe = \"nvidia\" with `original`",
            };
            problems.push(Problem::at("recipe", needs).help(help));
        }
        problems
    }
}
