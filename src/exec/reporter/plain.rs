//! Plain lines: how stages fare on standard error, the tables and the summary on standard output.

use std::io::Write;

use console::Term;
use indicatif::BinaryBytes;

use super::{failure, guards, seconds, terminal};
use crate::exec::event::{Event, Reporter, Summary};
use crate::exec::stdout;

/// Plain lines for pipes and logs.
#[derive(Debug, Default)]
pub struct Plain;

impl Reporter for Plain {
    fn event(&mut self, event: &Event) {
        if let Some(line) = line(event) {
            // A reader that is gone is no reason to end a training.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        print_result(event);
    }
}

/// What is told on the way.
pub(super) fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Cached { stage, warnings } => {
            let warnings = warnings.iter().map(|warning| format!("{stage}: warning: {warning}\n"));
            format!("{stage}: cached\n{}", warnings.collect::<String>())
        }
        Event::Submitted { stage, job, attached: false } => {
            format!("{stage}: submitted as job {job}\n")
        }
        Event::Submitted { stage, job, attached: true } => {
            format!("{stage}: job {job} of an earlier run goes on\n")
        }
        Event::Pulled { stage, seconds: took, bytes, warnings } => {
            let warnings = warnings.iter().map(|warning| format!("{stage}: warning: {warning}\n"));
            let warnings = warnings.collect::<String>();
            let size = BinaryBytes(*bytes);
            format!(
                "{stage}: pulled from the remote cache ({size}) in {}\n{warnings}",
                seconds(*took)
            )
        }
        Event::Started { stage, reason } => format!("{stage}: running ({reason})\n"),
        Event::Waiting { stage, pid: Some(pid) } => {
            format!("{stage}: waiting for the run of process {pid}, which does the same\n")
        }
        Event::Waiting { stage, pid: None } => {
            format!("{stage}: waiting for another run, which does the same\n")
        }
        Event::WaitingForMachine { stage, alone: true } => {
            format!("{stage}: waiting until nothing else runs on this machine\n")
        }
        Event::WaitingForMachine { stage, alone: false } => {
            format!("{stage}: waiting for another run's stage that needs this machine alone\n")
        }
        Event::WaitingForGpu { stage } => {
            format!("{stage}: waiting for a GPU that no stage of another run has\n")
        }
        Event::Warning { stage: Some(stage), message } => format!("{stage}: warning: {message}\n"),
        Event::Warning { stage: None, message } => format!("warning: {message}\n"),
        Event::Finished { stage, seconds: took, unchanged } => {
            let same = if *unchanged { ", same result as before" } else { "" };
            format!("{stage}: done in {}{same}\n", seconds(*took))
        }
        Event::Retrying { stage, seconds: took, message, attempt, attempts, after } => format!(
            "{stage}: failed after {}: {message}; attempt {attempt} of {attempts} in {}\n",
            seconds(*took),
            seconds(*after)
        ),
        Event::Failed { stage, seconds: took, message, help, tail, log, .. } => {
            let text = failure::text(stage, message, *help, tail, *log);
            format!("{stage}: failed after {}\n{text}\n", seconds(*took))
        }
        Event::Skipped { stage, failed } => format!("{stage}: skipped ({failed} failed)\n"),
        _ => return None,
    })
}

/// Prints what is wanted of a run: its tables, and a summary.
pub(super) fn print_result(event: &Event) {
    stdout::write(result(event).as_bytes());
}

fn result(event: &Event) -> String {
    match event {
        Event::Report { report, .. } => {
            format!("\n{}\n", report.text(terminal::columns(&Term::stdout())))
        }
        Event::Sweep { table } => {
            format!("\n{}\n", table.text(terminal::columns(&Term::stdout())))
        }
        Event::Guards { .. } => guards::text(event),
        Event::Summary(summary) => conclusion(summary),
        _ => String::new(),
    }
}

fn conclusion(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.ran + summary.cached + summary.pulled > 0 {
        text.push_str(&format!("artifacts in {}\n", summary.artifacts.display()));
    }
    if let Some(lock_file) = &summary.lock_file {
        text.push_str(&format!("wrote {}\n", lock_file.display()));
    }
    if let Some(kept) = &summary.lock_file_kept {
        text.push_str(&format!(
            "{} left as it is: it belongs to runs without this --set\n",
            kept.display()
        ));
    }
    let mut parts = vec![format!("{} ran", summary.ran), format!("{} cached", summary.cached)];
    let more =
        [(summary.pulled, "pulled"), (summary.failed, "failed"), (summary.skipped, "not run")];
    for (count, what) in more {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if summary.broken_guards > 0 {
        parts.push(guards::count(summary.broken_guards));
    }
    text.push_str(&format!("{} in {}\n", parts.join(", "), seconds(summary.seconds)));
    text
}
