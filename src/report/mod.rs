//! One table of all variants, from recorded figures only: nothing is measured here.
//!
//! ```text
//! figures of stages ─▶ Report (typed; report.json) ─▶ Grid (text) ─▶ terminal, Markdown, HTML
//! ```

mod build;
mod compare;
mod figures;
mod grid;
mod html;
mod markdown;
mod number;
mod rows;
mod sweep;
mod sweep_figures;
mod table;
mod text;

pub use build::{Source, build};
pub use markdown::escape;
pub use sweep::{FigureColumn, SweepRow, SweepTable};
pub use sweep_figures::Better;
pub use table::{Accuracy, LatencyMs, Report, Row, Timing, TimingColumn};
