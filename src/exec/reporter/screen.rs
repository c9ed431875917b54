//! What a terminal shows of a run on its way: a line for each running stage, and one for all.

use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};

use super::seconds;
use crate::exec::event::{Event, PULLING};

/// Rows that are left to what has been said: the shell's line, the last of the finished stages.
const SPARE: usize = 4;

/// A stage that runs.
#[derive(Debug)]
struct Running {
    stage: String,
    started: Instant,
    /// Why it runs, or what it waits for.
    note: String,
    count: Option<Count>,
}

/// How far it is.
#[derive(Debug)]
struct Count {
    /// When this count began, and where.
    since: Instant,
    from: u64,
    done: u64,
    total: u64,
    unit: String,
}

/// The state of a run, and its lines.
#[derive(Debug)]
pub(super) struct Screen {
    begun: Instant,
    stages: usize,
    over: usize,
    /// In the order in which they began.
    running: Vec<Running>,
    /// Seconds left, and when that was said.
    left: Option<(f64, Instant)>,
}

impl Screen {
    pub fn new(now: Instant) -> Self {
        Self { begun: now, stages: 0, over: 0, running: Vec::new(), left: None }
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Planned { stages, .. } => self.stages = *stages,
            Event::Started { stage, reason } => self.started(stage, reason, now),
            Event::Progress { stage, done, total, unit, message } => {
                // What is pulled did not start.
                if *message == PULLING && self.find(stage).is_none() {
                    self.started(stage, message, now);
                }
                if let Some(running) = self.find(stage) {
                    running.progress((*done, *total), unit, message, now);
                }
            }
            Event::Retrying { stage, attempt, attempts, .. } => {
                if let Some(running) = self.find(stage) {
                    running.count = None;
                    running.note = format!("attempt {attempt} of {attempts}");
                }
            }
            Event::Cached { stage, .. }
            | Event::Finished { stage, .. }
            | Event::Pulled { stage, .. }
            | Event::Failed { stage, .. }
            | Event::Skipped { stage, .. } => {
                self.over += 1;
                self.running.retain(|running| running.stage != *stage);
            }
            _ => {}
        }
    }

    /// Sets how long the run will take from now; `None`: nobody knows.
    pub fn time_left(&mut self, seconds: Option<f64>, now: Instant) {
        self.left = seconds.map(|seconds| (seconds, now));
    }

    fn find(&mut self, stage: &str) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.stage == stage)
    }

    fn started(&mut self, stage: &str, reason: &str, now: Instant) {
        let note = reason.to_owned();
        let running = Running { stage: stage.to_owned(), started: now, note, count: None };
        // A stage that is tried again keeps its line.
        match self.find(stage) {
            Some(line) => *line = running,
            None => self.running.push(running),
        }
    }

    /// The lines for a terminal of so many columns and rows; none is wider, and none is wrapped.
    pub fn lines(&self, columns: usize, rows: usize, now: Instant) -> Vec<String> {
        // Some terminals wrap a line that fills the last column.
        let width = columns.saturating_sub(1).max(1);
        let shown = self.running.len().min(rows.saturating_sub(SPARE).max(1));
        let names = self.running[..shown].iter().map(|line| measure_text_width(&line.stage));
        let name = names.max().unwrap_or(0).min((width / 3).max(8));
        let mut lines: Vec<String> =
            self.running[..shown].iter().map(|line| line.text(name, width, now)).collect();
        if self.running.len() > shown {
            lines.push(format!("… and {} more running", self.running.len() - shown));
        }
        lines.push(self.overall(now));
        lines.iter().map(|line| truncate_str(line, width, "…").into_owned()).collect()
    }

    fn overall(&self, now: Instant) -> String {
        let running = self.running.len();
        let waiting = self.stages.saturating_sub(self.over + running);
        let mut text = format!("{}/{} done, {running} running", self.over, self.stages);
        if waiting > 0 {
            text.push_str(&format!(", {waiting} waiting"));
        }
        text.push_str(&format!(", {} elapsed", clock(now - self.begun)));
        if let Some((left, said)) = self.left {
            let left = Duration::from_secs_f64((left - (now - said).as_secs_f64()).max(0.0));
            text.push_str(&format!(", about {} left", clock(left)));
        }
        text
    }
}

impl Running {
    fn progress(&mut self, (done, total): (u64, u64), unit: &str, message: &str, now: Instant) {
        match &mut self.count {
            Some(count) if count.total == total && count.unit == unit && done >= count.done => {
                count.done = done;
            }
            // A new count begins: what came before says nothing of the time left.
            count => {
                let unit = unit.to_owned();
                *count = Some(Count { since: now, from: done, done, total, unit });
            }
        }
        message.clone_into(&mut self.note);
    }

    fn text(&self, name: usize, width: usize, now: Instant) -> String {
        let stage = truncate_str(&self.stage, name, "…");
        let pad = " ".repeat(name.saturating_sub(measure_text_width(&stage)));
        let mut parts = vec![format!("{stage}{pad}")];
        match &self.count {
            Some(count) => parts.extend(count.parts(width, now)),
            None => parts.push(clock(now - self.started)),
        }
        if !self.note.is_empty() {
            parts.push(one_line(&self.note));
        }
        parts.join("  ")
    }
}

