//! Mistakes of a pipeline file, each shown at its place.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

use super::tree::Place;
use super::window::Window;

/// A mistake, before it is bound to its source text.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    /// Last part of its stable code.
    pub code: &'static str,
    pub message: String,
    /// The first one is where the fault is.
    pub labels: Vec<(Place, String)>,
    pub help: Option<String>,
    /// A value that would be right if it were written as a string.
    pub unquoted: Option<Place>,
}

/// Longest text of a mistake, letters: it may quote a name of any length.
const LONGEST: usize = 1000;

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Mistake {
    /// A mistake at a place; `label` stands beside the caret.
    pub fn new(
        code: &'static str,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        let [message, label] = [message.into(), label.into()].map(shortened);
        Self { code, message, labels: vec![(place, label)], help: None, unquoted: None }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(shortened(help.into()));
        self
    }

    /// Says that the value at `place` would be right as a string: an argument is shown with the quotation marks that a
    /// shell takes away.
    pub fn unquoted(mut self, place: Place) -> Self {
        self.unquoted = Some(place);
        self
    }

    /// Adds another place that has to do with it.
    pub fn also(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        if let Some(place) = place.filter(|place| *place != self.labels[0].0) {
            self.labels.push((place, label.into()));
        }
        self
    }

    /// Where the fault is.
    pub fn place(&self) -> Place {
        self.labels[0].0
    }
}

/// The texts that places point into: the file, those that it extends, and arguments.
#[derive(Debug)]
pub(crate) struct Sources {
    sources: Vec<Origin>,
}

#[derive(Debug)]
struct Origin {
    text: Arc<NamedSource<String>>,
    /// The file, absolute; `None`: an argument such as `--set`.
    file: Option<Arc<Path>>,
    /// Where its lines end, found when that is first asked for.
    ends: OnceLock<Vec<usize>>,
}

impl Sources {
    /// The file alone.
    pub fn new(name: &str, text: &str, file: &Path) -> Self {
        let mut sources = Self { sources: Vec::new() };
        sources.add(name, text, Some(file));
        sources
    }

    /// Adds a file, with its absolute path, or the text of an argument.
    pub fn add(&mut self, name: &str, text: &str, file: Option<&Path>) -> usize {
        let text = Arc::new(NamedSource::new(name, text.to_owned()));
        self.sources.push(Origin { text, file: file.map(Arc::from), ends: OnceLock::new() });
        self.sources.len() - 1
    }

    /// The file that a source is; for arguments, the first.
    pub fn file(&self, source: usize) -> &Arc<Path> {
        let own = self.sources[source].file.as_ref().or(self.sources[0].file.as_ref());
        own.expect("the first source is a file")
    }

    /// The option that a source is, as it was given; nothing for a file.
    pub fn argument(&self, source: usize) -> Option<String> {
        let Origin { text, file: None, .. } = &self.sources[source] else { return None };
        Some(format!("{} {}", text.name(), text.inner()))
    }

    /// All files that were read, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.sources.iter().filter_map(|source| source.file.as_deref());
        let files: BTreeSet<&Path> = files.collect();
        files.into_iter().map(Path::to_path_buf).collect()
    }

    /// What paths of a source are relative to.
    pub fn folder(&self, source: usize) -> &Path {
        self.file(source).parent().unwrap_or(Path::new("/"))
    }

    /// What a source is called.
    pub fn name(&self, source: usize) -> &str {
        self.sources[source].text.name()
    }

    /// The text at a place.
    pub fn text(&self, place: Place) -> &str {
        self.sources[place.source].text.inner().get(place.start..place.end).unwrap_or_default()
    }

    /// The line of a place, from 1.
    pub fn line(&self, place: Place) -> usize {
        let source = &self.sources[place.source];
        let ends = source
            .ends
            .get_or_init(|| source.text.inner().match_indices('\n').map(|(at, _)| at).collect());
        ends.partition_point(|&end| end < place.start) + 1
    }

    /// How an argument is written in which the value at `place` is a string.
    fn quoted(&self, place: Place) -> Option<String> {
        let Origin { text, file: None, .. } = &self.sources[place.source] else { return None };
        let (option, text) = (text.name(), text.inner());
        let (before, value, behind) =
            (text.get(..place.start)?, text.get(place.start..place.end)?, text.get(place.end..)?);
        let word = format!("{before}\"{value}\"{behind}").replace('\'', r"'\''");
        Some(format!("a string is written in both kinds of quotation marks: {option} '{word}'"))
    }

    fn bind(&self, mistake: Mistake) -> Shown {
        let source = mistake.place().source;
        let quoted = mistake.unquoted.and_then(|place| self.quoted(place));
        let mut help = mistake.help.or(quoted);
        let mut labels = Vec::new();
        for (index, (place, label)) in mistake.labels.into_iter().enumerate() {
            if place.source == source {
                let length = place.end - place.start;
                labels.push(if index == 0 {
                    LabeledSpan::new_primary_with_span(Some(label), (place.start, length))
                } else {
                    LabeledSpan::new_with_span(Some(label), (place.start, length))
                });
            } else {
                let other = &self.sources[place.source];
                let name = other.text.name();
                let note = match other.file {
                    Some(_) => format!("{label}: line {} of {name}", self.line(place)),
                    None => format!("{label}: {name} {}", other.text.inner()),
                };
                help = Some(help.map_or(note.clone(), |help| format!("{help}\n{note}")));
            }
        }
        Shown {
            code: mistake.code,
            message: mistake.message,
            labels,
            help,
            source: Some(Arc::clone(&self.sources[source].text)),
        }
    }
}

