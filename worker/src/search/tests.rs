//! The search on figures that are known: what it builds, and whether it finds what is best.

use std::collections::BTreeMap;

use super::explore::{Asked, Found, Lab, Set, explore};
use super::fixture::outcome;
use super::greedy::Layer;
use super::limits::Limits;
use crate::Result;
use crate::analysis::Outcome;

/// Layers whose noise adds up, and whose latencies in float too.
struct Synthetic {
    /// Noise over signal, and milliseconds more in float, of each layer.
    layers: Vec<(f64, f64)>,
    /// Milliseconds of the fully quantized engine.
    whole_ms: f64,
    /// Noise over signal of each layer that engines add to it, such as that of saturated sums; `None`: engines do not show their outputs.
    beyond: Option<Vec<f64>>,
    built: BTreeMap<Set, usize>,
    compared: usize,
}

impl Synthetic {
    fn new(layers: &[(f64, f64)]) -> Self {
        Self {
            layers: layers.to_vec(),
            whole_ms: 10.0,
            beyond: None,
            built: BTreeMap::new(),
            compared: 0,
        }
    }

    /// Whose engines make so much noise more in these layers.
    fn saturating(layers: &[(f64, f64)], in_layers: &[(usize, f64)]) -> Self {
        let mut beyond = vec![0.0; layers.len()];
        in_layers.iter().for_each(|&(layer, noise)| beyond[layer] = noise);
        Self { beyond: Some(beyond), ..Self::new(layers) }
    }

    fn latency(&self, set: &Set) -> f64 {
        self.whole_ms + set.iter().map(|&layer| self.layers[layer].1).sum::<f64>()
    }

    fn outcome(&self, set: &Set, noise: &dyn Fn(usize) -> f64) -> Outcome {
        let quantized = (0..self.layers.len()).filter(|layer| !set.contains(layer));
        let noise: f64 = quantized.map(noise).sum();
        outcome((noise > 1e-12).then(|| -10.0 * noise.log10()))
    }

    fn search(&mut self, limits: Limits, max_engines: usize) -> Found {
        let work = 1.0 / self.layers.len() as f64;
        let layer = |(index, &(noise, _)): (usize, &(f64, f64))| Layer {
            node: format!("n{index}"),
            op: "Conv".to_owned(),
            noise,
            work,
            cost_ms: None,
        };
        let layers = self.layers.iter().enumerate().map(layer).collect();
        let asked = Asked { layers, close: &Clone::clone, limits, max_engines, say: &drop };
        explore(self, asked).unwrap()
    }
}

impl Lab for Synthetic {
    fn errors(&mut self, sets: &[Set]) -> Result<Vec<Outcome>> {
        self.compared += sets.len();
        let of = |set: &Set| self.outcome(set, &|layer| self.layers[layer].0);
        Ok(sets.iter().map(of).collect())
    }

    fn on_engines(&mut self, sets: &[Set]) -> Result<Option<Vec<Outcome>>> {
        assert!(sets.iter().all(|set| self.built.contains_key(set)), "asked before it was built");
        assert!(sets.iter().all(|set| set.len() < self.layers.len()), "the float engine is asked");
        let Some(beyond) = &self.beyond else { return Ok(None) };
        let of = |set: &Set| self.outcome(set, &|layer| self.layers[layer].0 + beyond[layer]);
        Ok(Some(sets.iter().map(of).collect()))
    }

    fn time(&mut self, sets: &[Set]) -> Result<Vec<Vec<f64>>> {
        for set in sets {
            *self.built.entry(set.clone()).or_default() += 1;
        }
        // A machine that slows down and wavers.
        let round = |set: &Set, round: usize| {
            let waver = 1.0 + 0.001 * ((round * 7 + set.len() * 3) % 5) as f64;
            self.latency(set) * waver * if round % 4 == 3 { 1.6 } else { 1.0 }
        };
        Ok(sets.iter().map(|set| (0..20).map(|at| round(set, at)).collect()).collect())
    }
}

fn sqnr(least: f64) -> Limits {
    Limits { min_sqnr_db: Some(least), ..Limits::default() }
}

fn chosen(found: &Found, limits: Limits) -> &super::Trial {
    let points: Vec<_> = found.trials.iter().map(|trial| trial.point).collect();
    &found.trials[limits.choose(&points[0].outcome, &points).unwrap()]
}

/// Of 24 layers three make nearly all noise; one of these costs most of what quantization saves.
fn uneven() -> Vec<(f64, f64)> {
    let mut layers = vec![(1e-5, 0.5); 24];
    layers[3] = (3e-2, 0.1);
    layers[11] = (2e-2, 0.2);
    layers[17] = (1e-3, 6.0);
    layers
}

