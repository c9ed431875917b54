//! Mode `exact` where the tensors are, so that none of them leaves a GPU: the counts of [`Fine`], bit for bit, by libtorch's operators.
//!
//! The state of all tensors lies on the device: counts, the exponent of the width of bins, least and greatest value. A batch's range, the exponent that
//! follows from it and the merging of bins by it are computed there too, so nothing is asked of the device while images run; [`OnDevice::all_finite`]
//! and [`OnDevice::finish`] ask. Counts are whole numbers that are added, so their order (that of threads on a GPU, too) cannot matter, and a magnitude times a power of
//! two is exact, as on the CPU.
//!
//! Memory: 8 bytes for each of `32 × bins` (rounded up to a power of two) and [`LANES`] places for each tensor, 520 KiB with 2048 bins: 37 MiB for the
//! 73 tensors of a ResNet50. A batch's tensor is gone through [`CHUNK`] elements at a time, which takes 84 MiB at most.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::collect::Observed;
use super::count::Extent;
use super::fine::{Fine, LEAST, fine_bins};
use crate::{Result, torch};

/// Values below the first edge (half of what leaves a Relu is 0) are counted in turn in so many places: additions in one place wait for one another.
const LANES: usize = 1024;
/// Elements whose bins are computed before they are counted.
const CHUNK: usize = 1 << 22;

/// What is known of all tensors.
pub struct OnDevice {
    /// `[tensors, bins + LANES]`, int64.
    counts: Tensor,
    /// Of the width of bins, `[tensors]`, int32.
    exponents: Tensor,
    /// Least and greatest value, `[tensors, 2]`; a NaN or an infinity stays.
    extents: Tensor,
    /// `[bins]`, int64.
    numbers: Tensor,
    /// Places of what lies below the first edge, `[CHUNK]` or as many as were needed, float32, which holds them exactly.
    lanes: Tensor,
    one: Tensor,
    /// Fine bins of a tensor.
    bins: i64,
}

