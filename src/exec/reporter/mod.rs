//! Who is told of a run: a terminal, a pipe, a program, nobody.

mod bars;
mod failure;
pub(super) mod fuzzing;
pub mod github;
mod guards;
mod json;
mod markdown;
mod plain;
mod quiet;
mod screen;
pub mod terminal;
mod time;

pub use bars::Bars;
pub use github::Annotations;
pub use json::Json;
pub use markdown::Markdown;
pub use plain::Plain;
pub use quiet::Quiet;
pub use time::seconds;
