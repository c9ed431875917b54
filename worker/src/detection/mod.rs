//! Object detectors: boxes of their outputs, and how far two models' boxes agree.
//!
//! `docs/detection.md` has the definitions.

mod agreement;
mod boxes;
mod decode;
mod matching;
mod precision;
mod separate;

pub use agreement::{Agreement, Figures, Settings};
pub use boxes::{Detection, iou, suppress};
pub use decode::decode;
pub use matching::{assign, assign_any};
pub use precision::{Precision, THRESHOLDS};
pub use separate::{Output, check_separate, check_single, decode_separate};
