//! Images, labelled or not: formats, decoding, transforms, and a loader that works ahead.
//!
//! What comes out depends on the files, the seed and the epoch alone, never on the number of threads.

mod csv;
mod dataset;
mod decode;
mod drawn;
mod formats;
mod idx;
mod image_folder;
mod images;
mod jpeg;
mod letterbox;
mod loader;
mod on_device;
mod pixels;
mod random;
mod resample;
#[cfg(target_arch = "x86_64")]
mod resample_avx2;
mod rotate;
mod transform;
mod unreadable;

pub use dataset::Dataset;
pub use loader::{Batch, Loader, Order};
pub use random::permutation;
