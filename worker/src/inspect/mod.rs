//! What `qpipe model` tells: what is in a model and what can be done with it, and in what two models differ.

mod abilities;
mod command;
mod cost;
mod difference;
mod difference_text;
mod lint;
mod numbers;
mod summary;
mod summary_text;

pub use abilities::{Abilities, Ability, Refused};
pub use command::{Told, run};
pub use cost::Cost;
pub use difference::{Changed, Difference, TensorChange};
pub use lint::Lint;
pub use summary::{Constants, Operator, Summary, Value};
