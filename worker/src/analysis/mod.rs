//! What quantization does to a model, measured: how far values are from the float model's, and which layers are to blame.

mod agreement;
mod compare;
mod drawing;
mod fidelity;
mod layout;
mod report;
mod sensitivity;
mod suffix;
mod variant;

pub use agreement::{Budget, Comparison, Found, Seen, common, floats};
pub use compare::{Compared, Images, Run, compare, compare_runs};
pub use drawing::{markdown, svg};
pub use fidelity::{Fidelity, Figures, WORST};
pub use report::{Layer, Outcome, Report, Step, VERSION};
pub use sensitivity::{Options, measure};
pub use suffix::{Suffix, suffix};
