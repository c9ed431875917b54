//! Reference values of pytorch-quantization's histogram calibrator (2048 bins) on 20,000 values that
//! a linear congruential generator gives; `mse` by an independent implementation of the formula. Those of several batches are of ModelOpt 0.47, whose
//! histogram calibrator is the same code, with its `mse` called as it is meant (`tests/models/modelopt_calibrate.py`).

use qpipe::stages::calibrate::Method;

use super::{Collector, Exact, Growing, Histogram, Settings, amax};

fn generate(seed: u32, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / 4_294_967_296.0
    };
    (0..count).map(|_| next()).collect()
}

fn uniform() -> Vec<f32> {
    generate(7, 20_000).into_iter().map(|value| value as f32).collect()
}

/// Irwin-Hall: sums of twelve, less six.
fn normal() -> Vec<f32> {
    let values = generate(1, 240_000);
    values.chunks_exact(12).map(|twelve| (twelve.iter().sum::<f64>() - 6.0) as f32).collect()
}

fn relu() -> Vec<f32> {
    normal().into_iter().map(|value| value.max(0.0)).collect()
}

struct Expected {
    data: fn() -> Vec<f32>,
    data_crc: u32,
    abs_max: f32,
    width: f32,
    first: [u64; 8],
    counts_crc: u32,
    /// At 99, 99.9, 99.99 and 99.999 per cent.
    percentiles: [f32; 4],
    entropy: f32,
    mse: f32,
}

const EXPECTED: [Expected; 3] = [
    Expected {
        data: uniform,
        data_crc: 2_366_860_458,
        abs_max: 0.999_944_7,
        width: 0.000_488_254_24,
        first: [11, 14, 4, 11, 3, 8, 12, 10],
        counts_crc: 658_302_439,
        percentiles: [0.989_203_1, 0.998_968_2, 0.999_456_4, 0.999_456_4],
        entropy: 0.999_944_7,
        mse: 0.996_282_8,
    },
    Expected {
        data: normal,
        data_crc: 3_725_439_109,
        abs_max: 3.677_044_9,
        width: 0.001_795_432_1,
        first: [31, 42, 26, 40, 24, 28, 29, 25],
        counts_crc: 116_266_251,
        percentiles: [2.569_263_2, 3.161_755_8, 3.662_681_3, 3.675_249_3],
        entropy: 3.459_797_6,
        mse: 3.485_831_3,
    },
    Expected {
        data: relu,
        data_crc: 3_020_754_424,
        abs_max: 3.677_044_9,
        width: 0.001_795_432_1,
        first: [10_041, 20, 18, 20, 14, 14, 16, 13],
        counts_crc: 1_138_892_606,
        percentiles: [2.317_902_8, 3.009_144, 3.366_435, 3.675_249_3],
        entropy: 3.292_822_4,
        mse: 3.422_991_3,
    },
];

/// What three batches give, each greater than all before: bins are appended.
struct Appended {
    data: fn() -> Vec<f32>,
    bins: usize,
    end: f32,
    width: f32,
    first: [u64; 8],
    counts_crc: u32,
    percentiles: [f32; 4],
    entropy: f32,
    mse: f32,
}

const APPENDED: [Appended; 2] = [
    Appended {
        data: normal,
        bins: 6612,
        end: 5.935_698_5,
        width: 0.000_897_716_03,
        first: [17, 19, 23, 17, 11, 8, 21, 23],
        counts_crc: 2_303_270_614,
        percentiles: [3.844_020_1, 4.951_802, 5.878_245, 5.934_800_6],
        entropy: 5.935_698_5,
        mse: 5.646_185,
    },
    Appended {
        data: relu,
        bins: 6377,
        end: 5.724_735_3,
        width: 0.000_897_716_03,
        first: [10_033, 13, 16, 6, 7, 4, 12, 9],
        counts_crc: 3_559_399_373,
        percentiles: [3.330_526_6, 4.634_907_7, 5.476_068, 5.723_837_4],
        entropy: 5.476_965_4,
        mse: 5.425_347_3,
    },
];

