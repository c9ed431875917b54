//! The runner of qpipe: a TOML file becomes a plan, a plan becomes cached artifacts and a table.
//!
//! ```text
//! TOML ─▶ config ─▶ plan (DAG) ─▶ cache look-up ─▶ exec ─▶ report
//!                                                  │ ▲
//!                            task file (JSON)      ▼ │ events (JSON lines)
//!                                             qpipe-worker
//! ```
//!
//! This package knows no tensor and never loads libtorch, ONNX Runtime or TensorRT: an up-to-date
//! run takes milliseconds. [`stages`] holds the contract of each stage kind, which both programs
//! share; [`task`] is what they say to each other.
//!
//! Imports go one way: `cli` → `report`, `exec` → `cache` → `plan` → `config` → `stages`.

pub mod cache;
pub mod cli;
pub mod config;
pub mod exec;
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod report;
pub mod stages;
pub mod task;
