//! A cache that machines share: results in S3, Google Cloud Storage, Azure, on a server of HTTP or
//! in a folder.
//!
//! # Layout, version 1
//!
//! ```text
//! v1/actions/KEY.json          a record in an envelope that has its digest; KEY: digest of the key
//! v1/objects/ab/DIGEST         a file, or a folder's manifest, as it is; ab: DIGEST's first digits
//! v1/objects/ab/DIGEST.zst     the same as one frame of Zstandard, where that is smaller
//! ```
//!
//! `DIGEST` is always that of the content before compression. Objects go first and the record last,
//! so that a record never names what is not there. Nothing is ever changed in place: an object's
//! content is its name, and the first record of a key stays.
//!
//! # What is believed
//!
//! Nothing. A record must be of the key that was asked for, an object must have the digest and the
//! size that were asked for, names may not leave their folder, and nothing is read beyond its
//! expected size. What fails is left out with a warning and counts as a miss. Whoever may *write* to
//! the remote can still put a false result under a true key: who may write is who is trusted.
//!
//! # What a failure costs
//!
//! Bounded time, and never the run. Requests are retried a few times, transfers go on where they
//! broke off, and after a few failures in a row the remote is switched off with one warning.

mod bounded;
mod compress;
mod connect;
mod credentials;
mod download;
mod envelope;
mod error;
mod event;
mod failure;
mod fetch;
pub(crate) mod fuzzing;
mod health;
mod layout;
mod limits;
mod location;
mod partial;
mod push;
mod request;
mod session;
mod spec;
mod upload;

pub use envelope::Fetched;
pub use error::RemoteError;
pub use event::{RemoteEvent, Watch};
pub use limits::Limits;
pub use push::Pushed;
pub use session::Remote;
pub use spec::RemoteSpec;
