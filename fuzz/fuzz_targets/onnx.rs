//! The reader of models, built of the worker's own modules: the worker itself is linked to libtorch.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    unfulfilled_lint_expectations,
    reason = "only the reader is used of these modules"
)]

#[path = "../../worker/src/error.rs"]
mod error;
#[path = "../../worker/src/graph/mod.rs"]
mod graph;
#[path = "../../worker/src/onnx/mod.rs"]
mod onnx;

pub use error::{Error, Result};

/// Which operators exist is asked of the interpreter's table, which is libtorch's neighbour; here none is known.
mod ops {
    pub fn first_version(_: &str) -> Option<i64> {
        None
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onnx::fuzzing::onnx(bytes));
