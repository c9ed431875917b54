//! Content-addressed artifacts: digests, keys, objects, records of actions, claims.

mod action;
mod claim;
mod digest;
mod error;
pub(crate) mod files;
pub(crate) mod flock;
mod gc;
mod index;
mod journal;
mod key;
mod lock_file;
mod object;
mod processes;
mod record;
pub mod remote;
mod session;
mod status;
mod store;
mod tree;
mod verify;

pub use action::Lookup;
pub use claim::{Claim, Claimed};
pub use digest::Digest;
pub use error::CacheError;
pub use gc::{Collected, Keep};
pub use index::InputIndex;
pub use key::ActionKey;
pub use lock_file::{LockFile, LockedStage};
pub use object::Stored;
pub use processes::{MARK, adopt};
pub use record::{ActionRecord, StoredOutput, is_inside};
pub use session::{Session, UseLock};
pub use status::{Status, plain_name};
pub use store::{Cache, MARKER, VARIABLE};
pub use tree::{Entry, Manifest};
pub use verify::{Fault, Verified};
