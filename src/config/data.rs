//! `[data.NAME]` tables: description, paths, and whether what stands there is what the format reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::interpolate::Interpolator;
use super::mistakes::{Mistake, Sources};
use super::pipeline::Data;
use super::resolve::existing;
use super::schema::{self, Link};
use super::stage::{from_problem, from_serde, is_name, not_a_table};
use super::tree::{Entry, Node, Value};
use crate::stages::contract::{Problem, Source};
use crate::stages::data::{DataFormat, DataSpec};
use crate::stages::inside::is_inside;
use crate::stages::{image_files, table};

/// Reads a table. `None` if its keys have mistakes; its paths are looked at all the same.
pub(super) fn read(
    entry: &Entry,
    sources: &Sources,
    reader: &mut Interpolator<'_>,
) -> Option<Data> {
    is_name("data set", &entry.key, entry.place, &mut reader.mistakes);
    let Some(table) = entry.node.table() else {
        reader.mistakes.push(not_a_table("data", entry));
        return None;
    };
    let start = reader.mistakes.len();
    let mut table = reader.table(table);
    schema::write_out(schema::data(), &mut table);
    let path = format!("data.{}", entry.key);
    schema::check(schema::data(), &table, &entry.node, &path, &mut reader.mistakes);
    let tree = Node::new(Value::Table(table), entry.node.place);
    let sound = reader.mistakes.len() == start && !tree.is_broken();
    match sound.then(|| DataSpec::deserialize(tree.to_toml())) {
        Some(Ok(spec)) => {
            let problems = spec.check().into_iter();
            reader.mistakes.extend(problems.map(|problem| from_problem(&tree, problem)));
            let paths = paths(&spec, &tree, sources, &mut reader.mistakes);
            if let Some(path) = paths.get("path") {
                look_into(path, &spec, &tree, &mut reader.mistakes);
            }
            Some(Data { spec, paths })
        }
        Some(Err(error)) => {
            reader.mistakes.push(from_serde(&tree, &error));
            None
        }
        None => {
            look(&tree, sources, &mut reader.mistakes);
            None
        }
    }
}

