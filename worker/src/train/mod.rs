//! Training: loop, optimizers, schedules, averages, distillation, checkpoints, and the count of what is right.

mod averages;
mod checkpoint;
mod classifier;
mod distillation;
mod epoch;
mod fit;
mod gradients;
mod history;
mod optimizer;
mod pass;
mod pending;
mod recording;
mod scaler;
mod schedule;
mod score;

pub use classifier::Classifier;
pub(crate) use classifier::NO_CLASSIFIER;
pub use distillation::Teacher;
pub use fit::{Fit, Fitted, Watch};
pub use history::Epoch;
pub use optimizer::Optimizer;
pub use schedule::rate;
pub use score::{Figures, LEAST, Score};
