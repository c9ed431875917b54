//! Digests of the user's files, each taken once a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::companions;
use super::error::Result;
use crate::cache::{Cache, Digest, FileChanges, InputIndex, files};
use crate::config::{Data, Origin, Pipeline, StageCell};
use crate::plan::Plan;
use crate::stages::data::DataFormat;
use crate::stages::table;

/// Digests of the user's files, each taken once a run.
#[derive(Debug)]
pub struct Inputs {
    index: InputIndex,
    taken: HashMap<PathBuf, Digest>,
    /// Of the files that an input names.
    named: HashMap<PathBuf, Option<Digest>>,
    /// What digests of data sets are made from.
    described: BTreeMap<Digest, serde_json::Value>,
    /// Where that is kept, a file each, so that a later run can tell what of a description changed.
    descriptions: PathBuf,
}

/// Whether an input is a table of images.
#[derive(Clone, Copy)]
enum Table {
    Yes,
    No,
}

/// The table of a data set that is one.
fn table(data: &Data) -> Option<&PathBuf> {
    data.paths.get("path").filter(|_| data.spec.format == DataFormat::Csv)
}

impl Inputs {
    /// With what the cache knows of files.
    pub fn new(cache: &Cache) -> Self {
        Self {
            index: InputIndex::load(cache.place("index")),
            taken: HashMap::new(),
            named: HashMap::new(),
            described: BTreeMap::new(),
            descriptions: cache.place("data"),
        }
    }

    /// Digest of a file or folder, as this run first saw it.
    pub fn digest(&mut self, path: &Path) -> Result<Digest> {
        if let Some(digest) = self.taken.get(path) {
            return Ok(*digest);
        }
        let digest = self.index.digest(path)?;
        self.taken.insert(path.to_path_buf(), digest);
        Ok(digest)
    }

    /// Digest of a file or folder of the user's, with all that it names: the external data of a model.
    pub fn with_companions(&mut self, path: &Path) -> Result<Digest> {
        let own = self.digest(path)?;
        Ok(match self.named(path, Table::No)? {
            Some(named) => Digest::of(format!("{own} {named}").as_bytes()),
            None => own,
        })
    }

    /// Digest of the files that an input names, as this run first saw them; `None`: it names none.
    fn named(&mut self, path: &Path, table: Table) -> Result<Option<Digest>> {
        if let Some(digest) = self.named.get(path) {
            return Ok(*digest);
        }
        let digest = self.named_now(path, table)?;
        self.named.insert(path.to_path_buf(), digest);
        Ok(digest)
    }

    fn named_now(&mut self, path: &Path, table: Table) -> Result<Option<Digest>> {
        let files = match table {
            Table::Yes => companions::of_table(path),
            Table::No if path.extension().is_some_and(|end| end == "onnx") => {
                companions::of_model(path)
            }
            Table::No => Vec::new(),
        };
        // Where the project lies must not matter.
        let folder = path.parent().unwrap_or(path);
        if files.is_empty() {
            Ok(None)
        } else {
            Ok(Some(self.index.digest_of_all(folder, &files)?))
        }
    }

    /// Digest of a data set: of its description and of what its paths hold.
    pub fn data(&mut self, data: &Data) -> Result<Digest> {
        let mut paths = BTreeMap::new();
        for (port, path) in &data.paths {
            paths.insert(port, self.digest(path)?);
        }
        let images = table(data).map(|table| self.named(table, Table::Yes)).transpose()?;
        let text = description(data, &paths, images.flatten());
        let digest = Digest::of(text.to_string().as_bytes());
        self.described.insert(digest, text);
        Ok(digest)
    }

    /// What a data set of that digest is made from: `spec`, as in the pipeline file, and the digests of its files.
    pub fn described(&self, digest: &Digest) -> Option<serde_json::Value> {
        if let Some(known) = self.described.get(digest) {
            return Some(known.clone());
        }
        let text = std::fs::read(self.descriptions.join(digest.hex())).ok()?;
        (Digest::of(&text) == *digest).then(|| serde_json::from_slice(&text).ok())?
    }