#[test]
fn the_few_layers_that_make_the_noise_are_found_with_few_engines() {
    let mut lab = Synthetic::new(&uneven());
    let limits = sqnr(28.0);
    let found = lab.search(limits, 12);
    assert!(found.trials.len() <= 12 && lab.built.len() == found.trials.len());
    let best = chosen(&found, limits);
    assert_eq!(best.set, Set::from([3, 11]), "{:?}", found.trials);
    // Noise for each millisecond: 17 makes more than the small ones, but is dear.
    assert_eq!(found.order[..2], [3, 11]);
    assert!(found.order.iter().position(|&layer| layer == 17).unwrap() > 1);
    assert!((best.point.latency_ms / 10.3 - 1.0).abs() < 0.01, "{}", best.point.latency_ms);
}

/// The number that is needed is none of 1, 2, 4, 8, …: it is found in simulation, and built.
#[test]
fn the_least_number_of_layers_is_found_between_the_powers_of_two() {
    let layers: Vec<(f64, f64)> =
        (0..32).map(|index| (if index < 11 { 1e-2 } else { 1e-6 }, 0.3)).collect();
    let limits = sqnr(40.0);
    let mut lab = Synthetic::new(&layers);
    let found = lab.search(limits, 14);
    assert_eq!(chosen(&found, limits).set, (0..11).collect::<Set>());
    assert!(found.trials.iter().any(|trial| trial.name == "first 11"), "{:?}", found.trials);
}

/// The first layers in order with one that is not needed: it goes back to integers.
#[test]
fn what_a_set_can_do_without_goes_back_to_integers() {
    let mut layers = vec![(1e-6, 1.0); 8];
    // The most noise for each millisecond, which does not matter beside the others'.
    layers[0] = (2e-4, 0.4);
    layers[1] = (2e-3, 5.0);
    layers[2] = (2e-3, 5.0);
    let limits = sqnr(30.0);
    let mut lab = Synthetic::new(&layers);
    let found = lab.search(limits, 16);
    assert_eq!(found.order[..3], [0, 1, 2]);
    let best = chosen(&found, limits);
    assert_eq!((best.set.clone(), best.name.as_str()), (Set::from([1, 2]), "first 3 but n0"));
}

#[test]
fn layers_that_are_faster_in_float_are_tried_together() {
    let mut layers = vec![(1e-4, 0.5); 8];
    layers[2].1 = -1.0;
    layers[5].1 = -2.0;
    let limits = sqnr(10.0);
    let mut lab = Synthetic::new(&layers);
    let found = lab.search(limits, 16);
    assert_eq!(found.order[..2], [5, 2]);
    assert_eq!(chosen(&found, limits).set, Set::from([2, 5]));
}

#[test]
fn a_float_engine_that_is_the_fastest_is_chosen() {
    let layers = vec![(1e-4, -0.5); 6];
    let limits = sqnr(10.0);
    let mut lab = Synthetic::new(&layers);
    let found = lab.search(limits, 10);
    assert_eq!(chosen(&found, limits).name, "float");
    let setting = super::fixture::pareto().0.setting;
    let (pareto, _) = super::Pareto::of(&found, limits, setting);
    // Some candidates are faster than the quantized one, none than float.
    assert!(!pareto.faster_than_float);
    let on_front = pareto.candidates.iter().filter(|candidate| candidate.on_front).count();
    assert_eq!(on_front, 1);
}

#[test]
fn under_a_latency_alone_as_much_as_fits_is_left_in_float() {
    let layers: Vec<(f64, f64)> = (0..16).map(|index| (1e-3 / (1 + index) as f64, 0.5)).collect();
    let limits = Limits { max_latency_ms: Some(12.6), ..Limits::default() };
    let mut lab = Synthetic::new(&layers);
    let found = lab.search(limits, 20);
    // 10 ms and five of 0.5 ms, the noisiest.
    assert_eq!(chosen(&found, limits).set, (0..5).collect::<Set>(), "{:?}", found.trials);
}

#[test]
fn nothing_is_built_or_compared_twice_and_the_budget_is_kept() {
    for max_engines in [3, 4, 5, 9, 40] {
        let mut lab = Synthetic::new(&uneven());
        let found = lab.search(sqnr(28.0), max_engines);
        assert!(found.trials.len() <= max_engines, "{max_engines}");
        let sets: std::collections::BTreeSet<&Set> =
            found.trials.iter().map(|trial| &trial.set).collect();
        assert_eq!(sets.len(), found.trials.len());
        // Timed when it was built, and at the end; the two references each time.
        let others = lab.built.iter().filter(|(set, _)| !set.is_empty() && set.len() < 24);
        assert!(others.clone().all(|(_, times)| *times == 2), "{:?}", lab.built);
        assert!(others.count() + 2 == found.trials.len());
        assert!(lab.compared <= found.trials.len() + 40, "{}", lab.compared);
    }
}

