//! What tch lacks of libtorch, through `shim/shim.cpp`: mixed precision, and optimizers whose step is one kernel for all parameters.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::error::told;
use crate::{Error, Result};

type Pointers = *const *const C_tensor;

// SAFETY: declared as in `shim/shim.cpp`, which catches libtorch's exceptions.
unsafe extern "C" {
    fn qpipe_free(message: *mut c_char);
    fn qpipe_autocast_begin(cuda: bool, bfloat16: bool) -> *mut c_char;
    fn qpipe_autocast_end(cuda: bool) -> *mut c_char;
    fn qpipe_allow_tf32(which: u8) -> *mut c_char;
    fn qpipe_allows_tf32(which: *mut u8) -> *mut c_char;
    fn qpipe_deterministic(on: bool) -> *mut c_char;
    fn qpipe_is_deterministic() -> bool;
    fn qpipe_cudnn_benchmark(on: bool) -> *mut c_char;
    fn qpipe_cuda_version() -> c_long;
    fn qpipe_gpu_name(index: i8, name: *mut c_char) -> *mut c_char;
    fn qpipe_event_record(index: c_int, event: *mut *mut c_void) -> *mut c_char;
    fn qpipe_event_elapsed(
        first: *const c_void,
        second: *const c_void,
        milliseconds: *mut f64,
    ) -> *mut c_char;
    fn qpipe_event_free(event: *mut c_void);
    fn qpipe_pinned(x: *const C_tensor, made: *mut *mut C_tensor) -> *mut c_char;
    fn qpipe_unscale(
        gradients: Pointers,
        count: usize,
        found: *mut C_tensor,
        inverse: *const C_tensor,
    ) -> *mut c_char;
    fn qpipe_sgd(
        parameters: Pointers,
        gradients: Pointers,
        momenta: Pointers,
        count: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
        found: *const C_tensor,
    ) -> *mut c_char;
    fn qpipe_adamw(
        parameters: Pointers,
        gradients: Pointers,
        first: Pointers,
        second: Pointers,
        count: usize,
        step: *const C_tensor,
        lr: f64,
        weight_decay: f64,
        found: *const C_tensor,
    ) -> *mut c_char;
}

