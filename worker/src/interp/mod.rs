//! A graph compiled once to a plan of kernels over numbered slots, executed forward on libtorch, with gradients.

mod apart;
mod compile;
mod declared;
mod fuse;
mod gradients;
mod parameters;
mod prepare;
mod program;
mod scales;
mod spare;
mod state;
mod trainable;
mod types;

pub use apart::{Apart, take_apart};
pub use declared::{CHANNELS_LAST, check_image_inputs, check_sizes};
pub use parameters::{Parameter, Role};
pub use prepare::{Refusal, check_executable, refusals};
pub use program::{Followed, Mode, Options, Program, Scales};
pub use trainable::{Blocked, Stored, Trainable, Weightless, check_trainable};
