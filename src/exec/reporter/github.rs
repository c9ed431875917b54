//! Annotations of GitHub Actions: errors at their lines of the pipeline file.
//!
//! The format is that of "Workflow commands for GitHub Actions": `::error file=F,line=N::MESSAGE`, `::warning` for what a report calls failed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Pipeline;
use crate::exec::event::{Event, Reporter};
use crate::exec::guards::Verdict;
use crate::exec::stderr;

/// Whether this runs as a job of GitHub Actions.
pub fn is_there() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// Says on standard error, which GitHub reads, what failed and where it stands in the file.
#[derive(Debug)]
pub struct Annotations {
    file: PathBuf,
    /// File and line of each stage's table: it may stand in a file that the pipeline's extends.
    stages: BTreeMap<String, (Arc<Path>, usize)>,
    /// The file of each guard's table.
    guards: BTreeMap<String, Arc<Path>>,
}

impl Annotations {
    /// For the stages of a pipeline.
    pub fn new(pipeline: &Pipeline) -> Self {
        let stages = pipeline.stages.iter();
        let stages = stages.map(|cell| (cell.id.clone(), (Arc::clone(&cell.file), cell.line)));
        let guards = pipeline.guards.iter();
        let guards = guards.map(|guard| (guard.name.clone(), Arc::clone(&guard.file)));
        let file = pipeline.file.clone();
        Self { file, stages: stages.collect(), guards: guards.collect() }
    }

    fn place(&self, stage: &str) -> (&Path, Option<usize>) {
        let found = self.stages.get(stage);
        found.map_or((&self.file, None), |(file, line)| (file, Some(*line)))
    }

    /// Says what ended the run as a whole.
    pub fn ended(&self, message: &str) {
        stderr::line(format_args!("{}", error(&self.file, None, message)));
    }

    fn lines(&self, event: &Event) -> Vec<String> {
        match event {
            Event::Failed { stage, message, .. } => {
                let (file, line) = self.place(stage);
                vec![error(file, line, &format!("stage {stage} failed: {message}"))]
            }
            Event::Guards { outcomes, accepted: false, .. } => outcomes
                .iter()
                .filter(|outcome| outcome.verdict == Verdict::Broken)
                .map(|outcome| {
                    let [guard, figure, before, now, _, bound, _] = outcome.cells();
                    let mut message = format!("guard {guard}: {figure} {before} → {now}, {bound}");
                    message.extend(outcome.note.iter().map(|note| format!(": {note}")));
                    let file = self.guards.get(&outcome.guard).map_or(&*self.file, |file| file);
                    error(file, Some(outcome.line), &message)
                })
                .collect(),
            Event::Report { stage, report } => {
                let (file, line) = self.place(stage);
                let failures = report.failures.iter();
                failures
                    .map(|failure| command("warning", file, line, &format!("{stage}: {failure}")))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Reporter for Annotations {
    fn event(&mut self, event: &Event) {
        for line in self.lines(event) {
            stderr::line(format_args!("{line}"));
        }
    }
}

/// The annotation of an error at a line of a file.
pub fn error(file: &Path, line: Option<usize>, message: &str) -> String {
    command("error", file, line, message)
}

fn command(kind: &str, file: &Path, line: Option<usize>, message: &str) -> String {
    let workspace = std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from);
    below(kind, file, workspace.as_deref(), line, message)
}

fn below(
    kind: &str,
    file: &Path,
    workspace: Option<&Path>,
    line: Option<usize>,
    message: &str,
) -> String {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let below = workspace.and_then(|workspace| file.strip_prefix(workspace).ok());
    let file = property(&below.unwrap_or(&file).display().to_string());
    let line = line.map(|line| format!(",line={line}")).unwrap_or_default();
    let message = data(&console::strip_ansi_codes(message));
    format!("::{kind} file={file}{line}::{message}")
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_of_one_line_and_name_files_of_the_workspace() {
        let of = |file: &str, line, message| {
            below("error", Path::new(file), Some(Path::new("/home/me/repo")), line, message)
        };
        assert_eq!(
            of("/home/me/repo/a,b:c/p.toml", Some(7), "100 % of\nit\u{1b}[31m: failed"),
            "::error file=a%2Cb%3Ac/p.toml,line=7::100 %25 of%0Ait: failed"
        );
        assert_eq!(of("/else/p.toml", None, "x"), "::error file=/else/p.toml::x");
    }
}
