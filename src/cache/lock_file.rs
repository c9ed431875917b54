//! `NAME.lock` beside a pipeline file: what each stage came to, for version control.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{CacheError, Result};
use super::{ActionKey, ActionRecord, Digest, files, key};
use crate::config::{long_key, plain_depth};

/// What each stage of a pipeline came to: its key with all that it was made from, its outputs'
/// digests and its figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockFile {
    /// Keys that `--set` changed in the run that wrote it, in alphabetical order. Their values are those of the stages.
    pub set: Vec<String>,
    /// Stage id → what it came to.
    pub stages: BTreeMap<String, LockedStage>,
}

/// What a stage came to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// Digest of its key.
    pub key: Digest,
    /// Kind of the stage.
    pub kind: String,
    /// Version of the kind.
    pub version: u32,
    /// Seed of all randomness.
    pub seed: u64,
    /// Semantic configuration, as JSON.
    pub config: String,
    /// Port → digest of what stood there.
    #[serde(default)]
    pub inputs: BTreeMap<String, Digest>,
    /// Facts of the machine that belong to the key.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Port → digest.
    #[serde(default)]
    pub outputs: BTreeMap<String, Digest>,
    /// Figures that are numbers; the names of nested ones are joined with dots. Infinite is an SQNR of what does not differ at all.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

impl LockedStage {
    /// What a record comes to; `key` is the digest of its key.
    pub fn new(key: Digest, record: &ActionRecord) -> Self {
        let outputs = record.outputs.iter().map(|(port, output)| (port.clone(), output.digest));
        let ActionKey { kind, kind_version, config, inputs, seed, facts, .. } = record.key.clone();
        let mut metrics = BTreeMap::new();
        for (name, value) in &record.metrics {
            numbers(name, value, &mut metrics);
        }
        Self {
            key,
            kind,
            version: kind_version,
            seed,
            config: key::sorted(&config),
            inputs,
            facts,
            outputs: outputs.collect(),
            metrics,
        }
    }

    /// The whole key, to explain another one by; `None` if it is not what the digest says.
    pub fn action_key(&self) -> Option<ActionKey> {
        let key = ActionKey {
            format: ActionKey::FORMAT,
            kind: self.kind.clone(),
            kind_version: self.version,
            config: serde_json::from_str(&self.config).ok()?,
            inputs: self.inputs.clone(),
            seed: self.seed,
            facts: self.facts.clone(),
        };
        (key.digest() == self.key).then_some(key)
    }
}

/// The finite numbers in a figure, by their dotted names. JSON has no infinity: an SQNR that is `null` says that nothing differs.
pub(crate) fn numbers(name: &str, value: &serde_json::Value, found: &mut BTreeMap<String, f64>) {
    use serde_json::Value;
    match value {
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.is_finite());
            found.extend(number.map(|number| (name.to_owned(), number)));
        }
        Value::Object(table) => {
            table.iter().for_each(|(key, value)| numbers(&format!("{name}.{key}"), value, found));
        }
        Value::Array(values) => {
            let values = values.iter().enumerate();
            values.for_each(|(index, value)| numbers(&format!("{name}.{index}"), value, found));
        }
        Value::Null if is_sqnr(name) => {
            found.insert(name.to_owned(), f64::INFINITY);
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn is_sqnr(name: &str) -> bool {
    name.ends_with("sqnr_db")
}

/// Raised with any change of the form.
const FORMAT: u32 = 2;

const HEADER: &str = "\
# Written by `qpipe run`: what each stage came to. Keep it under version control; do not edit it.
format = 2
";

/// What a file says of its form, before anything else of it is understood.
fn format_of(bytes: &[u8]) -> Option<&str> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let format = lines.find_map(|line| line.strip_prefix(b"format = "))?;
    std::str::from_utf8(format).ok().map(str::trim)
}

