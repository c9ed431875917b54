//! A summary of a run in Markdown, for the page of a job.

use super::{guards, seconds};
use crate::exec::event::{Event, Reporter, Summary};
use crate::exec::guards::{HEADINGS, Outcome, number};
use crate::report::escape;

/// Rows of a table; the rest is counted. GitHub takes a megabyte in all.
const ROWS: usize = 200;

/// Gathers a summary in GitHub's Markdown.
#[derive(Debug)]
pub struct Markdown {
    pipeline: String,
    /// Reasons of stages that run now, in the order of their beginnings.
    running: Vec<(String, String)>,
    /// Rows of what ran.
    ran: Vec<[String; 4]>,
    failures: String,
    reports: String,
    guards: String,
    figures: String,
    summary: Option<Summary>,
    error: Option<String>,
}

impl Markdown {
    /// For a run of the pipeline with that name.
    pub fn new(pipeline: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            running: Vec::new(),
            ran: Vec::new(),
            failures: String::new(),
            reports: String::new(),
            guards: String::new(),
            figures: String::new(),
            summary: None,
            error: None,
        }
    }

    /// Takes note of what ended the run as a whole.
    pub fn ended(&mut self, error: &str) {
        self.error = Some(error.to_owned());
    }

    /// The summary; it begins with an empty line and so can follow any text.
    pub fn text(&self) -> String {
        let mut text = format!("\n## {}: {}\n", escape(&self.pipeline), self.verdict());
        if let Some(error) = &self.error {
            text.push_str(&format!("\n{}", fenced(std::iter::once(error.as_str()))));
        }
        if let Some(summary) = &self.summary {
            text.push_str(&format!("\n{}\n", counts(summary)));
        }
        text.push_str(&self.failures);
        text.push_str(&self.guards);
        text.push_str(&self.figures);
        if !self.ran.is_empty() {
            text.push_str("\n### What ran\n\n");
            text.push_str(&table(&["stage", "why", "time", "result"], &self.ran));
        }
        text.push_str(&self.reports);
        text
    }

    fn verdict(&self) -> String {
        match &self.summary {
            _ if self.error.is_some() => "ended early".to_owned(),
            None => "ended early".to_owned(),
            Some(summary) if summary.failed > 0 => "failed".to_owned(),
            Some(summary) if summary.broken_guards > 0 => guards::count(summary.broken_guards),
            Some(_) => "passed".to_owned(),
        }
    }

    fn over(&mut self, stage: &str, took: f64, result: &str) {
        let place = self.running.iter().position(|(running, _)| running == stage);
        let why = place.map(|place| self.running.remove(place).1).unwrap_or_default();
        self.ran.push([stage.to_owned(), why, seconds(took), result.to_owned()]);
    }
}

impl Reporter for Markdown {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { stage, reason } => {
                self.running.push(((*stage).to_owned(), (*reason).to_owned()));
            }
            Event::Finished { stage, seconds, unchanged } => {
                self.over(stage, *seconds, if *unchanged { "same as before" } else { "done" });
            }
            Event::Failed { stage, seconds, message, help, tail, .. } => {
                self.over(stage, *seconds, "**failed**");
                let mut text = format!("\n### {} failed\n\n{}\n", escape(stage), escape(message));
                text.extend(help.iter().map(|help| format!("\nHelp: {}\n", escape(help))));
                if !tail.is_empty() {
                    text.push_str(&format!("\n{}", fenced(tail.iter().map(String::as_str))));
                }
                self.failures.push_str(&text);
            }
            Event::Figures { against, changes } => {
                let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
                let rows: Vec<_> = changes
                    .iter()
                    .map(|it| {
                        [it.stage.clone(), it.metric.clone(), figure(it.before), figure(it.now)]
                    })
                    .collect();
                self.figures = "\n### Figures that changed\n\n".to_owned();
                self.figures.push_str(&table(&["stage", "figure", against, "now"], &rows));
            }
            Event::Guards { against, outcomes, .. } => {
                self.guards = format!("\n### Guards, against {}\n\n", escape(against));
                let rows: Vec<_> = outcomes.iter().map(Outcome::cells).collect();
                self.guards.push_str(&table(&HEADINGS, &rows));
                for outcome in *outcomes {
                    if let Some(note) = &outcome.note {
                        let (guard, note) = (escape(&outcome.guard), escape(note));
                        self.guards.push_str(&format!("\n{guard}: {note}\n"));
                    }
                }
            }
            Event::Report { report, .. } => {
                // Its heading stands below that of the summary.
                self.reports.push_str(&format!("\n##{}", report.markdown()));
            }
            Event::Summary(summary) => self.summary = Some((*summary).clone()),
            _ => {}
        }
    }
}

