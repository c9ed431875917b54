//! Convolution, shared by that of floats and that of integers.

use tch::Tensor;

use super::kernel::Prepare;
use super::window::Window;
use crate::torch::KernelSearch;
use crate::{Error, Result, torch};

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
        let thinned;
        let mut strides = placed.strides;
        let input = if self.is_thin(input, kernel) && padding.iter().all(|&pad| pad == 0) {
            thinned = every(input, &strides)?;
            strides.fill(1);
            &thinned
        } else {
            input
        };
        let (turned_input, turned_weight);
        let (input, weight) = if self.compiles_for_long(input, weight) {
            turned_input = torch::channels_first(input)?;
            turned_weight = torch::channels_first(weight)?;
            (&turned_input, &turned_weight)
        } else {
            (input, weight)
        };
        // Those of one to three axes by their names: on a CPU autocast does not know `convolution`.
        let dilations = &placed.dilations;
        Ok(match kernel.len() {
            1 => input.f_conv1d(weight, bias, &strides, padding, dilations, self.groups)?,
            2 => input.f_conv2d(weight, bias, &strides, padding, dilations, self.groups)?,
            3 => input.f_conv3d(weight, bias, &strides, padding, dilations, self.groups)?,
            axes => {
                let none = vec![0; axes];
                let groups = self.groups;
                input.f_convolution(
                    weight, bias, &strides, padding, dilations, false, none, groups,
                )?
            }
        })
    }

    /// Whether cuDNN has to compile kernels for it that are not worth it: 0.1 to 0.4 s for each depthwise layer of float32 with the channels last,
    /// seen with cuDNN 9 on an H200. libtorch's own kernel for the other layout is there; forward it takes half the time, forward and back up to
    /// three times as long.
    fn compiles_for_long(&self, input: &Tensor, weight: &Tensor) -> bool {
        let size = input.size();
        input.device() != tch::Device::Cpu
            && input.kind() == tch::Kind::Float
            && size.len() == 4
            && self.groups > 1
            && size[1] == self.groups
            && (torch::kernel_search() == KernelSearch::Quick
                || !(input.requires_grad() || weight.requires_grad()))
    }

    /// Whether oneDNN 3.10, which libtorch calls, gets the gradient of the weight wrong, and writes beyond its memory: with 256-bit vectors, in
    /// pointwise convolutions with strides of fewer channels than a vector holds. PyTorch 2.11 aborts at those as well.
    fn is_thin(&self, input: &Tensor, kernel: &[i64]) -> bool {
        let [_, channels, ..] = input.size()[..] else { return false };
        input.device() == tch::Device::Cpu
            && channels / self.groups.max(1) < 8
            && kernel.iter().all(|&extent| extent == 1)
    }
}

/// The elements that a pointwise convolution with these strides reads: all, where each is 1.
fn every(input: &Tensor, strides: &[i64]) -> Result<Tensor> {
    let mut read = input.shallow_clone();
    for (axis, &stride) in (2_i64..).zip(strides).filter(|(_, stride)| **stride > 1) {
        read = read.f_slice(axis, None, None, stride)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::graph::{Attribute, Node};

    #[test]
    fn mixed_precision_on_a_cpu_takes_16_bits() {
        let float = (Kind::Float, Device::Cpu);
        let node = Node::new("c", "Conv", &["x", "w", "b"], &["y"]);
        let convolution =
            Convolution { window: Window::of(&node).unwrap(), groups: 1, kernel_shape: None };
        for axes in 1..=3 {
            let shape = |front: [i64; 2], extent: i64| {
                front.into_iter().chain(vec![extent; axes]).collect::<Vec<_>>()
            };
            let x = Tensor::randn(shape([2, 3], 5), float);
            let (w, b) = (Tensor::randn(shape([4, 3], 3), float), Tensor::randn([4], float));
            let plain = convolution.run(&x, &w, Some(&b)).unwrap();
            let mixed = {
                let _mixed = torch::Autocast::begin(Device::Cpu, torch::Half::Bfloat16).unwrap();
                convolution.run(&x, &w, Some(&b)).unwrap()
            };
            assert_eq!((plain.kind(), mixed.kind()), (Kind::Float, Kind::BFloat16));
            let off = (plain - mixed.to_kind(Kind::Float)).abs().max().double_value(&[]);
            assert!(off < 0.3, "{axes} axes: {off}");
        }
    }

    /// Sums over the pixels that are read, as an `einsum` finds them.
    #[test]
    fn the_gradient_of_a_thin_pointwise_convolution_with_strides_is_that_of_its_definition() {
        let float = (Kind::Float, Device::Cpu);
        let node = Node::new("c", "Conv", &["x", "w"], &["y"])
            .with("strides", Attribute::Ints(vec![2, 2]));
        for (channels, groups) in [(3, 1), (4, 1), (7, 1), (8, 2), (8, 1)] {
            let convolution =
                Convolution { window: Window::of(&node).unwrap(), groups, kernel_shape: None };
            let input = Tensor::randn([4, channels, 8, 8], float);
            let weight = Tensor::randn([8, channels / groups, 1, 1], float).set_requires_grad(true);
            let laid_out = torch::channels_last(&weight).unwrap();
            let made =
                convolution.run(&torch::channels_last(&input).unwrap(), &laid_out, None).unwrap();
            assert_eq!(made.size(), [4, 8, 4, 4]);
            let towards = Tensor::randn([4, 8, 4, 4], float);
            (&made * torch::channels_last(&towards).unwrap()).sum(Kind::Float).backward();
            let read = input.slice(2, None, None, 2).slice(3, None, None, 2);
            let read = read.reshape([4, groups, channels / groups, 4, 4]);
            let towards = towards.reshape([4, groups, 8 / groups, 4, 4]);
            let expected = Tensor::einsum("ngchw,ngohw->goc", &[read, towards], None::<i64>);
            let error = (weight.grad().reshape(expected.size()) - &expected).abs().max();
            assert!(error.double_value(&[]) < 1e-4, "{channels} in {groups} groups");
        }
    }
}
