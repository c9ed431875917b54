//! Inner values of a runtime, whose axes it may have put in another order.

use tch::{Kind, Tensor};

use crate::Result;

/// `found` in the order of axes of `expected`, `[N, …]`. A runtime may hold a value with its channels last, or move a Transpose past the node that
/// makes it, and of a node in the middle of its graph does not say so: of all orders of the axes behind the first, in which its
/// extents fit, the nearest is taken. `None`: no order fits.
pub(super) fn turned_to(expected: &Tensor, found: &Tensor) -> Result<Option<Tensor>> {
    let size = expected.size();
    if found.dim() != size.len() {
        return Ok(None);
    }
    let mut fitting = Vec::new();
    for order in orders(size.len()) {
        let turned = found.f_permute(&order)?;
        if turned.size() == size {
            fitting.push(turned);
        }
    }
    if fitting.len() < 2 {
        return Ok(fitting.pop());
    }
    let mut nearest: Option<(f64, Tensor)> = None;
    for turned in fitting {
        let found = turned.f_to_device(expected.device())?;
        let error = found.f_sub(expected)?.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        // The first of them is as it is, also where none is a number.
        if nearest.as_ref().is_none_or(|(least, _)| error < *least) {
            nearest = Some((error, turned));
        }
    }
    Ok(nearest.map(|(_, turned)| turned))
}

/// Orders of the axes of a value of this rank that leave the first where it is, the value's own first; of more than five axes that alone.
fn orders(rank: usize) -> Vec<Vec<i64>> {
    let axes: Vec<i64> = (0..rank as i64).collect();
    if rank > 5 {
        return vec![axes];
    }
    let mut all = vec![axes[..rank.min(1)].to_vec()];
    for _ in 1..rank {
        let longer = all.iter().flat_map(|order| {
            let left = axes.iter().filter(|axis| !order.contains(axis));
            left.map(|axis| [&order[..], &[*axis]].concat())
        });
        all = longer.collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_the_channels_last_are_turned() {
        let expected = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, tch::Device::Cpu));
        for size in [[2, 3, 4, 5], [1, 2, 2, 2]] {
            let expected = expected.narrow(0, 0, size.iter().product()).view(size);
            let last = expected.permute([0, 2, 3, 1]).contiguous();
            for found in [&expected, &last] {
                assert_eq!(turned_to(&expected, found).unwrap().unwrap(), expected);
            }
        }
        // ONNX Runtime's optimizer moves transpositions of other kinds too.
        let expected = expected.view([4, 2, 3, 5]);
        let moved = expected.permute([0, 2, 1, 3]).contiguous();
        assert_eq!(turned_to(&expected, &moved).unwrap().unwrap(), expected);
        let other = Tensor::zeros([2, 7], (Kind::Float, tch::Device::Cpu));
        assert!(turned_to(&expected, &other).unwrap().is_none());
    }
}
