//! Children that somebody waits for.
//!
//! The runner is the reaper of all that its stages leave behind, and takes note of the end of whatever has ended below it. It must
//! leave alone those whose end somebody else waits for: who comes second learns nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

static SUPERVISED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A child whose end somebody waits for, until this is dropped.
#[derive(Debug)]
pub struct Supervised(i32);

impl Supervised {
    /// Leaves the end of a process to who holds this.
    pub fn new(pid: i32) -> Self {
        SUPERVISED.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        Self(pid)
    }

    /// Whether somebody waits for a process.
    pub fn is(pid: i32) -> bool {
        SUPERVISED.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        SUPERVISED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