fn crc(bytes: impl Iterator<Item = [u8; 8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    bytes.for_each(|bytes| hasher.update(&bytes));
    hasher.finalize()
}

fn check(expected: &Expected, histogram: &Histogram) {
    assert_eq!(histogram.abs_max, expected.abs_max);
    assert_eq!((histogram.end(), histogram.width()), (expected.abs_max, expected.width));
    assert_eq!(histogram.counts.iter().sum::<u64>(), 20_000);
    assert_eq!(histogram.counts[..8], expected.first);
    // As little-endian int64.
    assert_eq!(crc(histogram.counts.iter().map(|c| c.to_le_bytes())), expected.counts_crc);
    for (percentile, expected) in [99.0, 99.9, 99.99, 99.999].into_iter().zip(expected.percentiles)
    {
        let found = amax(Method::Percentile, histogram, &Settings { percentile });
        assert_eq!(found, expected, "percentile {percentile}");
    }
    let settings = Settings { percentile: 99.99 };
    assert_eq!(amax(Method::Max, histogram, &settings), expected.abs_max);
    assert_eq!(amax(Method::Entropy, histogram, &settings), expected.entropy);
    assert_eq!(amax(Method::Mse, histogram, &settings), expected.mse);
}

#[test]
fn the_reference_values_come_out() {
    for expected in &EXPECTED {
        let data = (expected.data)();
        let mut hasher = crc32fast::Hasher::new();
        data.iter().for_each(|value| hasher.update(&value.to_le_bytes()));
        assert_eq!(hasher.finalize(), expected.data_crc, "the data");

        let mut growing = Box::new(Growing::new(2048));
        growing.add(&data).expect("finite");
        let growing = growing.finish().histogram;
        check(expected, &growing);

        // In one pass, from the end.
        let mut exact = Box::new(Exact::new(2048));
        data.rchunks(777).for_each(|batch| exact.add(batch).expect("finite"));
        let exact = exact.finish().histogram;
        assert_eq!(exact.edges, growing.edges);
        assert_eq!(exact.counts.iter().sum::<u64>(), 20_000);
        let settings = Settings { percentile: 99.99 };
        for method in Method::ALL {
            let [found, expected] = [&exact, &growing].map(|h| amax(method, h, &settings));
            // Each method within a bin. With ten values a bin, the divergence has many minima next to the least one,
            // and half a value more or less in a bin decides between them.
            let bins = if method == Method::Entropy { 40.0 } else { 1.01 };
            let found_bins = (found - expected).abs() / growing.width();
            assert!(found_bins <= bins, "{method:?}: {found} against {expected}");
        }
    }
}

/// Counts are the same to the last one, edges to the last bit: torch.arange rounds to float32 once for each vector register, so that
/// the tool's own edges depend on the processor.
fn same(found: f32, expected: f32) {
    assert!((found - expected).abs() <= f32::EPSILON * expected, "{found} and {expected}");
}

#[test]
fn bins_that_later_batches_append_are_those_of_the_tool() {
    for expected in &APPENDED {
        let data = (expected.data)();
        let scaled = |part: &[f32], factor: f32| part.iter().map(|value| value * factor).collect();
        let batches: [Vec<f32>; 3] = [
            scaled(&data[..5_000], 0.5),
            scaled(&data[5_000..12_000], 1.0),
            scaled(&data[12_000..], 1.7),
        ];
        let mut growing = Box::new(Growing::new(2048));
        batches.iter().for_each(|batch| growing.add(batch).expect("finite"));
        let histogram = growing.finish().histogram;
        assert_eq!(histogram.counts.len(), expected.bins);
        assert_eq!((histogram.end(), histogram.width()), (expected.end, expected.width));
        assert_eq!(histogram.counts[..8], expected.first);
        assert_eq!(crc(histogram.counts.iter().map(|c| c.to_le_bytes())), expected.counts_crc);
        let of = |method, percentile| amax(method, &histogram, &Settings { percentile });
        for (percentile, expected) in
            [99.0, 99.9, 99.99, 99.999].into_iter().zip(expected.percentiles)
        {
            same(of(Method::Percentile, percentile), expected);
        }
        same(of(Method::Entropy, 99.99), expected.entropy);
        same(of(Method::Mse, 99.99), expected.mse);
    }
}
