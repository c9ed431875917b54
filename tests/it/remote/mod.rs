//! Remote caches: shared, lost in the middle of a transfer, and lying.

mod hostile;
mod http;
mod lost;
mod machine;
mod proxy;
mod runs;
mod s3;
mod sharing;
