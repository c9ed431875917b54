//! The search: what is built and timed, in which order.
//!
//! 1. The float and the fully quantized engine.
//! 2. The layers that make the most noise, each alone in float: what it costs is the difference in latency.
//! 3. 1, 2, 4, 8, … layers in float, along the noise that they make for each millisecond ([`order`]).
//! 4. Around the place that matters, one engine after the other ([`super::refine`]).
//!    What was built is judged by its engine's error from then on, where the runtime shows it; what was not, by the simulation's.
//! 5. All that were built once more, side by side: only these latencies are reported.

use std::collections::{BTreeMap, BTreeSet};

use super::greedy::{Layer, order, rungs};
use super::limits::{Limits, Point, decibels};
use crate::Result;
use crate::analysis::Outcome;
use crate::bench::{median, steady};

/// Layers that stay in float, as places in the list of layers.
pub type Set = BTreeSet<usize>;

/// Who builds and measures.
pub trait Lab {
    /// What comes out of models with these layers in float, in simulation.
    fn errors(&mut self, sets: &[Set]) -> Result<Vec<Outcome>>;

    /// Times the engines of these sets side by side, and builds those that are not built yet: milliseconds, for each set round by round.
    fn time(&mut self, sets: &[Set]) -> Result<Vec<Vec<f64>>>;

    /// What comes out of the engines of these sets, which were built, against the float model; `None`: the runtime does not show it here.
    fn on_engines(&mut self, sets: &[Set]) -> Result<Option<Vec<Outcome>>>;
}

/// What is searched.
pub struct Asked<'a> {
    /// Layers that may be quantized.
    pub layers: Vec<Layer>,
    /// Layers that are left in float with a set.
    pub close: &'a dyn Fn(&Set) -> Set,
    /// What a candidate must keep.
    pub limits: Limits,
    /// Engines at most, the float and the quantized one among them.
    pub max_engines: usize,
    /// Where to tell of it.
    pub say: &'a dyn Fn(String),
}

/// A candidate that was built.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What it is, in words.
    pub name: String,
    /// Its layers in float.
    pub set: Set,
    /// Its latency, and its error in simulation and of its engine.
    pub point: Point,
}

/// What came of a search.
#[derive(Debug)]
pub struct Found {
    /// The layers, with what was measured of them.
    pub layers: Vec<Layer>,
    /// In which order they are left in float.
    pub order: Vec<usize>,
    /// All candidates; the first is the float, the second the quantized model.
    pub trials: Vec<Trial>,
    /// Milliseconds of each, round by round, of the last timing.
    pub series: Vec<Vec<f64>>,
}

/// The state of a search.
pub(super) struct Explorer<'a, 'l> {
    pub asked: Asked<'a>,
    pub lab: &'l mut dyn Lab,
    pub trials: Vec<Trial>,
    pub order: Vec<usize>,
    /// Errors that were measured, also of what was not built.
    errors: BTreeMap<Set, Outcome>,
}

/// Place of the float model among the trials.
pub(super) const FLOAT: usize = 0;
/// Place of the fully quantized one.
pub(super) const QUANTIZED: usize = 1;

/// Searches.
///
/// # Errors
/// The lab's.
pub fn explore(lab: &mut dyn Lab, asked: Asked) -> Result<Found> {
    let count = asked.layers.len();
    let mut search =
        Explorer { asked, lab, trials: Vec::new(), order: Vec::new(), errors: BTreeMap::new() };
    search.try_out(vec![
        ("float".to_owned(), (0..count).collect()),
        ("quantized".to_owned(), Set::new()),
    ])?;
    search.probe()?;
    let latency = |index: usize| search.trials[index].point.latency_ms;
    let (order, free) = order(&search.asked.layers, latency(QUANTIZED), latency(FLOAT));
    search.order = order;
    search.climb(free)?;
    search.refine()?;
    let sets: Vec<Set> = search.trials.iter().map(|trial| trial.set.clone()).collect();
    let series = steady(&search.lab.time(&sets)?);
    for (trial, series) in search.trials.iter_mut().zip(&series) {
        trial.point.latency_ms = median(&mut series.clone());
    }
    Ok(Found { layers: search.asked.layers, order: search.order, trials: search.trials, series })
}

/// Noise over signal that an engine makes beyond its simulation, as a ratio of powers.
fn excess(point: &Point) -> Option<f64> {
    let noise = |outcome: &Outcome| 10_f64.powf(-decibels(outcome) / 10.0);
    Some(noise(point.engine.as_ref()?) - noise(&point.outcome))
}

impl Explorer<'_, '_> {
    /// Engines that may still be built.
    pub fn room(&self) -> usize {
        self.asked.max_engines.saturating_sub(self.trials.len())
    }

    /// The first layers of the order, with what is left in float with them.
    pub fn first(&self, count: usize) -> Set {
        (self.asked.close)(&self.order[..count].iter().copied().collect())
    }

    /// Whether a set was built.
    pub fn has(&self, set: &Set) -> bool {
        self.trials.iter().any(|trial| trial.set == *set)
    }

