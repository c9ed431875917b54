//! `pareto.json`: what was measured of each candidate.

use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use serde::{Deserialize, Serialize};

use super::explore::{Found, Trial};
use super::front::front;
use super::greedy::Layer;
use super::limits::{Limits, Missed, Point, decibels, lost};
use crate::analysis::Outcome;
use crate::bench::{Ratio, median, percentile};
use crate::{Error, Result};

/// Raised when an older reader would misread the file.
pub const VERSION: u32 = 2;

/// The candidates of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pareto {
    /// [`VERSION`].
    pub version: u32,
    /// How all were placed, built and compared.
    #[serde(flatten)]
    pub setting: Setting,
    /// What a candidate had to keep.
    pub limits: Limits,
    /// Name of the candidate that was chosen; `None`: none kept the limits.
    pub chosen: Option<String>,
    /// Whether a candidate other than float is faster than the float engine, beyond what the clock leaves open: the lower bound of its speedup
    /// is above 1, with the probability that the bounds have ([`Ratio::coverage`]).
    pub faster_than_float: bool,
    /// The candidates, the fastest first.
    pub candidates: Vec<Candidate>,
    /// Layers in the order in which they are left in float.
    pub layers: Vec<Layer>,
}

/// How candidates were placed, built and compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Runtime whose rules held.
    pub target: Target,
    /// Whose ranges were taken.
    pub method: Method,
    /// The runtime that engines were built with.
    pub backend: String,
    /// Its version.
    pub runtime: String,
    /// Images of a run.
    pub batch: usize,
    /// CPU threads of the runtime.
    pub threads: usize,
    /// Images that were compared.
    pub samples: usize,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// `float`, `quantized`, `only LAYER` (alone in float), `first N` (of `layers`), `first N but LAYER`, `first N and LAYER`.
    pub name: String,
    /// Nodes in float, of those that may be quantized.
    pub float_layers: Vec<String>,
    /// Latency of a batch.
    pub latency_ms: Spread,
    /// How many times as fast as the float engine, by times of one round.
    pub speedup: Ratio,
    /// Error against the float model, in simulation.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Points of top-1 lost in simulation; of agreement, where the model is no classifier of the data.
    pub lost: f64,
    /// What its engine gives, against the float model in simulation. `None` of the float engine, and where the runtime does not show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<OnEngine>,
    /// Whether no other candidate is as fast and as accurate, by engines where their errors are known.
    pub on_front: bool,
    /// Whether it keeps the limits, by its engine where its error is known.
    pub within_limits: bool,
}

/// What an engine gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnEngine {
    /// Error against the float model.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Points lost, as [`Candidate::lost`].
    pub lost: f64,
}

impl Candidate {
    /// The error that limits are held to: the engine's where it is known, else the simulation's.
    pub fn judged(&self) -> &Outcome {
        self.engine.as_ref().map_or(&self.outcome, |engine| &engine.outcome)
    }

    /// Points lost by the same.
    pub fn judged_lost(&self) -> f64 {
        self.engine.map_or(self.lost, |engine| engine.lost)
    }
}

/// Times of an engine, without what rounds have in common; milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Spread {
    pub median: f64,
    pub p10: f64,
    pub p90: f64,
    /// Rounds that it was timed in.
    pub rounds: usize,
}

impl Spread {
    fn of(series: &[f64]) -> Self {
        let mut sorted = series.to_vec();
        let median = median(&mut sorted);
        let at = |part| percentile(&sorted, part);
        Self { median, p10: at(10.0), p90: at(90.0), rounds: sorted.len() }
    }
}

impl Pareto {
    /// The report of a search, and what was chosen.
    pub fn of(
        found: &Found,
        limits: Limits,
        setting: Setting,
    ) -> (Self, Result<Candidate, Missed>) {
        let float = &found.trials[0].point.outcome;
        let points: Vec<Point> = found.trials.iter().map(|trial| trial.point).collect();
        let places: Vec<(f64, f64)> =
            points.iter().map(|point| (point.latency_ms, decibels(point.judged()))).collect();
        let candidate = |((trial, series), on_front): ((&Trial, &Vec<f64>), bool)| Candidate {
            name: trial.name.clone(),
            float_layers: trial.set.iter().map(|&at| found.layers[at].node.clone()).collect(),
            latency_ms: Spread::of(series),
            speedup: Ratio::of(&found.series[0], series),
            outcome: trial.point.outcome,
            lost: lost(float, &trial.point.outcome),
            engine: trial
                .point
                .engine
                .map(|outcome| OnEngine { outcome, lost: lost(float, &outcome) }),
            on_front,
            within_limits: limits.accurate(float, trial.point.judged())
                && limits.fast(trial.point.latency_ms),
        };
        let mut candidates: Vec<Candidate> =
            found.trials.iter().zip(&found.series).zip(front(&places)).map(candidate).collect();
        let faster_than_float = candidates[1..].iter().any(|other| other.speedup.low > 1.0);
        let chosen = limits.choose(float, &points).map(|place| candidates[place].clone());
        candidates.sort_by(|a, b| a.latency_ms.median.total_cmp(&b.latency_ms.median));
        let pareto = Self {
            version: VERSION,
            setting,
            limits,
            chosen: chosen.as_ref().ok().map(|candidate| candidate.name.clone()),
            faster_than_float,
            candidates,
            layers: found.order.iter().map(|&at| found.layers[at].clone()).collect(),
        };
        (pareto, chosen)
    }

    /// Whether errors of engines are known.
    pub fn engines_known(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.engine.is_some())
    }

    /// The candidate of that name.
    pub fn candidate(&self, name: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.name == name)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A file that is none, or of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        let report: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::user(format!("{}: not a file of candidates: {error}", path.display()))
                .help("a `search` stage writes one, its output `pareto`")
        })?;
        if report.version == VERSION {
            return Ok(report);
        }
        let found = report.version;
        Err(Error::user(format!("{}: version {found}, expected {VERSION}", path.display())))
    }
}
