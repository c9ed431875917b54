//! What a search says of engines that compute something else than their simulation.

use super::Context;
use crate::analysis::Outcome;
use crate::search::{Candidate, Found, Limits, Point, decibels};

/// Points of agreement that an engine may lose against its simulation before it is told.
const OFF: f64 = 1.0;

/// Place of the candidate that would be chosen if engines computed what is simulated.
pub(super) fn in_simulation(found: &Found, limits: Limits) -> Option<usize> {
    let simulated = |point: Point| Point { engine: None, ..point };
    let points: Vec<Point> = found.trials.iter().map(|trial| simulated(trial.point)).collect();
    limits.choose(&points[0].outcome, &points).ok()
}

/// Why engines lose more than their simulation; sums of their kernels do not saturate ([`engine::Build::saturate`](crate::engine::Build)).
pub(super) const WHY: &str = "the runtime computes something else than the simulation";

/// What can be done about it.
pub(super) const WHAT_HELPS: &str = "activations = { type = \"float\" } quantizes weights only, or raise `max_engines`, so that more sets of layers in float are tried";

fn figures(outcome: &Outcome) -> String {
    let agreement = 100.0 * outcome.fidelity.agreement;
    format!("agreement {agreement:.2} %, SQNR {:.1} dB", decibels(outcome))
}

/// Warns where the simulation alone would have chosen another candidate, whose engine breaks a limit.
pub(super) fn passed_over(context: &Context, found: &Found, limits: Limits, chosen: &Candidate) {
    let float = &found.trials[0].point.outcome;
    let Some(trial) = in_simulation(found, limits).map(|place| &found.trials[place]) else {
        return;
    };
    let Some(engine) = &trial.point.engine else { return };
    if trial.name == chosen.name || limits.accurate(float, engine) {
        return;
    }
    context.events.warn(format!(
        "\"{}\" keeps the limits in simulation ({}), its engine does not ({}): {}. \"{}\" is chosen instead, {:.3} ms in place of {:.3}; {WHAT_HELPS}",
        trial.name,
        figures(&trial.point.outcome),
        figures(engine),
        WHY,
        chosen.name,
        chosen.latency_ms.median,
        trial.point.latency_ms
    ));
}

/// Says what the chosen engine gives, and so loudly where that is not what the simulation does.
pub(super) fn chosen(context: &Context, chosen: &Candidate) {
    let Some(engine) = &chosen.engine else { return };
    let simulated = chosen.outcome.fidelity;
    let message = format!(
        "the engine of \"{}\" itself: {}; in simulation: {}",
        chosen.name,
        figures(&engine.outcome),
        figures(&chosen.outcome)
    );
    if 100.0 * (simulated.agreement - engine.outcome.fidelity.agreement) <= OFF {
        context.events.log(message);
    } else {
        context.events.warn(format!("{message}; {WHY}"));
    }
}
