//! Tables of images: CSV with a header line and the columns `path` and `label`. The runner looks for mistakes in one before
//! anything runs, the worker reads it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::csv;

/// A line that names an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The line it begins at, from 1.
    pub line: usize,
    /// The image, relative to the table.
    pub path: String,
    /// An index or the name of a class.
    pub label: String,
}

/// What is wrong with a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// What, and in which line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Longest text that a message quotes, letters.
const QUOTED: usize = 120;

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The rows of a table.
///
/// # Errors
///
/// A file that cannot be read or is no UTF-8, and what [`rows`] finds.
pub fn read(table: &Path) -> Result<Vec<Row>, Fault> {
    let bytes = std::fs::read(table)
        .map_err(|error| Fault::new(format!("the table cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        Fault::new(format!("line {line}: the text is not UTF-8"))
            .help("save the table as UTF-8 (\"CSV UTF-8\" in spreadsheets)")
    })?;
    rows(&text)
}

/// The rows of a table's text.
///
/// # Errors
///
/// The first line that does not fit: no such column, a row too short, a path or label that is empty.
pub fn rows(text: &str) -> Result<Vec<Row>, Fault> {
    let mut records = csv::records(text).map_err(Fault::new)?.into_iter();
    let (line, header) = records.next().ok_or_else(|| Fault::new("the file is empty"))?;
    let column = |name: &str| {
        let mut columns = header.iter().enumerate().filter(|(_, column)| column.trim() == name);
        let first = columns.next().ok_or_else(|| {
            let found = quoted(&header.join(", "));
            let fault = Fault::new(format!("line {line}: no column `{name}`; found: {found}"));
            let separated = header.len() == 1 && header[0].contains([';', '\t']);
            fault.help(match separated {
                true => "columns are separated by commas; the first line names them: path,label",
                false => "the first line names the columns: path,label",
            })
        })?;
        match columns.next() {
            None => Ok(first.0),
            Some(_) => Err(Fault::new(format!("line {line}: two columns are called `{name}`"))
                .help("rename the one that is not meant")),
        }
    };
    let (path, label) = (column("path")?, column("label")?);
    let mut rows = Vec::new();
    for (line, record) in records {
        let [Some(path), Some(label)] = [path, label].map(|column| record.get(column)) else {
            return Err(Fault::new(format!(
                "line {line}: {} column(s), the header has {}",
                record.len(),
                header.len()
            )));
        };
        // What is cut off a name makes it another's: `crane, bird` and `crane, machine`.
        if let Some(left) = record.iter().skip(header.len()).find(|field| !field.trim().is_empty())
        {
            let (columns, left) = (record.len(), quoted(left.trim()));
            return Err(Fault::new(format!(
                "line {line}: {columns} columns, the header has {}: \"{left}\" belongs to none",
                header.len()
            ))
            .help("put a value that holds a comma into quotes: \"crane, bird\""));
        }
        let (path, label) = (path.trim().to_owned(), label.trim().to_owned());
        for (column, value) in [("path", &path), ("label", &label)] {
            if value.is_empty() {
                return Err(Fault::new(format!("line {line}: the {column} is empty"))
                    .help(format!("write the {column} there, or remove the line")));
            }
        }
        rows.push(Row { line, path, label });
    }
    if rows.is_empty() {
        return Err(Fault::new("no image in it"));
    }
    Ok(rows)
}

/// Looks for the images of rows, relative to the table; of a data set, those that `skip` and `limit` leave.
///
/// # Errors
///
/// The first row whose image is not there, and how many more there are.
pub fn find(table: &Path, rows: &[Row]) -> Result<(), Fault> {
    let folder = table.parent().unwrap_or(table);
    let place = |row: &Row| folder.join(&row.path);
    let mut missing = rows.iter().filter(|row| !place(row).is_file());
    let Some(first) = missing.next() else { return Ok(()) };
    let more = match missing.count() {
        0 => String::new(),
        count => format!(", nor {count} more of the {} that the table names", rows.len()),
    };
    let path = PathBuf::from(&first.path);
    let fault = Fault::new(format!(
        "line {}: there is no image \"{}\"{more}",
        first.line,
        quoted(&first.path)
    ));
    Err(match first.path.contains('\\') && folder.join(first.path.replace('\\', "/")).is_file() {
        true => fault.help("write `/` between folders"),
        false if path.is_absolute() => fault.help("correct or remove the line"),
        false => fault.help(format!(
            "paths are relative to the table: looked for {}; correct or remove the line",
            place(first).display()
        )),
    })
}

/// The index that a label is: a whole number, also with a point (`3.0`), as tools write a column that had a gap.
fn index(label: &str) -> Option<usize> {
    let whole = match label.split_once('.') {
        Some((whole, zeros)) => zeros.bytes().all(|digit| digit == b'0').then_some(whole)?,
        None => label,
    };
    whole.parse().ok()
}

/// Refuses numbers that are no index, and whole numbers beside names: as names they would be sorted as text, and number all classes anew.
fn check_names(rows: &[Row]) -> Result<(), Fault> {
    let is_number = |label: &str| {
        label.bytes().any(|byte| byte.is_ascii_digit()) && label.parse::<f64>().is_ok()
    };
    let no_index = |row: &&Row| index(&row.label).is_none() && is_number(&row.label);
    let of_first = rows.first().is_some_and(|row| index(&row.label).is_some());
    let other = |row: &&Row| index(&row.label).is_some() != of_first;
    let (row, why) = match (rows.iter().find(no_index), rows.iter().find(other)) {
        (Some(row), _) => (row, "is no index of a class"),
        (None, Some(row)) if of_first => (row, "is no number, those before it are"),
        (None, Some(row)) => (row, "is a number, those before it are none"),
        (None, None) => return Ok(()),
    };
    Err(Fault::new(format!("line {}: label \"{}\" {why}", row.line, quoted(&row.label)))
        .help("labels are indices (0, 1, …) or names: correct the line, or list `classes` of the data set if all of them are names"))
}

/// The classes of rows, and the index of each row's label. Labels are indices where all of them are whole numbers and no class has
/// such a name, otherwise names of classes; `classes` are those that the data set lists.
///
/// # Errors
///
/// The first row whose label is none of the classes, or is of another kind than the others where none are listed.
pub fn resolve(
    rows: &[Row],
    classes: Option<&[String]>,
) -> Result<(Vec<String>, Vec<usize>), Fault> {
    let numbers: Option<Vec<usize>> = rows.iter().map(|row| index(&row.label)).collect();
    let named = |classes: &[String]| rows.iter().any(|row| classes.contains(&row.label));
    let (classes, by_index) = match (classes, numbers) {
        (Some(classes), numbers) => (classes.to_vec(), numbers.filter(|_| !named(classes))),
        (None, Some(numbers)) => {
            let last = numbers.iter().copied().max().unwrap_or(0);
            if last >= 1_000_000 {
                return Err(Fault::new(format!("label {last} is no index of a class")));
            }
            ((0..=last).map(|class| class.to_string()).collect(), Some(numbers))
        }
        (None, None) => {
            check_names(rows)?;
            let names: BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).collect();
            (names.into_iter().map(str::to_owned).collect(), None)
        }
    };
    let from_one = by_index.as_ref().is_some_and(|numbers| !numbers.contains(&0));
    let mut labels = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let label = match &by_index {
            Some(numbers) => Some(numbers[index]).filter(|&label| label < classes.len()),
            None => classes.iter().position(|class| *class == row.label),
        };
        labels.push(label.ok_or_else(|| {
            let fault = Fault::new(format!(
                "line {}: label \"{}\" is none of the {} classes: {}",
                row.line,
                quoted(&row.label),
                classes.len(),
                quoted(&classes.join(", "))
            ));
            fault.help(match from_one {
                true => "labels that are numbers count from 0; correct the line, or `classes` of the data set",
                false => "correct the line, or `classes` of the data set",
            })
        })?);
    }
    Ok((classes, labels))
}

