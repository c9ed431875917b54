//! The report as a value; `report.json` is its JSON.

use serde::{Deserialize, Serialize};

/// All variants side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout: 1.
    pub format: u32,
    /// Heading.
    pub title: String,
    /// What a row is: the matrix variable.
    pub rows_by: String,
    /// Other matrix variables that rows are told apart by, since a row would have two figures for one place without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<String>,
    /// Position of the row that the others are compared with; the first of them where there is one for each value of [`Report::axes`].
    pub baseline: usize,
    /// Runtimes whose engines were evaluated, in the order of [`Row::engines`].
    pub engines: Vec<String>,
    /// What was timed, in the order of [`Row::timings`].
    pub timings: Vec<TimingColumn>,
    /// Names of other figures, in the order of [`Row::others`].
    pub others: Vec<String>,
    /// The rows, in the pipeline's order.
    pub rows: Vec<Row>,
    /// What the experiment was for and did not reach: quantized engines that are slower than a float one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// What a reader must know besides the figures.
    pub notes: Vec<String>,
}

/// A variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Value of the matrix variable, or name of the stage.
    pub key: String,
    /// What is shown.
    pub title: String,
    /// Position of the row that it is compared with; `None`: none is of the same [`Report::axes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<usize>,
    /// Accuracy in simulation.
    pub simulation: Option<Accuracy>,
    /// Accuracy of the engine of each of [`Report::engines`].
    pub engines: Vec<Option<Accuracy>>,
    /// Agreement of a detector's boxes in simulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Boxes>,
    /// The same of the engine of each of [`Report::engines`]; empty where no detector was evaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engine_boxes: Vec<Option<Boxes>>,
    /// Top-1 less the baseline's, percentage points; of the engine where both have one.
    pub delta_points: Option<f64>,
    /// Timing of each of [`Report::timings`].
    pub timings: Vec<Option<Timing>>,
    /// Value of each of [`Report::others`].
    pub others: Vec<Option<serde_json::Value>>,
    /// Ids of the stages that the figures come from.
    pub stages: Vec<String>,
}

/// Accuracy over a data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Images.
    pub samples: u64,
    /// Mean cross-entropy; `null` where logits were NaN or infinite.
    pub loss: Option<f64>,
    /// Part of images whose class comes first, 0…1.
    pub top1: f64,
    /// Part of images whose class is among the first five, 0…1.
    pub top5: f64,
}

/// How far a detector's boxes agree with those of the float model; shares 0…1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boxes {
    /// Images.
    pub samples: u64,
    /// Boxes of the float model.
    pub reference_boxes: u64,
    /// Share of the boxes that the float model has too, at IoU 0.5.
    pub precision: f64,
    /// Share of the float model's boxes that were found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Mean average precision at IoU 0.5.
    pub map50: f64,
    /// The same over IoU 0.50, 0.55, … 0.95.
    pub map: f64,
}

/// What was timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimingColumn {
    /// The runtime.
    pub backend: String,
    /// Images a run.
    pub batch: u64,
    /// CPU threads.
    pub threads: u32,
}

/// A timing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Timed runs.
    pub iterations: u64,
    /// Milliseconds a run.
    pub latency_ms: LatencyMs,
    /// Images a second.
    pub throughput: f64,
    /// Throughput over the baseline's.
    pub speedup: Option<f64>,
    /// Whether the engine's model has Q/DQ pairs, or is computed in INT8 without; `None`: the stage does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<bool>,
}

/// Milliseconds a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// Least.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of all runs are faster.
    pub median: f64,
    /// 90 % of all runs are faster.
    pub p90: f64,
    /// 95 % of all runs are faster.
    pub p95: f64,
    /// 99 % of all runs are faster.
    pub p99: f64,
}