/// The error of a call, with libtorch's text.
pub(super) fn done(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim gives a string that ends with 0 and is ours.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: it is freed once, where it was made.
    unsafe { qpipe_free(message) };
    Err(told(&text))
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

fn optional(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// A type of 16 bits that convolutions and matrix products compute in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// IEEE half precision: gradients need a scale, or small ones vanish.
    Float16,
    /// The exponents of float32.
    Bfloat16,
}

/// A copy in memory that the GPU fetches from by itself, while the processor goes on. tch's own names a device, of which libtorch warns each time.
///
/// # Errors
/// No GPU.
pub fn pinned(tensor: &Tensor) -> Result<Tensor> {
    let mut made = std::ptr::null_mut();
    // SAFETY: `tensor` lives; `made` is set where there is no message.
    done(unsafe { qpipe_pinned(tensor.as_ptr(), &raw mut made) })?;
    // SAFETY: the shim gives a tensor that is ours.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// Automatic mixed precision of this thread, as `torch.autocast`, until it is dropped.
pub struct Autocast {
    cuda: bool,
}

impl Autocast {
    /// Begins; ranges do not nest.
    pub fn begin(device: Device, half: Half) -> Result<Self> {
        let cuda = device != Device::Cpu;
        // SAFETY: plain values.
        done(unsafe { qpipe_autocast_begin(cuda, half == Half::Bfloat16) })?;
        Ok(Self { cuda })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: plain values. It cannot fail but for want of memory, when there is nobody to tell.
        let message = unsafe { qpipe_autocast_end(self.cuda) };
        let _ = done(message);
    }
}

/// Lets convolutions and matrix products of float32 round their factors to TF32 on GPUs that have it, or forbids it.
pub fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: a plain value.
    done(unsafe { qpipe_allow_tf32(if allow { TF32_ANYWHERE } else { TF32_NOWHERE }) })
}

const TF32_NOWHERE: u8 = 0;
const TF32_ANYWHERE: u8 = 3;

/// No rounding to TF32 in this process, until it is dropped; then what was allowed before is so again.
pub struct WithoutTf32 {
    allowed: u8,
}

impl WithoutTf32 {
    /// Begins; ranges nest.
    pub fn begin() -> Result<Self> {
        let mut allowed = TF32_NOWHERE;
        // SAFETY: it writes the one byte.
        done(unsafe { qpipe_allows_tf32(&raw mut allowed) })?;
        allow_tf32(false)?;
        Ok(Self { allowed })
    }
}

impl Drop for WithoutTf32 {
    fn drop(&mut self) {
        // SAFETY: a plain value. Setting what libtorch itself said does not fail.
        let message = unsafe { qpipe_allow_tf32(self.allowed) };
        let _ = done(message);
    }
}

/// Whether the same bits must come out each time, on GPUs too.
pub fn deterministic(on: bool) -> Result<()> {
    // SAFETY: a plain value.
    done(unsafe { qpipe_deterministic(on) })
}

/// What [`deterministic`] said last; false before.
pub fn is_deterministic() -> bool {
    // SAFETY: it reads a flag.
    unsafe { qpipe_is_deterministic() }
}

/// Whether cuDNN tries its algorithms for each new shape and takes the fastest.
pub(super) fn cudnn_benchmark(on: bool) -> Result<()> {
    // SAFETY: a plain value.
    done(unsafe { qpipe_cudnn_benchmark(on) })
}

/// Of the CUDA that libtorch was built with, such as 12080; 0 or less without.
pub(super) fn cuda_version() -> i64 {
    // SAFETY: it reads a constant of the library.
    unsafe { qpipe_cuda_version() }
}

/// The name of a GPU that is there.
pub(super) fn gpu_name(index: usize) -> Option<String> {
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: it writes as many characters as there is room for.
    done(unsafe { qpipe_gpu_name(i8::try_from(index).ok()?, name.as_mut_ptr()) }).ok()?;
    let name: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

/// A mark in the queue of a GPU's work, with the time at which it came to it.
pub(super) struct Event(*mut c_void);

impl Event {
    /// Puts one behind all that was begun so far.
    pub(super) fn record(gpu: usize) -> Result<Self> {
        let mut event = std::ptr::null_mut();
        // SAFETY: `event` is written where there is no message.
        done(unsafe { qpipe_event_record(c_int::try_from(gpu).unwrap_or(0), &raw mut event) })?;
        Ok(Self(event))
    }

    /// Milliseconds from this one to a later one; waits for that.
    pub(super) fn milliseconds(&self, later: &Self) -> Result<f64> {
        let mut milliseconds = 0.0;
        // SAFETY: both are live events.
        done(unsafe { qpipe_event_elapsed(self.0, later.0, &raw mut milliseconds) })?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, and freed once.
        unsafe { qpipe_event_free(self.0) }
    }
}

/// Multiplies gradients by `inverse`, one number, in place; `found`, one number, becomes 1 where one of them is not finite.
pub fn unscale(gradients: &[Tensor], found: &mut Tensor, inverse: &Tensor) -> Result<()> {
    let gradients = pointers(gradients);
    // SAFETY: all pointers are those of live tensors.
    done(unsafe {
        qpipe_unscale(gradients.as_ptr(), gradients.len(), found.as_mut_ptr(), inverse.as_ptr())
    })
}

/// Parameters with their gradients and moments, as many of each, of one type, device and memory layout each.
pub struct Group {
    /// They are changed.
    pub parameters: Vec<Tensor>,
    /// Of the loss.
    pub gradients: Vec<Tensor>,
    /// Momenta of SGD, or AdamW's first and second moments; they are changed.
    pub moments: Vec<Vec<Tensor>>,
}

impl Group {
    fn check(&self, moments: usize) -> Result<()> {
        let count = self.parameters.len();
        let fits = self.gradients.len() == count
            && self.moments.len() == moments
            && self.moments.iter().all(|tensors| tensors.len() == count);
        if fits { Ok(()) } else { Err(Error::bug("parameters without a gradient or a moment")) }
    }

    /// A step of SGD as `torch.optim.SGD`; nothing changes where `found`, one number, is 1.
    pub fn sgd(
        &self,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
        found: Option<&Tensor>,
    ) -> Result<()> {
        self.check(1)?;
        let lists = [&self.parameters, &self.gradients, &self.moments[0]];
        let [parameters, gradients, momenta] = lists.map(|tensors| pointers(tensors));
        // SAFETY: all pointers are those of live tensors, as many in each list.
        done(unsafe {
            qpipe_sgd(
                parameters.as_ptr(),
                gradients.as_ptr(),
                momenta.as_ptr(),
                parameters.len(),
                lr,
                momentum,
                weight_decay,
                nesterov,
                optional(found),
            )
        })
    }

    /// A step of AdamW as `torch.optim.AdamW` with its default betas and epsilon; `step`, one float, counts from 1.
    pub fn adamw(
        &self,
        step: &Tensor,
        lr: f64,
        weight_decay: f64,
        found: Option<&Tensor>,
    ) -> Result<()> {
        self.check(2)?;
        let lists = [&self.parameters, &self.gradients, &self.moments[0], &self.moments[1]];
        let [parameters, gradients, first, second] = lists.map(|tensors| pointers(tensors));
        // SAFETY: all pointers are those of live tensors, as many in each list.
        done(unsafe {
            qpipe_adamw(
                parameters.as_ptr(),
                gradients.as_ptr(),
                first.as_ptr(),
                second.as_ptr(),
                parameters.len(),
                step.as_ptr(),
                lr,
                weight_decay,
                optional(found),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn products_take_16_bits_while_it_lasts_and_parameters_do_not() {
        let options = (Kind::Float, Device::Cpu);
        let (x, w) = (Tensor::ones([2, 3], options), Tensor::ones([3, 4], options));
        let w = w.set_requires_grad(true);
        let made = {
            let _mixed = Autocast::begin(Device::Cpu, Half::Bfloat16).unwrap();
            x.f_matmul(&w).unwrap()
        };
        assert_eq!(made.kind(), Kind::BFloat16);
        let gradients = Tensor::run_backward(&[made.sum(Kind::Float)], &[&w], false, false);
        assert_eq!(gradients[0].kind(), Kind::Float);
        assert_eq!(x.f_matmul(&w).unwrap().kind(), Kind::Float);
    }

    #[test]
    fn an_operator_that_is_not_deterministic_is_refused_and_forward_passes_are_not() {
        assert!(!is_deterministic());
        deterministic(true).unwrap();
        assert!(is_deterministic());
        // On CPUs this one has no such algorithm, as PyTorch's documentation of use_deterministic_algorithms lists.
        let numbers = Tensor::from_slice(&[0_i64, 1, 1]);
        let put = Tensor::zeros([2], (Kind::Int64, Device::Cpu)).f_put(&numbers, &numbers, false);
        deterministic(false).unwrap();
        let error = Error::from(put.expect_err("refused"));
        assert!(error.message.contains("deterministic = true"), "{}", error.message);
        assert!(!error.message.contains("use_deterministic_algorithms"), "{}", error.message);
        assert!(!is_deterministic());
    }

    #[test]
    fn what_libtorch_refuses_is_an_error() {
        let group = Group {
            parameters: vec![Tensor::from_slice(&[1.0_f32])],
            gradients: vec![Tensor::from_slice(&[1.0_f64])],
            moments: vec![vec![Tensor::from_slice(&[0.0_f32])]],
        };
        let error = group.sgd(0.1, 0.9, 0.0, false, None).expect_err("two types");
        assert!(error.message.starts_with("libtorch: "), "{}", error.message);
        let group = Group { moments: Vec::new(), ..group };
        assert!(group.sgd(0.1, 0.9, 0.0, false, None).is_err());
    }
}
