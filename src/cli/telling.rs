//! All who are told of a run: a reporter, a summary in Markdown, annotations.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use super::Exit;
use super::run::RunArgs;
use crate::config::Pipeline;
use crate::exec::reporter::{Annotations, Bars, Json, Markdown, Plain, Quiet, github};
use crate::exec::{Event, Reporter, RunError, stderr};

/// All who are told of the run.
pub(super) struct Telling {
    reporter: Box<dyn Reporter>,
    summary: Option<(PathBuf, Markdown)>,
    annotations: Option<Annotations>,
}

impl Telling {
    /// `check`: of `qpipe ci`.
    pub fn new(args: &RunArgs, check: bool, pipeline: &Pipeline) -> Self {
        let variable = || {
            let path = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
            path.filter(|_| check).map(PathBuf::from)
        };
        let summary = args.summary.clone().or_else(variable);
        let summary = summary.map(|path| (path, Markdown::new(&pipeline.name)));
        let annotations = github::is_there().then(|| Annotations::new(pipeline));
        Self { reporter: reporter(args, check), summary, annotations }
    }

    /// Says what ended the run as a whole.
    pub fn ended(&mut self, error: &RunError) {
        if let Some((_, markdown)) = &mut self.summary {
            markdown.ended(&error.to_string());
        }
        if let Some(annotations) = &self.annotations {
            annotations.ended(&error.to_string());
        }
    }

    /// Whether a summary is written.
    pub fn summarizes(&self) -> bool {
        self.summary.is_some()
    }

    /// Writes the summary.
    pub fn summarize(&self) -> Result<(), Exit> {
        let Some((path, markdown)) = &self.summary else { return Ok(()) };
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let text = markdown.text();
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
            stderr::line(format_args!(
                "error: cannot write the summary to {}: {error}",
                path.display()
            ));
            Exit::Machine
        })
    }
}

impl Reporter for Telling {
    fn event(&mut self, event: &Event) {
        self.reporter.event(event);
        if let Some((_, markdown)) = &mut self.summary {
            markdown.event(event);
        }
        if let Some(annotations) = &mut self.annotations {
            annotations.event(event);
        }
    }
}

fn reporter(args: &RunArgs, check: bool) -> Box<dyn Reporter> {
    if args.json {
        Box::new(Json)
    } else if args.quiet {
        Box::new(Quiet)
    } else if !check && std::io::stderr().is_terminal() {
        Box::new(Bars::default())
    } else {
        Box::new(Plain)
    }
}
