//! What a transfer tells.

use std::cell::Cell;

/// What a transfer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteEvent<'a> {
    /// How far the objects of a record are.
    Progress {
        /// Bytes done, before compression.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something went wrong, and the run goes on without.
    Warning(&'a str),
}

/// Who is told; called from the task that waits for the transfer.
pub type Watch<'a> = &'a dyn Fn(RemoteEvent<'_>);

/// Adds up the bytes of a record's objects.
pub(super) struct Meter<'a> {
    watch: Watch<'a>,
    done: Cell<u64>,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(watch: Watch<'a>, total: u64) -> Self {
        Self { watch, done: Cell::default(), total }
    }

    /// Replaces what an object counted for so far; a transfer that starts anew counts less.
    fn set(&self, before: u64, now: u64) {
        let done = self.done.get().saturating_sub(before).saturating_add(now);
        self.done.set(done);
        (self.watch)(RemoteEvent::Progress { done, total: self.total });
    }
}

/// One object's share.
pub(super) struct Share<'a> {
    meter: &'a Meter<'a>,
    counted: u64,
    bytes: u64,
}

impl<'a> Share<'a> {
    pub(super) fn new(meter: &'a Meter<'a>, bytes: u64) -> Self {
        Self { meter, counted: 0, bytes }
    }

    /// `moved` of `stored` bytes have been transferred.
    pub(super) fn at(&mut self, moved: u64, stored: u64) {
        let part = u128::from(self.bytes) * u128::from(moved.min(stored));
        let now = (part / u128::from(stored.max(1))) as u64;
        if now != self.counted {
            self.meter.set(std::mem::replace(&mut self.counted, now), now);
        }
    }

    /// All of it is there.
    pub(super) fn whole(&mut self) {
        self.at(1, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn shares_add_up_and_may_start_anew() {
        let told = RefCell::new(Vec::new());
        let watch = |event: RemoteEvent<'_>| {
            let RemoteEvent::Progress { done, total } = event else { panic!("{event:?}") };
            told.borrow_mut().push((done, total));
        };
        let meter = Meter::new(&watch, 30);
        let (mut one, mut two) = (Share::new(&meter, 10), Share::new(&meter, 20));
        one.at(2, 4);
        two.at(3, 4);
        one.at(0, 4);
        one.whole();
        two.whole();
        two.whole();
        assert_eq!(*told.borrow(), [(5, 30), (20, 30), (15, 30), (25, 30), (30, 30)]);
    }
}
