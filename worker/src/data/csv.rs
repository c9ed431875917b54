//! A table of images: CSV (RFC 4180) with a header line and the columns `path` and `label`.
//!
//! Paths are relative to the file. Labels are indices where all of them are whole numbers and no
//! class has such a name, otherwise class names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use qpipe::stages::data::{Color, DataSpec};
use qpipe::stages::table::{Fault, find, read, resolve, unnamed};

use super::decode::decode;
use super::formats::Source;
use super::pixels::Pixels;
use crate::{Error, Result};

struct Csv {
    table: PathBuf,
    /// Image and the line that names it.
    files: Vec<(PathBuf, usize)>,
    labels: Vec<usize>,
    classes: Vec<String>,
    /// Whether they are the names that the labels are, listed nowhere.
    found: bool,
    color: Color,
}

/// Reads the table; images are decoded when asked for.
pub(super) fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>> {
    let table = paths.get("path").ok_or_else(|| Error::bug("csv data without port `path`"))?;
    let fault = |fault| told(fault).at(table.display());
    let rows = read(table).map_err(fault)?;
    // Before hours of training, not at the epoch that first wants the image.
    find(table, spec.used(&rows)).map_err(fault)?;
    let (classes, labels) = resolve(&rows, spec.classes.as_deref()).map_err(fault)?;
    let found = spec.classes.is_none() && !unnamed(&rows);
    let folder = table.parent().unwrap_or(table);
    let files = rows.into_iter().map(|row| (folder.join(row.path), row.line)).collect();
    let color = spec.color.unwrap_or(spec.default_color());
    Ok(Box::new(Csv { table: table.clone(), files, labels, classes, found, color }))
}

fn told(fault: Fault) -> Error {
    let error = Error::user(fault.message);
    match fault.help {
        Some(help) => error.help(help),
        None => error,
    }
}

impl Source for Csv {
    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn classes_found(&self) -> bool {
        self.found
    }

    fn pixels(&self, index: usize) -> Result<Cow<'_, Pixels>> {
        let (path, line) = &self.files[index];
        let pixels = decode(path, self.color);
        pixels
            .map(Cow::Owned)
            .map_err(|error| error.at(format!("{}, line {line}", self.table.display())))
    }

    fn name(&self, index: usize) -> String {
        self.files[index].0.display().to_string()
    }

    fn size(&self) -> Option<(usize, usize)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_names_table_line_and_file() {
        let folder = tempfile::tempdir().expect("folder");
        let table = folder.path().join("table.csv");
        std::fs::write(&table, "path,label\nno.png,x\n").expect("writes");
        let spec = serde_json::json!({ "format": "csv", "path": "@input" });
        let spec = serde_json::from_value(spec).expect("a spec");
        let opened = open(&spec, &BTreeMap::from([("path".to_owned(), table.clone())]));
        let error = opened.err().expect("no such image");
        assert!(error.message.contains("table.csv: line 2: "), "{}", error.message);
        assert!(error.message.contains("no.png"), "{}", error.message);
    }

    #[test]
    fn an_image_that_does_not_decode_names_table_line_and_file() {
        let folder = tempfile::tempdir().expect("folder");
        let table = folder.path().join("table.csv");
        std::fs::write(folder.path().join("broken.png"), "no image").expect("writes");
        std::fs::write(&table, "path,label\nbroken.png,x\n").expect("writes");
        let spec = serde_json::json!({ "format": "csv", "path": "@input" });
        let spec = serde_json::from_value(spec).expect("a spec");
        let source = open(&spec, &BTreeMap::from([("path".to_owned(), table)])).expect("opens");
        let error = source.pixels(0).expect_err("broken");
        assert!(error.message.contains("table.csv, line 2: "), "{}", error.message);
        assert!(error.message.contains("broken.png"), "{}", error.message);
    }
}
