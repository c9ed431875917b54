//! Sliding windows, shared by convolutions and pooling: kernel, strides, dilations and pads.

use tch::Tensor;

use crate::graph::Node;
use crate::{Error, Result};

/// How the borders are padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pads {
    /// Given: begin of each axis, then end of each.
    Explicit(Vec<i64>),
    /// As many as make the output `ceil(input / stride)` long, the odd one at the end or the begin.
    Same {
        /// The odd one goes to the begin.
        lower: bool,
    },
}

/// The attributes of a sliding window; `None` where they have their default, which needs the rank.
#[derive(Clone, Debug)]
pub struct Window {
    strides: Option<Vec<i64>>,
    dilations: Option<Vec<i64>>,
    pads: Option<Pads>,
}

/// The extent of a block, the attribute `blocksize` of SpaceToDepth and DepthToSpace.
pub fn block_size(node: &Node) -> Result<i64> {
    match node.int("blocksize", 0)? {
        block @ 1..=65536 => Ok(block),
        other => Err(Error::user(format!("`blocksize` = {other} is not a count of pixels"))),
    }
}

/// A window over an input of known size.
#[derive(Debug)]
pub struct Placed {
    /// Step along each axis.
    pub strides: Vec<i64>,
    /// Distance of the kernel's elements along each axis.
    pub dilations: Vec<i64>,
    /// Padding at the begin of each axis.
    pub begin: Vec<i64>,
    /// Padding at the end of each axis.
    pub end: Vec<i64>,
}

impl Placed {
    /// Whether begin and end are padded alike, which libtorch does itself.
    pub fn is_symmetric(&self) -> bool {
        self.begin == self.end
    }

    /// Pads a tensor's last axes with `value`.
    pub fn pad(&self, tensor: &Tensor, value: f64) -> Result<Tensor> {
        let pairs = self.begin.iter().zip(&self.end).rev();
        let pads: Vec<i64> = pairs.flat_map(|(&begin, &end)| [begin, end]).collect();
        Ok(tensor.f_pad(pads, "constant", value)?)
    }
}

impl Window {
    /// The window attributes of `node`.
    pub fn of(node: &Node) -> Result<Self> {
        let owned = |name| Ok::<_, Error>(node.ints(name)?.map(<[i64]>::to_vec));
        let pads = match node.text("auto_pad", "NOTSET")? {
            "NOTSET" => owned("pads")?.map(Pads::Explicit),
            "VALID" => None,
            "SAME_UPPER" => Some(Pads::Same { lower: false }),
            "SAME_LOWER" => Some(Pads::Same { lower: true }),
            other => return Err(Error::user(format!("`auto_pad` = {other} is not defined"))),
        };
        let window = Self { strides: owned("strides")?, dilations: owned("dilations")?, pads };
        let positive = |values: &Option<Vec<i64>>| values.iter().flatten().all(|&value| value > 0);
        if !positive(&window.strides) || !positive(&window.dilations) {
            return Err(Error::user("strides and dilations must be at least 1"));
        }
        match &window.pads {
            Some(Pads::Explicit(pads)) if pads.iter().any(|&pad| pad < 0) => {
                Err(Error::user(format!("negative pads {pads:?} are not supported")))
            }
            _ => Ok(window),
        }
    }

    /// Whether a dilation is other than 1.
    pub fn is_dilated(&self) -> bool {
        self.dilations.iter().flatten().any(|&dilation| dilation != 1)
    }

    /// The window over the last axes of an input of `size` (`[N, C, spatial…]`).
    pub fn place(&self, size: &[i64], kernel: &[i64]) -> Result<Placed> {
        let rank = kernel.len();
        if size.len() != rank + 2 {
            return Err(Error::user(format!(
                "a kernel of {rank} axes over an input of shape {size:?}"
            )));
        }
        let list = |name: &str, values: &Option<Vec<i64>>| match values {
            None => Ok(vec![1; rank]),
            Some(values) if values.len() == rank => Ok(values.clone()),
            Some(values) => Err(Error::user(format!("`{name}` {values:?} for {rank} axes"))),
        };
        let strides = list("strides", &self.strides)?;
        let dilations = list("dilations", &self.dilations)?;
        let (begin, end) = match &self.pads {
            None => (vec![0; rank], vec![0; rank]),
            Some(Pads::Explicit(pads)) if pads.len() == 2 * rank => {
                (pads[..rank].to_vec(), pads[rank..].to_vec())
            }
            Some(Pads::Explicit(pads)) => {
                return Err(Error::user(format!("`pads` {pads:?} for {rank} axes")));
            }
            Some(Pads::Same { lower }) => (0..rank)
                .map(|axis| {
                    let input = size[axis + 2];
                    let output = (input + strides[axis] - 1) / strides[axis];
                    let reach = (kernel[axis] - 1) * dilations[axis] + 1;
                    let total = ((output - 1) * strides[axis] + reach - input).max(0);
                    let small = total / 2;
                    if *lower { (total - small, small) } else { (small, total - small) }
                })
                .unzip(),
        };
        Ok(Placed { strides, dilations, begin, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;

    #[test]
    fn same_pads_as_the_standard_says() {
        let node = |mode: &str| {
            Node::new("c", "Conv", &["x", "w"], &["y"])
                .with("auto_pad", Attribute::String(mode.as_bytes().to_vec()))
                .with("strides", Attribute::Ints(vec![2]))
        };
        let upper = Window::of(&node("SAME_UPPER")).unwrap().place(&[1, 1, 6], &[3]).unwrap();
        assert_eq!((upper.begin, upper.end), (vec![0], vec![1]));
        let lower = Window::of(&node("SAME_LOWER")).unwrap().place(&[1, 1, 6], &[3]).unwrap();
        assert_eq!((lower.begin, lower.end), (vec![1], vec![0]));
    }

    #[test]
    fn a_wrong_count_of_pads_is_an_error() {
        let node =
            Node::new("c", "Conv", &["x", "w"], &["y"]).with("pads", Attribute::Ints(vec![1, 1]));
        let error = Window::of(&node).unwrap().place(&[1, 1, 6, 6], &[3, 3]).unwrap_err();
        assert!(error.message.contains("for 2 axes"), "{error}");
    }
}
