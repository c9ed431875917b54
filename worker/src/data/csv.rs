//! A table of images: CSV (RFC 4180) with a header line and the columns `path` and `label`.
//!
//! Paths are relative to the file. Labels are indices where all of them are whole numbers and no
//! class has such a name, otherwise class names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use qpipe::stages::csv::records;
use qpipe::stages::data::{Color, DataSpec};

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
    color: Color,
}

/// Reads the table; images are decoded when asked for.
pub(super) fn open(spec: &DataSpec, paths: &BTreeMap<String, PathBuf>) -> Result<Box<dyn Source>> {
    let table = paths.get("path").ok_or_else(|| Error::bug("csv data without port `path`"))?;
    let text = std::fs::read_to_string(table).map_err(|error| Error::io(table, &error))?;
    let rows = rows(&text).map_err(|error| error.at(table.display()))?;
    let (classes, labels) =
        resolve(&rows, spec.classes.as_deref()).map_err(|error| error.at(table.display()))?;
    let folder = table.parent().unwrap_or(table);
    let files = rows.into_iter().map(|row| (folder.join(row.path), row.line)).collect();
    let color = spec.color.unwrap_or(spec.default_color());
    Ok(Box::new(Csv { table: table.clone(), files, labels, classes, color }))
}

struct Row {
    line: usize,
    path: String,
    label: String,
}

fn rows(text: &str) -> Result<Vec<Row>> {
    let mut records = records(text).map_err(Error::user)?.into_iter();
    let (_, header) = records.next().ok_or_else(|| Error::user("the file is empty"))?;
    let column = |name: &str| {
        header.iter().position(|column| column.trim() == name).ok_or_else(|| {
            Error::user(format!("line 1: no column `{name}`; found: {}", header.join(", ")))
                .help("the first line names the columns: path,label")
        })
    };
    let (path, label) = (column("path")?, column("label")?);
    let mut rows = Vec::new();
    for (line, record) in records {
        let [Some(path), Some(label)] = [path, label].map(|column| record.get(column)) else {
            return Err(Error::user(format!(
                "line {line}: {} column(s), the header has {}",
                record.len(),
                header.len()
            )));
        };
        rows.push(Row { line, path: path.trim().to_owned(), label: label.trim().to_owned() });
    }
    if rows.is_empty() {
        return Err(Error::user("no image in it"));
    }
    Ok(rows)
}

/// Classes, and the index of each row's label.
fn resolve(rows: &[Row], classes: Option<&[String]>) -> Result<(Vec<String>, Vec<usize>)> {
    let numbers: Option<Vec<usize>> = rows.iter().map(|row| row.label.parse().ok()).collect();
    let named = |classes: &[String]| rows.iter().any(|row| classes.contains(&row.label));
    let classes = match (classes, &numbers) {
        (Some(classes), _) => classes.to_vec(),
        (None, Some(numbers)) => {
            let last = numbers.iter().copied().max().unwrap_or(0);
            if last >= 1_000_000 {
                return Err(Error::user(format!("label {last} is no index of a class")));
            }
            (0..=last).map(|class| class.to_string()).collect()
        }
        (None, None) => {
            let names: BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).collect();
            names.into_iter().map(str::to_owned).collect()
        }
    };
    let by_index = if named(&classes) { None } else { numbers };
    let mut labels = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let label = match &by_index {
            Some(numbers) => Some(numbers[index]).filter(|&label| label < classes.len()),
            None => classes.iter().position(|class| *class == row.label),
        };
        labels.push(label.ok_or_else(|| {
            Error::user(format!(
                "line {}: label \"{}\" is none of the {} classes: {}",
                row.line,
                row.label,
                classes.len(),
                classes.join(", ")
            ))
            .help("correct the line, or `classes` of the data set")
        })?);
    }
    Ok((classes, labels))
}

impl Source for Csv {
    fn labels(&self) -> &[usize] {
        &self.labels
    }

    fn classes(&self) -> &[String] {
        &self.classes
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

    fn read(text: &str, classes: Option<&[&str]>) -> Result<(Vec<String>, Vec<usize>)> {
        let classes: Option<Vec<String>> =
            classes.map(|classes| classes.iter().map(|class| (*class).to_owned()).collect());
        resolve(&rows(text)?, classes.as_deref())
    }

    #[test]
    fn labels_are_names_or_indices() {
        let names = read("path,label\na.png,dog\nb.png,cat\n", None).expect("reads");
        assert_eq!(names, (vec!["cat".to_owned(), "dog".to_owned()], vec![1, 0]));
        let numbers = read("label,path\r\n2,a.png\r\n\r\n0,b.png", None).expect("reads");
        assert_eq!(numbers.1, [2, 0]);
        assert_eq!(numbers.0.len(), 3);
        assert_eq!(read("path,label\na,1\nb,0", Some(&["x", "y"])).expect("reads").1, [1, 0]);
        // Names that look like numbers win over indices.
        assert_eq!(read("path,label\na,7\nb,3", Some(&["3", "7"])).expect("reads").1, [1, 0]);
    }

    #[test]
    fn quotes_hide_commas() {
        let rows = rows("path,label\n\"a, \"\"b\"\".png\",x\n").expect("reads");
        assert_eq!(rows[0].path, "a, \"b\".png");
    }

    #[test]
    fn mistakes_name_the_line() {
        for (text, classes, part) in [
            ("", None, "empty"),
            ("file,label\na,b", None, "line 1: no column `path`; found: file, label"),
            ("path,label\n", None, "no image"),
            ("path,label\na.png\n", None, "line 2: 1 column(s), the header has 2"),
            ("path,label\n\na,x\nb,z", Some(&["x", "y"][..]), "line 4: label \"z\""),
            ("path,label\na,2", Some(&["x", "y"][..]), "line 2: label \"2\""),
            ("path,label\n\"a,2", None, "line 2: a quote is not closed"),
        ] {
            let error = read(text, classes).expect_err(part);
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn a_missing_image_names_table_line_and_file() {
        let folder = tempfile::tempdir().expect("folder");
        let table = folder.path().join("table.csv");
        std::fs::write(&table, "path,label\nno.png,x\n").expect("writes");
        let spec = serde_json::json!({ "format": "csv", "path": "@input" });
        let spec = serde_json::from_value(spec).expect("a spec");
        let source = open(&spec, &BTreeMap::from([("path".to_owned(), table)])).expect("opens");
        let error = source.pixels(0).expect_err("no such image");
        assert!(error.message.contains("table.csv, line 2: "), "{}", error.message);
        assert!(error.message.contains("no.png"), "{}", error.message);
    }
}
