//! From TOML text to a typed pipeline, every mistake shown at its place.
//!
//! ```text
//! text ─▶ tree (spans) ─▶ extends, profiles, overrides ─▶ interpolation, matrix
//!      ─▶ schema ─▶ contract ─▶ references
//! ```

mod choices;
mod classes;
mod cycles;
mod data;
mod extends;
pub(crate) mod fuzzing;
mod guards;
mod input;
mod interpolate;
mod labels;
mod load;
mod lookup;
mod matrix;
mod matrix_entries;
mod merge;
mod methods;
mod mistakes;
mod overrides;
mod parse;
mod pipeline;
mod profiles;
mod reference;
mod remote;
mod resolve;
mod runtime_facts;
mod schema;
pub mod secrets;
mod slurm;
mod stage;
mod suggest;
mod sweep;
mod syntax;
mod trained;
mod tree;
mod window;

pub use guards::{Baseline, Bound, Guard};
pub use input::Overrides;
pub use load::load;
pub use mistakes::{Mistakes, Style};
pub use pipeline::{Data, Origin, Pipeline, ResolvedInput, StageCell};
pub use remote::{Remote, RemoteMode};
#[cfg(test)]
pub(crate) use schema::compare;
pub use schema::editor_schema;
pub use slurm::{Slurm, check_option};
pub use sweep::{Point, Sweep, SweepVariable};
pub(crate) use syntax::{long_key, plain_depth};
