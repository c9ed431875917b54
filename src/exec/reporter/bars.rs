//! Stages on their way, for a terminal: lines at its foot that are drawn again and again.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use console::{Term, style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::Screen;
use super::{plain, seconds};
use crate::exec::event::{Event, Reporter};

/// Between two drawings.
const TICK: Duration = Duration::from_millis(100);

/// A line for each stage that runs, on standard error; above them a line for each that is done.
#[derive(Debug)]
pub struct Bars {
    foot: Arc<Foot>,
}

/// The lines at the foot.
#[derive(Debug)]
struct Foot {
    screen: Mutex<Screen>,
    /// All lines are one bar's message: it draws them, and other text above them.
    bar: ProgressBar,
    /// Columns and rows.
    size: fn() -> (usize, usize),
}

impl Default for Bars {
    fn default() -> Self {
        let size = || {
            let (rows, columns) = Term::stderr().size();
            (columns.into(), rows.into())
        };
        let bars = Self::new(ProgressDrawTarget::stderr(), size);
        let foot = Arc::downgrade(&bars.foot);
        // Without it the elapsed time stands still; a run can do without.
        let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || tick(&foot));
        bars
    }
}

/// Draws until the run is over.
fn tick(foot: &Weak<Foot>) {
    while let Some(foot) = foot.upgrade() {
        if foot.bar.is_finished() {
            return;
        }
        foot.draw(Instant::now());
        drop(foot);
        std::thread::sleep(TICK);
    }
}

impl Bars {
    fn new(target: ProgressDrawTarget, size: fn() -> (usize, usize)) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { foot: Arc::new(Foot { screen: Mutex::new(Screen::new(Instant::now())), bar, size }) }
    }

    fn take(&self, event: &Event, now: Instant) {
        self.foot.screen().event(event, now);
        match event {
            Event::TimeLeft { seconds } => self.foot.screen().time_left(Some(*seconds), now),
            Event::Cached { stage, warnings } => {
                for warning in *warnings {
                    self.say(&format!("{stage}: warning: {warning}"));
                }
            }
            Event::Finished { stage, seconds: took, unchanged } => {
                let same = if *unchanged { ", same result as before" } else { "" };
                let mark = style("✓").green().for_stderr();
                self.foot.draw(now);
                self.say(&format!("{mark} {stage}  {}{same}", seconds(*took)));
            }
            Event::Failed { .. }
            | Event::Pulled { .. }
            | Event::Skipped { .. }
            | Event::Submitted { .. }
            | Event::Waiting { .. }
            | Event::WaitingForMachine { .. }
            | Event::WaitingForGpu { .. }
            | Event::Warning { .. }
            | Event::Retrying { .. } => {
                self.foot.draw(now);
                self.say(&plain::line(event).unwrap_or_default());
            }
            Event::Report { .. } | Event::Sweep { .. } | Event::Guards { .. } => {
                self.foot.bar.suspend(|| plain::print_result(event));
            }
            Event::Summary(_) => {
                self.foot.bar.finish_and_clear();
                plain::print_result(event);
            }
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        // A terminal that is gone is no reason to end a training.
        self.foot.bar.println(text.trim_end_matches('\n'));
    }
}

impl Foot {
    fn screen(&self) -> MutexGuard<'_, Screen> {
        // What a thread left behind that panicked is at worst an old line.
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, now: Instant) {
        let (columns, rows) = (self.size)();
        let lines = self.screen().lines(columns, rows, now);
        self.bar.set_message(lines.join("\n"));
    }
}

impl Reporter for Bars {
    fn event(&mut self, event: &Event) {
        self.take(event, Instant::now());
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // A run that an error ends has no summary.
        self.foot.bar.finish_and_clear();
        let _ = std::io::stderr().flush();
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    #[test]
    fn what_is_done_stands_above_what_runs() {
        let terminal = InMemoryTerm::new(8, 60);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bars = Bars::new(target, || (60, 8));
        let now = Instant::now();
        bars.take(&Event::Planned { pipeline: "p", stages: 8 }, now);
        for stage in ["a", "b", "c", "d", "e", "f"] {
            bars.take(&Event::Started { stage, reason: "never ran" }, now);
        }
        bars.foot.draw(now);
        let expected = "\
a  0 s  never ran
b  0 s  never ran
c  0 s  never ran
d  0 s  never ran
… and 2 more running
0/8 done, 6 running, 2 waiting, 0 s elapsed";
        assert_eq!(terminal.contents(), expected);
        bars.take(&Event::Finished { stage: "b", seconds: 1.25, unchanged: false }, now);
        bars.take(&Event::Finished { stage: "c", seconds: 1.5, unchanged: true }, now);
        bars.take(&Event::Skipped { stage: "g", failed: "x" }, now);
        let later = now + Duration::from_secs(2);
        let message = "a message that is far too long for a line of sixty columns";
        bars.take(
            &Event::Progress { stage: "a", done: 1, total: 4, unit: "epochs", message },
            later,
        );
        bars.foot.draw(later);
        let expected = "\
✓ b  1.2 s
✓ c  1.5 s, same result as before
g: skipped (x failed)
a  ━━────────  1/4  a message that is far too long for a l…
d  2 s  never ran
e  2 s  never ran
f  2 s  never ran
3/8 done, 4 running, 1 waiting, 2 s elapsed";
        assert_eq!(terminal.contents(), expected);
        bars.foot.bar.finish_and_clear();
        assert_eq!(terminal.contents().lines().count(), 3);
    }
}
