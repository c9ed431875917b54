//! The file of `--exportTimes`: a JSON list, an entry a query, milliseconds.

use serde::{Deserialize, Serialize};

use crate::bench::Latency;
use crate::{Error, Result};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    h2d_ms: f64,
    compute_ms: f64,
    d2h_ms: f64,
    latency_ms: f64,
}

/// Figures of all queries of a run, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Queries that were timed.
    pub iterations: usize,
    /// What trtexec calls latency: input from host memory to logits in host memory, the sum of the three below.
    pub latency_ms: Latency,
    /// Copies of inputs to the GPU.
    pub h2d_ms: Latency,
    /// What trtexec calls GPU compute time: the kernels of the engine.
    pub compute_ms: Latency,
    /// Copies of outputs from the GPU.
    pub d2h_ms: Latency,
}

impl Times {
    /// The figures of a file's text.
    ///
    /// # Errors
    /// A text that is no such list, an empty one.
    pub fn read(text: &[u8]) -> Result<Self> {
        let broken =
            |reason: String| Error::machine(format!("trtexec's --exportTimes file: {reason}"));
        let queries: Vec<Query> =
            serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
        if queries.is_empty() {
            return Err(broken("no query was timed".to_owned()));
        }
        let of = |part: fn(&Query) -> f64| {
            let series: Vec<f64> = queries.iter().map(part).collect();
            Latency::of(&series)
        };
        Ok(Self {
            iterations: queries.len(),
            latency_ms: of(|query| query.latency_ms),
            h2d_ms: of(|query| query.h2d_ms),
            compute_ms: of(|query| query.compute_ms),
            d2h_ms: of(|query| query.d2h_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_recorded_run() {
        let times = Times::read(include_bytes!("recorded/times.json")).unwrap();
        assert_eq!(times.iterations, 150);
        // As Python's statistics.median of the same file.
        assert!((times.compute_ms.median - 0.215683).abs() < 1e-9, "{times:?}");
        assert!((times.latency_ms.median - 0.253975).abs() < 1e-9, "{times:?}");
        let parts = times.h2d_ms.mean + times.compute_ms.mean + times.d2h_ms.mean;
        assert!((times.latency_ms.mean - parts).abs() < 1e-4, "{times:?}");
        assert!(
            times.compute_ms.min <= times.compute_ms.median
                && times.compute_ms.median <= times.compute_ms.p99
        );
    }

    #[test]
    fn a_file_that_is_none() {
        assert!(Times::read(b"[]").unwrap_err().message.contains("no query was timed"));
        assert!(Times::read(b"[{\"h2dMs\": 1}]").unwrap_err().message.contains("computeMs"));
        assert!(Times::read(b"[{\"h2dMs\": nan}]").is_err());
    }
}
