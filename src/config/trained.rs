//! Files of the user's that stages train, calibrate or build engines of: whether that works is the worker's to say.

use std::path::Path;

use super::mistakes::{Mistake, Mistakes};
use super::pipeline::{Origin, Pipeline, StageCell};
use super::tree::Place;
use crate::task::UsableModel;

/// What stages do with a file, of which the worker tells from the file alone whether it can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training: of all nodes on the way to a parameter.
    Train,
    /// Calibration: of a float model of which all nodes are executed.
    Calibrate,
    /// An engine: of images of one size.
    Build,
}

impl Purpose {
    /// All.
    pub const ALL: [Self; 3] = [Self::Train, Self::Calibrate, Self::Build];

    /// Kinds of stages that do it.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "finetune"],
            Self::Calibrate => &["calibrate"],
            Self::Build => &["build-engine"],
        }
    }

    /// Whether a stage's output `model` is so where its input `model` is.
    fn passes(self, kind: &str) -> bool {
        SAME_OPERATORS.contains(&kind) || (self == Self::Build && kind == "export-onnx")
    }

    /// Whether a stage that reads the file makes it so.
    fn is_met_by(self, owner: &StageCell) -> bool {
        self == Self::Build && !owner.stage.config()["model"]["image_size"].is_null()
    }

    /// What the worker is asked by: `qpipe-worker model trainable FILE…`; a file of which it is not so is none.
    pub fn word(self) -> &'static str {
        match self {
            Self::Train => "trainable",
            Self::Calibrate => "calibratable",
            Self::Build => "buildable",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Train => "trains",
            Self::Calibrate => "calibrates",
            Self::Build => "builds an engine of",
        }
    }
}

/// Kinds whose output `model` is their input `model` with the same operators, besides Q/DQ pairs.
const SAME_OPERATORS: [&str; 5] = ["train", "finetune", "equalize", "insert-qdq", "reconstruct"];

impl Pipeline {
    /// ONNX files that stages use so, themselves or behind other stages; each once, in the order of their places.
    pub fn files_for(&self, purpose: Purpose) -> Vec<&Path> {
        let mut files: Vec<(Place, &Path)> = Vec::new();
        for cell in self.stages.iter().filter(|cell| purpose.kinds().contains(&cell.kind.name)) {
            let Some((place, _, file)) = self.first_file(cell, purpose) else { continue };
            if !files.iter().any(|(_, known)| *known == file) {
                files.push((place, file));
            }
        }
        files.sort();
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// The mistakes that the worker found in such files, at the keys that name them.
    pub fn unfit(&self, name: &str, told: &[UsableModel]) -> Option<Mistakes> {
        let sources = self.sources.as_ref()?;
        let mut mistakes: Vec<Mistake> = Vec::new();
        for cell in &self.stages {
            let does = |purpose: &Purpose| purpose.kinds().contains(&cell.kind.name);
            let Some(purpose) = Purpose::ALL.into_iter().find(does) else { continue };
            let Some((place, owner, file)) = self.first_file(cell, purpose) else { continue };
            let told = told.iter().find(|told| told.file == file && told.word == purpose.word());
            let Some(failure) = told.and_then(|told| told.refused.as_ref()) else { continue };
            let verb = purpose.verb();
            let label = match owner == cell.name {
                true => format!("`{}` {verb} it", cell.name),
                false => format!("`{}` {verb} what comes of it", cell.name),
            };
            let code = match purpose {
                Purpose::Train => "untrainable",
                Purpose::Calibrate => "uncalibratable",
                Purpose::Build => "unbuildable",
            };
            let mut mistake = Mistake::new(code, place, failure.message.clone(), label);
            if let Some(help) = &failure.help {
                mistake = mistake.help(help.clone());
            }
            // Cells and points say the same at one place.
            if mistakes
                .iter()
                .all(|known| known.place() != place || known.message != mistake.message)
            {
                mistakes.push(mistake);
            }
        }
        (!mistakes.is_empty()).then(|| Mistakes::new(name, sources, mistakes))
    }

    /// The file that a stage's model begins with, as far as it matters to `purpose`: its place, the stage that names it, and itself.
    fn first_file<'p>(
        &'p self,
        cell: &'p StageCell,
        purpose: Purpose,
    ) -> Option<(Place, &'p str, &'p Path)> {
        let mut cell = cell;
        // There is no cycle, so that the way is not longer than the pipeline.
        for _ in 0..=self.stages.len() {
            let model = cell.inputs.iter().find(|input| input.port == "model")?;
            match &model.origin {
                Origin::Path(file) if !purpose.is_met_by(cell) => {
                    return Some((cell.model_place?, &cell.name, file));
                }
                Origin::Stage { id, port, .. } if port == "model" => {
                    let maker = self.stages.iter().find(|maker| maker.id == *id)?;
                    cell = Some(maker).filter(|maker| purpose.passes(maker.kind.name))?;
                }
                Origin::Stage { .. } | Origin::Path(_) | Origin::Data(_) => return None,
            }
        }
        None
    }
}
