//! The typed pipeline: matrices expanded, references resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::guards::Guard;
use super::mistakes::Sources;
use super::remote::Remote;
use super::slurm::Slurm;
use super::sweep::{Point, Sweep};
use super::tree::Place;
use crate::stages::contract::{Fact, Kind, PortType, Stage};
use crate::stages::data::DataSpec;
use crate::stages::execution::Execution;

/// A pipeline without mistakes: what [`crate::plan`] starts from.
#[derive(Debug)]
pub struct Pipeline {
    /// `[pipeline] name`.
    pub name: String,
    /// `[pipeline] seed`: the seed of all randomness.
    pub seed: u64,
    /// The file, absolute.
    pub file: PathBuf,
    /// All files that it was read from: itself, and those that it extends.
    pub files: Vec<PathBuf>,
    /// Its folder; paths in the file are relative to it.
    pub folder: PathBuf,
    /// Data sets by name.
    pub data: BTreeMap<String, Data>,
    /// Stages in file order, a matrix's cells in the order of its values; of a sweep, those of the
    /// first point come first.
    pub stages: Vec<StageCell>,
    /// Arguments of the command line that shaped it, such as `--set` and `params.epochs=5`.
    pub arguments: Vec<String>,
    /// Names of the profiles that were put over the file, in order.
    pub profiles: Vec<String>,
    /// `[remote]`: the cache that is shared with other machines.
    pub remote: Option<Remote>,
    /// `[guards.NAME]`, in file order.
    pub guards: Vec<Guard>,
    /// What is varied, if it is a sweep: it has no lock file then.
    pub sweep: Option<Sweep>,
    /// `[slurm]`: how stages are submitted to a cluster.
    pub slurm: Slurm,
    /// The texts that it was read from, for mistakes that are found later.
    pub(crate) sources: Option<Sources>,
}

impl Pipeline {
    /// Its lock file, beside the pipeline file: `NAME.lock`, and with profiles one of their own, `NAME.PROFILE.lock` or `NAME.ONE+OTHER.lock`. What
    /// `--set` changes shares it ([`LockFile::set`](crate::cache::LockFile::set)).
    pub fn lock_file(&self) -> PathBuf {
        let extension = match &self.profiles[..] {
            [] => "lock".to_owned(),
            profiles => format!("{}.lock", profiles.join("+")),
        };
        self.file.with_extension(extension)
    }

    /// Where a key of a stage's table stands: file and line, such as `p.toml:12`, the file's path from this one's folder;
    /// an argument as it was given. Of a key that is not written, where the table stands.
    pub fn place_of(&self, cell: &StageCell, key: &str) -> String {
        let below =
            |file: &Path| file.strip_prefix(&self.folder).unwrap_or(file).display().to_string();
        let found = cell.keys.iter().find(|(name, _)| name == key).map(|(_, place)| *place);
        let (Some(place), Some(sources)) = (found, &self.sources) else {
            return format!("{}:{}", below(&cell.file), cell.line);
        };
        match sources.argument(place.source) {
            Some(argument) => argument,
            None => format!("{}:{}", below(sources.file(place.source)), sources.line(place)),
        }
    }

    /// Keys that `--set` changed, in alphabetical order.
    pub fn set(&self) -> Vec<String> {
        // Options and their values in turn.
        let options = self.arguments.chunks_exact(2).filter(|option| option[0] == "--set");
        let keys = options.map(|option| option[1].split('=').next().unwrap_or_default().trim());
        let keys: BTreeSet<&str> = keys.collect();
        keys.into_iter().map(str::to_owned).collect()
    }
}

/// A `[data.NAME]` table.
#[derive(Debug)]
pub struct Data {
    /// Its description.
    pub spec: DataSpec,
    /// Absolute paths of its ports `path` and `labels`.
    pub paths: BTreeMap<String, PathBuf>,
}

/// A stage, or one cell of a stage with a matrix.
pub struct StageCell {
    /// Unique: `fp32`, or `onnx[fp32,1]` with the cell's values in the order of the matrix. A stage
    /// that is not the same in all points of a sweep has its point behind: `onnx[fp32,1]@lr=0.1`.
    pub id: String,
    /// Name of the table: `onnx`.
    pub name: String,
    /// The cell's matrix variables, in file order.
    pub cell: Vec<(String, serde_json::Value)>,
    /// The point of a sweep that it belongs to; `None` if it is the same in all points.
    pub point: Option<Arc<Point>>,
    /// The seed of its randomness: that of the pipeline, unless a sweep varies it.
    pub seed: u64,
    /// Its kind.
    pub kind: &'static Kind,
    /// Its configuration.
    pub stage: Box<dyn Stage>,
    /// How it is run; no part of its key.
    pub execution: Execution,
    /// Names of the secrets in its environment, see [`super::secrets`].
    pub secrets: Vec<String>,
    /// Where each of its inputs comes from.
    pub inputs: Vec<ResolvedInput>,
    /// Facts of the machine that its result depends on, see [`super::runtime_facts`].
    pub facts: Vec<Fact>,
    /// The file that its table stands in, absolute: the pipeline's, or one that it extends; of
    /// several, the one that is put over the others.
    pub file: Arc<Path>,
    /// Line of its table in that file, from 1.
    pub line: usize,
    /// Where the keys of its table stand; a value that an argument gave, where it stands there.
    pub(crate) keys: Vec<(String, Place)>,
    /// Where its key stands that names a model's file.
    pub(crate) model_place: Option<Place>,
}

impl StageCell {
    /// Its id without the point of the sweep: what it is called in a run of that point alone.
    pub fn base_id(&self) -> &str {
        let point = self.point.as_ref();
        let end = point.map_or(self.id.len(), |it| self.id.len() - it.label.len() - 1);
        &self.id[..end]
    }
}

impl std::fmt::Debug for StageCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageCell").field("id", &self.id).field("inputs", &self.inputs).finish()
    }
}

/// An input with its origin found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedInput {
    /// Port of the stage.
    pub port: String,
    /// What is connected to it.
    pub origin: Origin,
}

/// What an input is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An output of another stage.
    Stage {
        /// That stage's id.
        id: String,
        /// Its port.
        port: String,
        /// The port's type.
        kind: PortType,
    },
    /// A data set.
    Data(String),
    /// A file or folder of the user's, absolute.
    Path(PathBuf),
}
