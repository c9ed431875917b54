//! Who is told of a run: a terminal, a pipe, a program, nobody.

mod bars;
mod failure;
mod json;
mod plain;
mod quiet;
mod screen;
pub mod terminal;
mod time;

pub use bars::Bars;
pub use json::Json;
pub use plain::Plain;
pub use quiet::Quiet;
pub use time::seconds;
