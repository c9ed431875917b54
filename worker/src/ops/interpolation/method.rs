//! What is to be interpolated, and how: the terms of
//! <https://onnx.ai/onnx/operators/onnx__Resize.html>.

use crate::{Error, Result};

/// The place in the input that an element of the output is computed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Pixels are areas: (x + 0.5) / scale − 0.5.
    HalfPixel,
    /// The same, with the centres of input and output over each other where the length was rounded.
    HalfPixelSymmetric,
    /// The same, but the first pixel where the output has one.
    PytorchHalfPixel,
    /// The same, not moved back by half a pixel, with the nearest below (TensorFlow 2).
    HalfPixelForNearest,
    /// x / scale.
    Asymmetric,
    /// Pixels are points, the first and the last over each other.
    AlignCorners,
    /// The same in a part of the input, beyond which is one value.
    CropAndResize,
}

/// Which neighbour is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The lower of two equally near.
    PreferFloor,
    /// The higher of two equally near.
    PreferCeil,
    /// That below.
    Floor,
    /// That above.
    Ceil,
}

/// How neighbours are weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Filter {
    /// The nearest counts alone.
    Nearest(Rounding),
    /// By nearness, two neighbours.
    Linear,
    /// Four neighbours, convolved with the kernel of parameter a (Keys 1981).
    Cubic(f64),
}

/// All of a method.
#[derive(Clone, Debug)]
pub struct Method {
    /// From places in the output to places in the input.
    pub coordinates: Coordinates,
    /// From neighbours to their weights.
    pub filter: Filter,
    /// Whether neighbours beyond the input have no weight, instead of that of the pixel at the edge.
    pub exclude_outside: bool,
    /// Whether a smaller output averages over all that it stands for.
    pub antialias: bool,
    /// The value beyond the input, of [`Coordinates::CropAndResize`].
    pub extrapolation: f64,
}

/// An axis to resize.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Which of the tensor.
    pub axis: usize,
    /// Its length.
    pub input: i64,
    /// The length to come.
    pub output: i64,
    /// Output to input; not the quotient of the lengths where the standard rounded the one.
    pub scale: f64,
    /// Begin and end of the part that is taken, 0 to 1.
    pub roi: (f64, f64),
}

/// Longest axis that is resized: beyond every image, and short enough for its weights to be computed.
const LONGEST: i64 = 1 << 24;

impl Axis {
    /// Refuses lengths and scales that no image has.
    pub fn check(&self) -> Result<()> {
        let lengths = [self.input, self.output];
        let possible = lengths.iter().all(|length| (0..=LONGEST).contains(length));
        if !(possible && self.scale.is_finite() && self.scale > 0.0) {
            return Err(Error::user(format!(
                "axis {} of {} resized to {} by a scale of {}",
                self.axis, self.input, self.output, self.scale
            )));
        }
        if self.input == 0 && self.output > 0 {
            return Err(Error::user(format!("axis {} has no element to resize", self.axis)));
        }
        Ok(())
    }

    /// Whether the output is as long as the scale says, without rounding.
    pub fn is_exact(&self) -> bool {
        (self.scale * self.input as f64 - self.output as f64).abs() < 1e-6
    }
}
