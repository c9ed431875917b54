//! `sensitivity.json`.

use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use serde::{Deserialize, Serialize};

use super::fidelity::Figures;
use crate::{Error, Result};

/// Raised when an older reader would misread the file.
pub const VERSION: u32 = 1;

/// What quantizing each layer costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Runtime whose rules held.
    pub target: Target,
    /// Whose ranges were taken.
    pub method: Method,
    /// Images that were run.
    pub samples: usize,
    /// Whether the one output is `[N, classes]`; of others the place of the largest element (`agreement`) says nothing.
    #[serde(default = "yes")]
    pub logits: bool,
    /// The float model; its fidelity is that to itself.
    pub float: Outcome,
    /// All layers quantized.
    pub quantized: Outcome,
    /// Layers, the most sensitive first.
    pub layers: Vec<Layer>,
    /// Values along the fully quantized graph, in its order.
    pub accumulation: Vec<Step>,
}

/// What comes out of a variant of the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of its outputs, against the float model's.
    #[serde(flatten)]
    pub fidelity: Figures,
    /// Part of samples whose class has the highest logit, 0…1; `null`: it is no classifier of the data.
    pub top1: Option<f64>,
    /// Mean cross-entropy, natural logarithm.
    pub loss: Option<f64>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// It is the only one that is quantized.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alone: Option<Outcome>,
    /// All are quantized, but for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub without: Option<Outcome>,
}

/// A value of the fully quantized graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The value.
    pub tensor: String,
    /// The layer that makes it.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Against the float model's value.
    #[serde(flatten)]
    pub fidelity: Figures,
}

fn yes() -> bool {
    true
}

/// An SQNR for comparisons: no difference is better than any.
fn decibels(figures: Figures) -> f64 {
    figures.sqnr_db.unwrap_or(f64::INFINITY)
}

impl Report {
    /// Brings the layers whose quantization costs most to the front: of the lowest SQNR alone, or else of the highest without.
    pub fn sort(&mut self) {
        let cost = |layer: &Layer| match (layer.alone, layer.without) {
            (Some(alone), _) => decibels(alone.fidelity),
            (None, Some(without)) => -decibels(without.fidelity),
            (None, None) => f64::INFINITY,
        };
        self.layers.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A file that is none, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        let report: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::user(format!("{}: not a file of sensitivities: {error}", path.display()))
                .help("a `sensitivity` stage writes one, its output `sensitivity`")
        })?;
        if report.version == VERSION {
            return Ok(report);
        }
        let found = report.version;
        Err(Error::user(format!("{}: version {found}, expected {VERSION}", path.display())))
    }
}
