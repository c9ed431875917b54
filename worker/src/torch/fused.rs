//! Fake quantization as libtorch does not have it: as one kernel on a GPU (`shim/fake_quantize.cpp`), and with learned scales
//! (`shim/learned_scale.cpp`).

use std::ffi::c_char;
use std::sync::OnceLock;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::shim::done;
use crate::Result;

// SAFETY: declared as in `shim/fake_quantize.cpp` and `shim/learned_scale.cpp`, which catch libtorch's exceptions.
unsafe extern "C" {
    fn qpipe_can_fake_quantize() -> bool;
    fn qpipe_fake_quantize(
        x: *const C_tensor,
        scale: f64,
        zero: i64,
        low: i64,
        high: i64,
        made: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn qpipe_learned_scale(
        x: *const C_tensor,
        scale: *const C_tensor,
        zero: *const C_tensor,
        axis: i64,
        low: i64,
        high: i64,
        factor: f64,
        made: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn qpipe_fused_learned_scale(
        x: *const C_tensor,
        scale: *const C_tensor,
        zero: i64,
        axis: i64,
        low: i64,
        high: i64,
        factor: f64,
        made: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Scales that a training learns, and what belongs to them.
pub struct LearnedScale<'a> {
    /// One for each position along `axis`, of shape `[n]`.
    pub scale: &'a Tensor,
    /// Zero points, of the same shape: int32, or zeros of float32, which nobody has to ask for their range.
    pub zero_point: &'a Tensor,
    /// The axis, counted from the front; `None` where there is one scale for all.
    pub axis: Option<i64>,
    /// The least and the greatest integer.
    pub range: (i64, i64),
    /// What gradients of scales are multiplied by.
    pub factor: f64,
}

/// Whether [`fake_quantize`] works on this device. It is tried once: it needs NVIDIA's run-time compiler.
pub fn has_fused_fake_quantize(device: Device) -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = || {
        // SAFETY: takes nothing.
        if !unsafe { qpipe_can_fake_quantize() } {
            return false;
        }
        let probe = || {
            let x = Tensor::f_from_slice(&[0.3_f32, -9.0])?.f_to_device(device)?;
            let made = fake_quantize(&x, 0.5, (0, -4, 3))?.f_to_device(Device::Cpu)?;
            Ok::<_, crate::Error>(made == Tensor::f_from_slice(&[0.5_f32, -2.0])?)
        };
        probe().unwrap_or(false)
    };
    device != Device::Cpu && *WORKS.get_or_init(works)
}

/// What `fake_quantize_per_tensor_affine` gives, with its gradient: `levels` are the zero point, the least and the greatest integer.
///
/// # Errors
/// No run-time compiler; a tensor that is not of floats on a GPU.
pub fn fake_quantize(x: &Tensor, scale: f64, (zero, low, high): (i64, i64, i64)) -> Result<Tensor> {
    let mut made = std::ptr::null_mut();
    // SAFETY: `x` lives; `made` is set where there is no message.
    done(unsafe { qpipe_fake_quantize(x.as_ptr(), scale, zero, low, high, &raw mut made) })?;
    // SAFETY: the shim gives a tensor that is ours.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// `x` of float32, fake-quantized; gradients flow to it and to the scales (LSQ). Symmetric, it does not wait for a GPU.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn learned_fake_quantize(x: &Tensor, learned: &LearnedScale) -> Result<Tensor> {
    let LearnedScale { scale, zero_point, axis, range: (low, high), factor } = *learned;
    let (scale, zero, axis) = (scale.as_ptr(), zero_point.as_ptr(), axis.unwrap_or(-1));
    let mut made = std::ptr::null_mut();
    // SAFETY: all three live; `made` is set where there is no message.
    done(unsafe {
        qpipe_learned_scale(x.as_ptr(), scale, zero, axis, low, high, factor, &raw mut made)
    })?;
    // SAFETY: the shim gives a tensor that is ours.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// The same as few kernels, where [`has_fused_fake_quantize`]; `zero` is the zero point of all. `x` has an axis at least, and with a single
/// scale may be of any type of floats.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn fused_learned_fake_quantize(
    x: &Tensor,
    zero: i64,
    learned: &LearnedScale,
) -> Result<Tensor> {
    let LearnedScale { scale, axis, range: (low, high), factor, .. } = *learned;
    let (scale, axis) = (scale.as_ptr(), axis.unwrap_or(-1));
    let mut made = std::ptr::null_mut();
    // SAFETY: both live; `made` is set where there is no message.
    done(unsafe {
        qpipe_fused_learned_scale(x.as_ptr(), scale, zero, axis, low, high, factor, &raw mut made)
    })?;
    // SAFETY: the shim gives a tensor that is ours.
    Ok(unsafe { Tensor::from_ptr(made) })
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// On a GPU: values and gradients are libtorch's own, bit by bit.
    #[test]
    fn one_kernel_gives_what_libtorchs_gives() {
        if !tch::Cuda::is_available() {
            assert!(!has_fused_fake_quantize(Device::Cpu));
            return;
        }
        let device = Device::Cuda(0);
        assert!(has_fused_fake_quantize(device));
        for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
            for (scale, levels) in [(0.037_f64, (0, -128, 127)), (0.02, (128, 0, 255))] {
                let x = Tensor::randn([2, 5, 7, 9], (Kind::Float, device)) * 3.0;
                let x = super::super::channels_last(&x.to_kind(kind)).unwrap();
                let towards = x.randn_like();
                let run = |fused: bool| {
                    let x = x.detach().set_requires_grad(true);
                    let (zero, low, high) = levels;
                    let made = if fused {
                        fake_quantize(&x, scale, levels).unwrap()
                    } else {
                        x.fake_quantize_per_tensor_affine(scale, zero, low, high)
                    };
                    (&made * &towards).sum(Kind::Float).backward();
                    [made.detach(), x.grad()]
                };
                assert_eq!(run(true), run(false), "{kind:?}, {scale}");
            }
        }
    }
}
