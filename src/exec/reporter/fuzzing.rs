//! For the fuzz target of a worker's output: what each reporter makes of an event, shown to nobody.

use std::time::{Duration, Instant};

use console::measure_text_width;

use super::plain;
use super::screen::Screen;
use crate::exec::event::{Event, Reporter};

/// All reporters.
pub(in crate::exec) struct Everyone {
    screen: Screen,
    begun: Instant,
    /// Seconds since then.
    passed: u64,
}

impl Everyone {
    /// Of a run with one stage.
    pub fn new(stage: &str) -> Self {
        let begun = Instant::now();
        let mut screen = Screen::new(begun);
        screen.event(&Event::Started { stage, reason: "never ran" }, begun);
        Self { screen, begun, passed: 0 }
    }
}

impl Reporter for Everyone {
    /// # Panics
    ///
    /// Where a reporter panics, a line of JSON is none, or a line at a terminal's foot breaks.
    fn event(&mut self, event: &Event) {
        self.passed += 1;
        let now = self.begun + Duration::from_secs(self.passed);
        let json = serde_json::to_string(event).expect("an event serialises to JSON");
        assert!(!json.contains('\n'));
        let _ = plain::line(event);
        self.screen.event(event, now);
        for columns in [0, 30, 100] {
            for line in self.screen.lines(columns, 24, now) {
                assert!(measure_text_width(&line) < columns.max(2), "too wide: {line:?}");
                assert!(!line.contains(char::is_control), "a terminal would obey {line:?}");
            }
        }
    }
}
