//! The grid of a weight: scales and zero points, and which elements share one.

use qpipe::stages::formats::Granularity;

use crate::graph::{DType, TensorData};
use crate::ops::conversion::to_small_float;
use crate::ops::quantization::range;
use crate::quant::scheme::{Scheme, Seen, packed};
use crate::{Error, Result, torch};

/// Which elements of a row-major tensor share a scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Shape of the scales: none for all, `[C]` for an axis, the tensor's with blocks counted for blocks.
    pub shape: Vec<i64>,
    /// Axis along which scales differ: the channels', or the one that blocks divide.
    pub axis: Option<i64>,
    /// Elements of a block along the axis.
    pub block_size: Option<i64>,
    extent: usize,
    inner: usize,
}

impl Groups {
    /// One for all.
    pub fn whole() -> Self {
        Self { shape: Vec::new(), axis: None, block_size: None, extent: 1, inner: 1 }
    }

    /// One for each element of an axis.
    pub fn channels(shape: &[i64], axis: i64) -> Self {
        let place = axis as usize;
        let inner = shape[place + 1..].iter().product::<i64>() as usize;
        let extent = shape[place];
        Self {
            shape: vec![extent],
            axis: Some(axis),
            block_size: None,
            extent: extent as usize,
            inner: inner.max(1),
        }
    }

    /// One for each block of `size` elements along an axis; the last of an axis may be shorter.
    pub fn blocks(shape: &[i64], axis: i64, size: i64) -> Self {
        let channels = Self::channels(shape, axis);
        let mut scales = shape.to_vec();
        scales[axis as usize] = (shape[axis as usize] + size - 1) / size;
        Self { shape: scales, block_size: Some(size), ..channels }
    }

    /// Its name.
    pub fn granularity(&self) -> Granularity {
        match (self.axis, self.block_size) {
            (None, _) => Granularity::PerTensor,
            (Some(_), None) => Granularity::PerChannel,
            (Some(_), Some(_)) => Granularity::PerBlock,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// That of the element at a place of the row-major tensor.
    pub fn of(&self, element: usize) -> usize {
        let (row, inner) = (element / self.inner, element % self.inner);
        match (self.axis, self.block_size) {
            (None, _) => 0,
            (Some(_), None) => row % self.extent.max(1),
            (Some(_), Some(size)) => {
                let size = size as usize;
                let blocks = self.extent.div_ceil(size);
                let (outer, along) = (row / self.extent.max(1), row % self.extent.max(1));
                (outer * blocks + along / size) * self.inner + inner
            }
        }
    }

    /// What is known of the values of each, nothing clipped.
    pub fn seen(&self, values: &[f32]) -> Vec<Seen> {
        let none = Seen { amax: 0.0, abs_max: 0.0, bounds: Some((0.0, 0.0)) };
        let mut seen = vec![none; self.count()];
        for (element, &value) in values.iter().enumerate() {
            let seen = &mut seen[self.of(element)];
            seen.amax = seen.amax.max(value.abs());
            let (low, high) = seen.bounds.unwrap_or_default();
            seen.bounds = Some((low.min(value), high.max(value)));
        }
        seen
    }
}

/// Scales and zero points of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Type of the elements.
    pub dtype: DType,
    /// Who shares one.
    pub groups: Groups,
    /// What a step stands for, of each group.
    pub scales: Vec<f32>,
    /// What stands for 0, of each group.
    pub zero_points: Vec<i64>,
}

impl Grid {
    /// The grid of a weight's values: that of the largest magnitude of each group, or of its least and greatest value. A group of zeros
    /// takes what the whole weight would have, since fine-tuning may wake it. `least` is a bound of each group's scale from below.
    pub fn of(values: &[f32], scheme: Scheme, groups: Groups, least: Option<&[f32]>) -> Self {
        let whole = Groups::whole().seen(values)[0];
        let parameters = |(group, seen): (usize, Seen)| {
            let bounds = if seen.amax > 0.0 { seen.bounds } else { whole.bounds };
            let seen = Seen { abs_max: whole.amax, bounds, ..seen };
            // A weight's bounds are known.
            let (scale, zero) = scheme.parameters(seen).unwrap_or((1.0, 0));
            match least.and_then(|least| least.get(group)) {
                Some(&least) if least > scale && scheme.is_symmetric() => (least, zero),
                Some(&least) if least > scale => {
                    scheme.fitted(least, bounds.map_or(0.0, |(low, _)| low.min(0.0)))
                }
                _ => (scale, zero),
            }
        };
        let parameters = groups.seen(values).into_iter().enumerate().map(parameters);
        let (scales, zero_points) = parameters.unzip();
        Self { dtype: scheme.dtype, groups, scales, zero_points }
    }

