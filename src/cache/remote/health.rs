//! Whether the remote is still worth asking: it is switched off after a few failures in a row.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Whether the remote is still worth asking.
#[derive(Debug)]
pub(super) struct Health {
    failures: AtomicU32,
    allowed: u32,
    off: AtomicBool,
}

impl Health {
    pub(super) fn new(allowed: u32) -> Self {
        Self { failures: AtomicU32::new(0), allowed: allowed.max(1), off: AtomicBool::new(false) }
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// A request begins; its end is told with what this returns.
    pub(super) fn begin(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// It was answered.
    pub(super) fn answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It failed; `true` if that switched the remote off. Requests that were under way together and
    /// failed together count once: a server that restarts cuts all of them.
    pub(super) fn failed(&self, begun: u32) -> bool {
        let (now, order) = (begun.saturating_add(1), Ordering::Relaxed);
        let counted = self.failures.compare_exchange(begun, now, order, order).is_ok();
        counted && now >= self.allowed && self.switch_off()
    }

    /// No more requests; `true` the first time.
    pub(super) fn switch_off(&self) -> bool {
        !self.off.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_switch_off_once_and_those_at_one_time_count_once() {
        let health = Health::new(3);
        let together = [health.begin(), health.begin(), health.begin(), health.begin()];
        assert!(together.iter().all(|begun| !health.failed(*begun)));
        assert!(!health.failed(health.begin()));
        health.answered();
        assert!(!health.failed(health.begin()));
        assert!(!health.failed(health.begin()));
        assert!(!health.is_off());
        assert!(health.failed(health.begin()));
        assert!(health.is_off());
        assert!(!health.failed(health.begin()), "told once");
    }
}
