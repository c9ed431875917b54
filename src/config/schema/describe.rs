//! Shapes in words, for messages and docs.

use super::shape::{Range, Shape};
use crate::config::suggest::list;

impl Shape {
    /// What is expected: `an integer, 1…65536`.
    pub fn expected(&self) -> String {
        match self {
            Self::Any => "any value".to_owned(),
            Self::Text { .. } => "a string".to_owned(),
            Self::Reference => "a reference such as \"stage.port\"".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Words(words) => words_of(words.iter().map(|word| word.word.as_str())),
            Self::Integer(range) => join("an integer", *range),
            Self::Number(range) => join("a number", *range),
            Self::Boolean => "a boolean".to_owned(),
            Self::List { items, min, max } => {
                let count = match (min, max) {
                    (0, &usize::MAX) => "an array".to_owned(),
                    (min, max) if min == max => format!("an array of {min}"),
                    (1, &usize::MAX) => "an array that is not empty".to_owned(),
                    (min, &usize::MAX) => format!("an array of at least {min}"),
                    (min, max) => format!("an array of {min} to {max}"),
                };
                match &items.shape {
                    Self::Integer(range) => format!("{count} ({})", join("integers", *range)),
                    Self::Number(range) => format!("{count} ({})", join("numbers", *range)),
                    Self::Text { .. } => format!("{count} (strings)"),
                    _ => count,
                }
            }
            Self::Table(fields) => {
                let required = fields.known.iter().filter(|field| field.required);
                let names: Vec<&str> = required.map(|field| field.name.as_str()).collect();
                if names.is_empty() {
                    "a table".to_owned()
                } else {
                    format!("a table with {}", list(names, "and"))
                }
            }
            Self::Tagged { tag, .. } => format!("a table with `{tag}`"),
            Self::Keyed(keys) => {
                format!(
                    "a table with one of {}",
                    list(keys.iter().map(|key| key.name.as_str()), "or")
                )
            }
            Self::Either(schemas) => {
                let all: Vec<String> =
                    schemas.iter().map(|schema| schema.shape.expected()).collect();
                all.join(", or ")
            }
        }
    }
}

/// Words in quotation marks, as they are written in the file.
pub(super) fn words_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn join(noun: &str, range: Range) -> String {
    let bounds = range.to_string();
    if bounds.is_empty() { noun.to_owned() } else { format!("{noun}, {bounds}") }
}

impl std::fmt::Display for Range {
    /// `1…65536`, `at least 0`, `above 0`, or nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = f64::from(u32::MAX);
        let max = self.max.filter(|max| *max < open);
        match (self.min, self.above, max) {
            (Some(min), _, Some(max)) => write!(f, "{min}…{max}"),
            (Some(min), _, None) => write!(f, "at least {min}"),
            (None, Some(above), Some(max)) => write!(f, "above {above}, at most {max}"),
            (None, Some(above), None) => write!(f, "above {above}"),
            (None, None, Some(max)) => write!(f, "at most {max}"),
            (None, None, None) => Ok(()),
        }
    }
}