    /// The grid that the constants of a QuantizeLinear say, for a tensor of that shape.
    ///
    /// # Errors
    /// Constants that do not fit the tensor.
    pub fn of_constants(
        shape: &[i64],
        scale: &TensorData,
        zero_points: &TensorData,
        axis: i64,
        block_size: i64,
    ) -> Result<Self> {
        let scales = scale.to_f32()?;
        let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let outside = || Error::user(format!("axis {axis} of a tensor of {} axes", shape.len()));
        let groups = if scales.len() == 1 {
            Groups::whole()
        } else if usize::try_from(axis).map_err(|_| outside())? >= shape.len() {
            return Err(outside());
        } else if block_size > 0 {
            Groups::blocks(shape, axis, block_size)
        } else {
            Groups::channels(shape, axis)
        };
        if groups.count() != scales.len() || zero_points.len() != scales.len() {
            return Err(Error::user(format!(
                "{} scales and {} zero points, expected {}",
                scales.len(),
                zero_points.len(),
                groups.count()
            )));
        }
        let dtype = zero_points.dtype;
        let zero_points = if range(dtype).is_some() {
            let tensor = torch::to_tensor(zero_points, tch::Device::Cpu)?;
            let tensor = tensor.f_to_kind(tch::Kind::Int64)?.f_reshape([-1])?;
            Vec::try_from(tensor)?
        } else {
            vec![0; scales.len()]
        };
        Ok(Self { dtype, groups, scales, zero_points })
    }

