//! The fence round libtorch: what every caller needs of tch beyond its own calls.

mod convert;
mod device;
mod elements;
mod error;
mod fused;
mod graph;
mod kernels;
mod layout;
mod memory;
mod shim;
mod stopwatch;
mod transfer;
mod version;

pub use convert::{carrier_of, dtype_of, is_float, kind_of, tensor_data, to_tensor};
pub use device::{
    DEVICE_VARIABLE, cuda_version, device, driver_version, find_device, gpu_name, gpus, open_cuda,
    open_device, why_no_gpu,
};
pub use elements::{flat, with_f32};
pub use fused::{
    LearnedScale, fake_quantize, fused_learned_fake_quantize, has_fused_fake_quantize,
    learned_fake_quantize,
};
pub use graph::{CudaGraph, synchronize};
pub use kernels::{KernelSearch, kernel_search, search_kernels};
pub use layout::{channels_first, channels_last, copied, laid_out_as};
pub use memory::explain;
pub use shim::{
    Autocast, Group, Half, WithoutTf32, allow_tf32, deterministic, is_deterministic, pinned,
    unscale,
};
pub use stopwatch::{Mark, Stopwatch};
pub use transfer::sent;
pub use version::{LIBTORCH, loaded};
