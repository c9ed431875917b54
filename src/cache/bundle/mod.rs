//! Bundles: a pipeline with its lock file, and what stages came to, as one file.
//!
//! ```text
//! NAME.qpipe = zstd( tar(
//!     manifest.json       what follows, with sizes and digests
//!     files/DIGEST        the pipeline file, those that it extends, its lock file, inputs
//!     records/KEY         records of stages, as JSON
//!     objects/DIGEST      their outputs, and manifests of folders
//! ) )
//! ```
//!
//! Members stand in the manifest's order. Their names are digests, so no path of the archive is ever
//! used; paths of files stand in the manifest and are checked there.

mod contents;
mod error;
pub(crate) mod fuzzing;
mod pack;
mod place;
mod unpack;

pub use error::BundleError;
pub use pack::{Packed, Packing};
pub use unpack::{Unpacked, unpack};
