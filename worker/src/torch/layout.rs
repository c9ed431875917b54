//! Memory layout.

use tch::Tensor;

use crate::Result;

/// `[N, C, H, W]` with the channels next to each other in memory, which convolutions prefer;
/// a tensor of another rank, or laid out so already, comes back as it is.
///
/// tch has no argument for a memory format. The strides are written out, those of axes of extent 1 too: they move
/// nothing, but libtorch asks them which layout is meant.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let [_, c, h, w] = tensor.size()[..] else { return Ok(tensor.shallow_clone()) };
    strided(tensor, &[h * w * c, 1, w * c, c])
}

/// `[N, C, H, W]` row by row; a tensor of another rank, or laid out so already, comes back as it is. The strides are written out here as well.
pub fn channels_first(tensor: &Tensor) -> Result<Tensor> {
    let [_, c, h, w] = tensor.size()[..] else { return Ok(tensor.shallow_clone()) };
    strided(tensor, &[c * h * w, h * w, w, 1])
}

/// A tensor with its elements in the order in memory of another one of its shape; itself where they are.
pub fn laid_out_as(tensor: &Tensor, other: &Tensor) -> Result<Tensor> {
    strided(tensor, &other.stride())
}

/// A copy, its elements in the same order in memory.
pub fn copied(tensor: &Tensor) -> Result<Tensor> {
    let mut own = tensor.f_empty_like()?;
    own.f_copy_(tensor)?;
    Ok(own)
}

fn strided(tensor: &Tensor, strides: &[i64]) -> Result<Tensor> {
    if tensor.stride() == strides {
        return Ok(tensor.shallow_clone());
    }
    let mut turned =
        Tensor::f_empty_strided(tensor.size(), strides, (tensor.kind(), tensor.device()))?;
    turned.f_copy_(tensor)?;
    Ok(turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_lie_together() {
        let tensor = Tensor::arange(24, (tch::Kind::Float, tch::Device::Cpu)).view([1, 2, 3, 4]);
        let turned = channels_last(&tensor).unwrap();
        assert_eq!(turned.stride(), [24, 1, 8, 2]);
        assert_eq!(turned, tensor);
        let back = channels_first(&turned).unwrap();
        assert_eq!((back.stride(), &back), (vec![24, 12, 4, 1], &tensor));
        let copy = copied(&turned).unwrap();
        assert_eq!((copy.stride(), &copy), (turned.stride(), &turned));
        assert_ne!(copy.data_ptr(), turned.data_ptr());
        let narrow = Tensor::arange(8, (tch::Kind::Float, tch::Device::Cpu)).view([4, 2, 1, 1]);
        let turned = channels_last(&narrow).unwrap();
        assert_eq!((turned.stride(), &turned), (vec![2, 1, 2, 2], &narrow));
        let back = channels_first(&turned).unwrap();
        assert_eq!((back.stride(), back), (vec![2, 1, 1, 1], narrow));
    }
}
