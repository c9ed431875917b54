//! Memory layout.

use tch::Tensor;

use crate::Result;

/// `[N, C, H, W]` with the channels next to each other in memory, which convolutions prefer;
/// a tensor of another rank, or laid out so already, comes back as it is.
///
/// tch has no argument for a memory format; the strides that two permutations leave are the same.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    Ok(tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
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
    }
}
