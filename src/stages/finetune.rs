//! `finetune`: quantization-aware training of a model with Q/DQ pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::model_source::ModelSource;
use super::training::{Optimizer, Schedule};

/// Quantization-aware training: Q/DQ pairs act as fake quantization with frozen scales and a
/// straight-through gradient. Every epoch is checkpointed, the best is kept; epoch 0 is the model
/// as it came, so that the result is never worse on the validation data.
///
/// With `recipe = "nvidia"` and `original` (the `train` stage's figures: epochs, peak learning
/// rate), the run takes 10 % of the original epochs (at least 1) at 1 % of the original peak
/// learning rate, half a cosine down to 1 % of that (Wu et al. 2020, NVIDIA's QAT guide).
///
/// Outputs: `model` (best epoch, ONNX with Q/DQ), `history` (JSON, a line an epoch).
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
    /// Stop each epoch after this many steps; for trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
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
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "quantization-aware training (QAT)";
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
        vec![Fact::Libtorch]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        let needs = match self.recipe {
            Recipe::Nvidia if self.original.is_some() => return problems,
            Recipe::Nvidia => {
                "recipe \"nvidia\" takes epochs and learning rate from the original training, which is not given"
            }
            Recipe::Custom => "recipe \"custom\" needs `epochs` and `optimizer`",
        };
        if self.epochs.is_none() || self.optimizer.is_none() {
            problems.push(Problem::at("recipe", needs).help(
                "add original = { epochs = 30, lr = 0.1 }, or give `epochs` and `optimizer`",
            ));
        }
        problems
    }
}
