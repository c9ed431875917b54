//! The worker against the references of its field: PyTorch, the ONNX standard's own tests, Python's onnxruntime.

mod absorb;
mod batch_norm;
mod blocks;
mod boxes;
mod detectors;
mod engines;
mod exporters;
mod finetuning;
mod format_costs;
mod formats;
mod gradient_cases;
mod gradients;
mod histories;
mod hostile_models;
mod imports;
mod ladder;
mod large_models;
mod mixed_precision;
mod old_opsets;
mod onnx_nodes;
mod parity;
mod placement;
mod python;
mod pytorch;
mod quant;
mod round_trip;
mod search;
mod sensitivity;
mod shapes;
mod smooth;
#[cfg(feature = "tensorrt-rtx")]
mod tensorrt_rtx;
mod torchvision;
mod transformer;
mod trtexec;
mod verify;
