//! Checking a spanned table against a contract's JSON schema.

mod check;
mod choose;
mod compile;
mod describe;
mod shape;

pub(super) use check::check;
pub(super) use compile::{data, kind, pipeline};
