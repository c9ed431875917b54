//! What a candidate must keep, and which of those that do is chosen.

use qpipe::stages::search::{DEFAULT_LOSS, Search};
use serde::{Deserialize, Serialize};

use crate::analysis::Outcome;

/// What is asked of a candidate; all that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Points of top-1 that may be lost against float; of agreement, where there is no top-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// Least share of samples whose highest logit stays, 0…1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_agreement: Option<f64>,
    /// Least signal to noise of the outputs, dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sqnr_db: Option<f64>,
    /// Greatest latency of a batch, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency_ms: Option<f64>,
}

/// Figures of a candidate.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Latency of a batch, ms.
    pub latency_ms: f64,
    /// Against the float model, in simulation.
    pub outcome: Outcome,
    /// What its engine gives against the float model, where the runtime shows its outputs.
    pub engine: Option<Outcome>,
}

impl Point {
    /// The error that limits are held to: the engine's where it is known, else the simulation's.
    pub fn judged(&self) -> &Outcome {
        self.engine.as_ref().unwrap_or(&self.outcome)
    }
}

/// The best that was reached where no candidate keeps all limits, as places in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The fastest of those that are accurate enough.
    pub fastest: Option<usize>,
    /// The most accurate of those that are fast enough.
    pub most_accurate: Option<usize>,
}

/// Signal to noise for comparisons: no difference is better than any, what is not finite is worse than all.
pub fn decibels(outcome: &Outcome) -> f64 {
    outcome.fidelity.decibels()
}

/// Points of top-1 that are lost against `float`; of agreement, where there is no top-1.
pub fn lost(float: &Outcome, outcome: &Outcome) -> f64 {
    match (float.top1, outcome.top1) {
        (Some(float), Some(own)) => 100.0 * (float - own),
        _ => 100.0 * (1.0 - outcome.fidelity.agreement),
    }
}

/// So much are figures, which are sums, off by themselves.
const ROUNDING: f64 = 1e-9;

impl Limits {
    /// Those of a stage.
    pub fn of(config: &Search) -> Self {
        let given = Self {
            max_loss: config.max_loss,
            min_agreement: config.min_agreement,
            min_sqnr_db: config.min_sqnr_db,
            max_latency_ms: config.max_latency_ms,
        };
        if given == Self::default() {
            Self { max_loss: Some(DEFAULT_LOSS), ..given }
        } else {
            given
        }
    }

    /// Whether one of them is about accuracy.
    pub fn of_error(&self) -> bool {
        self.max_loss.is_some() || self.min_agreement.is_some() || self.min_sqnr_db.is_some()
    }

    /// Whether a candidate is accurate enough. NaN is not.
    pub fn accurate(&self, float: &Outcome, outcome: &Outcome) -> bool {
        let least =
            |found: f64, limit: Option<f64>| limit.is_none_or(|limit| found >= limit - ROUNDING);
        least(-lost(float, outcome), self.max_loss.map(|most| -most))
            && least(outcome.fidelity.agreement, self.min_agreement)
            && least(decibels(outcome), self.min_sqnr_db)
    }

    /// Whether a candidate is fast enough.
    pub fn fast(&self, latency_ms: f64) -> bool {
        self.max_latency_ms.is_none_or(|most| latency_ms <= most)
    }

    /// The fastest candidate that keeps all limits, by its engine's error where that is known; where none is about accuracy, the most accurate
    /// one.
    ///
    /// # Errors
    /// The best that were reached, where none keeps all.
    pub fn choose(&self, float: &Outcome, candidates: &[Point]) -> Result<usize, Missed> {
        let accurate = |&index: &usize| self.accurate(float, candidates[index].judged());
        let fast = |&index: &usize| self.fast(candidates[index].latency_ms);
        let all = || 0..candidates.len();
        let latency = |index: &usize| candidates[*index].latency_ms;
        let by_latency = |a: &usize, b: &usize| latency(a).total_cmp(&latency(b));
        let by_error = |a: &usize, b: &usize| {
            let sqnr = |index: &usize| decibels(candidates[*index].judged());
            sqnr(b).total_cmp(&sqnr(a)).then(by_latency(a, b))
        };
        let within = || all().filter(accurate).filter(fast);
        let chosen =
            if self.of_error() { within().min_by(by_latency) } else { within().min_by(by_error) };
        chosen.ok_or_else(|| Missed {
            fastest: all().filter(accurate).min_by(by_latency),
            most_accurate: all().filter(fast).min_by(by_error),
        })
    }

