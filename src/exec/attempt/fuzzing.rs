//! Fuzz target: what a worker prints.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;

use super::{Secrets, Tail, Transcript, Verdict};
use crate::cache::fuzzing;
use crate::exec::event::Reporter;
use crate::exec::lines::Lines;
use crate::exec::process::{Ended, Stream};
use crate::exec::reporter::fuzzing::Everyone;

/// Most lines of a tail.
const TAIL: usize = 20;

/// Output of a worker, read in pieces of the length that the first byte says.
///
/// # Panics
///
/// Where the way it is cut matters, or more is kept or written than came in.
pub fn event(bytes: &[u8]) {
    let Some((piece, output)) = bytes.split_first() else { return };
    let whole = lines(output, output.len().max(1));
    let lines = lines(output, usize::from(*piece).max(1));
    assert_eq!(lines, whole, "pieces of {piece} bytes make other lines");

    let log = fuzzing::place("log");
    let _ = std::fs::remove_file(&log);
    let mut everyone = Everyone::new("stage");
    {
        let reporter: &mut dyn Reporter = &mut everyone;
        let reporter = RefCell::new(reporter);
        let mut transcript = Transcript {
            stage: "stage",
            cell: None,
            path: &log,
            log: None,
            reporter: &reporter,
            events: true,
            secrets: Secrets::default(),
            tail: Tail::default(),
            verdict: Verdict::default(),
            warnings: Default::default(),
        };
        lines.iter().for_each(|line| transcript.line(Stream::Output, line));
        let Transcript { tail, verdict, .. } = transcript;
        assert!(tail.lines().len() <= TAIL);
        let status = std::process::ExitStatus::from_raw(0);
        let ended = Ended { status, interrupted: false, timed_out: false, survivors: Vec::new() };
        if let Err(failure) = verdict.outcome(&ended) {
            everyone_sees(&reporter, &failure);
        }
    }
    // A byte that is no text is three; a line has its end and what says that it is a warning.
    let written = std::fs::metadata(&log).map_or(0, |log| log.len());
    assert!(written <= 3 * output.len() as u64 + 16 * lines.len() as u64, "{written} bytes of log");
}

fn everyone_sees(reporter: &RefCell<&mut dyn Reporter>, failure: &crate::task::Failure) {
    reporter.borrow_mut().event(&crate::exec::Event::Failed {
        stage: "stage",
        seconds: 1.0,
        blame: failure.blame,
        message: &failure.message,
        help: failure.help.as_deref(),
        tail: &[],
        log: None,
    });
}

fn lines(output: &[u8], piece: usize) -> Vec<String> {
    let mut cut = Lines::default();
    let mut lines: Vec<String> = output.chunks(piece).flat_map(|piece| cut.push(piece)).collect();
    lines.extend(cut.take());
    lines
}
