//! Chance that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers without a pattern (splitmix64).
pub struct Random(u64);

impl Random {
    /// From `QPIPE_FAULT_SEED`, else from the clock; the seed is printed. `lane` tells apart those of one
    /// test.
    pub fn new(lane: u64) -> Self {
        let given = std::env::var("QPIPE_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::try_from(now.as_nanos() % 1_000_000_000).unwrap()
        });
        println!("QPIPE_FAULT_SEED={seed} (lane {lane})");
        Self(seed.wrapping_add(lane.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub fn of<'t, T>(&mut self, several: &'t [T]) -> &'t T {
        &several[self.below(several.len())]
    }

    /// A time below `most_ms`.
    pub fn instant(&mut self, most_ms: usize) -> Duration {
        Duration::from_micros(self.below(most_ms * 1000) as u64)
    }
}

/// Whether the longer tests are wanted.
pub fn full() -> bool {
    std::env::var("QPIPE_FAULTS").is_ok_and(|value| value == "full")
}
