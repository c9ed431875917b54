//! The contract of each stage kind, one file each, and the table of them.

pub mod benchmark;
pub mod build_engine;
pub mod calibrate;
pub mod command;
pub mod contract;
pub mod csv;
pub mod data;
pub mod device;
pub mod equalize;
pub mod evaluate;
pub mod execution;
pub mod export_onnx;
pub mod finetune;
pub mod formats;
pub mod image_files;
pub mod insert_qdq;
pub mod inside;
pub mod model_source;
pub mod quantity;
pub mod reconstruct;
pub mod report;
pub mod search;
pub mod sensitivity;
pub mod table;
pub mod tensorrt_version;
pub mod train;
pub mod training;
pub mod verify;

use contract::Kind;

/// All kinds, in the order of a pipeline.
pub const KINDS: &[Kind] = &[
    Kind::of::<train::Train>(),
    Kind::of::<equalize::Equalize>(),
    Kind::of::<calibrate::Calibrate>(),
    Kind::of::<sensitivity::Sensitivity>(),
    Kind::of::<search::Search>(),
    Kind::of::<insert_qdq::InsertQdq>(),
    Kind::of::<reconstruct::Reconstruct>(),
    Kind::of::<finetune::Finetune>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<export_onnx::ExportOnnx>(),
    Kind::of::<build_engine::BuildEngine>(),
    Kind::of::<verify::Verify>(),
    Kind::of::<benchmark::Benchmark>(),
    Kind::of::<report::Report>(),
    Kind::of::<command::Command>(),
];

/// The kind of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
