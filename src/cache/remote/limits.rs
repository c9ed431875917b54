//! Bounds of time, memory and patience.

use std::time::Duration;

/// Bounds of time, memory and patience; the defaults are for use, others for tests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time to connect.
    pub connect: Duration,
    /// A transfer that moves nothing for so long is given up and tried again.
    pub stall: Duration,
    /// Bytes a second below which an upload counts as stalled.
    pub slowest: u64,
    /// How often a request is tried without getting further.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// After so many failures in a row the remote is switched off for the rest of the run.
    pub failures: u32,
    /// Objects in transfer at a time.
    pub parallel: usize,
    /// Bytes above which an upload is split into parts of this size.
    pub part: u64,
    /// Largest record, bytes.
    pub record: u64,
    /// Largest manifest of a folder, bytes.
    pub manifest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            stall: Duration::from_secs(20),
            slowest: 64 << 10,
            attempts: 4,
            backoff: Duration::from_millis(250),
            failures: 3,
            parallel: 8,
            part: 8 << 20,
            record: 4 << 20,
            manifest: 64 << 20,
        }
    }
}

impl Limits {
    /// How long sending `bytes` and waiting for the answer may take.
    pub(super) fn sending(&self, bytes: u64) -> Duration {
        self.connect + self.stall + Duration::from_secs(bytes / self.slowest.max(1))
    }
}