fn not_newer(path: &Path, bytes: &[u8]) -> Result<()> {
    match format_of(bytes).and_then(|format| format.parse().ok()) {
        Some(format) if format > u64::from(FORMAT) => {
            Err(CacheError::NewerLockFile { path: path.to_path_buf(), format })
        }
        _ => Ok(()),
    }
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    #[serde(default)]
    set: Vec<String>,
    #[serde(default)]
    stages: BTreeMap<String, LockedStage>,
}

impl LockFile {
    /// The lock files of a pipeline file that are there: `NAME.lock`, and those of profiles, `NAME.*.lock`; where there is none, the first.
    pub fn all(pipeline: &Path) -> Vec<PathBuf> {
        let plain = pipeline.with_extension("lock");
        let stem = pipeline.file_stem().unwrap_or_default().to_string_lossy();
        let folder = pipeline.parent().filter(|folder| !folder.as_os_str().is_empty());
        let there = std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten();
        let is_own = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let profiles = name.strip_prefix(&*stem).and_then(|rest| rest.strip_suffix(".lock"));
            profiles.is_some_and(|profiles| profiles.len() > 1 && profiles.starts_with('.'))
        };
        let mut own: Vec<_> =
            there.filter_map(|entry| Some(entry.ok()?.path())).filter(is_own).collect();
        own.sort();
        if own.is_empty() || plain.exists() {
            own.insert(0, plain);
        }
        own
    }

    /// Reads a lock file; `None` where there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        files::read(path)?.map(|bytes| Self::parse(path, &bytes)).transpose()
    }

    /// Reads a lock file that is to be written anew: `None` where there is none, or one of an older form.
    ///
    /// # Errors
    /// One of a newer qpipe; one that is damaged, as by a merge: what it says of stages that do not run would be lost.
    pub fn read_to_replace(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = files::read(path)? else { return Ok(None) };
        let format = format_of(&bytes).and_then(|format| format.parse().ok());
        match Self::parse(path, &bytes) {
            Err(_) if format.is_some_and(|format: u64| format < u64::from(FORMAT)) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Reads a lock file's content; `path` names it in errors.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        not_newer(path, bytes)?;
        let damaged = |reason| CacheError::LockFile { path: path.to_path_buf(), reason };
        Self::from_bytes(bytes).map_err(damaged)
    }

    /// The lock file with that content; why it is none otherwise.
    pub(super) fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        if let Some(other) = format_of(bytes).filter(|format| *format != FORMAT.to_string()) {
            return Err(format!("it has format {other}, this qpipe writes format {FORMAT}"));
        }
        let read = toml::from_str(text).map_err(|error| {
            let place = error.span().unwrap_or_else(|| long_key(text));
            let line = text[..place.start].matches('\n').count() + 1;
            let message = plain_depth(error.message());
            let message = message.unwrap_or_else(|| error.message().replace('\n', ", "));
            format!("line {line}: {message}")
        });
        let Written { format, set, stages } = read?;
        if format != FORMAT {
            return Err("no format".to_owned());
        }
        for (id, stage) in &stages {
            let odd = |(name, value): &(&String, &f64)| {
                !(value.is_finite() || **value == f64::INFINITY && is_sqnr(name))
            };
            if let Some((name, _)) = stage.metrics.iter().find(odd) {
                return Err(format!("metric {name:?} of stage {id:?} is not a finite number"));
            }
        }
        Ok(Self { set, stages })
    }

    /// Its text: stages and ports in alphabetical order, so that the order of the pipeline file
    /// does not matter.
    pub fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        if !self.set.is_empty() {
            let keys: Vec<String> = self.set.iter().map(|key| string(key)).collect();
            text.push_str(&format!("set = [{}]\n", keys.join(", ")));
        }
        for (id, stage) in &self.stages {
            // Writing into a String cannot fail.
            let _ = stage.write(id, &mut text);
        }
        text
    }

    /// Writes it if that changes the file; says whether it did.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let text = self.text();
        if files::read(path)?.is_some_and(|bytes| bytes == text.as_bytes()) {
            return Ok(false);
        }
        files::publish(path, text.as_bytes())?;
        Ok(true)
    }
}