    /// In words: `at most 1 point of top-1 lost, at most 2 ms`.
    pub fn words(&self, float: &Outcome) -> String {
        let of = if float.top1.is_some() { "top-1" } else { "agreement" };
        let points = |most: f64| if most == 1.0 { "point" } else { "points" };
        let words = [
            self.max_loss.map(|most| format!("at most {most} {} of {of} lost", points(most))),
            self.min_agreement.map(|least| format!("agreement of at least {} %", 100.0 * least)),
            self.min_sqnr_db.map(|least| format!("SQNR of at least {least} dB")),
            self.max_latency_ms.map(|most| format!("at most {most} ms")),
        ];
        words.into_iter().flatten().collect::<Vec<String>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Figures;

    fn outcome(sqnr_db: Option<f64>, agreement: f64, top1: Option<f64>) -> Outcome {
        let fidelity = Figures { sqnr_db, cosine: 1.0, agreement, not_finite: 0 };
        Outcome { fidelity, top1, loss: None }
    }

    fn points(top1: bool) -> Vec<Point> {
        let point = |latency_ms, sqnr, agreement, right: f64| Point {
            latency_ms,
            outcome: outcome(sqnr, agreement, top1.then_some(right)),
            engine: None,
        };
        vec![
            point(2.0, None, 1.0, 0.90),
            point(1.0, Some(12.0), 0.93, 0.88),
            point(1.4, Some(25.0), 0.98, 0.895),
            point(1.2, Some(20.0), 0.96, 0.892),
            point(2.2, Some(40.0), 0.99, 0.90),
        ]
    }

    fn choose(limits: Limits, top1: bool) -> Result<usize, Missed> {
        let points = points(top1);
        limits.choose(&points[0].outcome, &points)
    }

    #[test]
    fn the_fastest_that_keeps_all_limits_is_chosen() {
        let loss = |points| Limits { max_loss: Some(points), ..Limits::default() };
        assert_eq!(choose(loss(1.0), true), Ok(3));
        // 0.9 − 0.895 is 0.5 points but for rounding.
        assert_eq!(choose(loss(0.5), true), Ok(2));
        assert_eq!(choose(loss(5.0), true), Ok(1));
        assert_eq!(choose(loss(0.0), true), Ok(0));
        assert_eq!(choose(loss(2.0), false), Ok(2), "without labels agreement counts");
        let sqnr = Limits { min_sqnr_db: Some(20.0), ..loss(0.5) };
        assert_eq!(choose(sqnr, true), Ok(2));
        let agreement = Limits { min_agreement: Some(0.96), ..Limits::default() };
        assert_eq!(choose(agreement, true), Ok(3));
    }

    #[test]
    fn under_a_latency_alone_the_most_accurate_is_chosen() {
        let most = |ms| Limits { max_latency_ms: Some(ms), ..Limits::default() };
        assert_eq!(choose(most(1.3), true), Ok(3));
        assert_eq!(choose(most(5.0), true), Ok(0));
        let none = Missed { fastest: Some(1), most_accurate: None };
        assert_eq!(choose(most(0.5), true), Err(none));
    }

    #[test]
    fn the_best_that_was_reached_is_named_where_none_keeps_all() {
        let limits = Limits { max_latency_ms: Some(1.3), max_loss: Some(0.5), ..Limits::default() };
        let missed = Missed { fastest: Some(2), most_accurate: Some(3) };
        assert_eq!(choose(limits, true), Err(missed));
        let words = limits.words(&points(true)[0].outcome);
        assert_eq!(words, "at most 0.5 points of top-1 lost, at most 1.3 ms");
    }

    /// What its engine gives decides; a candidate of which only the simulation is known is judged by that.
    #[test]
    fn limits_hold_for_the_engine_where_it_is_known() {
        let mut points = points(true);
        points[1].engine = Some(outcome(Some(9.0), 0.8, Some(0.8)));
        points[3].engine = Some(outcome(Some(10.0), 0.85, Some(0.85)));
        let choose = |limits: Limits, points: &[Point]| limits.choose(&points[0].outcome, points);
        let loss = Limits { max_loss: Some(1.0), ..Limits::default() };
        assert_eq!(choose(loss, &points), Ok(2));
        let latency = Limits { max_latency_ms: Some(1.3), ..Limits::default() };
        assert_eq!(choose(latency, &points), Ok(3), "10 dB of the engine beat its neighbour's 9");
        let both = Limits { max_loss: Some(1.0), ..latency };
        assert_eq!(choose(both, &points), Err(Missed { fastest: Some(2), most_accurate: Some(3) }));
    }

    #[test]
    fn a_nan_is_never_accurate() {
        let float = outcome(None, 1.0, None);
        let limits = Limits { min_sqnr_db: Some(-50.0), ..Limits::default() };
        assert!(!limits.accurate(&float, &outcome(Some(f64::NAN), 1.0, None)));
        assert!(limits.accurate(&float, &outcome(Some(-10.0), 0.0, None)));
    }
}
