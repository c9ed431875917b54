//! Faults: what the program does when it is killed, when the disk is full, when the power goes, when
//! clocks step, when others lie. `docs/reliability.md` says what is promised and how each is tested.
//!
//! Chance has a seed, which is printed; `QPIPE_FAULT_SEED=N` repeats a failure. `QPIPE_FAULTS=full`
//! makes the tests longer.

mod clock;
mod collect;
mod crowd;
mod events;
mod flips;
mod full_disk;
mod garbage;
mod hostile;
mod inject;
mod kills;
mod no_links;
mod permissions;
mod power;
mod random;
mod sandbox;
