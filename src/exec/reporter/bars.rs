//! Progress bars with time left, for a terminal.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{plain, seconds};
use crate::exec::event::{Event, Reporter};

/// A bar for each stage that runs, on standard error; a line for each that is done.
#[derive(Debug, Default)]
pub struct Bars {
    bars: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
    stages: usize,
    over: usize,
}

impl Bars {
    fn started(&mut self, stage: &str, reason: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix}  {msg} {elapsed}"));
        bar.set_prefix(format!("[{}/{}] {stage}", self.over + 1, self.stages));
        bar.set_message(reason.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.running.insert(stage.to_owned(), bar);
    }

    fn progress(&self, stage: &str, done: u64, total: u64, unit: &str, message: &str) {
        let Some(bar) = self.running.get(stage) else { return };
        if bar.length() != Some(total) {
            // A new count begins: what came before says nothing of the time left.
            bar.reset_eta();
            bar.set_length(total);
            bar.set_style(style("{spinner} {prefix}  {bar:24} {pos}/{len} {msg} ({eta} left)"));
        }
        bar.set_position(done);
        bar.set_message(if message.is_empty() {
            unit.to_owned()
        } else {
            format!("{unit}, {message}")
        });
    }

    /// Removes the stage's bar.
    fn over(&mut self, stage: &str) {
        self.over += 1;
        if let Some(bar) = self.running.remove(stage) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn say(&self, text: &str) {
        // A terminal that is gone is no reason to end a training.
        let _ = self.bars.println(text.trim_end_matches('\n'));
    }
}

impl Reporter for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Planned { stages, .. } => self.stages = *stages,
            Event::Started { stage, reason } => self.started(stage, reason),
            Event::Progress { stage, done, total, unit, message } => {
                self.progress(stage, *done, *total, unit, message);
            }
            Event::Cached { stage, warnings } => {
                self.over(stage);
                for warning in *warnings {
                    self.say(&format!("{stage}: warning: {warning}"));
                }
            }
            Event::Finished { stage, seconds: took, unchanged } => {
                self.over(stage);
                let same = if *unchanged { ", same result as before" } else { "" };
                self.say(&format!("✓ {stage}  {}{same}", seconds(*took)));
            }
            Event::Failed { stage, .. } | Event::Skipped { stage, .. } => {
                self.over(stage);
                self.say(&plain::line(event).unwrap_or_default());
            }
            Event::Waiting { .. } | Event::Warning { .. } | Event::Retrying { .. } => {
                self.say(&plain::line(event).unwrap_or_default());
            }
            Event::Log { .. } => {}
            Event::Report { .. } | Event::Summary(_) => {
                let _ = std::io::stdout().write_all(plain::result(event).as_bytes());
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in
            ["{spinner} {prefix}  {msg} {elapsed}", "{bar:24} {pos}/{len} {msg} ({eta} left)"]
        {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