impl Count {
    fn parts(&self, width: usize, now: Instant) -> Vec<String> {
        let mut parts = Vec::new();
        let cells = match width {
            80.. => 20,
            55.. => 10,
            _ => 0,
        };
        if cells > 0 {
            let part = self.done.min(self.total) as f64 / self.total.max(1) as f64;
            let full = (part * cells as f64).floor() as usize;
            parts.push(format!("{}{}", "━".repeat(full), "─".repeat(cells - full)));
        }
        let unit = if width >= 70 { format!(" {}", one_line(&self.unit)) } else { String::new() };
        parts.push(format!("{}/{}{}", self.done, self.total, unit.trim_end()));
        let took = (now - self.since).as_secs_f64();
        let made = self.done - self.from;
        if made > 0 && took > 0.0 {
            let rate = made as f64 / took;
            if width >= 80 {
                parts.push(format!("{}/s", rounded(rate)));
            }
            let left = self.total.saturating_sub(self.done) as f64 / rate;
            parts.push(format!("{} left", clock(Duration::from_secs_f64(left.min(1e9)))));
        }
        parts
    }
}

/// A worker's text, of several lines perhaps, as a part of a line; nothing in it moves the cursor.
fn one_line(text: &str) -> String {
    let apart = |letter: char| letter.is_whitespace() || letter.is_control();
    text.split(apart).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Three digits of a rate.
fn rounded(rate: f64) -> String {
    match rate {
        100.0.. => format!("{rate:.0}"),
        10.0.. => format!("{rate:.1}"),
        _ => format!("{rate:.2}"),
    }
}

/// `12 s`: whole seconds, so that a line does not flicker.
fn clock(time: Duration) -> String {
    match time.as_secs() {
        second @ ..60 => format!("{second} s"),
        second => seconds(second as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    /// A run of 38 stages, 12 of them over, with three running at 100 s.
    fn screen(begun: Instant) -> Screen {
        let mut screen = Screen::new(begun);
        screen.event(&Event::Planned { pipeline: "p", stages: 38 }, begun);
        for index in 0..12 {
            screen.event(&Event::Cached { stage: &format!("c{index}"), warnings: &[] }, begun);
        }
        for stage in ["qat", "onnx[ptq[percentile],32]", "测量"] {
            screen.event(&Event::Started { stage, reason: "never ran" }, at(begun, 10));
        }
        let progress = |done| Event::Progress {
            stage: "qat",
            done,
            total: 400,
            unit: "batches",
            message: "epoch 1,\nloss 0.3",
        };
        screen.event(&progress(0), at(begun, 20));
        screen.event(&progress(100), at(begun, 60));
        screen
    }

    #[test]
    fn a_line_for_each_stage_and_one_for_all() {
        let begun = Instant::now();
        let mut screen = screen(begun);
        screen.time_left(Some(150.0), at(begun, 90));
        let expected = "\
qat                       ━━━━━───────────────  100/400 batches  1.25/s  4 min 0 s left  epoch 1, …
onnx[ptq[percentile],32]  1 min 30 s  never ran
测量                      1 min 30 s  never ran
12/38 done, 3 running, 23 waiting, 1 min 40 s elapsed, about 2 min 20 s left";
        assert_eq!(screen.lines(100, 24, at(begun, 100)).join("\n"), expected);
    }

    #[test]
    fn what_a_worker_says_moves_no_cursor() {
        assert_eq!(one_line("\u{1b}[2J\na\tb\u{7} c "), "[2J a b c");
    }

    #[test]
    fn narrow_terminals_get_the_most_important_first() {
        let begun = Instant::now();
        let screen = screen(begun);
        let expected = "\
qat                  ━━────────  100/400  4 min 0 s left  …
onnx[ptq[percentil…  1 min 30 s  never ran
测量                 1 min 30 s  never ran
12/38 done, 3 running, 23 waiting, 1 min 40 s elapsed";
        assert_eq!(screen.lines(60, 24, at(begun, 100)).join("\n"), expected);
        let expected = "\
qat            100/400  4 min 0 s left…
onnx[ptq[per…  1 min 30 s  never ran
测量           1 min 30 s  never ran
12/38 done, 3 running, 23 waiting, 1 m…";
        assert_eq!(screen.lines(40, 24, at(begun, 100)).join("\n"), expected);
        for columns in 1..120 {
            for line in screen.lines(columns, 24, at(begun, 100)) {
                assert!(measure_text_width(&line) < columns.max(2), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn a_low_terminal_counts_the_rest() {
        let begun = Instant::now();
        let mut screen = screen(begun);
        screen.event(
            &Event::Retrying {
                stage: "qat",
                seconds: 1.0,
                message: "",
                attempt: 2,
                attempts: 3,
                after: 1.0,
            },
            begun,
        );
        let lines = screen.lines(80, 6, at(begun, 100));
        let expected = [
            "qat                       1 min 30 s  attempt 2 of 3",
            "onnx[ptq[percentile],32]  1 min 30 s  never ran",
            "… and 1 more running",
            "12/38 done, 3 running, 23 waiting, 1 min 40 s elapsed",
        ];
        assert_eq!(lines, expected);
        assert_eq!(screen.lines(80, 1, begun).len(), 3);
    }
}
