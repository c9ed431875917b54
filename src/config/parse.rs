//! TOML text to a tree; all syntax errors at once.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::Mistake;
use super::syntax;
use super::tree::{Entry, Node, Place, Table, Value};

/// The tree of a file.
///
/// # Errors
///
/// All syntax errors; what can be read beside them is not checked further, since it may be
/// misunderstood.
pub(super) fn document(text: &str, source: usize) -> Result<Table, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, source, shift: 0, mistakes: Vec::new() };
    let tree = reader.table(table.get_ref());
    let errors = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message()));
    reader.mistakes.extend(syntax::mistakes(text, source, errors));
    if reader.mistakes.is_empty() { Ok(tree) } else { Err(reader.mistakes) }
}

/// A single value that starts at byte `shift` of source `source`, as in an override.
///
/// # Errors
///
/// The syntax error's message.
pub(super) fn value(text: &str, source: usize, shift: usize) -> Result<Node, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    let mut reader = Reader { text, source, shift, mistakes: Vec::new() };
    let node = reader.node(&value, None);
    reader.mistakes.pop().map_or(Ok(node), |mistake| Err(mistake.message))
}

struct Reader<'t> {
    text: &'t str,
    source: usize,
    shift: usize,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.source, start: span.start + self.shift, end: span.end + self.shift }
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| {
                let place = self.place(key.span());
                Entry { key: key.get_ref().to_string(), place, node: self.node(value, Some(place)) }
            })
            .collect();
        entries.sort_by_key(|entry| entry.place.start);
        Table { entries }
    }

    /// `key`: where its key stands, which is the place of a table that is not inline.
    fn node(&mut self, spanned: &Spanned<DeValue<'_>>, key: Option<Place>) -> Node {
        let mut place = self.place(spanned.span());
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => self.broken(place, "the integer does not fit into 64 bits"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Float(number),
                _ => self.broken(place, "the number is not finite"),
            },
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(values) => {
                Value::List(values.iter().map(|value| self.node(value, None)).collect())
            }
            DeValue::Table(table) => {
                if !self.text[spanned.span()].starts_with('{') {
                    place = key.unwrap_or(place);
                }
                Value::Table(self.table(table))
            }
        };
        Node::new(value, place)
    }

    fn broken(&mut self, place: Place, message: &str) -> Value {
        self.mistakes.push(Mistake::new("out-of-range", place, message, "here"));
        Value::Broken
    }
}
