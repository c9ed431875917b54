//! How much time goes into choosing kernels of convolutions on a GPU, before the first of a shape runs.

use std::sync::atomic::{AtomicU8, Ordering};

use super::shim;
use crate::Result;

/// What a convolution of a new shape waits for. For the whole process, as with TF32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelSearch {
    /// Nothing: cuDNN's heuristics, and libtorch's own kernels of depthwise layers of float32.
    #[default]
    Quick,
    /// cuDNN's compiler, which it needs for depthwise layers of float32 with the channels last: about 0.4 s a layer, forward and back.
    Compiled,
    /// That, and cuDNN's trial of its algorithms, the ten that it expects to be best (`torch.backends.cudnn.benchmark`): half a second to a second a layer.
    Tried,
}

static SEARCH: AtomicU8 = AtomicU8::new(KernelSearch::Quick as u8);

/// Says what convolutions of new shapes wait for from now on. Shapes that were there before keep their kernels where they were tried.
///
/// # Errors
/// What libtorch refuses.
pub fn search_kernels(search: KernelSearch) -> Result<()> {
    SEARCH.store(search as u8, Ordering::Relaxed);
    shim::cudnn_benchmark(search == KernelSearch::Tried)
}

/// What [`search_kernels`] said last.
pub fn kernel_search() -> KernelSearch {
    let now = SEARCH.load(Ordering::Relaxed);
    let all = [KernelSearch::Quick, KernelSearch::Compiled, KernelSearch::Tried];
    all.into_iter().find(|search| *search as u8 == now).unwrap_or_default()
}
