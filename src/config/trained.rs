//! Files of the user's that stages train, calibrate, feed images to or build engines of: whether that works is the worker's to say.

use std::path::Path;

use super::mistakes::{Mistake, Mistakes};
use super::pipeline::{Origin, Pipeline, StageCell};
use super::tree::Place;
use crate::task::UsableModel;

/// What stages do with a file, of which the worker tells from the file alone whether it can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Training: of all nodes on the way to a parameter.
    Train,
    /// Calibration: of a float model of which all nodes are executed.
    Calibrate,
    /// An engine: of images of one size.
    Build,
    /// Images through it, as stages have them.
    Feed,
}

impl Purpose {
    /// All.
    const ALL: [Self; 4] = [Self::Train, Self::Calibrate, Self::Build, Self::Feed];

    /// Kinds of stages that do it.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "finetune"],
            Self::Calibrate => &["calibrate"],
            Self::Build => &["build-engine"],
            Self::Feed => &["evaluate", "reconstruct", "search", "sensitivity", "verify"],
        }
    }

    /// Whether a stage that reads the file makes it so.
    fn is_met_by(self, owner: &StageCell) -> bool {
        self == Self::Build && !owner.stage.config()["model"]["image_size"].is_null()
    }

    /// What the worker is asked by: `qpipe-worker model trainable FILE…`; a file of which it is not so is none. `exported`: of what `export-onnx`
    /// makes of the file, where that is another matter.
    fn word(self, exported: bool) -> &'static str {
        match (self, exported) {
            (Self::Train, false) => "trainable",
            (Self::Train, true) => "trainable-once-exported",
            (Self::Calibrate, false) => "calibratable",
            (Self::Calibrate, true) => "calibratable-once-exported",
            (Self::Build, _) => "buildable",
            (Self::Feed, _) => "feedable",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Train => "trains",
            Self::Calibrate => "calibrates",
            Self::Build => "builds an engine of",
            Self::Feed => "feeds images to",
        }
    }
}

/// Kinds whose output `model` is their input `model` with the same operators, besides Q/DQ pairs and what [`EXPORT`] computes beforehand.
const SAME_OPERATORS: [&str; 6] =
    ["train", "finetune", "equalize", "insert-qdq", "reconstruct", EXPORT];

/// The kind that writes a file in another form.
const EXPORT: &str = "export-onnx";

/// A file that a stage's model begins with.
struct First<'p> {
    place: Place,
    /// The stage that names it.
    owner: &'p str,
    file: &'p Path,
    /// Whether it is exported on the way.
    exported: bool,
}

impl Pipeline {
    /// What the worker is asked of ONNX files that stages use, themselves or behind other stages: each word with its files, each once, in the
    /// order of their places.
    pub fn asked(&self) -> Vec<(&'static str, Vec<&Path>)> {
        let mut asked: Vec<(&str, Vec<(Place, &Path)>)> = Vec::new();
        for purpose in Purpose::ALL {
            let kinds = purpose.kinds();
            for cell in self.stages.iter().filter(|cell| kinds.contains(&cell.kind.name)) {
                let Some(first) = self.first_file(cell, purpose) else { continue };
                let word = purpose.word(first.exported);
                let known = asked.iter().position(|(known, _)| *known == word);
                let known = known.unwrap_or_else(|| {
                    asked.push((word, Vec::new()));
                    asked.len() - 1
                });
                let files = &mut asked[known].1;
                if !files.iter().any(|(_, known)| *known == first.file) {
                    files.push((first.place, first.file));
                }
            }
        }
        let sorted = asked.into_iter().map(|(word, mut files)| {
            files.sort();
            (word, files.into_iter().map(|(_, file)| file).collect())
        });
        sorted.collect()
    }

    /// The mistakes that the worker found in such files, at the keys that name them.
    pub fn unfit(&self, name: &str, told: &[UsableModel]) -> Option<Mistakes> {
        let sources = self.sources.as_ref()?;
        let mut mistakes: Vec<Mistake> = Vec::new();
        for cell in &self.stages {
            let does = |purpose: &Purpose| purpose.kinds().contains(&cell.kind.name);
            let Some(purpose) = Purpose::ALL.into_iter().find(does) else { continue };
            let Some(first) = self.first_file(cell, purpose) else { continue };
            let First { place, owner, file, exported } = first;
            let word = purpose.word(exported);
            let told = told.iter().find(|told| told.file == file && told.word == word);
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
                Purpose::Feed => "unfeedable",
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

    /// The file that a stage's model begins with, as far as it matters to `purpose`.
    fn first_file<'p>(&'p self, cell: &'p StageCell, purpose: Purpose) -> Option<First<'p>> {
        let (mut cell, mut exported) = (cell, false);
        // There is no cycle, so that the way is not longer than the pipeline.
        for _ in 0..=self.stages.len() {
            let model = cell.inputs.iter().find(|input| input.port == "model")?;
            match &model.origin {
                Origin::Path(file) if !purpose.is_met_by(cell) => {
                    let (place, owner) = (cell.model_place?, cell.name.as_str());
                    return Some(First { place, owner, file, exported });
                }
                Origin::Stage { id, port, .. } if port == "model" => {
                    let maker = self.stages.iter().find(|maker| maker.id == *id)?;
                    cell = Some(maker).filter(|maker| SAME_OPERATORS.contains(&maker.kind.name))?;
                    exported |= cell.kind.name == EXPORT;
                }
                Origin::Stage { .. } | Origin::Path(_) | Origin::Data(_) => return None,
            }
        }
        None
    }
}
