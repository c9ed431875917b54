//! The way from a file to a [`Pipeline`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::input::Overrides;
use super::interpolate::Interpolator;
use super::mistakes::{Mistake, Mistakes, Sources};
use super::pipeline::{Origin, Pipeline, StageCell};
use super::resolve::{Connection, Names};
use super::stage::{self, RawStage};
use super::suggest::did_you_mean;
use super::tree::{Entry, Node, Place, Table, Value};
use super::{
    choices, classes, cycles, data, extends, guards, labels, methods, overrides, profiles, remote,
    runtime_facts, schema, slurm, sweep,
};

/// Reads a pipeline file. Where overrides give several values, the pipelines of all combinations
/// are one: see [`Sweep`](super::Sweep).
///
/// # Errors
///
/// All mistakes of the file, of those that it extends and of the overrides. Where a file is not TOML
/// or is missing, only those: what the rest means is uncertain then.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Pipeline, Mistakes> {
    let name = path.display().to_string();
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if file.to_str().is_none() {
        let message = format!("the path {file:?} is not UTF-8");
        let help =
            "records of runs are JSON and can name no such path: rename the folder or the file";
        return Err(Mistakes::unreadable(&name, message, help));
    }
    let text = extends::text(path, &name).map_err(|message| {
        let help = "name a pipeline file; `qpipe init` writes one to start from";
        Mistakes::unreadable(&name, message, help)
    })?;
    from_text(path, &text, overrides)
}

/// The same of a file whose text is known.
pub(super) fn from_text(
    path: &Path,
    text: &str,
    overrides: &Overrides,
) -> Result<Pipeline, Mistakes> {
    let name = path.display().to_string();
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut sources = Sources::new(&name, text, &file);
    let mut root = match extends::document(&file, text, &mut sources) {
        Ok(root) => root,
        Err(mistakes) => return Err(Mistakes::new(&name, &sources, mistakes)),
    };
    let mut mistakes = Vec::new();
    profiles::apply(&mut root, &overrides.profiles, &mut sources, &mut mistakes);
    let (points, sweep) = choices::read(&overrides.set, &mut sources, &mut mistakes);
    let mut pipelines = Vec::new();
    let count = points.len();
    for (index, settings) in points.into_iter().enumerate() {
        // The points of a sweep make most mistakes alike.
        let start = mistakes.len();
        let mut own = Vec::new();
        let last = index + 1 == count;
        let mut root = if last { std::mem::take(&mut root) } else { root.clone() };
        overrides::apply(&mut root, &settings, &mut own);
        pipelines.push(assemble(&root, file.clone(), &sources, overrides, &mut own));
        mistakes.append(&mut own);
        stage::drop_repeated(&mut mistakes, 0, start);
    }
    if !mistakes.is_empty() {
        return Err(Mistakes::new(&name, &sources, mistakes));
    }
    let mut pipeline = match sweep {
        Some(sweep) => sweep::combine(sweep, pipelines),
        None => pipelines.pop().expect("without a sweep there is one point"),
    };
    pipeline.sources = Some(sources);
    Ok(pipeline)
}

/// What can be understood; complete only if there are no mistakes.
fn assemble(
    root: &Table,
    file: PathBuf,
    sources: &Sources,
    overrides: &Overrides,
    mistakes: &mut Vec<Mistake>,
) -> Pipeline {
    check_top(root, mistakes);
    let table = |name: &str| root.get(name).and_then(|entry| entry.node.table());
    let mut reader = Interpolator::new(sources, &overrides.env, table("params"));
    reader.mistakes.splice(0..0, mistakes.drain(..));
    for entry in table("params").into_iter().flat_map(|params| &params.entries) {
        stage::is_name("parameter", &entry.key, entry.place, &mut reader.mistakes);
    }
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let (name, seed) = header(root.get("pipeline"), &file, &mut reader);

    let entries = |name: &str| table(name).map_or(&[][..], |table| &table.entries);
    let mut sets = BTreeMap::new();
    for entry in entries("data") {
        if let Some(found) = data::read(entry, sources, &mut reader) {
            sets.insert(entry.key.clone(), found);
        }
    }
    let data_names: Vec<String> = entries("data").iter().map(|entry| entry.key.clone()).collect();
    let stages: Vec<RawStage> =
        entries("stages").iter().map(|entry| stage::read(entry, &mut reader)).collect();
    let remote = remote::read(root.get("remote"), sources, &mut reader);
    let slurm = slurm::read(root.get("slurm"), &mut reader);
    let guards: Vec<_> =
        entries("guards").iter().filter_map(|entry| guards::read(entry, &mut reader)).collect();
    *mistakes = reader.mistakes;

    let names = Names::new(&stages, &data_names, sources);
    let connections = connect(&names, mistakes);
    labels::check(&stages, &connections, &sets, mistakes);
    classes::check(&stages, &connections, &sets, mistakes);
    methods::check(&stages, &connections, mistakes);
    let guards =
        guards.into_iter().filter_map(|guard| guards::resolve(guard, &names, sources, mistakes));
    let guards = guards.collect();
    let stages = finish(stages, connections, seed, sources);
    let files = sources.files();
    let arguments = overrides.arguments();
    Pipeline {
        name,
        seed,
        file,
        files,
        folder,
        data: sets,
        stages,
        arguments,
        profiles: overrides.profiles.clone(),
        remote,
        guards,
        slurm,
        sweep: None,
        sources: None,
    }
}