/// Whether labels of rows are indices whose classes have no names.
pub fn unnamed(rows: &[Row]) -> bool {
    rows.iter().all(|row| index(&row.label).is_some())
}

/// Whether indices of rows are written with a point, `3.0`.
pub fn pointed(rows: &[Row]) -> bool {
    unnamed(rows) && rows.iter().any(|row| row.label.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, classes: Option<&[&str]>) -> Result<(Vec<String>, Vec<usize>), Fault> {
        let classes: Option<Vec<String>> =
            classes.map(|classes| classes.iter().map(|class| (*class).to_owned()).collect());
        resolve(&rows(text)?, classes.as_deref())
    }

    #[test]
    fn labels_are_names_or_indices() {
        let names = resolved("path,label\na.png,dog\nb.png,cat\n", None).unwrap();
        assert_eq!(names, (vec!["cat".to_owned(), "dog".to_owned()], vec![1, 0]));
        let numbers = resolved("label,path\r\n2,a.png\r\n\r\n0,b.png", None).unwrap();
        assert_eq!(numbers.1, [2, 0]);
        assert_eq!(numbers.0.len(), 3);
        assert_eq!(resolved("path,label\na,1\nb,0", Some(&["x", "y"])).unwrap().1, [1, 0]);
        // As pandas writes a column of whole numbers that had a gap; 10 comes after 9.
        let pointed: String = (0..12).map(|label| format!("a,{label}.0\n")).collect();
        let pointed = resolved(&format!("path,label\n{pointed}b,3\n"), None).unwrap();
        assert_eq!(pointed.1[..12], (0..12).collect::<Vec<usize>>());
        assert_eq!((pointed.1[12], pointed.0[3].as_str()), (3, "3"));
        assert_eq!(resolved("path,label\na,1.0\nb,0.0", Some(&["x", "y"])).unwrap().1, [1, 0]);
        // Listed, they are names.
        assert_eq!(resolved("path,label\na,-1\nb,O", Some(&["-1", "O"])).unwrap().1, [0, 1]);
        // Names that look like numbers win over indices.
        assert_eq!(resolved("path,label\na,7\nb,3", Some(&["3", "7"])).unwrap().1, [1, 0]);
    }

    #[test]
    fn quotes_hide_commas() {
        let read = rows("path,label\n\"a, \"\"b\"\".png\",x\n").unwrap();
        assert_eq!(read[0].path, "a, \"b\".png");
        // Spreadsheets write commas for columns that are empty.
        assert_eq!(rows("path,label\na.png,x,,\n").unwrap().len(), 1);
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
            // An empty label would be a class of its own, before all others.
            ("path,label\na,x\nb, \n", None, "line 3: the label is empty"),
            ("path,label\n,x\n", None, "line 2: the path is empty"),
            // One such label would number all classes anew.
            ("path,label\na,0\nb,10\nc,-1\n", None, "line 4: label \"-1\" is no index"),
            ("path,label\na,0.5\nb,1.5\n", None, "line 2: label \"0.5\" is no index"),
            ("path,label\na,0\nb,O\nc,1\n", None, "line 3: label \"O\" is no number"),
            ("path,label\na,cat\nb,dog\nc,1\n", None, "line 4: label \"1\" is a number"),
            ("path,label\na,crane, bird\n", None, "line 2: 3 columns, the header has 2: \"bird\""),
            ("path,label,label\na,x,y\n", None, "line 1: two columns are called `label`"),
        ] {
            let fault = resolved(text, classes).unwrap_err();
            assert!(fault.message.contains(part), "{}", fault.message);
        }
        let help = |text, classes: &[&str]| resolved(text, Some(classes)).unwrap_err().help;
        assert!(help("path;label\na;x", &["x"]).unwrap().contains("separated by commas"));
        assert!(help("path,label\na,1\nb,2", &["x", "y"]).unwrap().contains("count from 0"));
    }

    #[test]
    fn line_ends_of_all_systems_are_read() {
        for end in ["\n", "\r\n", "\r"] {
            let rows =
                rows(&["\u{feff}path,label", "a,x", "b,y", ""].join(end)).unwrap_or_default();
            let lines: Vec<(usize, &str, &str)> =
                rows.iter().map(|row| (row.line, row.path.as_str(), row.label.as_str())).collect();
            assert_eq!(lines, [(2, "a", "x"), (3, "b", "y")], "{end:?}");
        }
    }

    #[test]
    fn images_that_are_not_there_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table.csv");
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/a.png"), "").unwrap();
        let look = |text: &str| find(&table, &rows(text).unwrap());
        assert_eq!(look("path,label\nin/a.png,x\n"), Ok(()));
        let fault = look("path,label\nin/a.png,x\nb.png,x\nin,x\n").unwrap_err();
        let expected = "line 3: there is no image \"b.png\", nor 1 more of the 3";
        assert!(fault.message.starts_with(expected), "{}", fault.message);
        let fault = look("path,label\nin\\a.png,x\n").unwrap_err();
        assert_eq!(fault.help.as_deref(), Some("write `/` between folders"));
    }

    #[test]
    fn a_text_that_is_not_utf8_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table.csv");
        std::fs::write(&table, b"path,label\na,x\n\xfc,y\n").unwrap();
        let fault = read(&table).unwrap_err();
        assert_eq!(fault.message, "line 3: the text is not UTF-8");
    }
}
