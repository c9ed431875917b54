//! Content-addressed artifacts: digests, keys, objects, records of actions.

mod digest;
mod key;
mod record;

pub use digest::Digest;
pub use key::ActionKey;
pub use record::{ActionRecord, StoredOutput};
