//! `evaluate`: accuracy of a model in simulation, or of a built engine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Demand, Fact, Input, Output, PortType, Problem, Ref};
use super::device::Device;
use super::model_source::ModelSource;

/// Loss, top-1, top-5 and confusion matrix over a data set: of a `model` on libtorch, Q/DQ pairs
/// simulated with the integers that will be deployed, or of an `engine` on the runtime that it was built for. One of the two is given.
///
/// Outputs: `metrics` (JSON), `confusion` (JSON: names of `classes`, count of the model's `outputs`, up to 200 of them `counts[label][prediction]`, a row a
/// line, of more `cells`, a list of `[label, prediction, count]` in their order without counts of 0, and `nan`, how many images have a NaN among their
/// logits: they count as wrong and are in no cell), `logits` (NumPy `.npy`, float32 `[N, classes]`, in the data set's order).
///
/// `loss` is the cross-entropy of logits. Of a model that ends in a Softmax, also behind Q/DQ pairs, it is −ln of the probability of the label, at
/// least 1e-12, and a warning says so; one that ends in a Sigmoid is warned of.
///
/// With `task = "detection"` the agreement of a detector's boxes with those of `reference`, the float model; no labels are needed. Outputs:
/// `metrics` (precision, recall, F1, mAP@0.5, mAP@0.5:0.95, mean IoU and class agreement of pairs), `boxes` (JSON, for each image).
/// [Detectors](detection.md) has the definitions.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The model to simulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
    /// The engine to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Ref>,
    /// What the model does. Default: `classification`.
    #[serde(default, skip_serializing_if = "Task::is_classification")]
    pub task: Task,
    /// `task = "detection"` only: the float model or engine whose boxes are taken for the truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// `task = "detection"` only: what counts as a box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<Detection>,
    /// Data, with labels unless `task` is `detection`; its random transforms are not applied.
    pub data: Ref,
    /// Images a step, where the model's batch is free.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Where libtorch computes: `auto` (a GPU where there is one, unless `QPIPE_DEVICE` says otherwise), `cpu`, or `cuda:N`, the `N`-th GPU that the
    /// stage may use, from 0. A device that is named is part of the cache key.
    #[serde(default, skip_serializing_if = "Device::is_auto")]
    pub device: Device,
}

/// What a model does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// It tells images apart; measured against labels.
    #[default]
    Classification,
    /// It finds boxes; measured against those of `reference`.
    Detection,
}

impl Task {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_classification(&self) -> bool {
        *self == Self::Classification
    }
}

/// What counts as a box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// Confidence that a box exceeds.
    #[serde(default = "default_confidence")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence: f64,
    /// Overlap (IoU) beyond which a better box of the same class suppresses another.
    #[serde(default = "default_nms_iou")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub nms_iou: f64,
    /// Boxes of an image, at most.
    #[serde(default = "default_most")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_boxes: u32,
    /// Form of the model's first output, or of both where boxes and scores are apart. Default: told by its extents, of one output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<BoxForm>,
    /// Form `separate` only, and needed there: how its boxes are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Coordinates>,
    /// Form `separate` only: coordinates are 0…1 of the image's width and height, not pixels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub normalized: bool,
    /// Form `separate` only: scores are logits; their sigmoid is the confidence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logits: bool,
}

/// How an output holds boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BoxForm {
    /// `[N, 4 + classes, anchors]`: centre, size, a score for each class.
    Yolov8,
    /// `[N, anchors, 5 + classes]`: centre, size, objectness, a score for each class; the confidence is the product.
    Yolov5,
    /// `[N, boxes, 6]`: corners, score, class; suppressed already.
    Boxes,
    /// Two outputs, in either order: boxes `[N, anchors, 4]` and a score for each class `[N, anchors, classes]`.
    Separate,
}

/// How the four numbers of a box are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coordinates {
    /// Corners: left, top, right, bottom.
    Xyxy,
    /// Centre and size: x, y, width, height.
    Cxcywh,
}

