//! `equalize`: the weights of neighbouring layers brought to like ranges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Input, Output, PortType, Problem};
use super::model_source::ModelSource;

/// Cross-layer equalization of a float model, before it is calibrated: channels between two layers are divided in the first and multiplied in the
/// second, so that all channels of a weight have like ranges. BatchNormalization is folded first. The model computes the same (but see `relu6`); a
/// scale for a whole weight (`per_channel = false`) loses less. It gains little where each channel has its own scale.
///
/// Between the two layers may stand Relu, LeakyRelu, PRelu, poolings and Flatten; layers at both sides of a residual Add or of another
/// activation stay as they are. Give `calibrate`, `insert-qdq` and `sensitivity` its output, not the model before: ranges of tensors change.
///
/// Output: `model` (ONNX, float).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Equalize {
    /// The float model.
    pub model: ModelSource,
    /// What becomes of ReLU6 (a Clip from 0 to a bound) between two layers, whose channels cannot be scaled.
    #[serde(default)]
    pub relu6: Relu6,
}

/// What becomes of a ReLU6 between two layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Relu6 {
    /// It stays, and the layers around it are left as they are.
    #[default]
    Keep,
    /// It becomes a Relu, and the layers are equalized, as in the paper (Nagel et al. 2019). Values beyond the bound then differ: see by
    /// `evaluate` what that costs in float.
    Relu,
}

impl Contract for Equalize {
    const NAME: &'static str = "equalize";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "bring the weights of neighbouring layers to like ranges";

    fn inputs(&self) -> Vec<Input> {
        self.model.inputs()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::new("model", PortType::Model, "model.onnx")]
    }

    fn check(&self) -> Vec<Problem> {
        self.model.check()
    }
}
