//! `--set params.lr=0.1,0.01`: options that give several values, and the points that they make.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::mistakes::{Mistake, Sources};
use super::overrides::{self, Setting};
use super::sweep::{Point, Sweep, SweepVariable};
use super::tree::Place;

/// More points than this are a slip.
const LIMIT: usize = 1000;

/// The settings of each point, and the sweep that they make: `None` where no option gives several
/// values, and there is one point.
pub(super) fn read(
    set: &[String],
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) -> (Vec<Vec<Setting>>, Option<Sweep>) {
    let options: Vec<Choices> =
        set.iter().map(|text| Choices::new(text, sources.add("--set", text, None))).collect();
    let plain = || options.iter().map(|option| option.setting(0)).collect();
    let before = mistakes.len();
    let swept: Vec<&Choices> = options.iter().filter(|option| option.values.len() > 1).collect();
    if swept.is_empty() {
        return (vec![plain()], None);
    }
    for (index, option) in options.iter().enumerate() {
        let several = |other: &&Choices| option.values.len().max(other.values.len()) > 1;
        let twice = |other: &&Choices| other.keys == option.keys && !other.keys.is_empty();
        if options[..index].iter().any(|other| twice(&other) && several(&other)) {
            let message = format!("`{}` is given twice", option.keys.join("."));
            let help = "its points would be unclear: write all values behind one --set";
            mistakes.push(Mistake::new("override", option.key, message, "again").help(help));
        }
    }
    let names = short_names(&swept);
    let values: Vec<Vec<Choice>> =
        swept.iter().zip(&names).map(|(option, name)| option.read(name, mistakes)).collect();
    let count = values.iter().fold(1_usize, |count, values| count.saturating_mul(values.len()));
    if count > LIMIT {
        let message = format!("the sweep has {count} points");
        let label = format!("more than {LIMIT}");
        let place = swept[swept.len() - 1].key;
        mistakes.push(
            Mistake::new("override", place, message, label)
                .help("each combination of values is a point: give fewer values"),
        );
    }
    if mistakes.len() > before {
        return (vec![plain()], None);
    }
    let mut settings = Vec::new();
    let mut points = Vec::new();
    for number in 0..count {
        let picks = picks(number, &values);
        let mut next = picks.iter();
        let of = |option: &Choices| match option.values.len() {
            1 => option.setting(0),
            _ => option.setting(next.next().copied().unwrap_or_default()),
        };
        settings.push(options.iter().map(of).collect());
        let chosen = names.iter().zip(values.iter().zip(&picks));
        let chosen: Vec<_> =
            chosen.map(|(name, (values, &pick))| (name.clone(), values[pick].clone())).collect();
        let label: Vec<String> =
            chosen.iter().map(|(name, choice)| format!("{name}={}", choice.text)).collect();
        let values = chosen.into_iter().map(|(name, choice)| (name, choice.value)).collect();
        points.push(Arc::new(Point { label: label.join(","), values }));
    }
    let labels: BTreeSet<&str> = points.iter().map(|point| point.label.as_str()).collect();
    if labels.len() < points.len() {
        let message = "two points of the sweep would have one name";
        mistakes.push(
            Mistake::new("duplicate", swept[0].key, message, "these values run together")
                .help("values that hold a comma can make two points look alike: rename one"),
        );
    }
    let variables = names
        .into_iter()
        .zip(&swept)
        .map(|(name, option)| SweepVariable { name, key: option.keys.join(".") });
    (settings, Some(Sweep { variables: variables.collect(), points }))
}

/// The positions of a point's values; the last variable changes fastest.
fn picks(mut number: usize, values: &[Vec<Choice>]) -> Vec<usize> {
    let mut picks: Vec<usize> = values
        .iter()
        .rev()
        .map(|values| {
            let pick = number % values.len().max(1);
            number /= values.len().max(1);
            pick
        })
        .collect();
    picks.reverse();
    picks
}

/// An option, and where its values stand.
struct Choices {
    text: String,
    source: usize,
    /// Empty where it is no key: that is told when it is applied.
    keys: Vec<String>,
    /// Where the key stands.
    key: Place,
    /// One without commas.
    values: Vec<Range<usize>>,
}

/// A value of an option.
#[derive(Clone)]
struct Choice {
    /// In the names of points.
    text: String,
    value: serde_json::Value,
}

impl Choices {
    fn new(text: &str, source: usize) -> Self {
        let equals = overrides::find_equals(text).unwrap_or(text.len());
        let steps = overrides::key_path(&text[..equals], source).unwrap_or_default();
        let start = (equals + 1).min(text.len());
        Self {
            text: text.to_owned(),
            source,
            keys: steps.into_iter().map(|(key, _)| key).collect(),
            key: Place { source, start: 0, end: equals },
            values: split(&text[start..]).map(|it| it.start + start..it.end + start).collect(),
        }
    }

    fn setting(&self, pick: usize) -> Setting {
        let value = self.values[pick].clone();
        Setting { text: self.text.clone(), source: self.source, value }
    }

