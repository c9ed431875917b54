//! Ranges, and what is asked of a placement, for tests.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;

use super::formats::Formats;
use super::placement::{Request, watched};
use super::ranges::{Range, Ranges, VERSION};
use crate::graph::Graph;

/// Ranges of tensors with their `amax`.
pub fn ranges<N: Into<String>>(
    method: Method,
    tensors: impl IntoIterator<Item = (N, f32)>,
) -> Ranges {
    let range = |(tensor, amax): (N, f32)| Range {
        tensor: tensor.into(),
        amax: [(method, amax)].into_iter().collect(),
        ..Range::default()
    };
    Ranges {
        version: VERSION,
        calibration: None,
        tensors: tensors.into_iter().map(range).collect(),
    }
}

/// `amax` 1, 2, 3, … by `max`, in the order of the graph.
pub fn rising(graph: &Graph) -> Ranges {
    ranges(Method::Max, watched(graph).into_iter().zip((1_u16..).map(f32::from)))
}

/// Pairs for all layers, in the policy's own formats.
pub fn request(target: Target, method: Method) -> Request<'static> {
    Request { target, method, include: None, exclude: &[], formats: Formats::default() }
}