impl OnDevice {
    /// Nothing yet of so many tensors; fine enough for histograms of `bins` bins.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(tensors: usize, bins: usize, device: Device) -> Result<Self> {
        let (tensors, bins) = (tensors as i64, fine_bins(bins) as i64);
        // Least above greatest: no value yet.
        let nothing = Tensor::from_slice(&[f32::MAX, f32::MIN]).f_to_device(device)?;
        Ok(Self {
            counts: Tensor::f_zeros([tensors, bins + LANES as i64], (Kind::Int64, device))?,
            exponents: Tensor::f_full([tensors], i64::from(LEAST), (Kind::Int, device))?,
            extents: nothing.f_repeat([tensors, 1])?,
            numbers: Tensor::f_arange(bins, (Kind::Int64, device))?,
            lanes: Tensor::f_empty([0], (Kind::Float, device))?,
            one: Tensor::f_ones([1], (Kind::Int64, device))?,
            bins,
        })
    }

    /// Counts a batch's values of the tensor of that index. A NaN or an infinity is told by [`OnDevice::all_finite`].
    ///
    /// # Errors
    /// A tensor of another type than float32; what libtorch refuses.
    pub fn add(&mut self, tensor: usize, values: &Tensor) -> Result<()> {
        let values = torch::flat(values)?;
        let count = values.numel();
        if count == 0 {
            return Ok(());
        }
        let tensor = tensor as i64;
        let magnitude = self.extend(tensor, &values)?;
        let inverse = self.widen(tensor, &magnitude)?;
        self.provide_lanes(count.min(CHUNK))?;
        let mut counts = self.counts.f_select(0, tensor)?;
        for first in (0..count).step_by(CHUNK) {
            let length = (count - first).min(CHUNK) as i64;
            let mut scaled = values.f_narrow(0, first as i64, length)?.f_abs()?;
            let _ = scaled.f_mul_(&inverse)?;
            // A NaN is not above 1 either: no place lies outside of the table.
            let counted = scaled.f_ge(1.0)?;
            let lanes = self.lanes.f_narrow(0, 0, length)?;
            let places = scaled.f_where_self(&counted, &lanes)?.f_to_kind(Kind::Int64)?;
            let _ = counts.f_scatter_add_(0, &places, &self.one.f_expand([length], false)?)?;
        }
        Ok(())
    }

    /// Takes least and greatest of a batch's values into the tensor's; the largest magnitude of both.
    fn extend(&self, tensor: i64, values: &Tensor) -> Result<Tensor> {
        let (least, greatest) = values.f_aminmax(None, false)?;
        let extent = self.extents.f_select(0, tensor)?;
        let (low, high) = (extent.f_select(0, 0)?, extent.f_select(0, 1)?);
        let _ = low.f_minimum_out(&low, &least)?;
        let _ = high.f_maximum_out(&high, &greatest)?;
        Ok(least.f_abs()?.f_maximum(&greatest.f_abs()?)?)
    }

    /// Makes a tensor's bins wide enough for a magnitude; the inverse of their width, 0 where the magnitude is not finite.
    fn widen(&self, tensor: i64, magnitude: &Tensor) -> Result<Tensor> {
        let mut exponent = self.exponents.f_select(0, tensor)?;
        // As `fine::exponent_of`: from the bits of the float.
        let bits = magnitude.f_view_dtype(Kind::Int)?;
        let shift = 126 + i64::from(self.bins.ilog2());
        let wanted = bits.f_bitwise_right_shift_tensor_scalar(23)?.f_sub_scalar(shift)?;
        let wanted = wanted.f_maximum(&exponent)?;
        // Further than all bins are numbered is as good as any.
        let rise = wanted.f_sub(&exponent)?.f_clamp_max(62)?;
        exponent.f_copy_(&wanted)?;
        // Neighbours become one bin. Where none do, each count is put where it was.
        let mut table = self.counts.f_select(0, tensor)?.f_narrow(0, 0, self.bins)?;
        let places = self.numbers.f_bitwise_right_shift(&rise)?;
        let merged = table.f_zeros_like()?.f_scatter_add_(0, &places, &table)?;
        table.f_copy_(&merged)?;
        let inverse = wanted.f_neg()?.f_add_scalar(127)?.f_bitwise_left_shift_tensor_scalar(23)?;
        let finite = magnitude.f_lt(f64::INFINITY)?.f_to_kind(Kind::Float)?;
        Ok(inverse.f_view_dtype(Kind::Float)?.f_mul(&finite)?)
    }

    fn provide_lanes(&mut self, length: usize) -> Result<()> {
        if self.lanes.numel() < length {
            let lane = self.numbers.f_narrow(0, 0, self.bins.min(LANES as i64))?;
            let lane = lane.f_add_scalar(self.bins)?.f_to_kind(Kind::Float)?;
            let times = length.div_ceil(lane.numel()) as i64;
            self.lanes = lane.f_repeat([times])?;
        }
        Ok(())
    }

    /// Whether all values so far were finite: one truth value on the device, which nobody has waited for.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn all_finite(&self) -> Result<Tensor> {
        Ok(self.extents.f_abs()?.f_lt(f64::INFINITY)?.f_all()?)
    }

    /// What is known of each tensor, with histograms of `bins` bins: one copy of all counts from the device.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn finish(self, bins: usize) -> Result<Vec<Observed>> {
        let counts = self.counts.f_to_device(Device::Cpu)?;
        let exponents = Vec::<i32>::try_from(self.exponents.f_to_device(Device::Cpu)?)?;
        let extents =
            Vec::<f32>::try_from(self.extents.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        let mut tensors = Vec::with_capacity(exponents.len());
        for (tensor, (exponent, extent)) in exponents.into_iter().zip(extents.chunks(2)).enumerate()
        {
            let places = Vec::<i64>::try_from(counts.f_select(0, tensor as i64)?)?;
            let places: Vec<u64> = places.into_iter().map(i64::cast_unsigned).collect();
            let (counts, lanes) = places.split_at(self.bins as usize);
            let mut counts = counts.to_vec();
            counts[0] += lanes.iter().sum::<u64>();
            let extent = if extent[0] > extent[1] { Extent::NOTHING } else { Extent::of(extent) };
            tensors.push(Fine::of_counts(exponent, counts, extent));
        }
        let observed = tensors.into_par_iter().map(|fine| fine.observed(bins));
        Ok(observed.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Collector, Exact};
    use super::*;

    /// By libtorch's operators, in these batches.
    fn found(batches: &[&[f32]], bins: usize) -> OnDevice {
        let mut counts = OnDevice::new(2, bins, Device::Cpu).unwrap();
        for batch in batches {
            counts.add(1, &Tensor::from_slice(batch)).unwrap();
        }
        counts
    }

    fn expected(values: &[f32], bins: usize) -> Observed {
        let mut exact = Box::new(Exact::new(bins));
        exact.add(values).expect("finite");
        exact.finish()
    }

    fn assert_same(found: OnDevice, values: &[f32], bins: usize) {
        assert!(bool::try_from(found.all_finite().unwrap()).unwrap());
        let mut observed = found.finish(bins).unwrap();
        let (found, expected) = (observed.pop().unwrap(), expected(values, bins));
        assert_eq!(found.histogram, expected.histogram);
        let bits = |extent: Extent| [extent.min(), extent.max()].map(f32::to_bits);
        assert_eq!(bits(found.extent), bits(expected.extent));
        let other = observed.pop().unwrap();
        assert!(other.histogram.is_zero(), "of the tensor that was not seen");
        assert_eq!(other.extent, Extent::NOTHING);
    }

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            Just(0.0_f32),
            Just(-0.0),
            -4.0..4.0_f32,
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
            // Denormals.
            (0..0x0080_0000_u32, any::<bool>())
                .prop_map(|(bits, negative)| { f32::from_bits(bits | u32::from(negative) << 31) }),
            // Powers of two lie on edges.
            (-149..128_i32).prop_map(|e| f64::from(e).exp2() as f32),
        ];
        proptest::collection::vec(value, 1..2000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn counts_are_those_of_the_processor_in_any_order_and_any_batches(
            values in values(), size in 1..2000_usize, scale in -140..1_i32,
        ) {
            // Some ranges that are small as a whole.
            let scale = f64::from(scale).exp2();
            let values: Vec<f32> =
                values.into_iter().map(|value| (f64::from(value) * scale) as f32).collect();
            assert_same(found(&[&values], 256), &values, 256);
            let batches: Vec<&[f32]> = values.chunks(size).rev().collect();
            assert_same(found(&batches, 256), &values, 256);
            let mut ascending = values.clone();
            ascending.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
            assert_same(found(&ascending.chunks(size).collect::<Vec<_>>(), 256), &values, 256);
        }
    }

    #[test]
    fn the_least_and_the_greatest_numbers_are_counted() {
        let least = f32::from_bits(1);
        let cases: [&[f32]; 7] = [
            &[f32::MAX, -f32::MAX, least, 0.0, -0.0],
            &[least, -least, f32::MIN_POSITIVE, -f32::MIN_POSITIVE],
            &[-0.0],
            &[0.0, 0.0],
            &[f32::MAX],
            &[-f32::MAX, 1e38, 3e38, f32::from_bits(0x7F00_0000)],
            // The float before an edge and the edge.
            &[1.0, f32::from_bits(0x3F7F_FFFF), 0.5, f32::from_bits(0x3EFF_FFFF), 2.0],
        ];
        for values in cases {
            for bins in [256, 2048, 65_536] {
                assert_same(found(&[values], bins), values, bins);
            }
        }
    }

    #[test]
    fn more_elements_than_a_chunk_in_any_layout() {
        let count = CHUNK + 77;
        let values: Vec<f32> =
            (0..count).map(|i| ((i % 2003) as f32 - 1200.0).max(0.0) * 1e-2).collect();
        assert_same(found(&[&values], 256), &values, 256);
        let mut turned = OnDevice::new(1, 256, Device::Cpu).unwrap();
        let image = Tensor::from_slice(&values[..24]).view([1, 2, 3, 4]);
        turned.add(0, &torch::channels_last(&image).unwrap()).unwrap();
        turned.add(0, &image.narrow(3, 1, 2)).unwrap();
        turned.add(0, &image.narrow(3, 0, 0)).unwrap();
        let part = Vec::<f32>::try_from(image.narrow(3, 1, 2).reshape([-1])).unwrap();
        let all = [&values[..24], &part[..]].concat();
        assert_eq!(turned.finish(256).unwrap()[0].histogram, expected(&all, 256).histogram);
    }

    #[test]
    fn what_is_not_finite_is_told_and_nothing_is_counted_outside_of_the_table() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let counts = found(&[&[1.0, 2.0], &[3.0, bad, 1e30], &[4.0]], 256);
            assert!(!bool::try_from(counts.all_finite().unwrap()).unwrap(), "{bad}");
        }
        assert!(bool::try_from(found(&[&[f32::MAX]], 256).all_finite().unwrap()).unwrap());
        let integers = Tensor::from_slice(&[1_i64]);
        assert!(OnDevice::new(1, 256, Device::Cpu).unwrap().add(0, &integers).is_err());
    }
}