/// The files and folders of a data set by their ports.
fn paths(
    spec: &DataSpec,
    tree: &Node,
    sources: &Sources,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, PathBuf> {
    let mut paths = BTreeMap::new();
    for input in spec.inputs() {
        let Source::Path(path) = &input.source else { continue };
        let node = tree.nearest(&input.field);
        // Without `path`, the labels' name that follows from it says nothing new.
        if input.port == "labels" && paths.is_empty() && input.field == ["path"] {
            continue;
        }
        if let Some(there) = existing(sources, path, node, mistakes)
            && fits(Some(spec.format), &input.port, path, &there, node, mistakes)
        {
            paths.insert(input.port.clone(), there);
        }
    }
    paths
}

/// Reports what is wrong with the images of a data set, before a stage finds it hours later.
fn look_into(path: &Path, spec: &DataSpec, tree: &Node, mistakes: &mut Vec<Mistake>) {
    match spec.format {
        DataFormat::Csv => look_into_table(path, spec, tree, mistakes),
        DataFormat::ImageFolder if spec.classes.is_none() && spec.skip == 0 => {}
        DataFormat::ImageFolder => {
            let folders = class_folders(path, spec, tree, mistakes);
            look_for_rest(path, &folders, spec, tree, mistakes);
        }
        DataFormat::Images => look_for_rest(path, &[path.to_owned()], spec, tree, mistakes),
        // What is in it is known when it is unpacked.
        DataFormat::Idx => {}
    }
}

fn look_into_table(path: &Path, spec: &DataSpec, tree: &Node, mistakes: &mut Vec<Mistake>) {
    let looked = table::read(path).and_then(|rows| {
        table::resolve(&rows, spec.classes.as_deref())?;
        table::find(path, spec.used(&rows))?;
        Ok(rows.len())
    });
    match looked {
        Ok(total) if spec.skip >= total => mistakes.push(nothing_left(path, spec, total, tree)),
        Ok(_) => {}
        Err(fault) => {
            let node = tree.nearest(&["path".to_owned()]);
            let mistake = Mistake::new("table", node.place, fault.message, "in this table")
                .also(node.from, "the value comes from here");
            mistakes.push(match fault.help {
                Some(help) => mistake.help(help),
                None => mistake,
            });
        }
    }
}

/// The class folders that are there; reports classes that are listed and have none. Names that lead elsewhere are reported already.
fn class_folders(
    root: &Path,
    spec: &DataSpec,
    tree: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Vec<PathBuf> {
    let found = image_files::class_folders(root).unwrap_or_default();
    let classes = spec.classes.as_ref().unwrap_or(&found);
    let (mut folders, mut missing) = (Vec::new(), Vec::new());
    for (index, class) in classes.iter().enumerate().filter(|(_, class)| is_inside(class)) {
        let folder = root.join(class);
        if folder.is_dir() { folders.push(folder) } else { missing.push((index, class)) }
    }
    if let Some((index, first)) = missing.first() {
        let more = match missing.len() - 1 {
            0 => String::new(),
            more => format!(", nor for {more} more"),
        };
        let message = format!("{}: there is no folder for class \"{first}\"{more}", root.display());
        let there = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        let problem = Problem::at(&format!("classes.{index}"), message).help(format!(
            "folders there: {there}; a class without images has an empty folder (Git keeps one with a file `.gitkeep` in it)"
        ));
        mistakes.push(from_problem(tree, problem));
    }
    folders
}

/// Reports a `skip` that leaves no image. Folders without any image are left to the stage.
fn look_for_rest(
    path: &Path,
    folders: &[PathBuf],
    spec: &DataSpec,
    tree: &Node,
    mistakes: &mut Vec<Mistake>,
) {
    if spec.skip > 0
        && let Ok(total) = image_files::count(folders, spec.skip.saturating_add(1))
        && (1..=spec.skip).contains(&total)
    {
        mistakes.push(nothing_left(path, spec, total, tree));
    }
}

fn nothing_left(path: &Path, spec: &DataSpec, total: usize, tree: &Node) -> Mistake {
    let skip = spec.skip;
    let message = format!("no image is left: `skip` is {skip}, {} has {total}", path.display());
    let problem = Problem::at("skip", message).label("leaves none");
    from_problem(tree, problem.help("`skip` leaves out so many at the front: make it smaller"))
}

/// Looks at the paths of a table of which no more is known than its words.
fn look(tree: &Node, sources: &Sources, mistakes: &mut Vec<Mistake>) {
    let Some(table) = tree.table() else { return };
    let format = table.get("format").and_then(|entry| match &entry.node.value {
        Value::Text(text) => serde_json::from_value(text.as_str().into()).ok(),
        _ => None,
    });
    for link in schema::links(schema::data(), table) {
        let Link::Path(path, node) = link else { continue };
        if let Some(there) = existing(sources, path, node, mistakes) {
            let labels = table.get("labels").is_some_and(|entry| std::ptr::eq(&entry.node, node));
            let port = if labels { "labels" } else { "path" };
            fits(format, port, path, &there, node, mistakes);
        }
    }
}

/// Whether a folder stands where the format reads a folder, and a file where it reads a file; reports it if not.
fn fits(
    format: Option<DataFormat>,
    port: &str,
    path: &str,
    there: &Path,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> bool {
    let Some(format) = format else { return true };
    let folder = matches!(format, DataFormat::ImageFolder | DataFormat::Images);
    if folder == there.is_dir() {
        return true;
    }
    let (label, help) = match (format, port) {
        (DataFormat::ImageFolder, _) => (
            "expected a folder with one folder a class",
            "name the folder; a table of images is format \"csv\", MNIST's files are format \"idx\"",
        ),
        (DataFormat::Images, _) => (
            "expected a folder of images",
            "name the folder that the images lie in; a table of images is format \"csv\"",
        ),
        (DataFormat::Csv, _) => (
            "expected a file with the columns `path` and `label`",
            "name the file; a folder with one folder a class is format \"image-folder\", one of images without labels is format \"images\"",
        ),
        (DataFormat::Idx, "labels") => (
            "expected the labels file",
            "name the file, such as labels = \"train-labels-idx1-ubyte.gz\"",
        ),
        (DataFormat::Idx, _) => (
            "expected the images file",
            "name the file, such as path = \"train-images-idx3-ubyte.gz\"; a folder with one folder a class is format \"image-folder\"",
        ),
    };
    let what = if folder { "no folder" } else { "a folder" };
    let word = serde_json::to_value(format).unwrap_or_default();
    let message = format!(
        "\"{path}\" is {what}, and format {word} reads a {}",
        if folder { "folder" } else { "file" }
    );
    mistakes.push(
        Mistake::new("wrong-file", node.place, message, label)
            .also(node.from, "the value comes from here")
            .help(help),
    );
    false
}
