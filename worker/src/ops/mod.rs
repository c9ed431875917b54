//! Operators, one file an operator or close family, and the table of them.

mod versions;

pub use versions::first_version;