impl LockedStage {
    fn write(&self, id: &str, text: &mut String) -> std::fmt::Result {
        let Self { key, kind, version, seed, config, .. } = self;
        let [id, kind, config] = [quoted(id), string(kind), string(config)];
        write!(text, "\n[stages.{id}]\nkey = \"{key}\"\nkind = {kind}\nversion = {version}\n")?;
        write!(text, "seed = {seed}\nconfig = {config}\n")?;
        for (port, digest) in &self.inputs {
            writeln!(text, "inputs.{} = \"{digest}\"", quoted(port))?;
        }
        for (name, value) in &self.facts {
            writeln!(text, "facts.{} = {}", quoted(name), string(value))?;
        }
        for (port, digest) in &self.outputs {
            writeln!(text, "outputs.{} = \"{digest}\"", quoted(port))?;
        }
        for (name, value) in &self.metrics {
            writeln!(text, "metrics.{} = {value:?}", quoted(name))?;
        }
        Ok(())
    }
}

/// A TOML string: literal where that can hold it, so that JSON stays readable.
fn string(text: &str) -> String {
    if text.contains('\'') || text.chars().any(char::is_control) {
        toml::Value::String(text.to_owned()).to_string()
    } else {
        format!("'{text}'")
    }
}

/// A TOML key: quoted where a bare one cannot hold it.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        return key.to_owned();
    }
    // Not as a value is written: that may be a string of several lines, which no key can be.
    let mut text = String::from('"');
    for letter in key.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            letter if letter.is_control() => text.push_str(&format!("\\u{:04X}", letter as u32)),
            letter => text.push(letter),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ActionRecord {
        let key = ActionKey {
            format: ActionKey::FORMAT,
            kind: "evaluate".to_owned(),
            kind_version: 1,
            config: serde_json::json!({"run": "it's", "a": [1.5, null]}),
            inputs: [("model".to_owned(), Digest::of(b""))].into(),
            seed: 7,
            facts: [("cpu".to_owned(), "one \"two\"".to_owned())].into(),
        };
        let output = crate::cache::StoredOutput {
            digest: Digest::of(b""),
            kind: crate::stages::contract::PortType::Metrics,
            file: "metrics.json".to_owned(),
            directory: false,
            bytes: 0,
        };
        let metrics = serde_json::json!({"top1": 0.5, "ms": {"p99": [1, 2]}, "name": "x"});
        ActionRecord {
            key,
            outputs: [("metrics".to_owned(), output)].into(),
            metrics: serde_json::from_value(metrics).unwrap(),
            warnings: Vec::new(),
            started: String::new(),
            seconds: 1.0,
            stage: String::new(),
            host: String::new(),
            version: String::new(),
        }
    }

    fn lock(ids: &[&str]) -> LockFile {
        let record = record();
        let stage = LockedStage::new(record.key.digest(), &record);
        let set = vec!["params.epochs".to_owned(), "stages.it's.seed".to_owned()];
        let set = if ids.len() > 1 { set } else { Vec::new() };
        LockFile { set, stages: ids.iter().map(|id| ((*id).to_owned(), stage.clone())).collect() }
    }

    #[test]
    fn text_reads_back_and_is_written_only_if_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        assert_eq!(LockFile::read(&path).unwrap(), None);
        let lock = lock(&["fp32", "onnx[ptq[max],1]", "odd[\"a\\b\"]", "x[it's \"1\"\n\u{1b}]"]);
        assert!(lock.write(&path).unwrap());
        assert!(!lock.write(&path).unwrap());
        let read = LockFile::read(&path).unwrap().unwrap();
        assert_eq!(read.stages["fp32"].action_key(), Some(record().key));
        assert_eq!(read, lock);
    }

    #[test]
    fn the_text_is_pinned() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let key = record().key.digest();
        let expected = format!(
            "{HEADER}\n[stages.\"a[1]\"]\nkey = \"{key}\"\nkind = 'evaluate'\nversion = 1\nseed = 7\n\
             config = \"\"\"{{\"a\":[1.5,null],\"run\":\"it's\"}}\"\"\"\ninputs.model = \"{empty}\"\n\
             facts.cpu = 'one \"two\"'\noutputs.metrics = \"{empty}\"\n\
             metrics.\"ms.p99.0\" = 1.0\nmetrics.\"ms.p99.1\" = 2.0\nmetrics.top1 = 0.5\n"
        );
        assert_eq!(lock(&["a[1]"]).text(), expected);
    }

    #[test]
    fn another_format_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        std::fs::write(&path, "format = 1\n").unwrap();
        let error = LockFile::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("it has format 1, this qpipe writes format 2"), "{error}");
        std::fs::write(&path, b"# More.\nformat = 3\nnew = \"\xff\"\n").unwrap();
        let error = LockFile::read(&path).unwrap_err();
        assert!(matches!(error, CacheError::NewerLockFile { format: 3, .. }), "{error}");
        assert!(error.to_string().ends_with("p.lock has format 3, which this qpipe does not know"));
    }

    #[test]
    fn what_lies_too_deep_is_an_error_with_its_line() {
        const DEPTH: usize = 100_000;
        let stage = lock(&["a"]).text();
        let long = vec!["a"; DEPTH].join(".");
        for (last, why) in [
            (format!("[x]\n{long} = 1"), "a key has more than 79 parts"),
            (format!("\n[{long}]"), "a key has more than 79 parts"),
            (format!("\nx = {}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)), "80 deep"),
            (format!("\nx = {}1{}", "{ a = ".repeat(DEPTH), "}".repeat(DEPTH)), "80 deep"),
        ] {
            let error = LockFile::from_bytes(format!("{stage}{last}").as_bytes()).unwrap_err();
            let line = stage.lines().count() + 2;
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.contains(why), "{error}");
        }
        // JSON in it is read when it is asked for.
        let deep = format!("config = '{}{}'", "[".repeat(DEPTH), "]".repeat(DEPTH));
        let text: Vec<&str> = stage
            .lines()
            .map(|line| if line.starts_with("config") { deep.as_str() } else { line })
            .collect();
        let lock = LockFile::from_bytes(text.join("\n").as_bytes()).unwrap();
        assert_eq!(lock.stages["a"].action_key(), None);
    }

    #[test]
    fn a_figure_that_is_no_number_is_refused() {
        let text = lock(&["a"]).text();
        assert!(LockFile::from_bytes(text.as_bytes()).is_ok());
        let error = LockFile::from_bytes(text.replace("= 0.5", "= nan").as_bytes()).unwrap_err();
        assert_eq!(error, "metric \"top1\" of stage \"a\" is not a finite number");
    }

    /// JSON writes no infinity; the lock file has one, which is read again.
    #[test]
    fn an_sqnr_of_nothing_that_differs_is_infinite() {
        let mut record = record();
        let metrics = serde_json::json!({"engine_sqnr_db": null, "loss": null, "top1": 0.5});
        record.metrics = serde_json::from_value(metrics).unwrap();
        let stage = LockedStage::new(record.key.digest(), &record);
        let figures = [("engine_sqnr_db".to_owned(), f64::INFINITY), ("top1".to_owned(), 0.5)];
        assert_eq!(stage.metrics, figures.into());
        let lock = LockFile { set: Vec::new(), stages: [("ver".to_owned(), stage)].into() };
        let text = lock.text();
        assert!(text.contains("metrics.engine_sqnr_db = inf\n"), "{text}");
        assert_eq!(LockFile::from_bytes(text.as_bytes()), Ok(lock));
        for other in ["-inf", "nan"] {
            let text = text.replace("= inf", &format!("= {other}"));
            assert!(LockFile::from_bytes(text.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_merge_conflict_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        std::fs::write(&path, format!("{HEADER}\n<<<<<<< ours\n")).unwrap();
        let error = LockFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("p.lock is no lock file of qpipe: line 4: "), "{error}");
    }
}
