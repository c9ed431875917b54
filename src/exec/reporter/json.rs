//! JSON lines on standard output, for programs.

use std::io::Write;

use crate::exec::event::{Event, Reporter};

/// An event a line; docs/events.md describes them.
#[derive(Debug, Default)]
pub struct Json;

impl Reporter for Json {
    fn event(&mut self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("an event serialises to JSON");
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // A reader that is gone is no reason to end a training.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
