//! How wide a text may be.

use console::Term;

/// Columns of a file, a pipe or a log.
pub const WIDE: usize = 100;

/// The columns of a terminal; for what is none those that `COLUMNS` says, else [`WIDE`].
pub fn columns(stream: &Term) -> usize {
    match stream.size_checked() {
        Some((_, columns)) if stream.is_term() && columns > 0 => columns.into(),
        _ => said(std::env::var("COLUMNS").ok().as_deref()),
    }
}

fn said(columns: Option<&str>) -> usize {
    columns.and_then(|text| text.parse().ok()).filter(|columns| *columns > 0).unwrap_or(WIDE)
}

/// Text of several lines for a stream: on a terminal, long lines are wrapped between words, and go
/// on under their own indent and `hang` more; elsewhere they stay, for programs that search them.
pub fn wrapped(text: &str, hang: usize, stream: &Term) -> String {
    match stream.is_term() {
        true => wrap(text, hang, columns(stream)),
        false => text.to_owned(),
    }
}

fn wrap(text: &str, hang: usize, columns: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let content = line.trim_start_matches(' ');
        let indent = " ".repeat(line.len() - content.len());
        let below = format!("{indent}{}", " ".repeat(hang));
        let options = textwrap::Options::new(columns)
            .initial_indent(&indent)
            .subsequent_indent(&below)
            // A path that is cut cannot be copied.
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        wrapped.push_str(&textwrap::wrap(content, options).join("\n"));
        wrapped.push_str(end);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_wide_as_is_said() {
        assert_eq!([Some("60"), None, Some("0"), Some("x")].map(said), [60, WIDE, WIDE, WIDE]);
    }

    #[test]
    fn long_lines_go_on_under_their_indent() {
        let text = "error: stage a failed: a program ended\n  help: see /a/path/that/is/long/enough/to/stay\n\n";
        let expected = "\
error: stage a failed: a
  program ended
  help: see
    /a/path/that/is/long/enough/to/stay

";
        assert_eq!(wrap(text, 2, 26), expected);
        assert_eq!(wrap(text, 2, 200), text);
    }
}