/// A mistake with the text that it stands in.
#[derive(Debug)]
struct Shown {
    code: &'static str,
    message: String,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
    source: Option<Arc<NamedSource<String>>>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(format!("qpipe::config::{}", self.code)))
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// How mistakes are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// Columns at which long texts are wrapped.
    pub width: usize,
    /// Whether lines of the file that are wider are cut.
    pub fit: bool,
}

/// All mistakes of a pipeline file, in the order of their places.
///
/// As a [`Diagnostic`] it has each mistake as a related one, with its own code
/// (`qpipe::config::…`), labels and help.
#[derive(Debug)]
pub struct Mistakes {
    name: String,
    shown: Vec<Shown>,
}

impl Mistakes {
    pub(super) fn new(name: &str, sources: &Sources, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(Mistake::place);
        let shown = mistakes.into_iter().map(|mistake| sources.bind(mistake)).collect();
        Self { name: name.to_owned(), shown }
    }

    /// The one mistake that the file cannot be read.
    pub(super) fn unreadable(name: &str, message: String, help: &str) -> Self {
        let shown = Shown {
            code: "file",
            message,
            labels: Vec::new(),
            help: Some(help.to_owned()),
            source: None,
        };
        Self { name: name.to_owned(), shown: vec![shown] }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shown.len()
    }

    /// The stable codes, such as `qpipe::config::unknown-key`, in order.
    pub fn codes(&self) -> impl Iterator<Item = String> {
        self.shown.iter().map(|shown| format!("qpipe::config::{}", shown.code))
    }

    /// Of each: the name of the text that it stands in, its line there, and what it is.
    pub fn lines(&self) -> impl Iterator<Item = (&str, Option<usize>, String)> {
        self.shown.iter().map(|shown| {
            let source = shown.source.as_ref();
            let line = source.zip(shown.labels.first()).map(|(source, label)| {
                let before = source.inner().get(..label.offset()).unwrap_or_default();
                before.matches('\n').count() + 1
            });
            let name = source.map_or(self.name.as_str(), |source| source.name());
            let help = shown.help.iter().map(|help| format!(" ({help})"));
            (name, line, format!("{}{}", shown.message, help.collect::<String>()))
        })
    }

    /// All of them as text, with the user's own lines, and how many there are.
    pub fn render(&self, style: Style) -> String {
        let theme =
            if style.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_width(style.width).with_links(false);
        let mut text = String::new();
        for shown in &self.shown {
            let source = shown.source.as_deref().filter(|_| style.fit);
            let window = source.and_then(|source| {
                Window::new(shown, (source.name(), source.inner()), style.width)
            });
            let shown = window.as_ref().map_or(shown as &dyn Diagnostic, |window| window);
            // Writing into a String cannot fail.
            let _ = handler.render_report(&mut text, shown);
            text.push('\n');
        }
        let _ = writeln!(text, "{self}");
        text
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.shown.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {} {plural}", self.name, self.shown.len())
    }
}

impl std::error::Error for Mistakes {}

impl Diagnostic for Mistakes {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.shown.iter().map(|shown| shown as &dyn Diagnostic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_sees_each_caret_under_what_it_points_at() {
        let line = format!(
            "model = {{ {}chanels = 3, classes = 10, image_size = 28 }}",
            "arch = 'äöü', ".repeat(6)
        );
        let text = format!("[stages.fp32]\n{line}\nepochs = 1");
        let sources = Sources::new("p.toml", &text, Path::new("/p.toml"));
        let start = text.find("chanels").unwrap_or_default();
        let place = Place { source: 0, start, end: start + 7 };
        let mistake =
            Mistake::new("unknown-key", place, "unknown key `chanels`", "did you mean `channels`?");
        let mistakes = Mistakes::new("p.toml", &sources, vec![mistake]);
        let text = mistakes.render(Style { color: false, width: 40, fit: true });
        let expected = "\
qpipe::config::unknown-key

  × unknown key `chanels`
   ╭─[p.toml:2:113]
 1 │
 2 │ …chanels = 3, classes = 10, ima…
   ·  ───┬───
   ·     ╰── did you mean `channels`?
 3 │
   ╰────

p.toml: 1 mistake
";
        let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, expected.lines().collect::<Vec<_>>());
        let whole = mistakes.render(Style { color: false, width: 40, fit: false });
        assert!(whole.contains(&line) && whole.contains("[p.toml:2:113]"), "{whole}");
    }

    #[test]
    fn no_place_and_no_width_is_too_odd() {
        let text = "ä = 'ö'\r\n\n\tlong = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\nx";
        let sources = Sources::new("p.toml", text, Path::new("/p.toml"));
        for (start, end) in (0..=text.len()).flat_map(|a| (a..=text.len()).map(move |b| (a, b))) {
            if text.get(start..end).is_none() {
                continue;
            }
            let mistake = Mistake::new("x", Place { source: 0, start, end }, "message", "a label");
            let mistakes = Mistakes::new("p.toml", &sources, vec![mistake]);
            for width in [1, 10, 20, 30] {
                let text = mistakes.render(Style { color: false, width, fit: true });
                assert!(text.contains("[p.toml:"), "{start}..{end} at {width}: {text}");
            }
        }
    }
}