#[test]
fn a_model_of_one_layer_has_two_candidates() {
    let mut lab = Synthetic::new(&[(1e-3, 1.0)]);
    let found = lab.search(sqnr(20.0), 16);
    assert_eq!(found.trials.len(), 2);
    assert_eq!(chosen(&found, sqnr(20.0)).name, "quantized");
}

/// What is accurate in simulation is not where sums saturate: the layers that do are found by their engines, and left in float.
#[test]
fn a_candidate_whose_engine_breaks_the_limit_is_passed_over() {
    let mut layers = vec![(1e-4, 0.3); 16];
    layers[2].0 = 2e-3;
    layers[9].0 = 1e-3;
    let limits = sqnr(23.0);
    // In simulation all layers may be quantized: 24 dB and more.
    let mut lab = Synthetic::new(&layers);
    assert_eq!(chosen(&lab.search(limits, 14), limits).name, "quantized");
    let mut lab = Synthetic::saturating(&layers, &[(2, 4e-2), (9, 2e-2)]);
    let found = lab.search(limits, 14);
    assert!(found.trials.len() <= 14);
    let best = chosen(&found, limits);
    assert_eq!(best.set, Set::from([2, 9]), "{:?}", found.trials);
    assert_eq!(found.order[..2], [2, 9], "what saturates makes the noise");
    let sqnr = |outcome: &Outcome| outcome.fidelity.sqnr_db.unwrap();
    for trial in &found.trials[1..] {
        let engine = trial.point.engine.as_ref().expect("each engine was run");
        assert!(sqnr(engine) <= sqnr(&trial.point.outcome), "{trial:?}");
    }
    let (pareto, candidate) = super::Pareto::of(&found, limits, super::fixture::pareto().0.setting);
    assert_eq!(candidate.unwrap().name, best.name);
    let quantized = pareto.candidate("quantized").unwrap();
    assert!(!quantized.within_limits && quantized.engine.is_some(), "{quantized:?}");
    assert!(pareto.candidate("float").unwrap().engine.is_none(), "it is the reference");
}

/// The noise comes from a layer that no probe pointed at: the simulation tells nothing, engines are built half-way in between.
#[test]
fn where_the_simulation_tells_nothing_the_middle_is_built() {
    // The order is that of the noise; the 13th of 32 saturates.
    let layers: Vec<(f64, f64)> = (0..32).map(|index| (1e-4 / f64::from(1 + index), 0.3)).collect();
    let limits = sqnr(20.0);
    let mut lab = Synthetic::saturating(&layers, &[(12, 0.5)]);
    let found = lab.search(limits, 18);
    assert!(found.trials.len() <= 18);
    assert!(found.trials.iter().any(|trial| trial.name == "first 13"), "{:?}", found.trials);
    // It differs from the first 12 by the layer that is to blame, which then is all that is needed.
    let best = chosen(&found, limits);
    assert_eq!((best.name.as_str(), &best.set), ("only n12", &Set::from([12])));
}

/// The layer that saturates, with those that the simulation needs besides.
#[test]
fn what_saturates_is_joined_to_what_the_simulation_needs() {
    let mut layers: Vec<(f64, f64)> =
        (0..32).map(|index| (1e-4 / f64::from(1 + index), 0.3)).collect();
    layers[0].0 = 5e-2;
    layers[1].0 = 4e-2;
    let limits = sqnr(20.0);
    let mut lab = Synthetic::saturating(&layers, &[(12, 0.5)]);
    let best = chosen(&lab.search(limits, 20), limits).clone();
    assert_eq!((best.name.as_str(), best.set), ("first 2 and n12", Set::from([0, 1, 12])));
}

/// Every integer layer saturates: nothing but float is left, and with a limit on the latency nothing at all.
#[test]
fn where_all_engines_break_the_limit_float_is_left_or_none() {
    let layers = vec![(1e-5, 0.5); 8];
    let all: Vec<(usize, f64)> = (0..8).map(|layer| (layer, 0.2)).collect();
    let mut lab = Synthetic::saturating(&layers, &all);
    let found = lab.search(sqnr(20.0), 12);
    assert_eq!(chosen(&found, sqnr(20.0)).name, "float");
    let limits = Limits { max_latency_ms: Some(12.0), ..sqnr(20.0) };
    let found = lab.search(limits, 12);
    let points: Vec<_> = found.trials.iter().map(|trial| trial.point).collect();
    let missed = limits.choose(&points[0].outcome, &points).unwrap_err();
    assert_eq!(missed.fastest, Some(0), "the float engine is accurate, and too slow");
    // Of those that are fast enough the one whose engine is the most accurate.
    let most = &found.trials[missed.most_accurate.unwrap()];
    assert!(most.point.engine.is_some() && most.point.latency_ms <= 12.0, "{most:?}");
}
