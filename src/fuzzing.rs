//! Entry points of the fuzz targets; no part of the library's interface.
//!
//! What is read from files, pipes and servers is read by private functions. Each target here gives
//! bytes to one of them and panics where it breaks its word, so that a fuzzer (`fuzz/`) and a test on
//! stable Rust (`tests/it/fuzz_corpus.rs`) check the same, and nothing else has to be public. Who
//! reads what stands beside it, in a file `fuzzing.rs`; docs/fuzzing.md says how they are run.

/// A name, which is also that of its corpus, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("pipeline", pipeline),
    ("lock_file", lock_file),
    ("journal", journal),
    ("record", record),
    ("event", event),
    ("remote_record", remote_record),
    ("remote_object", remote_object),
    ("manifest", manifest),
    ("index", index),
    ("bundle", bundle),
    ("run_record", run_record),
    ("companions", companions),
];

pub use crate::cache::bundle::fuzzing::bundle;
pub use crate::cache::fuzzing::{lock_file, manifest, record};
pub use crate::cache::index::fuzzing::index;
pub use crate::cache::journal::fuzzing::journal;
pub use crate::cache::remote::fuzzing::{remote_object, remote_record};
pub use crate::cli::fuzzing::run_record;
pub use crate::exec::attempt::fuzzing::event;
pub use crate::exec::companions::fuzzing::companions;
pub use crate::plan::fuzzing::pipeline;