impl Detection {
    /// Keys of form `separate` without it, and what it needs.
    fn check(&self) -> Vec<Problem> {
        if self.form == Some(BoxForm::Separate) {
            let missing = self.boxes.is_none().then(|| {
                Problem::at(
                    "detection.form",
                    "boxes in an output of their own: how they are written is missing",
                )
                .help("add boxes = \"xyxy\" (corners) or boxes = \"cxcywh\" (centre and size)")
            });
            return missing.into_iter().collect();
        }
        let given = [
            ("boxes", self.boxes.is_some()),
            ("normalized", self.normalized),
            ("logits", self.logits),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        given
            .map(|(key, _)| {
                Problem::at(
                    &format!("detection.{key}"),
                    format!(
                        "`{key}` belongs to form \"separate\", boxes and scores in two outputs"
                    ),
                )
                .help("add form = \"separate\", or leave it out")
            })
            .collect()
    }
}

fn default_confidence() -> f64 {
    0.25
}

fn default_nms_iou() -> f64 {
    0.7
}

fn default_most() -> u32 {
    300
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            confidence: default_confidence(),
            nms_iou: default_nms_iou(),
            max_boxes: default_most(),
            form: None,
            boxes: None,
            normalized: false,
            logits: false,
        }
    }
}

fn default_batch_size() -> u32 {
    64
}

impl Contract for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "accuracy of a model or an engine; agreement of a detector's boxes";
    const DEMAND: Demand = Demand::Whole;

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = self.model.as_ref().map(ModelSource::inputs).unwrap_or_default();
        if let Some(engine) = &self.engine {
            inputs.push(Input::reference("engine", engine, &[PortType::Engine]));
        }
        if let Some(reference) = &self.reference {
            let accepts = &[PortType::Model, PortType::Engine];
            inputs.push(Input::reference("reference", reference, accepts));
        }
        inputs.push(Input::reference("data", &self.data, &[PortType::Data]));
        inputs
    }

    fn outputs(&self) -> Vec<Output> {
        let metrics = Output::new("metrics", PortType::Metrics, "metrics.json");
        if self.task == Task::Detection {
            return vec![metrics, Output::new("boxes", PortType::File, "boxes.json")];
        }
        vec![
            metrics,
            Output::new("confusion", PortType::File, "confusion.json"),
            Output::new("logits", PortType::File, "logits.npy"),
        ]
    }

    fn facts(&self) -> Vec<Fact> {
        if self.task == Task::Detection {
            // The reference is a model or an engine, whichever the other is.
            vec![Fact::Libtorch]
        } else if self.engine.is_some() {
            // Those of the engine's runtime.
            Vec::new()
        } else {
            vec![self.device.fact()]
        }
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.check_task();
        problems.extend(self.check_subject());
        problems
    }
}

impl Evaluate {
    fn check_task(&self) -> Vec<Problem> {
        match (self.task, &self.reference, &self.detection) {
            (Task::Detection, None, _) => vec![
                Problem::at(
                    "task",
                    "a detector is compared with its float model: `reference` is missing",
                )
                .help("add reference = \"STAGE.model\" or \"STAGE.engine\", the float model's"),
            ],
            (Task::Classification, reference, detection) => {
                let given =
                    [("reference", reference.is_some()), ("detection", detection.is_some())];
                let given = given.into_iter().filter(|(_, given)| *given);
                given
                    .map(|(key, _)| {
                        Problem::at(key, format!("`{key}` belongs to task \"detection\" only"))
                            .help("add task = \"detection\", or leave it out")
                    })
                    .collect()
            }
            (Task::Detection, Some(_), detection) => {
                detection.as_ref().map(Detection::check).unwrap_or_default()
            }
        }
    }

    fn check_subject(&self) -> Vec<Problem> {
        match (&self.model, &self.engine) {
            (Some(model), None) => model.check().into_iter().chain(self.device.check()).collect(),
            (None, Some(_)) if !self.device.is_auto() => vec![
                Problem::at(
                    "device",
                    "`device` says where libtorch computes; an engine was built for its own",
                )
                .help("leave it out, or evaluate the simulation: model = \"STAGE.model\""),
            ],
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![
                Problem::at("", "nothing to evaluate: expected `model` (simulation) or `engine`")
                    .help("add model = \"STAGE.model\" or engine = \"STAGE.engine\""),
            ],
            (Some(_), Some(_)) => vec![
                Problem::at("engine", "`model` and `engine` exclude each other")
                    .help("use one evaluate stage for the simulation and one for the engine"),
            ],
        }
    }
}
