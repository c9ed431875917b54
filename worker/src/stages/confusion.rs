//! `confusion.json` of `evaluate`.

use std::path::Path;

use crate::train::Score;
use crate::{Error, Result};

/// Outputs of a model up to which all counts are written, one row of them a line; of more only those that are not 0, since the square of
/// 10,000 outputs is a gigabyte of zeros.
const MOST_ROWS: usize = 200;

/// Writes which classes were taken for which; `classes` are the names of the data set's.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(classes: &[String], score: &Score, path: &Path) -> Result<()> {
    let text = text(classes, score)?;
    std::fs::write(path, text).map_err(|error| Error::io(path, &error))
}

fn text(classes: &[String], score: &Score) -> Result<String> {
    let (outputs, cells) = (score.classes(), score.confusion());
    let (key, lines) = if outputs <= MOST_ROWS {
        let row = |label| {
            (0..outputs)
                .map(|class| cells.get(&(label, class)).unwrap_or(&0).to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        ("counts", (0..outputs).map(row).collect::<Vec<_>>())
    } else {
        let cell =
            |(&(label, class), &count): (&(usize, usize), &u64)| format!("{label},{class},{count}");
        ("cells", cells.iter().map(cell).collect())
    };
    let lines: Vec<String> = lines.iter().map(|line| format!("    [{line}]")).collect();
    let classes = serde_json::to_string(classes)
        .map_err(|error| Error::bug(format!("names of classes: {error}")))?;
    Ok(format!(
        "{{\n  \"classes\": {classes},\n  \"outputs\": {outputs},\n  \"{key}\": [\n{}\n  ],\n  \"nan\": {}\n}}\n",
        lines.join(",\n"),
        score.nan()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tch::Tensor;

    use super::*;

    fn scored(outputs: usize, pairs: &[(usize, usize)]) -> Score {
        let mut score = Score::new(outputs).with_confusion(true);
        for &(label, class) in pairs {
            let logits: Vec<f32> =
                (0..outputs).map(|own| f32::from(u8::from(own == class))).collect();
            let logits = Tensor::from_slice(&logits).reshape([1, -1]);
            score.add(&logits, &Tensor::from_slice(&[label as i64])).unwrap();
        }
        score
    }

    #[test]
    fn a_row_is_a_line_of_few_outputs() {
        let names = ["a".to_owned(), "\"b\"".to_owned()];
        let text = text(&names, &scored(2, &[(0, 0), (1, 0), (0, 0)])).unwrap();
        let lines = ["    [2,0],", "    [1,0]"];
        assert!(text.contains(&format!("\n{}\n", lines.join("\n"))), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected =
            json!({ "classes": names, "outputs": 2, "counts": [[2, 0], [1, 0]], "nan": 0 });
        assert_eq!(read, expected);
    }

    #[test]
    fn of_many_outputs_only_what_was_counted_is_written() {
        let pairs = [(9_999, 3), (0, 10_499), (9_999, 3)];
        let text = text(&["a".to_owned()], &scored(10_500, &pairs)).unwrap();
        assert!(text.len() < 200, "{} bytes", text.len());
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["cells"], json!([[0, 10_499, 1], [9_999, 3, 2]]));
        assert_eq!((&read["outputs"], read.get("counts")), (&json!(10_500), None));
        let edge = |outputs| super::text(&[], &scored(outputs, &[])).unwrap();
        assert!(
            edge(MOST_ROWS).contains("\"counts\"") && edge(MOST_ROWS + 1).contains("\"cells\"")
        );
        // Nothing counted is no broken file.
        assert!(serde_json::from_str::<serde_json::Value>(&edge(MOST_ROWS + 1)).is_ok());
    }
}
