//! Calibration: ranges do not depend on how images are put together, and no method says what cannot be.

use qpipe::stages::calibrate::{Histogram, Method};
use qpipe_worker::graph::Model;
use qpipe_worker::quant::calibrate::{Options, calibrate};
use qpipe_worker::quant::ranges::Ranges;

use super::check::{Held, Named, fail};
use super::world::World;

fn ranges(model: &Model, world: &World, batch_size: usize, seed: u64) -> Result<Ranges, String> {
    let options = Options {
        samples: usize::MAX,
        batch_size,
        methods: [&Method::ALL[..], &[Method::Best]].concat(),
        best_samples: 16,
        bins: 256,
        percentile: 99.99,
        histogram: Histogram::Exact,
        seed,
        threads: 1,
        on_device: false,
    };
    let found = calibrate(model, &world.dataset, &options, &|_, _| ());
    found.map(|found| found.ranges).map_err(|error| error.to_string())
}

/// Holds all methods to it.
pub fn measured(model: &Model, _: &Ranges, world: &World, seed: u64) -> Held<()> {
    let whole = ranges(model, world, 64, seed).named("calibrate by all methods")?;
    let parts = ranges(model, world, 7, seed + 1).named("calibrate by all methods")?;
    for (whole, parts) in whole.tensors.iter().zip(&parts.tensors) {
        let near =
            |a: f32, b: f32, share: f32| (a - b).abs() <= share * a.abs().max(b.abs()) + 1e-6;
        let max = whole.amax[&Method::Max];
        for (method, &amax) in &whole.amax {
            let told = format!("{}: {}: {amax}, max {max}", whole.tensor, method.name());
            if !amax.is_finite() || amax < 0.0 || (amax == 0.0) != (max == 0.0) {
                return fail("calibrate: no range", told);
            }
            if amax > max * 1.000_001 {
                return fail("calibrate: a range beyond all values", told);
            }
            let other = parts.amax[method];
            // A value next to the edge of a bin falls to either side; what is chosen between near equals may be another.
            let share = match method {
                Method::Max => 1e-4,
                Method::Percentile => 2e-2,
                _ => continue,
            };
            if !near(amax, other, share) {
                return fail(
                    "calibrate: batches change ranges",
                    format!("{told}, by parts {other}"),
                );
            }
        }
        let best = whole.amax[&Method::Best];
        if !Method::ALL.iter().any(|method| whole.amax[method] == best) {
            return fail("calibrate: best is no other method's", &whole.tensor);
        }
        if !near(whole.min.unwrap_or(0.0), parts.min.unwrap_or(0.0), 1e-3) {
            return fail("calibrate: batches change extents", &whole.tensor);
        }
    }
    Ok(())
}
