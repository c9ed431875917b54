//! JSON lines on standard output, for programs.

use crate::exec::event::{Event, Reporter};
use crate::exec::stdout;

/// An event a line; docs/events.md describes them.
#[derive(Debug, Default)]
pub struct Json;

impl Reporter for Json {
    fn event(&mut self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("an event serialises to JSON");
        line.push(b'\n');
        stdout::write(&line);
    }
}
