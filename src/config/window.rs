//! A mistake's lines as through a window, so that a narrow terminal breaks none: a broken line would
//! part carets from what they point at.

use std::fmt;

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};

/// Columns that are not the source's: number of the line, rule, blanks.
const GUTTER: usize = 8;
/// Between a caret's column and its label.
const ARM: usize = 4;

/// Columns of a label at least, before it goes on in a line of its own.
const LABEL: usize = 12;

/// A mistake whose lines are cut on both sides.
#[derive(Debug)]
pub(super) struct Window<'m> {
    mistake: &'m dyn Diagnostic,
    source: Cut,
    labels: Vec<LabeledSpan>,
}

#[derive(Debug)]
struct Cut {
    name: String,
    text: String,
    /// Columns of the labels in the file, by their places here.
    columns: Vec<(usize, usize)>,
}

/// The column of a byte, from 0.
fn column(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.chars().rev().take_while(|&letter| letter != '\n').count()
}

impl<'m> Window<'m> {
    /// For a terminal of so many columns. `None`: there is no source to show.
    pub fn new(
        mistake: &'m dyn Diagnostic,
        (name, text): (&str, &str),
        columns: usize,
    ) -> Option<Self> {
        let room = columns.saturating_sub(GUTTER).max(8);
        let labels: Vec<LabeledSpan> = mistake.labels()?.collect();
        let starts = || labels.iter().map(|label| column(text, label.offset()));
        let words = |label: &LabeledSpan| label.label().map_or(0, |words| words.chars().count());
        // A label hangs from its span's middle.
        let arm = |label: &LabeledSpan| column(text, label.offset()) + label.len() / 2 + ARM;
        let ends = labels.iter().map(|label| arm(label) + words(label));
        // Labels are seen whole, but never at the cost of what they point at.
        let wanted = ends.max()?.saturating_sub(room);
        let shift = wanted.min(starts().min()?.saturating_sub(1));
        let (mut cut, mut ends) = (String::with_capacity(text.len()), Vec::new());
        for line in text.split('\n') {
            let start = cut.len();
            narrow(line, shift, room, &mut cut);
            ends.push((start, cut.len()));
            cut.push('\n');
        }
        let moved = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            let line = before.bytes().filter(|&byte| byte == b'\n').count();
            let (start, end) = ends[line.min(ends.len() - 1)];
            let place = column(text, offset).saturating_sub(shift);
            let letters = cut[start..end].char_indices().map(|(byte, _)| start + byte);
            letters.chain([end]).nth(place).unwrap_or(end)
        };
        let mut columns = Vec::new();
        let labels = labels.iter().map(|label| {
            let (start, end) = (moved(label.offset()), moved(label.offset() + label.len()));
            let (span, words) = ((start, end.saturating_sub(start)), label.label());
            let left = (room + shift).saturating_sub(arm(label)).max(LABEL);
            let words = words.map(|words| textwrap::fill(words, left));
            let there = text.read_span(label.inner(), 0, 0);
            columns.extend(there.map(|found| (start, found.column())));
            if label.primary() {
                LabeledSpan::new_primary_with_span(words, span)
            } else {
                LabeledSpan::new_with_span(words, span)
            }
        });
        let labels = labels.collect();
        Some(Self { mistake, source: Cut { name: name.to_owned(), text: cut, columns }, labels })
    }
}

/// A line from a column on, at most `room` columns of it; `…` stands for what is left out.
fn narrow(line: &str, shift: usize, room: usize, cut: &mut String) {
    let mut rest = line.chars().skip(shift);
    if shift > 0 && rest.next().is_some() {
        cut.push('…');
    }
    let room = room - usize::from(shift > 0);
    let rest: Vec<char> = rest.collect();
    if rest.len() <= room {
        cut.extend(rest);
    } else {
        cut.extend(&rest[..room - 1]);
        cut.push('…');
    }
}

impl SourceCode for Cut {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, before, after)?;
        let label = self.columns.iter().find(|(place, _)| *place == span.offset());
        let column = label.map_or(found.column(), |(_, column)| *column);
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            found.data(),
            *found.span(),
            found.line(),
            column,
            found.line_count(),
        )))
    }
}

impl fmt::Display for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.mistake, f)
    }
}

impl std::error::Error for Window<'_> {}

impl Diagnostic for Window<'_> {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.mistake.code()
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.mistake.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}
