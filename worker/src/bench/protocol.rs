//! How an engine is timed.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Latency;
use crate::Result;

/// When a series begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Runs before the clock starts.
    pub warmup: u32,
    /// Runs at least.
    pub iterations: u32,
    /// Seconds at least.
    pub seconds: f64,
}

/// Figures of one batch size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Images in a run.
    pub batch: usize,
    /// Runs that were timed.
    pub iterations: usize,
    /// Milliseconds of a run, input in host memory to logits in host memory.
    pub latency_ms: Latency,
    /// Images a second: batch over the median latency.
    pub throughput: f64,
}

/// Times `run`; `progress` is told the part that is done, 0…1.
pub fn time(
    protocol: &Protocol,
    batch: usize,
    run: &mut dyn FnMut() -> Result<()>,
    progress: &mut dyn FnMut(f64),
) -> Result<Timed> {
    for _ in 0..protocol.warmup {
        run()?;
    }
    let least = Duration::try_from_secs_f64(protocol.seconds).unwrap_or_default();
    let begin = Instant::now();
    let mut series = Vec::new();
    loop {
        let start = Instant::now();
        run()?;
        series.push(start.elapsed().as_secs_f64() * 1e3);
        let (count, spent) = (series.len(), begin.elapsed());
        let part = |done: f64, all: f64| if all > 0.0 { done / all } else { 1.0 };
        let counted = part(count as f64, f64::from(protocol.iterations));
        let timed = part(spent.as_secs_f64(), least.as_secs_f64());
        progress(counted.min(timed).min(1.0));
        if count >= protocol.iterations as usize && spent >= least {
            break;
        }
    }
    let latency_ms = Latency::of(&series);
    let throughput = batch as f64 / latency_ms.median * 1e3;
    Ok(Timed { batch, iterations: series.len(), latency_ms, throughput })
}

/// Values in -2…2 that look like normalized pixels; zeros would let some kernels off lightly.
pub fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        // Numerical Recipes' generator; good enough for pixels.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_the_warm_up_is_not_counted() {
        let mut runs = 0;
        let protocol = Protocol { warmup: 3, iterations: 5, seconds: 0.02 };
        let mut last = 0.0;
        let mut run = || {
            runs += 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let timed = time(&protocol, 4, &mut run, &mut |part| last = part).unwrap();
        assert_eq!(runs, timed.iterations + 3);
        assert!(timed.iterations >= 5);
        assert!(timed.latency_ms.mean * timed.iterations as f64 >= 19.0);
        assert!((timed.throughput * timed.latency_ms.median - 4000.0).abs() < 1e-6);
        assert_eq!(last, 1.0);
    }
}
