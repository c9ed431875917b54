//! What the last engines are spent on.

use super::explore::{Explorer, FLOAT, QUANTIZED, Set};
use super::greedy::knee;
use super::limits::{Point, decibels};
use crate::Result;

/// Layers whose return to integers is looked at in one pass over the data.
const LOOKED_AT: usize = 8;

impl Explorer<'_, '_> {
    /// Spends what is left of the engines, one by one.
    pub(super) fn refine(&mut self) -> Result<()> {
        while self.room() > 0 {
            let Some((name, set)) = self.next()? else { break };
            let before = self.trials.len();
            self.try_out(vec![(name, set)])?;
            if self.trials.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// What is built next.
    fn next(&mut self) -> Result<Option<(String, Set)>> {
        if let Some(next) = self.what_engines_lose()? {
            return Ok(Some(next));
        }
        if let Some(next) = self.least_accurate()? {
            return Ok(Some(next));
        }
        if let Some(next) = self.slowest_within() {
            return Ok(Some(next));
        }
        Ok(self.back_to_integers()?.or_else(|| self.beside_the_knee()))
    }

    /// Counts of first layers whose sets were built, with the places of their trials; none and all of them included.
    fn counts(&self) -> Vec<(usize, usize)> {
        let count = self.order.len();
        let mut counts = vec![(0, QUANTIZED)];
        for first in 1..count {
            let set = self.first(first);
            if let Some(place) = self.trials.iter().position(|trial| trial.set == set) {
                counts.push((first, place));
            }
        }
        counts.push((count, FLOAT));
        counts
    }

    fn named(&self, count: usize) -> (String, Set) {
        (format!("first {count}"), self.first(count))
    }

    /// The fewest first layers with which the model is accurate enough, between two numbers that were tried: found in simulation, which
    /// needs no engine, or by engines where they are less accurate than their simulation.
    fn least_accurate(&mut self) -> Result<Option<(String, Set)>> {
        if !self.asked.limits.of_error() {
            return Ok(None);
        }
        let counts = self.counts();
        let accurate =
            |&(_, place): &(usize, usize)| self.accurate(self.trials[place].point.judged());
        let Some(first) = counts.iter().position(accurate) else { return Ok(None) };
        let Some(before) = first.checked_sub(1) else { return Ok(None) };
        let (mut low, mut high) = (counts[before].0, counts[first].0);
        if self.accurate(&self.trials[counts[before].1].point.outcome) {
            // Its engine alone is not: the simulation does not tell where engines are, so the middle is built.
            return Ok(self.between(low, high));
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let outcome = self.errors(&[self.first(middle)])?[0];
            if self.accurate(&outcome) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let next = self.named(high);
        Ok((!self.has(&next.1)).then_some(next))
    }

    /// The layer by which an engine that is accurate enough differs from one that is so in simulation only: what the simulation does not see is
    /// its. With as few of the first layers as are needed in simulation.
    fn what_engines_lose(&mut self) -> Result<Option<(String, Set)>> {
        if !self.asked.limits.of_error() {
            return Ok(None);
        }
        let counts = self.counts();
        let lost = counts.windows(2).find(|two| {
            let [low, high] = [two[0].1, two[1].1].map(|place| &self.trials[place].point);
            two[1].0 - two[0].0 == 1
                && self.accurate(&low.outcome)
                && !self.accurate(low.judged())
                && self.accurate(high.judged())
        });
        let Some(below) = lost.map(|two| two[0].0) else { return Ok(None) };
        let layer = self.order[below];
        let with = |search: &Self, count: usize| {
            let first = search.order[..count].iter().copied();
            (search.asked.close)(&first.chain([layer]).collect())
        };
        let (mut low, mut high) = (0, below);
        while low < high {
            let middle = low + (high - low) / 2;
            let outcome = self.errors(&[with(self, middle)])?[0];
            if self.accurate(&outcome) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let (set, node) = (with(self, high), &self.asked.layers[layer].node);
        let name =
            if high == 0 { format!("only {node}") } else { format!("first {high} and {node}") };
        Ok((!self.has(&set)).then_some((name, set)))
    }

    /// Between the most first layers that are fast enough and the fewest that are not.
    fn slowest_within(&self) -> Option<(String, Set)> {
        self.asked.limits.max_latency_ms?;
        let counts = self.counts();
        let fast = |&(_, place): &(usize, usize)| {
            self.asked.limits.fast(self.trials[place].point.latency_ms)
        };
        let last = counts.iter().rposition(fast)?;
        let (low, high) = (counts[last].0, counts.get(last + 1)?.0);
        self.between(low, high)
    }

    /// The middle of two counts, where its set was not built yet.
    fn between(&self, low: usize, high: usize) -> Option<(String, Set)> {
        let next = self.named(low + (high - low) / 2);
        (high - low > 1 && !self.has(&next.1)).then_some(next)
    }

    /// The best candidate without the layer that costs most of those that it can do without.
    fn back_to_integers(&mut self) -> Result<Option<(String, Set)>> {
        if !self.asked.limits.of_error() {
            return Ok(None);
        }
        let float = self.trials[FLOAT].point;
        let points: Vec<Point> = self.trials.iter().map(|trial| trial.point).collect();
        let Ok(best) = self.asked.limits.choose(&float.outcome, &points) else { return Ok(None) };
        if best == FLOAT || best == QUANTIZED {
            return Ok(None);
        }
        let saved = float.latency_ms - self.trials[QUANTIZED].point.latency_ms;
        let cost = |index: usize| self.asked.layers[index].cost(saved);
        let own = &self.trials[best].set;
        let mut dearest: Vec<usize> = own.iter().copied().filter(|&at| cost(at) > 0.0).collect();
        dearest.sort_by(|&a, &b| cost(b).total_cmp(&cost(a)));
        let without = |index: usize| {
            let rest: Set = own.iter().copied().filter(|&other| other != index).collect();
            (index, (self.asked.close)(&rest))
        };
        let name = self.trials[best].name.clone();
        let without: Vec<(usize, Set)> = dearest.into_iter().map(without).collect();
        let new = without.into_iter().filter(|(index, set)| !set.contains(index) && !self.has(set));
        let new: Vec<(usize, Set)> = new.take(LOOKED_AT).collect();
        let sets: Vec<Set> = new.iter().map(|(_, set)| set.clone()).collect();
        let outcomes = self.errors(&sets)?;
        let found = new.into_iter().zip(outcomes).find(|(_, outcome)| self.accurate(outcome));
        Ok(found.map(|((index, set), _)| {
            let join = if name.contains(" but ") { ", " } else { " but " };
            (format!("{name}{join}{}", self.asked.layers[index].node), set)
        }))
    }

    /// The middle of the gap that is nearest to the knee of the curve.
    fn beside_the_knee(&self) -> Option<(String, Set)> {
        let counts = self.counts();
        // Without the float model, whose SQNR has no end.
        let inner = &counts[..counts.len() - 1];
        let points = inner.iter().map(|&(_, place)| {
            let point = &self.trials[place].point;
            (point.latency_ms, decibels(point.judged()))
        });
        let knee = knee(&points.collect::<Vec<_>>()).unwrap_or(0);
        let far = |gap: usize| (2 * gap + 1).abs_diff(2 * knee);
        let mut gaps: Vec<usize> = (0..counts.len() - 1).collect();
        gaps.sort_by_key(|&gap| far(gap));
        gaps.into_iter().find_map(|gap| self.between(counts[gap].0, counts[gap + 1].0))
    }
}
