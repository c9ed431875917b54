//! Syntax errors of a file, as few and as plain as possible.

use std::ops::Range;

use super::mistakes::Mistake;
use super::tree::Place;

/// What the parser says of a key of too many parts, and not where.
const LONG_KEY: &str = "recursion limit";

/// Parts that a key may have, and values that may lie within each other.
const DEPTH: usize = 80;

/// Where the first key of too many parts begins.
pub(crate) fn long_key(text: &str) -> Range<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.matches('.').count() + 1 >= DEPTH {
            start += line.len() - line.trim_start().len();
            let part = text[start..].find('.').unwrap_or_default();
            return start..start + part;
        }
        start += line.len();
    }
    0..0
}

/// The parser's words on what is nested too deep, made plainer.
pub(crate) fn plain_depth(message: &str) -> Option<String> {
    if message == LONG_KEY {
        Some(format!("a key has more than {} parts", DEPTH - 1))
    } else if message.starts_with("cannot recurse further") {
        Some(format!("values lie more than {DEPTH} deep within each other"))
    } else {
        None
    }
}

/// The mistakes behind the parser's errors (place and message, in the order of the file).
pub(super) fn mistakes<'e>(
    text: &str,
    source: usize,
    errors: impl Iterator<Item = (Range<usize>, &'e str)>,
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut lines = Vec::new();
    let mut section_given_twice = None;
    let mut last = None;
    for (span, message) in errors {
        let span = if message == LONG_KEY { long_key(text) } else { span };
        let (line, section, is_header) = position(text, span.start);
        let is_duplicate = message.contains("duplicate key");
        // One slip often makes several errors on its line; the first tells it. A section that is
        // given twice is one mistake; that its keys clash says nothing new.
        if lines.contains(&line) || (is_duplicate && section_given_twice == Some(section)) {
            continue;
        }
        // An array that is not closed swallows the lines that follow.
        let in_array = message.contains("array");
        let before = last.replace((line, in_array));
        let swallowed = in_array && line > 0 && before == Some((line - 1, true));
        if swallowed {
            lines.push(line);
            continue;
        }
        if is_duplicate && is_header {
            section_given_twice = Some(section);
        }
        lines.push(line);
        mistakes.push(mistake(text, source, span, message, is_duplicate));
    }
    mistakes
}

fn mistake(
    text: &str,
    source: usize,
    span: Range<usize>,
    message: &str,
    is_duplicate: bool,
) -> Mistake {
    let end = span.end.min(text.len());
    let place = Place { source, start: span.start.min(end), end };
    if !is_duplicate {
        let (what, label) = plain(message, &text[place.start..place.end]);
        return Mistake::new("syntax", place, format!("not TOML: {what}"), label);
    }
    let key = text[place.start..place.end].trim_matches(['"', '\'']);
    Mistake::new("duplicate", place, format!("`{key}` is given twice"), "here again")
        .also(first_of(text, key, place), "first here")
        .help("names are unique: remove one of the two, or rename it")
}

/// Line of a byte, how many headers stand up to that line, and whether it is one itself.
fn position(text: &str, byte: usize) -> (usize, usize, bool) {
    let line = text.as_bytes()[..byte.min(text.len())].iter().filter(|&&b| b == b'\n').count();
    let is_header = |line: &&str| header(line).is_some();
    let sections = text.lines().take(line + 1).filter(is_header).count();
    (line, sections, text.lines().nth(line).as_ref().is_some_and(is_header))
}

/// The header that a line is, without a comment.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    line.starts_with('[').then(|| line.rfind(']').map_or(line, |end| &line[..=end]))
}

/// Where the name at `place` was given before: an equal header, a key of the same section, or a
/// key of the same line.
fn first_of(text: &str, key: &str, place: Place) -> Option<Place> {
    let start_of_line = text[..place.start].rfind('\n').map_or(0, |newline| newline + 1);
    let found = |start: usize| Some(Place { start, end: start + key.len(), ..place });
    let current = header(text[start_of_line..].lines().next()?);
    if current.is_none()
        && let Some(at) = key_in(&text[start_of_line..place.start], key)
    {
        return found(start_of_line + at);
    }
    let mut end = start_of_line;
    while end > 0 {
        let start = text[..end - 1].rfind('\n').map_or(0, |newline| newline + 1);
        let line = &text[start..end];
        match (current, header(line)) {
            (Some(current), Some(earlier)) if current == earlier => {
                return found(start + line.rfind(key)?);
            }
            (None, Some(_)) => return None,
            (None, None) => {
                if let Some(at) = key_in(line, key).filter(|&at| line[..at].trim().is_empty()) {
                    return found(start + at);
                }
            }
            (Some(_), _) => {}
        }
        end = start;
    }
    None
}

/// Where `key =` stands in a line.
fn key_in(line: &str, key: &str) -> Option<usize> {
    line.match_indices(key).map(|(at, _)| at).find(|&at| {
        let in_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
        !line[..at].ends_with(in_word) && line[at + key.len()..].trim_start().starts_with('=')
    })
}

/// The parser's words, made plainer where they puzzle: a message and a label.
fn plain(message: &str, at: &str) -> (String, String) {
    if let Some(message) = plain_depth(message) {
        return (message, "here".to_owned());
    }
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let unquoted = what.starts_with("string values must be quoted") || what == "invalid boolean";
    match (unquoted, at, expected) {
        (true, "", _) => ("a value is missing".to_owned(), "expected a value".to_owned()),
        (true, word, _) => {
            (format!("`{word}` is not a value"), format!("a string is written \"{word}\""))
        }
        (_, _, "" | "nothing") => (what.to_owned(), "here".to_owned()),
        _ => (what.to_owned(), format!("expected {expected}")),
    }
}
