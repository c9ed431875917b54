//! To where the process computes, without anybody waiting for the copy.

use tch::{Device, Tensor, kind::Element};

use super::shim::pinned;
use crate::{Error, Result};

/// Numbers as a tensor of `shape` on `device`. A GPU fetches them by itself, in its turn, from a copy of them in pinned memory.
///
/// # Errors
/// A shape of another count of elements; no memory.
pub fn sent<T: Element>(numbers: &[T], shape: &[i64], device: Device) -> Result<Tensor> {
    if shape.iter().product::<i64>() != numbers.len() as i64 {
        return Err(Error::bug(format!("{} numbers for a tensor of {shape:?}", numbers.len())));
    }
    if device == Device::Cpu {
        return Ok(Tensor::f_from_slice(numbers)?.f_reshape(shape)?);
    }
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let start = numbers.as_ptr().cast::<u8>();
    // SAFETY: as many numbers of that type as the shape and its strides reach, which outlive the tensor.
    let borrowed = unsafe { Tensor::f_from_blob(start, shape, &strides, T::KIND, Device::Cpu)? };
    let pinned = pinned(&borrowed)?;
    drop(borrowed);
    Ok(pinned.f_to_device_(device, T::KIND, true, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also on a GPU, where there is one.
    #[test]
    fn numbers_arrive_in_their_order() {
        let devices = if tch::Cuda::is_available() {
            vec![Device::Cpu, Device::Cuda(0)]
        } else {
            vec![Device::Cpu]
        };
        for device in devices {
            let made = sent(&[1_u8, 2, 3, 4, 5, 6], &[2, 3], device).unwrap();
            assert_eq!((made.device(), made.size()), (device, vec![2, 3]));
            assert_eq!(
                made.to_device(Device::Cpu),
                Tensor::from_slice2(&[[1_u8, 2, 3], [4, 5, 6]])
            );
            assert!(sent(&[1_i64, 2], &[3], device).is_err());
            let empty: [i64; 0] = [];
            assert_eq!(sent(&empty, &[0], device).unwrap().size(), [0]);
        }
    }
}
