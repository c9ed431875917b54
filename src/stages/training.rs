//! Configuration that `train` and `finetune` share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::Problem;

/// The optimizer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent, as `torch.optim.SGD`.
    Sgd {
        /// Learning rate at its peak.
        #[schemars(extend("exclusiveMinimum" = 0.0))]
        lr: f64,
        /// Momentum.
        #[serde(default = "default_momentum")]
        #[schemars(range(min = 0.0, max = 1.0))]
        momentum: f64,
        /// L2 penalty of the weights of convolutions and matrix products; biases, parameters of normalizations, slopes of PRelu, position
        /// embeddings and class tokens are exempt.
        #[serde(default)]
        #[schemars(range(min = 0.0))]
        weight_decay: f64,
        /// Nesterov's momentum.
        #[serde(default)]
        nesterov: bool,
    },
    /// Adam with decoupled weight decay, as `torch.optim.AdamW`.
    Adamw {
        /// Learning rate at its peak.
        #[schemars(extend("exclusiveMinimum" = 0.0))]
        lr: f64,
        /// Decoupled weight decay of the weights of convolutions and matrix products; biases, parameters of normalizations, slopes of PRelu, position
        /// embeddings and class tokens are exempt.
        #[serde(default = "default_adamw_decay")]
        #[schemars(range(min = 0.0))]
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Learning rate at its peak.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd { lr, .. } | Self::Adamw { lr, .. } => *lr,
        }
    }
}

/// How the learning rate goes, step by step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the optimizer's.
    Constant {},
    /// Half a cosine from the peak down to `final_factor` of it, after a linear warm-up.
    Cosine {
        /// Last learning rate as a part of the peak.
        #[serde(default)]
        #[schemars(range(min = 0.0, max = 1.0))]
        final_factor: f64,
        /// Epochs of linear warm-up.
        #[serde(default)]
        #[schemars(range(min = 0.0))]
        warmup_epochs: f64,
    },
    /// Linear up to the peak, then a cosine down to nothing (Smith 2018).
    OneCycle {
        /// Part of all steps that goes up.
        #[serde(default = "default_rise")]
        #[schemars(range(min = 0.0, max = 1.0))]
        rise: f64,
    },
    /// Multiplied by `factor` at each of `epochs`.
    Step {
        /// Epochs (from 0) at whose start the rate falls.
        epochs: Vec<u32>,
        /// Factor at each.
        #[serde(default = "default_step_factor")]
        #[schemars(range(min = 0.0, max = 1.0))]
        factor: f64,
        /// Epochs of linear warm-up.
        #[serde(default)]
        #[schemars(range(min = 0.0))]
        warmup_epochs: f64,
    },
}

/// Exponential moving average of the weights (Polyak & Juditsky 1992): it is validated and kept in place of the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightAverage {
    /// What a step leaves of the average. After `t` steps it is at most `(1 + t) / (10 + t)`, so that the average follows at first.
    #[serde(default = "default_decay")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub decay: f64,
}

/// When to stop before the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Stop after this many epochs that are no better on the validation data.
    #[schemars(range(min = 1, max = 100_000))]
    pub patience: u32,
    /// Better is an accuracy (0…1) that is more than this above the best before; with `best_by = "loss"` a loss that is so far below it.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_delta: f64,
}

/// By what the best epoch is chosen, on the validation data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// The highest accuracy, of equals the lowest loss.
    #[default]
    Top1,
    /// The lowest loss. It is less a matter of chance: epochs of fine-tuning often differ by fewer images than the accuracy's standard error.
    Loss,
}

impl BestBy {
    /// Whether it is the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn is_top1(&self) -> bool {
        *self == Self::Top1
    }
}

/// Weights of the classes in the loss, where images of some are rarer, or mistakes about them dearer: the loss of a batch is the weighted mean, as that of
/// `torch.nn.CrossEntropyLoss`. Figures of validations are not weighted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClassWeights {
    /// Computed from the training data.
    Rule(ClassWeightRule),
    /// One for each class, in their order.
    Each(Vec<f64>),
}

/// How weights of classes are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeightRule {
    /// Images / (classes × images of the class), as scikit-learn's: all classes count the same.
    Balanced,
}

impl ClassWeights {
    pub(super) fn check(&self) -> Option<Problem> {
        let Self::Each(weights) = self else { return None };
        let valid = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        (!valid || weights.iter().all(|weight| *weight == 0.0)).then(|| {
            Problem::at("class_weights", format!("class_weights = {weights:?}: a weight is a number, at least 0, and not all are 0"))
                .help("write one for each class, or \"balanced\"")
        })
    }
}

/// The type of 16 bits that training steps compute convolutions and matrix products in (automatic mixed precision, as
/// `torch.autocast`). Parameters, their gradients and the loss stay float32, and so does validation. For GPUs; a CPU without
/// instructions for it is slower so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Amp {
    /// IEEE half precision, with loss scaling as `torch.amp.GradScaler`: a step whose gradients overflow is left out.
    Fp16,
    /// The exponents of float32, less precise; it needs no loss scaling.
    Bf16,
}

/// `deterministic` and `cudnn_benchmark` exclude each other.
pub(super) fn check_cudnn_benchmark(
    deterministic: bool,
    cudnn_benchmark: Option<bool>,
) -> Option<Problem> {
    (deterministic && cudnn_benchmark == Some(true)).then(|| {
        Problem::at(
            "cudnn_benchmark",
            "which algorithm cuDNN finds the fastest is a matter of chance, and `deterministic` is for the same bits each time",
        )
        .help("leave `cudnn_benchmark` out, or `deterministic`")
    })
}

/// Whether a share is nothing.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_nothing(share: &f64) -> bool {
    *share == 0.0
}

pub(super) fn default_accumulate() -> u32 {
    1
}

fn default_decay() -> f64 {
    0.999
}

fn default_momentum() -> f64 {
    0.9
}

fn default_adamw_decay() -> f64 {
    0.01
}

fn default_rise() -> f64 {
    0.3
}

fn default_step_factor() -> f64 {
    0.1
}
