//! Running a plan: what is up to date, what runs and why, stages as processes, who is told.

mod attempt;
mod companions;
mod conclude;
mod error;
pub mod event;
mod facts;
mod failure;
mod host;
mod inputs;
mod keys;
mod lines;
mod machinery;
mod options;
mod preview;
mod process;
mod program;
mod reason;
mod report_stage;
pub mod reporter;
mod runner;
mod scheduler;
mod signals;
mod view;
pub mod worker;
mod worker_stage;

pub use error::RunError;
pub use event::{Event, Reporter, Summary};
pub use options::Options;
pub use preview::{Action, Preview, Success, preview};
pub use reason::Change;
pub use runner::run;
