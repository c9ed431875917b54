//! A tensor's elements in place.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Hands the elements of a float32 tensor to `read`, in the order of memory, without a copy where they lie
/// together on the CPU.
///
/// # Errors
/// A tensor of another type.
pub fn with_f32<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    must_be_f32(tensor)?;
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?;
    let tensor = if is_dense(&tensor) { tensor } else { tensor.f_contiguous()? };
    let count = tensor.numel();
    if count == 0 {
        return Ok(read(&[]));
    }
    // SAFETY: the tensor is float32, on the CPU, and its `count` elements fill the memory from
    // `data_ptr` on without a gap (dense or contiguous, above). `tensor` keeps the memory alive until
    // `read` is done, and libtorch aligns it to the element.
    let elements = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), count) };
    Ok(read(elements))
}

/// The elements of a float32 tensor, `[n]`, where they are, in the order of memory if they lie together; a copy if not.
///
/// # Errors
/// A tensor of another type.
pub fn flat(tensor: &Tensor) -> Result<Tensor> {
    must_be_f32(tensor)?;
    let tensor = tensor.f_detach()?;
    if is_dense(&tensor) {
        return Ok(tensor.f_as_strided([tensor.numel() as i64], [1], None)?);
    }
    Ok(tensor.f_reshape([-1])?)
}

fn must_be_f32(tensor: &Tensor) -> Result<()> {
    match tensor.f_kind()? {
        Kind::Float => Ok(()),
        kind => Err(Error::bug(format!("a tensor of {kind:?}, expected float32"))),
    }
}

/// Whether the elements fill memory without gap or overlap, in whatever order of dimensions.
fn is_dense(tensor: &Tensor) -> bool {
    let (size, stride) = (tensor.size(), tensor.stride());
    let mut dimensions: Vec<(i64, i64)> =
        stride.into_iter().zip(size).filter(|(_, size)| *size != 1).collect();
    dimensions.sort_unstable();
    let mut expected = 1;
    dimensions.into_iter().all(|(stride, size)| {
        let fits = stride == expected;
        expected *= size;
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_read_once_whatever_the_layout() {
        let tensor = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([1, 2, 3, 4]);
        let turned = crate::torch::channels_last(&tensor).unwrap();
        let part = tensor.narrow(3, 1, 2);
        let broadcast = Tensor::ones([1], (Kind::Float, Device::Cpu)).expand([5], true);
        let sum = |tensor: &Tensor| {
            with_f32(tensor, |values| (values.len(), values.iter().sum())).unwrap()
        };
        assert_eq!(sum(&tensor), (24, 276.0));
        assert_eq!(sum(&turned), (24, 276.0));
        assert_eq!(sum(&part), (12, 138.0));
        assert_eq!(sum(&broadcast), (5, 5.0));
        for tensor in [&tensor, &turned, &part, &broadcast] {
            let flat = flat(tensor).unwrap();
            assert_eq!(flat.dim(), 1);
            let (count, total): (usize, f32) = sum(tensor);
            assert_eq!(
                (flat.numel(), flat.sum(Kind::Float).double_value(&[])),
                (count, total.into())
            );
        }
        let moved = tensor.view([-1]).narrow(0, 4, 8);
        assert_eq!(
            flat(&moved).unwrap().double_value(&[0]),
            4.0,
            "it begins where the tensor does"
        );
        assert_eq!(flat(&turned).unwrap().data_ptr(), turned.data_ptr(), "it is no copy");
        assert!(flat(&tensor.to_kind(Kind::Int64)).is_err());
        assert!(is_dense(&turned) && !is_dense(&part) && !is_dense(&broadcast));
        assert!(with_f32(&tensor.to_kind(Kind::Int64), |_| ()).is_err());
    }
}
