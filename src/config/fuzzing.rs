//! Fuzz target: the loader of pipeline files.

use std::collections::BTreeMap;
use std::path::Path;

use miette::Diagnostic;

use super::{Mistakes, Overrides, Pipeline, Style, load};
use crate::stages::inside::is_inside;

/// A pipeline file, and behind bytes of value 0 the texts of `--set`, or of `--profile` after an `@`;
/// the pipeline, if it is one.
///
/// # Panics
///
/// Where the loader panics, says different things of the same file, or points beside it.
pub fn read(bytes: &[u8]) -> Option<Pipeline> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.split('\0');
    let text = parts.next().unwrap_or_default();
    let (profiles, set): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.starts_with('@'));
    let overrides = Overrides {
        set: set.into_iter().map(str::to_owned).collect(),
        profiles: profiles.into_iter().map(|name| name[1..].to_owned()).collect(),
        env: environment(),
    };
    // Neither the file nor what it names need be there.
    let path = Path::new("/nowhere/fuzzed.toml");
    let read = || load::from_text(path, text, &overrides);
    match (read(), read()) {
        (Ok(one), Ok(other)) => {
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "it is read in two ways");
            understood(&one);
            Some(one)
        }
        (Err(one), Err(other)) => {
            let style = Style { color: false, width: 60, fit: true };
            assert_eq!(one.render(style), other.render(style), "two pictures of one mistake");
            shown(&one);
            None
        }
        _ => panic!("it is a pipeline only at times"),
    }
}

fn environment() -> BTreeMap<String, String> {
    [
        ("E", "e"),
        ("EMPTY", ""),
        ("NUMBER", "7"),
        ("REFERENCE", "${params.a}"),
        ("ODD", "'\"\\\n\u{1b}ä"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn understood(pipeline: &Pipeline) {
    assert!(!pipeline.stages.is_empty(), "a pipeline without stages is a mistake");
    for cell in &pipeline.stages {
        for output in cell.stage.outputs() {
            assert!(is_inside(&output.file), "{} leaves its folder: {}", cell.id, output.file);
        }
        let config = cell.stage.config();
        let json = config.to_string();
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON is read back");
        assert_eq!(read, config, "{}: its configuration changes as it is written", cell.id);
    }
}

fn shown(mistakes: &Mistakes) {
    assert!(mistakes.count() > 0, "a refusal without a mistake");
    for mistake in mistakes.related().into_iter().flatten() {
        let Some(source) = mistake.source_code() else { continue };
        for label in mistake.labels().into_iter().flatten() {
            let span = source.read_span(label.inner(), 0, 0);
            let span = span.unwrap_or_else(|_| panic!("{mistake} is beside its text: {label:?}"));
            assert!(
                std::str::from_utf8(span.data()).is_ok(),
                "{mistake} parts a letter: {label:?}"
            );
        }
    }
    for (width, fit) in [(0, true), (24, true), (100, true), (80, false)] {
        let text = mistakes.render(Style { color: true, width, fit });
        assert!(!text.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let mistakes = load::from_text(Path::new("/p.toml"), text, &Overrides::default());
        mistakes.unwrap_err().render(Style { color: false, width: 80, fit: true })
    }

    #[test]
    fn what_lies_too_deep_is_a_mistake_with_its_line() {
        const DEPTH: usize = 100_000;
        let stage = "[stages.a]\nkind = \"command\"\nrun = \"x\"\noutputs = { x = \"x\" }\n";
        let long = vec!["a"; DEPTH].join(".");
        for (last, why) in [
            (format!("  {long} = 1"), "a key has more than 79 parts"),
            (format!("[{long}]"), "a key has more than 79 parts"),
            (format!("[[{long}]]"), "a key has more than 79 parts"),
            (format!("x = {}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)), "more than 80 deep"),
            (format!("x = {}", "[".repeat(DEPTH)), "more than 80 deep"),
            (format!("x = {}1{}", "{ a = ".repeat(DEPTH), "}".repeat(DEPTH)), "more than 80 deep"),
            (format!("x = \"{}\"", "${params.a".repeat(DEPTH)), "${"),
        ] {
            let told = refused(&format!("{stage}\n[params]\n{last}"));
            assert!(told.contains(why) && told.contains("/p.toml:7:"), "{last:.40}: {told:.2000}");
            assert!(told.len() < 4000, "{last:.40}: {} bytes", told.len());
        }
    }

    #[test]
    fn parameters_that_double_each_other_end() {
        for (first, twice) in [("\"x\"", "\"NN\""), ("[1]", "[\"N\", \"N\"]")] {
            let mut text = format!("[params]\np0 = {first}\n");
            for level in 0..40 {
                let twice = twice.replace('N', &format!("${{params.p{level}}}"));
                text.push_str(&format!("p{} = {twice}\n", level + 1));
            }
            let text = refused(&text);
            assert!(text.contains("parameters put in more than 128 MiB"), "{text}");
        }
    }
}