    /// In which files an input with another digest now differs from the time of digest `old`; `None`
    /// where that state of the files is not known here.
    pub fn difference(
        &self,
        pipeline: &Pipeline,
        origin: &Origin,
        old: &Digest,
    ) -> Option<FileChanges> {
        let changes = match origin {
            Origin::Stage { .. } => None,
            Origin::Path(path) => {
                let known = path.is_dir() && self.index.digest_before(path) == Some(*old);
                known.then(|| self.index.difference(path))
            }
            Origin::Data(name) => self.difference_of_data(pipeline.data.get(name)?, old),
        };
        changes.filter(|changes| !changes.is_empty())
    }

    fn difference_of_data(&self, data: &Data, old: &Digest) -> Option<FileChanges> {
        let mut before = BTreeMap::new();
        let mut changes = FileChanges::default();
        for (port, path) in &data.paths {
            let digest = self.index.digest_before(path)?;
            before.insert(port, digest);
            if path.is_dir() {
                changes.extend(self.index.difference(path));
            } else if self.taken.get(path) != Some(&digest) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                changes.change(&name);
            }
        }
        let mut images = None;
        if let Some(table) = table(data) {
            let (folder, files) = (table.parent().unwrap_or(table), companions::of_table(table));
            images = self.index.digest_of_all_before(folder, &files).filter(|_| !files.is_empty());
            changes.extend(self.index.difference_of_all(folder, &files));
        }
        let text = description(data, &before, images).to_string();
        (Digest::of(text.as_bytes()) == *old).then_some(changes)
    }

    /// The files and folders of a stage that are no longer what this run first saw.
    pub fn changed(&mut self, pipeline: &Pipeline, cell: &StageCell) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for path in user_paths(pipeline, cell) {
            let before = self.taken.get(path).copied();
            // A file that is gone or being replaced has changed as well.
            let same = self.index.digest(path).ok() == before && self.named_are_the_same(path);
            if !same && !changed.iter().any(|old| old == path) {
                changed.push(path.to_path_buf());
            }
        }
        Ok(changed)
    }

    fn named_are_the_same(&mut self, path: &Path) -> bool {
        let Some(Some(before)) = self.named.get(path).copied() else { return true };
        let model = path.extension().is_some_and(|end| end == "onnx");
        let now = self.named_now(path, if model { Table::No } else { Table::Yes });
        now.is_ok_and(|now| now == Some(before))
    }

    /// Writes what was learnt.
    pub fn save(&mut self) -> Result<()> {
        for (digest, text) in &self.described {
            let path = self.descriptions.join(digest.hex());
            if !path.exists() {
                files::publish_unflushed(&path, text.to_string().as_bytes())?;
            }
        }
        Ok(self.index.save()?)
    }
}

/// What a data set is: its table in the pipeline file, what its paths hold, and the images that a table names.
fn description(
    data: &Data,
    paths: &BTreeMap<&String, Digest>,
    images: Option<Digest>,
) -> serde_json::Value {
    let mut canonical = serde_json::json!({ "spec": data.spec, "paths": paths });
    if let Some(images) = images {
        canonical["images"] = serde_json::json!(images);
    }
    // They were names once, whose results are others.
    let pointed = |table| table::read(table).is_ok_and(|rows| table::pointed(&rows));
    if data.spec.classes.is_none() && table(data).is_some_and(|table| pointed(table)) {
        canonical["labels"] = serde_json::json!("indices");
    }
    // Values were rounded in another way once.
    if data.spec.resamples() {
        canonical["resampling"] = serde_json::json!("pillow");
    }
    canonical.sort_all_objects();
    canonical
}

/// The user's files and folders that the selected stages read, each once, with the files that models
/// and tables name.
pub fn user_files(plan: &Plan) -> BTreeSet<PathBuf> {
    let mut paths: BTreeSet<PathBuf> = plan.inputs().into_iter().map(Path::to_path_buf).collect();
    let models = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "onnx"));
    let mut named: Vec<PathBuf> = models.flat_map(|model| companions::of_model(model)).collect();
    for table in plan.pipeline().data.values().filter_map(table) {
        if paths.contains(table) {
            named.extend(companions::of_table(table));
        }
    }
    paths.extend(named);
    paths
}

