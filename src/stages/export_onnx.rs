//! `export-onnx`: the file that is deployed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Input, Output, PortType};
use super::insert_qdq::Target;
use super::model_source::ModelSource;

/// Writes the model in its final form: batch fixed or free, weights quantized where the runtime
/// wants them so, checked against the standard's rules.
///
/// Output: `model` (ONNX).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportOnnx {
    /// The model: float, PTQ or QAT.
    pub model: ModelSource,
    /// `"dynamic"`, or a fixed batch size.
    #[serde(default)]
    pub batch: Batch,
    /// ONNX opset; Q/DQ per channel needs 13. Default: 17, or the model's own where an operator of it is not the same in 17 (as PyTorch exports them with 18 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 13, max = 21))]
    pub opset: Option<u32>,
    /// Form of quantized weights. `onnxruntime`: int8 weights and int32 bias with DequantizeLinear
    /// only. `tensorrt`, `tensorrt-rtx`: float weights with Q and DQ. Default: the target that the Q/DQ pairs were
    /// placed for, which the model's metadata names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Compare every value of the exported model with the one before its export, on random images, on libtorch and on ONNX Runtime without
    /// fusion; one that is lost at a node (SQNR below 10 dB, and 6 dB less than it reads) fails the stage and is named. `build-engine` goes on with the engine; a `verify` stage
    /// does it all on real images.
    #[serde(default = "super::contract::yes")]
    pub verify: bool,
}

/// Batch dimension of an exported model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Batch {
    /// Fixed.
    Fixed(#[schemars(range(min = 1, max = 65536))] u32),
    /// The word `dynamic`: free.
    #[default]
    #[serde(with = "dynamic")]
    #[schemars(with = "Dynamic")]
    Dynamic,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum Dynamic {
    Dynamic,
}

mod dynamic {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("dynamic")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == "dynamic" {
            Ok(())
        } else {
            Err(serde::de::Error::custom("expected \"dynamic\" or a number"))
        }
    }
}

/// What `opset` is where it is not given and the model can be written so.
pub const DEFAULT_OPSET: u32 = 17;

impl Contract for ExportOnnx {
    const NAME: &'static str = "export-onnx";
    const VERSION: u32 = 7;
    const ABOUT: &'static str = "write the ONNX file that is deployed";

    fn inputs(&self) -> Vec<Input> {
        self.model.inputs()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::new("model", PortType::Model, "model.onnx")]
    }
}