    /// The stored elements of float values, round half to even, as the interpreter's fake quantization computes them: integers by the
    /// reciprocal of the scale, floats by division.
    ///
    /// # Errors
    /// A type of more than 8 bits.
    pub fn quantize(&self, values: &[f32], shape: &[i64]) -> Result<TensorData> {
        if self.dtype.bits() > 8 {
            return Err(Error::bug(format!("a weight of {}", self.dtype.name())));
        }
        let Some((low, high)) = range(self.dtype) else {
            let scaled: Vec<f32> = (values.iter().enumerate())
                .map(|(element, value)| value / self.scales[self.groups.of(element)])
                .collect();
            let scaled = tch::Tensor::f_from_slice(&scaled)?.f_reshape(shape)?;
            return torch::tensor_data(&to_small_float(&scaled, self.dtype, true)?);
        };
        let code = |(element, &value): (usize, &f32)| {
            let group = self.groups.of(element);
            let steps = (value * (1.0 / self.scales[group])).round_ties_even();
            // A cast saturates, so that the sum does not overflow in 64 bits.
            ((steps as i32 as i64 + self.zero_points[group]).clamp(low, high)) as u8
        };
        let codes: Vec<u8> = values.iter().enumerate().map(code).collect();
        Ok(packed(self.dtype, shape, &codes))
    }
}

/// Largest magnitude of each channel of a tensor along `axis`.
pub(super) fn channel_amax(values: &[f32], shape: &[i64], axis: usize) -> Vec<f32> {
    Groups::channels(shape, axis as i64).seen(values).iter().map(|seen| seen.amax).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::scheme::{FLOAT8, INT4, INT7, INT8};

    #[test]
    fn channels_are_found_along_any_axis() {
        let values: Vec<f32> =
            (0..24).map(|i| if i % 2 == 0 { -(i as f32) } else { i as f32 }).collect();
        assert_eq!(channel_amax(&values, &[2, 3, 4], 0), [11.0, 23.0]);
        assert_eq!(channel_amax(&values, &[2, 3, 4], 1), [15.0, 19.0, 23.0]);
        assert_eq!(channel_amax(&values, &[2, 3, 4], 2), [20.0, 21.0, 22.0, 23.0]);
    }

    #[test]
    fn blocks_divide_an_axis_and_the_last_may_be_shorter() {
        let groups = Groups::blocks(&[2, 3, 2], 1, 2);
        assert_eq!(groups.shape, [2, 2, 2]);
        let of: Vec<usize> = (0..12).map(|element| groups.of(element)).collect();
        assert_eq!(of, [0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7]);
        let whole = Groups::blocks(&[4, 2], 0, 8);
        assert_eq!(whole.shape, [1, 2], "an axis shorter than a block is one");
    }

    #[test]
    fn a_group_of_zeros_takes_the_scale_of_the_whole() {
        let values = [0.0, 0.0, 14.0, -7.0];
        let groups = Groups::channels(&[2, 2], 0);
        let grid = Grid::of(&values, INT4, groups.clone(), None);
        assert_eq!(grid.scales, [2.0, 2.0]);
        assert_eq!(grid.quantize(&values, &[2, 2]).unwrap().bytes[..], [0x00, 0xC7]);
        let grid = Grid::of(&values, Scheme::affine(DType::I4), groups.clone(), None);
        assert_eq!((grid.scales[1], grid.zero_points[1]), (21.0 / 15.0, -3));
        // Ties go to the even, and what is beyond the range to its end.
        let grid = Grid::of(&values, INT8, groups, Some(&[1.0, 4.0]));
        assert_eq!(grid.scales, [1.0, 4.0]);
        assert_eq!(
            grid.quantize(&[0.5, 1.5, 900.0, -900.0], &[2, 2]).unwrap().to_i8().unwrap(),
            [0, 2, 127, -128]
        );
    }

    #[test]
    fn a_reduced_range_is_half_of_the_integers() {
        let values = [126.0, -63.0, 900.0, -900.0];
        let grid = Grid::of(&values[..2], INT7, Groups::whole(), None);
        assert_eq!(grid.scales, [2.0]);
        // The last two have grown since.
        let codes = grid.quantize(&values, &[4]).unwrap();
        assert_eq!(
            codes.bytes.iter().map(|&byte| byte as i8).collect::<Vec<_>>(),
            [63, -32, 63, -64]
        );
        let grid = Grid::of(&[-27.0, 100.0], Scheme::affine(DType::I7), Groups::whole(), None);
        assert_eq!((grid.scales[0], grid.zero_points[0]), (1.0, -37));
    }

    #[test]
    fn floats_of_8_bits_are_the_standards() {
        let values = [448.0, -1.0625, 0.0, 1e9];
        let grid = Grid::of(&[448.0], FLOAT8, Groups::whole(), None);
        let data = grid.quantize(&values, &[4]).unwrap();
        // −1.0625 is the tie between −1 and −1.125, which is odd.
        assert_eq!((data.dtype, &data.bytes[..]), (DType::F8E4M3FN, &[0x7E, 0xB8, 0x00, 0x7E][..]));
    }

    /// Noise of int8 of pseudo-random weights `[8, 64, 3, 3]`, by groups.
    #[test]
    fn the_fewer_elements_share_a_scale_the_less_noise() {
        let shape = [8, 64, 3, 3];
        let mut state = 7_u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        // Sums of several are nearly normal; channels differ in size.
        let values: Vec<f32> = (0..8 * 64 * 9)
            .map(|element| (0..6).map(|_| uniform()).sum::<f32>() * (1 + element / 576) as f32)
            .collect();
        let noise = |groups: Groups| {
            let grid = Grid::of(&values, INT8, groups.clone(), None);
            let stored = grid.quantize(&values, &shape).unwrap().to_i8().unwrap();
            let each = stored.iter().zip(&values).enumerate().map(|(element, (&stored, value))| {
                (f32::from(stored) * grid.scales[groups.of(element)] - value).powi(2)
            });
            each.sum::<f32>()
        };
        let whole = noise(Groups::whole());
        let channels = noise(Groups::channels(&shape, 0));
        let [longer, shorter] = [32, 16].map(|size| noise(Groups::blocks(&shape, 1, size)));
        assert!(
            whole > channels && channels > longer && longer > shorter,
            "{whole} {channels} {longer} {shorter}"
        );
    }
}