/// The user's files and folders that a stage reads.
fn user_paths<'p>(pipeline: &'p Pipeline, cell: &'p StageCell) -> Vec<&'p Path> {
    let mut paths = Vec::new();
    for input in &cell.inputs {
        match &input.origin {
            Origin::Stage { .. } => {}
            Origin::Data(name) => {
                let data = pipeline.data.get(name);
                paths
                    .extend(data.iter().flat_map(|data| data.paths.values().map(PathBuf::as_path)));
            }
            Origin::Path(path) => paths.push(path),
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_a_table_names_belongs_to_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("table.csv"), "label,path\nx,a.png\ny,\"b,c.png\"\nz,no.png\n")
            .unwrap();
        std::fs::write(place("a.png"), "a").unwrap();
        std::fs::write(place("b,c.png"), "b").unwrap();
        let spec = serde_json::json!({ "format": "csv", "path": "@input" });
        let data = Data {
            spec: serde_json::from_value(spec).unwrap(),
            paths: [("path".to_owned(), place("table.csv"))].into(),
        };
        let cache = Cache::at(&place("cache")).unwrap();
        let digest = || Inputs::new(&cache).data(&data).unwrap();
        let first = digest();
        assert_eq!(digest(), first);
        std::fs::write(place("b,c.png"), "changed").unwrap();
        let second = digest();
        assert_ne!(second, first);
        std::fs::write(place("no.png"), "new").unwrap();
        assert_ne!(digest(), second);
        // Results of the time when labels such as 3.0 were names are no results of today.
        let described = |table: &str| {
            std::fs::write(place("table.csv"), table).unwrap();
            description(&data, &BTreeMap::new(), None)
        };
        assert_eq!(described("path,label\na.png,0.0\n")["labels"], "indices");
        assert_eq!(described("path,label\na.png,0\n").get("labels"), None);
    }

    #[test]
    fn results_of_the_time_when_images_were_resized_otherwise_are_none_of_today() {
        let described = |transform: serde_json::Value| {
            let spec =
                serde_json::json!({ "format": "images", "path": "@input", "transform": transform });
            let spec = serde_json::from_value(spec).unwrap();
            description(&Data { spec, paths: BTreeMap::new() }, &BTreeMap::new(), None)
        };
        for step in [
            serde_json::json!({ "resize": 8 }),
            serde_json::json!({ "letterbox": 8 }),
            serde_json::json!({ "random_rotation": 9.0 }),
        ] {
            let flip = serde_json::json!({ "random_horizontal_flip": 0.5 });
            assert_eq!(described(serde_json::json!([flip, step]))["resampling"], "pillow");
        }
        let others = serde_json::json!([{ "center_crop": 8 }, { "random_crop": { "size": 8 } }]);
        assert_eq!(described(others).get("resampling"), None);
    }

    #[test]
    fn the_files_of_a_plan_are_those_that_tables_and_models_name_too() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("t.csv"), "path,label\na.png,x\n").unwrap();
        std::fs::write(place("other.csv"), "path,label\nb.png,x\n").unwrap();
        let mut pipeline = crate::plan::test_pipeline(&["a < data.t", "b < data.other"]);
        for name in ["t", "other"] {
            let spec = serde_json::json!({ "format": "csv", "path": "@input" });
            let spec = serde_json::from_value(spec).unwrap();
            let paths = [("path".to_owned(), place(&format!("{name}.csv")))].into();
            pipeline.data.insert(name.to_owned(), Data { spec, paths });
        }
        let mut plan = Plan::new(&pipeline);
        plan.select(&["a".to_owned()]).unwrap();
        assert_eq!(user_files(&plan), [place("a.png"), place("t.csv")].into());
    }

    #[test]
    fn an_image_that_changes_during_a_stage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("table.csv"), "path,label\na.png,x\n").unwrap();
        std::fs::write(place("a.png"), "a").unwrap();
        let mut inputs = Inputs::new(&Cache::at(&place("cache")).unwrap());
        inputs.digest(&place("table.csv")).unwrap();
        inputs.named(&place("table.csv"), Table::Yes).unwrap();
        assert!(inputs.named_are_the_same(&place("table.csv")));
        std::fs::write(place("a.png"), "b").unwrap();
        assert!(!inputs.named_are_the_same(&place("table.csv")));
    }
}
