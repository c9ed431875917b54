//! `calibrate`: ranges of all tensors that may be quantized, from a few hundred images.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;

/// Runs the float model (BatchNormalization folded) over calibration images, collects a histogram
/// of |x| of every tensor in one pass, and chooses `amax` by each method.
///
/// Output: `ranges` (JSON, [described here](ranges.md)): for each tensor the `amax` of all methods side by side, and its least
/// and greatest value. The log names the tensors on which methods disagree most.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = with_compat)]
pub struct Calibrate {
    /// The float model.
    pub model: ModelSource,
    /// Calibration data; its random transforms are not applied.
    pub data: Ref,
    /// Images used, chosen at random by the seed.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1))]
    pub samples: u64,
    /// Images a step; the result does not depend on it, except in mode `pytorch-quantization`.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Methods to compute; `insert-qdq` takes one of them. `best` needs others to choose from: those named beside it,
    /// all if none is.
    #[serde(default = "all_methods")]
    #[schemars(length(min = 1))]
    pub methods: Vec<Method>,
    /// Bins of the histogram.
    #[serde(default = "default_bins")]
    #[schemars(range(min = 256, max = 65536))]
    pub bins: u32,
    /// Percentile of |x| that method `percentile` keeps.
    #[serde(default = "default_percentile")]
    #[schemars(range(min = 50.0, max = 100.0))]
    pub percentile: f64,
    /// Images of the second pass that method `best` makes, the first of `samples`.
    #[serde(default = "default_best_samples")]
    #[schemars(range(min = 1))]
    pub best_samples: u64,
    /// How the histogram grows over the batches. `exact`: counts do not depend on the batches' size or
    /// order. `pytorch-quantization`: the bin width is fixed by the first batch, as that tool does.
    #[serde(default, alias = "compat")]
    pub histogram: Histogram,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// A calibration method: how `amax` follows from the histogram.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Largest |x|.
    Max,
    /// A percentile of |x|.
    Percentile,
    /// Least Kullback-Leibler divergence between float and quantized histogram (Migacz 2017).
    Entropy,
    /// Least mean squared quantization error.
    Mse,
    /// For each tensor that of the other methods whose int8 changes the outputs of the layers that read it least (a
    /// second pass over `best_samples` images).
    Best,
    /// What a program of your own chose: in a file of ranges that it made.
    Custom,
}

impl Method {
    /// All methods that choose by the histogram.
    pub const ALL: [Self; 4] = [Self::Max, Self::Percentile, Self::Entropy, Self::Mse];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Percentile => "percentile",
            Self::Entropy => "entropy",
            Self::Mse => "mse",
            Self::Best => "best",
            Self::Custom => "custom",
        }
    }
}

/// How the histogram grows over the batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Histogram {
    /// Independent of batch size and order.
    #[default]
    Exact,
    /// As NVIDIA's pytorch-quantization collects it.
    PytorchQuantization,
}

/// `compat`, by which `histogram` goes too.
fn with_compat(schema: &mut Schema) {
    let about = "`compat = \"pytorch-quantization\"` is another spelling of `histogram = \"pytorch-quantization\"`; only one of the two may be given.";
    let key = json!({ "description": about, "enum": ["pytorch-quantization"], "type": "string" });
    if let Some(keys) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        keys.insert("compat".to_owned(), key);
    }
}

fn default_samples() -> u64 {
    512
}

fn default_batch_size() -> u32 {
    16
}

fn default_best_samples() -> u64 {
    32
}

fn all_methods() -> Vec<Method> {
    Method::ALL.to_vec()
}

fn default_bins() -> u32 {
    2048
}

fn default_percentile() -> f64 {
    99.99
}

impl Contract for Calibrate {
    const NAME: &'static str = "calibrate";
    const VERSION: u32 = 11;
    const ABOUT: &'static str = "measure the ranges of a float model's tensors";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.inputs();
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::new("ranges", PortType::Ranges, "ranges.json")]
    }

    fn facts(&self) -> Vec<Fact> {
        vec![self.device.fact()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.model.check();
        problems.extend(self.device.check());
        if self.methods.contains(&Method::Custom) {
            let message =
                "`custom` is not computed: it is for ranges that a program of your own makes";
            problems.push(Problem::at("methods", message).help("docs/ranges.md shows how"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::contract::Stage;

    #[test]
    fn compat_is_another_spelling_of_histogram() {
        let read = |more: &str| {
            let text = format!("model = {{ onnx = \"m.onnx\" }}\ndata = \"data.d\"\n{more}");
            toml::from_str::<Calibrate>(&text)
        };
        let [histogram, compat] = ["histogram", "compat"]
            .map(|key| read(&format!("{key} = \"pytorch-quantization\"")).unwrap().config());
        assert_eq!(histogram, compat);
        assert_eq!(compat["histogram"], "pytorch-quantization");
        assert_ne!(read("").unwrap().config(), compat);
        let error = read("histogram = \"exact\"\ncompat = \"pytorch-quantization\"").unwrap_err();
        assert_eq!(error.message(), "duplicate field `histogram`");
    }
}
