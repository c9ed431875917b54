//! Content-addressed artifacts: digests, keys, objects, records of actions, claims.

mod action;
mod claim;
mod digest;
mod error;
pub(crate) mod files;
mod gc;
mod index;
mod key;
mod last;
mod lock_file;
mod object;
mod processes;
mod record;
mod status;
mod store;
mod tree;
mod verify;

pub use action::Lookup;
pub(crate) use claim::flock;
pub use claim::{Claim, Claimed};
pub use digest::Digest;
pub use error::CacheError;
pub use gc::Collected;
pub use index::InputIndex;
pub use key::ActionKey;
pub use last::LastKeys;
pub use lock_file::{LockFile, LockedStage};
pub use object::Stored;
pub use processes::MARK;
pub use record::{ActionRecord, StoredOutput};
pub use status::{Status, plain_name};
pub use store::{Cache, MARKER, UseLock, VARIABLE};
pub use tree::{Entry, Manifest};
pub use verify::{Fault, Verified};
