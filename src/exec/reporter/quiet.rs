//! Errors only.

use std::io::Write;

use super::plain;
use crate::exec::event::{Event, Reporter};

/// Tells only of stages that failed.
#[derive(Debug, Default)]
pub struct Quiet;

impl Reporter for Quiet {
    fn event(&mut self, event: &Event) {
        if let (Event::Failed { .. }, Some(line)) = (event, plain::line(event)) {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}