    /// The errors of sets, each measured once.
    pub fn errors(&mut self, sets: &[Set]) -> Result<Vec<Outcome>> {
        let mut missing: Vec<Set> = Vec::new();
        for set in sets {
            if !self.errors.contains_key(set) && !missing.contains(set) {
                missing.push(set.clone());
            }
        }
        if !missing.is_empty() {
            let outcomes = self.lab.errors(&missing)?;
            self.errors.extend(missing.into_iter().zip(outcomes));
        }
        Ok(sets.iter().map(|set| self.errors[set]).collect())
    }

    /// Whether a set is accurate enough.
    pub fn accurate(&self, outcome: &Outcome) -> bool {
        self.asked.limits.accurate(&self.trials[FLOAT].point.outcome, outcome)
    }

    /// What the engines of these sets give. The float engine is not asked: it is what others are held to.
    fn on_engines(&mut self, sets: &[Set]) -> Result<Vec<Option<Outcome>>> {
        let all = self.asked.layers.len();
        let quantized: Vec<Set> = sets.iter().filter(|set| set.len() < all).cloned().collect();
        let outcomes = match &quantized[..] {
            [] => None,
            quantized => self.lab.on_engines(quantized)?,
        };
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        Ok(sets.iter().map(|set| if set.len() < all { outcomes.next() } else { None }).collect())
    }

    /// Builds, times and compares candidates, as far as there is room and they were not built yet.
    pub fn try_out(&mut self, candidates: Vec<(String, Set)>) -> Result<()> {
        let mut new: Vec<(String, Set)> = Vec::new();
        for (name, set) in candidates {
            let known = self.has(&set) || new.iter().any(|(_, other)| *other == set);
            if !known && new.len() < self.room() {
                new.push((name, set));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let sets: Vec<Set> = new.iter().map(|(_, set)| set.clone()).collect();
        let outcomes = self.errors(&sets)?;
        let known = self.trials.len().min(2);
        let mut side_by_side: Vec<Set> =
            self.trials[..known].iter().map(|trial| trial.set.clone()).collect();
        side_by_side.extend(sets.iter().cloned());
        let series = steady(&self.lab.time(&side_by_side)?);
        let mut latencies: Vec<f64> =
            series.iter().map(|series| median(&mut series.clone())).collect();
        if known == 2 {
            // By the float engine's first latency, so that those of several timings compare.
            let by = self.trials[FLOAT].point.latency_ms / latencies[FLOAT];
            latencies.iter_mut().for_each(|latency| *latency *= by);
        }
        let engines = self.on_engines(&sets)?;
        let points = latencies.into_iter().skip(known).zip(outcomes).zip(engines);
        let points =
            points.map(|((latency_ms, outcome), engine)| Point { latency_ms, outcome, engine });
        for ((name, set), point) in new.into_iter().zip(points) {
            let figures = |outcome: &Outcome| {
                let agreement = 100.0 * outcome.fidelity.agreement;
                format!("SQNR {:.1} dB, agreement {agreement:.2} %", decibels(outcome))
            };
            let engine = point.engine.as_ref().map(figures);
            let engine = engine.map(|figures| format!("; its engine: {figures}"));
            (self.asked.say)(format!(
                "{name}: {:.3} ms, {}{}",
                point.latency_ms,
                figures(&point.outcome),
                engine.unwrap_or_default()
            ));
            self.trials.push(Trial { name, set, point });
        }
        Ok(())
    }

    /// The layers that make the most noise, each alone in float, with half of the engines.
    fn probe(&mut self) -> Result<()> {
        let mut noisiest: Vec<usize> = (0..self.asked.layers.len()).collect();
        let noise = |index: &usize| self.asked.layers[*index].noise;
        noisiest.sort_by(|a, b| noise(b).total_cmp(&noise(a)));
        noisiest.truncate(self.room() / 2);
        let alone = |index: usize| (self.asked.close)(&Set::from([index]));
        let sets: Vec<Set> = noisiest.iter().map(|&index| alone(index)).collect();
        let name = |index: usize| format!("only {}", self.asked.layers[index].node);
        let named = noisiest.iter().map(|&index| name(index)).zip(sets.iter().cloned()).collect();
        self.try_out(named)?;
        let whole = self.trials[QUANTIZED].point;
        for (index, set) in noisiest.into_iter().zip(sets) {
            let own = self.trials.iter().find(|trial| trial.set == set).map(|trial| trial.point);
            let layer = &mut self.asked.layers[index];
            layer.cost_ms = own.map(|point| point.latency_ms - whole.latency_ms);
            // What the simulation does not see and is gone with this layer in float, such as saturated sums, the layer made.
            let gone = own.and_then(|point| Some(excess(&whole)? - excess(&point)?));
            layer.noise += gone.filter(|gone| *gone > 0.0).unwrap_or(0.0);
        }
        Ok(())
    }

    /// More and more layers in float; a third of what is left of the engines is kept for refinement.
    fn climb(&mut self, free: usize) -> Result<()> {
        let count = self.order.len();
        let room = self.room() - self.room().div_ceil(3).min(self.room().saturating_sub(1));
        let rungs = rungs(count, free, room);
        let named = rungs.into_iter().map(|rung| (format!("first {rung}"), self.first(rung)));
        let named: Vec<(String, Set)> = named.collect();
        self.try_out(named)
    }
}
