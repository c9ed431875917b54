//! Convolution, shared by that of floats and that of integers.

use tch::Tensor;

use super::kernel::Prepare;
use super::window::Window;
use crate::{Error, Result};

/// The attributes of a convolution.
pub struct Convolution {
    window: Window,
    groups: i64,
    kernel_shape: Option<Vec<i64>>,
}

impl Convolution {
    /// Those of a node.
    pub fn of(prepare: &Prepare) -> Result<Self> {
        Ok(Self {
            window: Window::of(prepare.node)?,
            groups: prepare.node.int("group", 1)?,
            kernel_shape: prepare.node.ints("kernel_shape")?.map(<[i64]>::to_vec),
        })
    }

    /// `[N, C, spatial…]`, `[M, C / group, kernel…]`, `[M]` to `[N, M, spatial…]`.
    pub fn run(&self, input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let size = weight.size();
        let kernel = size.get(2..).unwrap_or_default();
        if self.kernel_shape.as_ref().is_some_and(|shape| shape != kernel) {
            return Err(Error::user(format!(
                "`kernel_shape` {:?} does not fit the weight's shape {size:?}",
                self.kernel_shape
            )));
        }
        let placed = self.window.place(&input.size(), kernel)?;
        let padded;
        let (input, padding) = if placed.is_symmetric() {
            (input, placed.begin.clone())
        } else {
            padded = placed.pad(input, 0.0)?;
            (&padded, vec![0; kernel.len()])
        };
        Ok(input.f_convolution(
            weight,
            bias,
            &placed.strides,
            padding,
            &placed.dilations,
            false,
            vec![0; kernel.len()],
            self.groups,
        )?)
    }
}
