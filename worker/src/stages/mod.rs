//! The run of each stage kind, one file each, and the table of them.

mod benchmark;
mod build_engine;
mod calibrate;
mod confusion;
mod context;
mod equalize;
mod evaluate;
mod evaluate_boxes;
mod export_onnx;
mod finetune;
mod forms;
mod inner;
mod insert_qdq;
mod laboratory;
mod model;
mod on_engines;
mod reconstruct;
mod run_engine;
mod search;
mod sensitivity;
mod train;
mod training;
mod verify;

pub use context::{Context, Events};
pub use model::{model, write_json, write_model};

use qpipe::stages as contracts;
use qpipe::stages::contract::{Contract, Metrics};

use crate::Result;

/// One line of the table of runs.
pub struct Run {
    /// The kind's name, as in its contract.
    pub kind: &'static str,
    /// Does the work: reads the task's inputs, writes its outputs, returns its figures.
    pub run: fn(&Context) -> Result<Metrics>,
}

/// All kinds that the worker runs.
pub const RUNS: &[Run] = &[
    Run { kind: contracts::train::Train::NAME, run: train::run },
    Run { kind: contracts::equalize::Equalize::NAME, run: equalize::run },
    Run { kind: contracts::calibrate::Calibrate::NAME, run: calibrate::run },
    Run { kind: contracts::sensitivity::Sensitivity::NAME, run: sensitivity::run },
    Run { kind: contracts::search::Search::NAME, run: search::run },
    Run { kind: contracts::insert_qdq::InsertQdq::NAME, run: insert_qdq::run },
    Run { kind: contracts::reconstruct::Reconstruct::NAME, run: reconstruct::run },
    Run { kind: contracts::finetune::Finetune::NAME, run: finetune::run },
    Run { kind: contracts::evaluate::Evaluate::NAME, run: evaluate::run },
    Run { kind: contracts::export_onnx::ExportOnnx::NAME, run: export_onnx::run },
    Run { kind: contracts::build_engine::BuildEngine::NAME, run: build_engine::run },
    Run { kind: contracts::verify::Verify::NAME, run: verify::run },
    Run { kind: contracts::benchmark::Benchmark::NAME, run: benchmark::run },
];
