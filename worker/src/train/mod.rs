//! Training: loop, optimizers, schedules, checkpoints, and the count of what is right.

mod checkpoint;
mod classifier;
mod fit;
mod optimizer;
mod schedule;
mod score;

pub use classifier::Classifier;
pub use fit::{Epoch, Fit, Fitted, Watch};
pub use optimizer::Optimizer;
pub use schedule::rate;
pub use score::{Figures, Score};
