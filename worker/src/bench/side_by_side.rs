//! Several engines timed side by side: whatever slows the machine down for a while slows all of them.
//!
//! In each round every engine is timed once. Rounds begin at another engine each time and run in both directions, so that none always
//! follows the same other. What a round has in common is taken out ([`steady`]), and ratios are of times of one round ([`Ratio`]).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::percentile;
use crate::Result;

/// Times an engine once; milliseconds of a run.
pub type Clock<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// When a series of rounds ends.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Rounds at least.
    pub least: u32,
    /// Seconds at least, for each engine on average.
    pub seconds: f64,
}

/// Series that waver go on for up to so many times as long.
const PATIENCE: u32 = 4;
/// How exactly medians are to be known, as a share of them.
const EXACT: f64 = 0.01;

/// Times all engines in rounds: for each engine its milliseconds, round by round; up to [`PATIENCE`] times as long as asked for while medians
/// are not known to a hundredth. `progress` is told the part that is done, 0…1.
///
/// # Errors
/// A clock's.
pub fn side_by_side(
    clocks: &mut [Clock],
    rounds: Rounds,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Vec<f64>>> {
    let count = clocks.len();
    let least = Duration::try_from_secs_f64(rounds.seconds * count as f64).unwrap_or_default();
    let begin = Instant::now();
    let mut series = vec![Vec::new(); count];
    for round in 0.. {
        for turn in 0..count {
            let turn = if round % 2 == 0 { turn } else { count - 1 - turn };
            let engine = (turn + round / 2) % count;
            series[engine].push(clocks[engine]()?);
        }
        let part = |done: f64, all: f64| if all > 0.0 { done / all } else { 1.0 };
        let spent = begin.elapsed();
        let counted = part((round + 1) as f64, f64::from(rounds.least));
        let timed = part(spent.as_secs_f64(), least.as_secs_f64());
        progress(counted.min(timed).min(1.0));
        let enough = round + 1 >= rounds.least as usize && spent >= least;
        if enough && (spent >= PATIENCE * least || settled(&series)) {
            break;
        }
    }
    Ok(series)
}

/// Whether the standard errors of all medians, 1.253 σ / √n with the σ that belongs to the distance of the quartiles, are small.
fn settled(series: &[Vec<f64>]) -> bool {
    steady(series).iter_mut().all(|series| {
        let median = median(series);
        let quartiles = percentile(series, 75.0) - percentile(series, 25.0);
        0.929 * quartiles / (series.len() as f64).sqrt() <= EXACT * median
    })
}

/// Milliseconds that an engine is timed each round.
const VISIT_MS: f64 = 10.0;
/// Runs of a round, at least and at most.
const VISIT_RUNS: (usize, usize) = (3, 50);

/// The clock of an engine that runs in this process: after `warmup` runs, each time one run that is not timed, since another engine ran
/// before, and then the least of three or as many as fit into [`VISIT_MS`]: what else runs on the processor only ever adds to a time.
///
/// # Errors
/// What `run` refuses.
pub fn clock<'a>(mut run: impl FnMut() -> Result<()> + 'a, warmup: u32) -> Result<Clock<'a>> {
    let mut least_of = move |runs: usize| -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..runs {
            let start = Instant::now();
            run()?;
            least = least.min(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(least)
    };
    let usual = least_of(warmup.max(1) as usize)?;
    let runs = ((VISIT_MS / usual.max(1e-6)) as usize).clamp(VISIT_RUNS.0, VISIT_RUNS.1);
    Ok(Box::new(move || {
        least_of(1)?;
        least_of(runs)
    }))
}

/// The median; NaN of nothing.
pub fn median(series: &mut [f64]) -> f64 {
    series.sort_by(f64::total_cmp);
    percentile(series, 50.0)
}

/// The series without what their rounds have in common: each round is divided by how much slower than usual it was for most engines.
#[must_use]
pub fn steady(series: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let usual: Vec<f64> = series.iter().map(|series| median(&mut series.clone())).collect();
    let rounds = series.iter().map(Vec::len).min().unwrap_or(0);
    let factor = |round: usize| {
        let of = series.iter().zip(&usual).map(|(series, usual)| series[round] / usual);
        median(&mut of.collect::<Vec<f64>>())
    };
    let factors: Vec<f64> = (0..rounds).map(factor).collect();
    let even =
        |series: &Vec<f64>| series.iter().zip(&factors).map(|(time, by)| time / by).collect();
    series.iter().map(even).collect()
}

/// A ratio of two engines' times, round by round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// Bounds that hold the true median with the probability `coverage`, by order statistics.
    pub low: f64,
    /// The upper one.
    pub high: f64,
    /// At least [`CERTAIN`], but with fewer than six rounds: there the bounds are the least and the greatest of all, and it is less.
    #[serde(default)]
    pub coverage: f64,
}

/// With what probability bounds are to hold the median.
const CERTAIN: f64 = 0.95;

/// How many of `count` values lie outside the bounds of their median on either side, as many as [`CERTAIN`] lets, and with what probability
/// those bounds hold it: how many lie below the median is binomial, of a half.
fn bounds(count: usize) -> (usize, f64) {
    let (mut found, mut below) = ((0, 0.0), 0.0);
    // Of `outside` values, as a logarithm: a half to the power of thousands is none of f64.
    let mut chance = -(count as f64) * std::f64::consts::LN_2;
    for outside in 0..count.div_ceil(2) {
        below += chance.exp();
        let coverage = 1.0 - 2.0 * below;
        if outside > 0 && coverage < CERTAIN {
            break;
        }
        found = (outside, coverage.max(0.0));
        chance += ((count - outside) as f64 / (outside + 1) as f64).ln();
    }
    found
}