fn check_top(root: &Table, mistakes: &mut Vec<Mistake>) {
    const TABLES: [&str; 7] = ["pipeline", "params", "data", "stages", "remote", "guards", "slurm"];
    // Taken out before: a slip in their names is told here.
    const ABOVE: [&str; 2] = [profiles::KEY, extends::KEY];
    for entry in &root.entries {
        if !TABLES.contains(&entry.key.as_str()) {
            let what = if entry.node.table().is_some() { "table" } else { "key" };
            let message = format!("unknown {what} `{}`", entry.key);
            let label = did_you_mean(&entry.key, TABLES.into_iter().chain(ABOVE), "not known");
            mistakes.push(Mistake::new("unknown-key", entry.place, message, label).help(
                "a pipeline has the tables [pipeline], [params], [data.NAME], [stages.NAME], [remote], [guards.NAME], [slurm] and [profiles.NAME], and the key `extends`",
            ));
        } else if entry.node.table().is_none() {
            let message = format!("`{}` is {}", entry.key, entry.node.kind());
            mistakes.push(Mistake::new(
                "wrong-type",
                entry.node.place,
                message,
                "expected a table",
            ));
        }
    }
    if root.get("stages").is_none_or(|e| e.node.table().is_some_and(|t| t.entries.is_empty())) {
        let place = Place { source: 0, start: 0, end: 0 };
        mistakes.push(
            Mistake::new("empty", place, "the pipeline has no stages", "expected [stages.NAME]")
                .help("`qpipe init` writes a pipeline to start from"),
        );
    }
}

/// `[pipeline]`: name and seed.
fn header(entry: Option<&Entry>, file: &Path, reader: &mut Interpolator<'_>) -> (String, u64) {
    let stem = file.file_stem().map_or("pipeline".into(), |stem| stem.to_string_lossy());
    let (mut name, mut seed) = (stem.into_owned(), 0);
    let Some((entry, table)) = entry.and_then(|entry| Some((entry, entry.node.table()?))) else {
        return (name, seed);
    };
    let mut table = reader.table(table);
    schema::write_out(schema::pipeline(), &mut table);
    schema::check(schema::pipeline(), &table, &entry.node, "pipeline", &mut reader.mistakes);
    let value = |key: &str| table.get(key).map(|entry| &entry.node);
    if let Some(Node { value: Value::Text(text), place, .. }) = value("name") {
        if text.contains(['/', '\\', '\n']) {
            let message = format!("\"{text}\" cannot name a pipeline");
            reader.mistakes.push(
                Mistake::new("name", *place, message, "here")
                    .help("files are named after it: write it without slashes"),
            );
        }
        name.clone_from(text);
    }
    if let Some(Node { value: Value::Integer(number), .. }) = value("seed") {
        seed = u64::try_from(*number).unwrap_or_default();
    }
    (name, seed)
}

/// Inputs of all cells, stage by stage; cycles are reported.
fn connect(names: &Names<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Vec<Connection>> {
    let mut all = Vec::new();
    for stage in names.stages {
        let before = mistakes.len();
        for cell in stage.cells.iter().flatten() {
            let start = mistakes.len();
            all.push(names.connect(cell, mistakes));
            stage::drop_repeated(mistakes, before, start);
        }
    }
    let cells = names.stages.iter().flat_map(|stage| stage.cells.iter().flatten());
    let cells: Vec<(&str, &[Connection])> =
        cells.zip(&all).map(|(cell, inputs)| (cell.id.as_str(), inputs.as_slice())).collect();
    cycles::check(&cells, mistakes);
    all
}

fn finish(
    stages: Vec<RawStage>,
    connections: Vec<Vec<Connection>>,
    seed: u64,
    sources: &Sources,
) -> Vec<StageCell> {
    let mut connections = connections.into_iter();
    let mut cells = Vec::new();
    for stage in stages {
        let (file, line) = (sources.file(stage.place.source), sources.line(stage.place));
        for cell in stage.cells.into_iter().flatten() {
            let inputs = connections.next().unwrap_or_default();
            let (Some(kind), Some(config)) = (cell.kind, cell.stage) else { continue };
            let model = inputs.iter().find(|connection| {
                connection.input.port == "model"
                    && matches!(connection.input.origin, Origin::Path(_))
            });
            let model_place = model.map(|connection| connection.place);
            let entries = cell.tree.table().into_iter().flat_map(|table| &table.entries);
            let keys = entries.map(|entry| (entry.key.clone(), place_of(entry, sources))).collect();
            let variables = cell.combination.variables.into_iter();
            cells.push(StageCell {
                id: cell.id,
                name: stage.name.clone(),
                cell: variables.map(|(name, node)| (name, node.to_json())).collect(),
                point: None,
                seed,
                kind,
                stage: config,
                execution: cell.execution,
                secrets: cell.secrets,
                inputs: inputs.into_iter().map(|connection| connection.input).collect(),
                facts: Vec::new(),
                file: Arc::clone(file),
                line,
                keys,
                model_place,
            });
        }
    }
    runtime_facts::tell(&mut cells);
    cells
}

/// Where a key stands: in the argument that gave it another value, if one did.
fn place_of(entry: &Entry, sources: &Sources) -> Place {
    let value = entry.node.place;
    if sources.argument(value.source).is_some() { value } else { entry.place }
}