    /// The values, and mistakes in them.
    fn read(&self, name: &str, mistakes: &mut Vec<Mistake>) -> Vec<Choice> {
        let key = self.keys.join(".");
        let first = self.keys.first().map_or("", String::as_str);
        if !matches!(first, "params" | "data" | "stages" | "") && key != "pipeline.seed" {
            let message = format!("`{key}` has one value in all points of a sweep");
            mistakes.push(
                Mistake::new("override", self.key, message, "several values are given").help(
                    "points differ in `params`, `data`, `stages` or `pipeline.seed`; a value that holds a comma is quoted: 'KEY=\"a, b\"'",
                ),
            );
        }
        let mut found: Vec<Choice> = Vec::new();
        for range in &self.values {
            let raw = &self.text[range.clone()];
            if raw.trim().is_empty() {
                // The comma before it, or behind it, is easier to see than nothing.
                let first = range.start == self.values[0].start;
                let start = if first { range.end } else { range.start - 1 };
                let place = Place { source: self.source, start, end: start + 1 };
                let message = format!("a value of `{key}` is empty");
                mistakes.push(
                    Mistake::new("override", place, message, "expected a value").help(
                        "commas stand between the values of a sweep; a value that holds a comma is quoted: 'KEY=\"a, b\"'",
                    ),
                );
                continue;
            }
            let node = match overrides::value(raw, self.source, range.start) {
                Ok(node) => node,
                Err(mistake) => {
                    mistakes.push(mistake);
                    continue;
                }
            };
            let compact = || raw.chars().filter(|letter| !letter.is_whitespace()).collect();
            let text = node.scalar().unwrap_or_else(compact);
            if found.iter().any(|other| other.text == text) {
                let message = format!("`{name}` is `{text}` twice");
                mistakes.push(
                    Mistake::new("duplicate", node.place, message, "again")
                        .help("each value makes a point of its own: remove one"),
                );
                continue;
            }
            found.push(Choice { text, value: node.to_json() });
        }
        found
    }
}

/// The parts between commas that stand outside of quotes and brackets.
fn split(text: &str) -> impl Iterator<Item = Range<usize>> {
    let (mut quote, mut depth, mut escaped) = (None, 0_usize, false);
    let mut commas = Vec::new();
    for (index, letter) in text.char_indices() {
        match (quote, letter) {
            (Some('"'), _) if std::mem::take(&mut escaped) => {}
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => commas.push(index),
            (None, _) => {}
        }
    }
    let starts: Vec<usize> = [0].into_iter().chain(commas.iter().map(|at| at + 1)).collect();
    let ends = commas.into_iter().chain([text.len()]);
    starts.into_iter().zip(ends).map(|(start, end)| start..end)
}

/// The last part of each key, or as many of its last parts as tell it from the others.
fn short_names(options: &[&Choices]) -> Vec<String> {
    let mut lengths = vec![1; options.len()];
    let name = |option: &Choices, length: usize| {
        option.keys[option.keys.len().saturating_sub(length)..].join(".")
    };
    loop {
        let names: Vec<String> =
            options.iter().zip(&lengths).map(|(option, &length)| name(option, length)).collect();
        let mut grown = false;
        for index in 0..options.len() {
            let alike = names.iter().filter(|other| **other == names[index]).count() > 1;
            if alike && lengths[index] < options[index].keys.len() {
                lengths[index] += 1;
                grown = true;
            }
        }
        if !grown {
            return names;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<&str> {
        split(text).map(|range| &text[range]).collect()
    }

    #[test]
    fn commas_in_quotes_and_brackets_split_nothing() {
        assert_eq!(parts("0.1,0.01, 3"), ["0.1", "0.01", " 3"]);
        assert_eq!(parts("[1,2],[3,[4,5]]"), ["[1,2]", "[3,[4,5]]"]);
        assert_eq!(parts("{ a = 1, b = 2 }"), ["{ a = 1, b = 2 }"]);
        assert_eq!(parts(r#""a,\"b,c",'d,"e',f"#), [r#""a,\"b,c""#, r#"'d,"e'"#, "f"]);
        assert_eq!(parts("a,,"), ["a", "", ""]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let options = ["params.lr=1", "stages.a.lr=1", "stages.b.lr=1", "params.epochs=1"];
        let options: Vec<Choices> = options.iter().map(|text| Choices::new(text, 0)).collect();
        let options: Vec<&Choices> = options.iter().collect();
        assert_eq!(short_names(&options), ["params.lr", "a.lr", "b.lr", "epochs"]);
    }

    #[test]
    fn the_last_variable_changes_fastest() {
        let choice = |text: &str| Choice { text: text.to_owned(), value: text.into() };
        let values = vec![vec![choice("a"), choice("b")], vec![choice("x"), choice("y")]];
        let all: Vec<Vec<usize>> = (0..4).map(|number| picks(number, &values)).collect();
        assert_eq!(all, [[0, 0], [0, 1], [1, 0], [1, 1]]);
    }
}
