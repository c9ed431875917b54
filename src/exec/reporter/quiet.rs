//! Errors only.

use std::io::Write;

use super::{guards, plain};
use crate::exec::event::{Event, Reporter};

/// Tells only of stages that failed, and of guards that are broken.
#[derive(Debug, Default)]
pub struct Quiet;

impl Reporter for Quiet {
    fn event(&mut self, event: &Event) {
        if let (Event::Failed { .. }, Some(line)) = (event, plain::line(event)) {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        if let Event::Guards { broken: 1.., accepted: false, .. } = event {
            let _ = std::io::stderr().write_all(guards::text(event).as_bytes());
        }
    }
}
