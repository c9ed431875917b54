//! What a search says of engines that compute something else than their simulation.

use super::Context;
use crate::analysis::Outcome;
use crate::engine;
use crate::search::{Candidate, Found, Limits, Pareto, Point, decibels};

/// Points of agreement that an engine may lose against its simulation before it is told.
const OFF: f64 = 1.0;

/// Place of the candidate that would be chosen if engines computed what is simulated.
pub(super) fn in_simulation(found: &Found, limits: Limits) -> Option<usize> {
    let simulated = |point: Point| Point { engine: None, ..point };
    let points: Vec<Point> = found.trials.iter().map(|trial| simulated(trial.point)).collect();
    limits.choose(&points[0].outcome, &points).ok()
}

/// Whether the integer kernels that engines were built of saturate on this processor.
fn saturate(pareto: &Pareto) -> bool {
    pareto.setting.backend == "onnxruntime" && engine::saturates()
}

/// Why engines lose more than their simulation.
pub(super) fn why(pareto: &Pareto) -> &'static str {
    if saturate(pareto) {
        "this processor has no VNNI instructions, so that ONNX Runtime's integer kernels add two products in 16 bits, and sums saturate"
    } else {
        "the runtime computes something else than the simulation"
    }
}

/// What can be done about it.
pub(super) fn what_helps(pareto: &Pareto) -> Option<&'static str> {
    saturate(pareto).then_some(
        "search on a processor with VNNI (AVX-512 VNNI or AVX-VNNI), or on a GPU with target = \"tensorrt\"; activations = \
         { symmetric = false } saturates less, { type = \"float\" } quantizes weights only, or raise `max_engines`, so that more sets of layers in float are tried",
    )
}

fn figures(outcome: &Outcome) -> String {
    let agreement = 100.0 * outcome.fidelity.agreement;
    format!("agreement {agreement:.2} %, SQNR {:.1} dB", decibels(outcome))
}

/// Warns where the simulation alone would have chosen another candidate, whose engine breaks a limit.
pub(super) fn passed_over(
    context: &Context,
    found: &Found,
    limits: Limits,
    pareto: &Pareto,
    chosen: &Candidate,
) {
    let float = &found.trials[0].point.outcome;
    let Some(trial) = in_simulation(found, limits).map(|place| &found.trials[place]) else {
        return;
    };
    let Some(engine) = &trial.point.engine else { return };
    if trial.name == chosen.name || limits.accurate(float, engine) {
        return;
    }
    let helps = what_helps(pareto).map(|what| format!("; {what}"));
    context.events.warn(format!(
        "\"{}\" keeps the limits in simulation ({}), its engine does not ({}): {}. \"{}\" is chosen instead, {:.3} ms in place of {:.3}{}",
        trial.name,
        figures(&trial.point.outcome),
        figures(engine),
        why(pareto),
        chosen.name,
        chosen.latency_ms.median,
        trial.point.latency_ms,
        helps.unwrap_or_default()
    ));
}

/// Says what the chosen engine gives, and so loudly where that is not what the simulation does.
pub(super) fn chosen(context: &Context, pareto: &Pareto, chosen: &Candidate) {
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
        context.events.warn(format!("{message}; {}", why(pareto)));
    }
}