impl Ratio {
    /// Of series of the same rounds, of at least one.
    pub fn of(numerator: &[f64], denominator: &[f64]) -> Self {
        let mut ratios: Vec<f64> = numerator.iter().zip(denominator).map(|(a, b)| a / b).collect();
        let median = median(&mut ratios);
        let count = ratios.len();
        let (outside, coverage) = bounds(count);
        let at = |index: usize| ratios.get(index).copied().unwrap_or(f64::NAN);
        Self { median, low: at(outside), high: at(count.saturating_sub(1 + outside)), coverage }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_engine_has_its_turn_in_each_round_and_none_is_always_first() {
        let turns = RefCell::new(Vec::new());
        let clock = |engine: usize| -> Clock<'_> {
            let turns = &turns;
            Box::new(move || {
                turns.borrow_mut().push(engine);
                Ok(engine as f64)
            })
        };
        let mut clocks = vec![clock(0), clock(1), clock(2)];
        let rounds = Rounds { least: 6, seconds: 0.0 };
        let series = side_by_side(&mut clocks, rounds, &mut |_| ()).unwrap();
        drop(clocks);
        assert_eq!(series, [vec![0.0; 6], vec![1.0; 6], vec![2.0; 6]]);
        let turns = turns.into_inner();
        let mut first: Vec<usize> = turns.chunks(3).map(|round| round[0]).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_run_after_another_engine_is_not_timed() {
        let runs = RefCell::new(0);
        let run = || {
            *runs.borrow_mut() += 1;
            std::thread::sleep(Duration::from_millis(4));
            Ok(())
        };
        let mut clock = clock(run, 3).unwrap();
        assert_eq!(*runs.borrow(), 3);
        let time = clock().unwrap();
        assert_eq!(*runs.borrow(), 3 + 1 + 3, "at most two fit, three are the least");
        assert!(time >= 4.0);
    }

    #[test]
    fn series_that_waver_go_on_for_longer() {
        let even = vec![1.0, 1.01, 1.0, 1.01];
        let wavering = vec![1.0, 3.0, 2.0, 5.0];
        assert!(settled(&[even.clone(), even.clone(), even.clone()]));
        assert!(!settled(&[even.clone(), wavering, even]));
        let times = RefCell::new((0..).map(|turn| if turn % 3 == 0 { 5.0 } else { 1.0 }));
        let clock = || -> Clock<'_> {
            Box::new(|| {
                std::thread::sleep(Duration::from_millis(1));
                Ok(times.borrow_mut().next().unwrap_or_default())
            })
        };
        let rounds = Rounds { least: 2, seconds: 0.01 };
        let mut clocks = [clock(), clock()];
        let begin = Instant::now();
        side_by_side(&mut clocks, rounds, &mut |_| ()).unwrap();
        assert!(begin.elapsed() >= PATIENCE * Duration::from_millis(20));
    }

    /// A machine that is three times as slow for a third of the rounds.
    #[test]
    fn what_slows_all_engines_down_is_taken_out() {
        let slow = |round: usize| if round.is_multiple_of(3) { 3.0 } else { 1.0 };
        let engine = |time: f64| (0..30).map(|round| time * slow(round)).collect::<Vec<f64>>();
        let series = [engine(1.0), engine(1.1), engine(2.0)];
        for (even, time) in steady(&series).iter().zip([1.0, 1.1, 2.0]) {
            assert!(even.iter().all(|value| (value - time).abs() < 1e-9), "{even:?}");
        }
        let ratio = Ratio::of(&series[1], &series[0]);
        for value in [ratio.median, ratio.low, ratio.high] {
            assert!((value - 1.1).abs() < 1e-9, "{ratio:?}");
        }
    }

    /// 1 − 2 P(at most k of n), exactly; the next place inwards holds the median with less than 95 %.
    #[test]
    fn bounds_hold_the_median_with_the_probability_that_they_say() {
        let cases = [
            (1, 0, 0.0),
            (2, 0, 0.5),
            (3, 0, 0.75),
            (4, 0, 0.875),
            (5, 0, 0.9375),
            (6, 0, 0.968_75),
            // 92.97 % of the second and the seventh.
            (8, 0, 0.992_187_5),
            (9, 1, 0.960_937_5),
            (15, 3, 0.964_843_75),
            (25, 7, 0.956_714_75),
        ];
        for (count, outside, coverage) in cases {
            let found = bounds(count);
            assert_eq!(found.0, outside, "{count}");
            assert!((found.1 - coverage).abs() < 1e-8, "{count}: {found:?}");
        }
        // Of many it is the normal distribution: 5000 − 98.
        let (outside, coverage) = bounds(10_000);
        assert!((4_899..=4_902).contains(&outside), "{outside}");
        assert!((0.95..0.96).contains(&coverage), "{coverage}");
        assert_eq!(bounds(0), (0, 0.0));
    }

    /// Of 25 values the 8th and the 18th bound the median.
    #[test]
    fn bounds_of_a_median_are_order_statistics() {
        let numerator: Vec<f64> = (1..=25).rev().map(f64::from).collect();
        let ratio = Ratio::of(&numerator, &[1.0; 25]);
        assert_eq!((ratio.median, ratio.low, ratio.high), (13.0, 8.0, 18.0));
        let few = Ratio::of(&[2.0, 1.0, 4.0], &[1.0; 3]);
        assert_eq!((few.median, few.low, few.high, few.coverage), (2.0, 1.0, 4.0, 0.75));
    }
}
