//! Checking a spanned table against a contract's JSON schema.

mod check;
mod choose;
mod compile;
mod describe;
mod editor;
#[cfg(test)]
mod editor_holds;
#[cfg(test)]
mod manual;
mod shape;
mod walk;

pub(super) use check::check;
pub(super) use compile::{data, guard, pipeline, remote, slurm, stage};
#[cfg(test)]
pub(crate) use editor::compare;
pub use editor::editor_schema;
pub(super) use walk::{Link, links, write_out};
