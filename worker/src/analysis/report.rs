//! `sensitivity.json`.

use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use serde::{Deserialize, Serialize};

use super::fidelity::{Figures, WORST};
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

impl Report {
    /// Brings the layers whose quantization costs most to the front: of the lowest SQNR alone, or else of the highest without.
    pub fn sort(&mut self) {
        let cost = |layer: &Layer| match (layer.alone, layer.without) {
            (Some(alone), _) => alone.fidelity.decibels(),
            (None, Some(without)) => -without.fidelity.decibels(),
            (None, None) => f64::INFINITY,
        };
        self.layers.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    }

    /// What there is to say of layers whose quantization makes outputs NaN or infinite where the float model's are not.
    pub fn not_finite(&self) -> Vec<String> {
        let of = |outcome: &Option<Outcome>| outcome.map_or(0, |own| own.fidelity.not_finite);
        let own = self.quantized.fidelity.not_finite;
        let told = |layer: &Layer| {
            let (node, op) = (&layer.node, &layer.op);
            match (of(&layer.alone), &layer.without) {
                (0, Some(without)) if own > 0 && without.fidelity.not_finite == 0 => Some(format!(
                    "quantizing layer \"{node}\" ({op}) with all others makes outputs NaN or infinite; without it they are finite"
                )),
                (0, _) => None,
                (count, _) => Some(format!(
                    "quantizing layer \"{node}\" ({op}) alone makes outputs NaN or infinite, {count} values in all: its SQNR counts as {WORST} dB; leave it in float"
                )),
            }
        };
        let mut all: Vec<String> = self.layers.iter().filter_map(told).collect();
        if own > 0 {
            let first = self.accumulation.iter().find(|step| step.fidelity.not_finite > 0);
            let first = first.map(|step| {
                let (tensor, node, op) = (&step.tensor, &step.node, &step.op);
                format!("; \"{tensor}\" of node \"{node}\" ({op}) is the first value that is so")
            });
            all.push(format!(
                "with all layers quantized {own} output values are NaN or infinite where the float model's are not: the SQNR counts as {WORST} dB{}",
                first.unwrap_or_default()
            ));
        }
        all
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sqnr_db: Option<f64>, not_finite: u64) -> Outcome {
        let fidelity = Figures { sqnr_db, cosine: 1.0, agreement: 1.0, not_finite };
        Outcome { fidelity, top1: None, loss: None }
    }

    fn report(quantized: Outcome, layers: Vec<Layer>) -> Report {
        Report {
            version: VERSION,
            target: Target::Onnxruntime,
            method: Method::Max,
            samples: 1,
            logits: true,
            float: outcome(None, 0),
            quantized,
            layers,
            accumulation: Vec::new(),
        }
    }

    #[test]
    fn a_layer_that_makes_outputs_nan_is_the_most_sensitive_one_and_is_told() {
        let layer = |node: &str, alone: Option<Outcome>, without: Option<Outcome>| Layer {
            node: node.to_owned(),
            op: "Sqrt".to_owned(),
            alone,
            without,
        };
        let (lost, bad) = (outcome(Some(WORST), 3), outcome(Some(-20.0), 0));
        let names = |report: &Report| {
            report.layers.iter().map(|layer| layer.node.clone()).collect::<Vec<String>>()
        };
        let layers = vec![
            layer("none", Some(outcome(None, 0)), None),
            layer("bad", Some(bad), None),
            layer("nan", Some(lost), None),
        ];
        let mut alone = report(lost, layers);
        alone.sort();
        assert_eq!(names(&alone), ["nan", "bad", "none"]);
        let told = alone.not_finite();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("layer \"nan\" (Sqrt) alone"), "{told:?}");
        assert!(told[1].contains("all layers quantized 3 output values"), "{told:?}");
        // All without it are well: it is what costs.
        let layers = vec![layer("other", None, Some(lost)), layer("nan", None, Some(bad))];
        let mut without = report(lost, layers);
        without.sort();
        assert_eq!(names(&without), ["nan", "other"]);
        assert!(without.not_finite()[0].contains("layer \"nan\""), "{:?}", without.not_finite());
        // What is written is read again.
        let text = serde_json::to_string(&without).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), without);
    }
}