fn counts(summary: &Summary) -> String {
    let mut parts = vec![format!("{} ran", summary.ran), format!("{} cached", summary.cached)];
    let more =
        [(summary.pulled, "pulled"), (summary.failed, "failed"), (summary.skipped, "not run")];
    for (count, what) in more {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    format!("{} in {}", parts.join(", "), seconds(summary.seconds))
}

fn table<const N: usize>(headings: &[&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(headings.iter().map(|heading| escape(heading)).collect());
    text.push_str(&format!("|{}\n", " :--- |".repeat(N)));
    for row in &rows[..rows.len().min(ROWS)] {
        let cells = row.iter().map(|cell| match cell.as_str() {
            bold @ "**failed**" => bold.to_owned(),
            cell => escape(cell),
        });
        text.push_str(&line(cells.collect()));
    }
    if rows.len() > ROWS {
        text.push_str(&format!("\n… and {} more\n", rows.len() - ROWS));
    }
    text
}

/// A block of lines as they are; no line of them can end it.
fn fenced<'l>(lines: impl Iterator<Item = &'l str>) -> String {
    let lines: String =
        lines.map(|line| format!("{}\n", console::strip_ansi_codes(line))).collect();
    let lines = lines.replace(|letter: char| letter.is_control() && letter != '\n', " ");
    let longest = lines.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{lines}{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::guards::Verdict;
    use crate::exec::review::Figure;
    use crate::task::Blame;

    fn outcome() -> Outcome {
        Outcome {
            guard: "accuracy".to_owned(),
            stage: "m[qat]".to_owned(),
            metric: "top1".to_owned(),
            baseline: None,
            before: Some(0.917),
            now: Some(0.9051),
            change: Some(0.9051 - 0.917),
            bounds: vec!["max_drop 0.01".to_owned()],
            verdict: Verdict::Broken,
            note: Some("a *note*".to_owned()),
            line: 3,
        }
    }

    #[test]
    fn the_whole_summary() {
        let mut markdown = Markdown::new("my_net");
        let tail = ["```".to_owned(), "\u{1b}[31mred\u{1b}[0m".to_owned()];
        let events = [
            Event::Cached { stage: "a", warnings: &[] },
            Event::Started { stage: "m[qat]", reason: "seed: 1 → 2" },
            Event::Started { stage: "c", reason: "never ran" },
            Event::Finished { stage: "m[qat]", seconds: 1.25, unchanged: false },
            Event::Failed {
                stage: "c",
                seconds: 0.5,
                blame: Blame::User,
                message: "ended with <1>",
                help: Some("mend it"),
                tail: &tail,
                log: None,
            },
            Event::Figures {
                against: "HEAD",
                changes: &[Figure {
                    stage: "m[qat]".to_owned(),
                    metric: "top1".to_owned(),
                    before: Some(0.917),
                    now: None,
                }],
            },
            Event::Guards {
                against: "HEAD",
                held: 0,
                broken: 1,
                skipped: 0,
                accepted: false,
                outcomes: &[outcome()],
            },
            Event::Summary(&Summary {
                ran: 1,
                cached: 1,
                failed: 1,
                broken_guards: 1,
                seconds: 2.0,
                ..Summary::default()
            }),
        ];
        events.iter().for_each(|event| markdown.event(event));
        let expected = r"
## my\_net: failed

1 ran, 1 cached, 1 failed in 2.0 s

### c failed

ended with \<1>

Help: mend it

````text
```
red
````

### Guards, against HEAD

| guard | figure | before | now | change | bound | verdict |
| :--- | :--- | :--- | :--- | :--- | :--- | :--- |
| accuracy | m\[qat\].top1 | 0.917 | 0.9051 | -0.0119 (-1.3 %) | max\_drop 0.01 | BROKEN |

accuracy: a \*note\*

### Figures that changed

| stage | figure | HEAD | now |
| :--- | :--- | :--- | :--- |
| m\[qat\] | top1 | 0.917 | - |

### What ran

| stage | why | time | result |
| :--- | :--- | :--- | :--- |
| m\[qat\] | seed: 1 → 2 | 1.2 s | done |
| c | never ran | 0.50 s | **failed** |
";
        assert_eq!(markdown.text(), expected);
    }

    #[test]
    fn a_run_that_ended_early_says_why() {
        let mut markdown = Markdown::new("p");
        markdown.ended("p.lock would change");
        assert_eq!(markdown.text(), "\n## p: ended early\n\n```text\np.lock would change\n```\n");
    }
}
