//! Interpolation along axes, shared by Resize and Upsample.

mod apply;
mod method;
mod native;
mod weights;

pub use apply::resize;
pub use method::{Axis, Coordinates, Filter, Method, Rounding};
