//! Guards: figures of a run held to bounds, against those that were accepted last, or others of the run.

use serde::Serialize;

use crate::cache::LockFile;
use crate::config::{Baseline, Bound, Guard};

/// What came of a guard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub guard: String,
    /// Id of the stage.
    pub stage: String,
    /// Name of the figure among those of the stage.
    pub metric: String,
    /// The figure of this run that it is compared with, such as `measured[fp32].top1`, in place of the accepted one.
    pub baseline: Option<String>,
    /// The accepted figure, or the baseline. Infinite, `null` in JSON, is an SQNR of what does not differ at all.
    pub before: Option<f64>,
    /// The figure of this run.
    pub now: Option<f64>,
    /// From one to the other.
    pub change: Option<f64>,
    /// Its bounds as in the file, such as `max_drop 0.01`.
    pub bounds: Vec<String>,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What there is to say of that.
    pub note: Option<String>,
    /// Line of its table in the pipeline file.
    pub line: usize,
}

/// Whether a guard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It does.
    Held,
    /// There is no accepted figure yet: nothing to hold to.
    New,
    /// It does not.
    Broken,
    /// Its stage was not selected, or did not succeed.
    Skipped,
}

/// Holds a figure to a guard. `now`: what the run came to; `done`: whether a stage, by its id, is done.
pub fn check(
    guard: &Guard,
    accepted: &LockFile,
    now: &LockFile,
    done: impl Fn(&str) -> bool,
) -> Outcome {
    let figure = |lock: &LockFile, stage: &str, metric: &str| {
        lock.stages.get(stage)?.metrics.get(metric).copied()
    };
    let of_run = |stage: &str, metric: &str| match done(stage) {
        false => Err((Verdict::Skipped, format!("stage {stage} was not run to its end"))),
        true => figure(now, stage, metric).ok_or_else(|| {
            let there = now.stages.get(stage).map(|stage| stage.metrics.keys().map(String::as_str));
            let there: Vec<&str> = there.into_iter().flatten().collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let note =
                format!("stage {stage} has no figure {metric} that is a number; it has {there}");
            (Verdict::Broken, note)
        }),
    };
    let after = of_run(&guard.stage, &guard.metric);
    let before = match &guard.baseline {
        None => Ok(figure(accepted, &guard.stage, &guard.metric)),
        Some(Baseline { stage, metric }) => of_run(stage, metric).map(Some),
    };
    let (before, after, (verdict, note)) = match (before, after) {
        (Ok(before), Ok(after)) => (before, Some(after), verdict(&guard.bounds, before, after)),
        // A figure that is gone is more than a stage that was left out.
        (Err(one), Err((Verdict::Skipped, _))) => (None, None, (one.0, Some(one.1))),
        (before, Err((verdict, note))) => (before.ok().flatten(), None, (verdict, Some(note))),
        (Err((verdict, note)), Ok(after)) => (None, Some(after), (verdict, Some(note))),
    };
    Outcome {
        guard: guard.name.clone(),
        stage: guard.stage.clone(),
        metric: guard.metric.clone(),
        baseline: guard.baseline.as_ref().map(|it| format!("{}.{}", it.stage, it.metric)),
        before,
        now: after,
        change: before.zip(after).map(|(before, after)| change(before, after)),
        bounds: guard.bounds.iter().map(text).collect(),
        verdict,
        note,
        line: guard.line,
    }
}

/// From one figure to another; of two that are infinite none.
fn change(before: f64, now: f64) -> f64 {
    if before == now { 0.0 } else { now - before }
}

fn verdict(bounds: &[Bound], before: Option<f64>, now: f64) -> (Verdict, Option<String>) {
    let held: Vec<Option<bool>> = bounds.iter().map(|bound| holds(*bound, before, now)).collect();
    if held.contains(&Some(false)) {
        let endless = before.is_some_and(|before| change(before, now).is_infinite());
        let note = "a change from or to no difference at all is without end: no bound on a change holds it, `min` does";
        (Verdict::Broken, endless.then(|| note.to_owned()))
    } else if held.contains(&None) {
        (Verdict::New, Some("no figure was accepted yet to compare with".to_owned()))
    } else {
        (Verdict::Held, None)
    }
}

/// Part of a figure by which a change may be off: 0.9 - 0.89 is more than 0.01 in binary.
const ROUNDING: f64 = 1e-9;

/// Whether a figure is within a bound; `None` if the accepted figure is needed and is not there.
fn holds(bound: Bound, before: Option<f64>, now: f64) -> Option<bool> {
    let within = |limit: &dyn Fn(f64) -> f64, sign: f64| {
        let before = before?;
        let change = change(before, now);
        if before.is_infinite() || now.is_infinite() {
            return Some(change * sign <= 0.0);
        }
        let slack = ROUNDING * before.abs().max(now.abs());
        Some(change * sign <= limit(before) + slack)
    };
    let percent = |percent: f64| move |before: f64| before.abs() * percent / 100.0;
    match bound {
        Bound::MaxDrop(limit) => within(&|_| limit, -1.0),
        Bound::MaxDropPercent(limit) => within(&percent(limit), -1.0),
        Bound::MaxGrowth(limit) => within(&|_| limit, 1.0),
        Bound::MaxGrowthPercent(limit) => within(&percent(limit), 1.0),
        Bound::Min(limit) => Some(now >= limit),
        Bound::Max(limit) => Some(now <= limit),
    }
}

fn text(bound: &Bound) -> String {
    let (name, limit) = match bound {
        Bound::MaxDrop(limit) => ("max_drop", limit),
        Bound::MaxDropPercent(limit) => ("max_drop_percent", limit),
        Bound::MaxGrowth(limit) => ("max_growth", limit),
        Bound::MaxGrowthPercent(limit) => ("max_growth_percent", limit),
        Bound::Min(limit) => ("min", limit),
        Bound::Max(limit) => ("max", limit),
    };
    format!("{name} {limit}")
}

/// A figure for people: whole numbers as they are, others to six digits, an infinite SQNR in words.
pub fn number(value: f64) -> String {
    if value == f64::INFINITY {
        return "no difference".to_owned();
    }
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    let rounded = format!("{value:.5e}").parse::<f64>().unwrap_or(value);
    format!("{rounded}")
}

impl Outcome {
    /// Its cells in a table, as [`HEADINGS`] names them.
    pub fn cells(&self) -> [String; 7] {
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let percent = self.before.zip(self.change);
        let percent = percent
            .filter(|(before, change)| *before != 0.0 && before.is_finite() && change.is_finite());
        let percent = percent.map_or_else(String::new, |(before, change)| {
            format!(" ({:+.1} %)", change / before.abs() * 100.0)
        });
        let sign = if self.change.is_some_and(|change| change > 0.0) { "+" } else { "" };
        let verdict = match self.verdict {
            Verdict::Held => "held",
            Verdict::New => "new",
            Verdict::Broken => "BROKEN",
            Verdict::Skipped => "skipped",
        };
        [
            self.guard.clone(),
            match &self.baseline {
                Some(baseline) => format!("{}.{} against {baseline}", self.stage, self.metric),
                None => format!("{}.{}", self.stage, self.metric),
            },
            figure(self.before),
            figure(self.now),
            match self.change {
                Some(change) if change.is_infinite() => {
                    if change > 0.0 { "+∞" } else { "-∞" }.to_owned()
                }
                change => format!("{sign}{}{percent}", figure(change)),
            },
            self.bounds.join(", "),
            verdict.to_owned(),
        ]
    }
}

/// Headings of a table of guards.
pub const HEADINGS: [&str; 7] = ["guard", "figure", "before", "now", "change", "bound", "verdict"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_to_the_last_digit_and_no_further() {
        use Bound::{Max, MaxDrop, MaxDropPercent, MaxGrowth, MaxGrowthPercent, Min};
        let cases = [
            (MaxDrop(0.01), 0.9, 0.89, true),
            (MaxDrop(0.01), 0.9, 0.8899, false),
            (MaxDrop(0.0), 0.9, 0.95, true),
            (MaxDropPercent(10.0), 2000.0, 1800.0, true),
            (MaxDropPercent(10.0), 2000.0, 1799.0, false),
            (MaxDropPercent(10.0), -2000.0, -2200.0, true),
            (MaxDropPercent(10.0), -2000.0, -2201.0, false),
            (MaxGrowth(0.2), 0.1, 0.3, true),
            (MaxGrowth(0.2), 0.1, 0.31, false),
            (MaxGrowthPercent(5.0), 20.0, 21.0, true),
            (MaxGrowthPercent(5.0), 20.0, 21.1, false),
            (MaxGrowthPercent(5.0), 0.0, 0.1, false),
            (MaxGrowthPercent(5.0), 0.0, 0.0, true),
            (Min(0.5), 9.0, 0.5, true),
            (Min(0.5), 9.0, 0.49, false),
            (Max(0.5), 9.0, 0.5, true),
            (Max(0.5), 9.0, 0.51, false),
        ];
        for (bound, before, now, expected) in cases {
            assert_eq!(holds(bound, Some(before), now), Some(expected), "{bound:?} {before} {now}");
        }
        assert_eq!(holds(MaxDrop(1.0), None, 1.0), None);
        assert_eq!(holds(Min(1.0), None, 1.0), Some(true));
    }

    /// An SQNR of no difference at all is more than any number.
    #[test]
    fn a_perfect_sqnr_holds_what_it_should() {
        use Bound::{Max, MaxDrop, MaxDropPercent, MaxGrowth, MaxGrowthPercent, Min};
        let perfect = f64::INFINITY;
        let cases = [
            (Min(20.0), perfect, perfect, true),
            (Max(20.0), perfect, perfect, false),
            (MaxDrop(0.0), perfect, perfect, true),
            (MaxDropPercent(0.0), perfect, perfect, true),
            (MaxGrowth(0.0), perfect, perfect, true),
            (MaxDrop(1.0), 40.0, perfect, true),
            (MaxDropPercent(1.0), 40.0, perfect, true),
            (MaxGrowth(1.0), 40.0, perfect, false),
            (MaxDrop(1000.0), perfect, 40.0, false),
            (MaxDropPercent(100.0), perfect, 40.0, false),
            (MaxGrowthPercent(1.0), perfect, 40.0, true),
            (Min(20.0), perfect, 40.0, true),
        ];
        for (bound, before, now, expected) in cases {
            assert_eq!(holds(bound, Some(before), now), Some(expected), "{bound:?} {before} {now}");
        }
        let (broken, note) = verdict(&[MaxDrop(1.0)], Some(perfect), 40.0);
        assert_eq!(broken, Verdict::Broken);
        assert!(note.unwrap().contains("no difference at all"));
        let cells = |before: f64, now: f64| {
            let outcome = Outcome {
                guard: "sqnr".to_owned(),
                stage: "ver".to_owned(),
                metric: "engine_sqnr_db".to_owned(),
                baseline: None,
                before: Some(before),
                now: Some(now),
                change: Some(change(before, now)),
                bounds: Vec::new(),
                verdict: Verdict::Held,
                note: None,
                line: 1,
            };
            let [_, _, before, now, change, ..] = outcome.cells();
            [before, now, change]
        };
        assert_eq!(cells(perfect, perfect), ["no difference", "no difference", "0"]);
        assert_eq!(cells(perfect, 40.0), ["no difference", "40", "-∞"]);
        assert_eq!(cells(40.0, perfect), ["40", "no difference", "+∞"]);
    }

    #[test]
    fn one_broken_bound_breaks_even_what_has_nothing_to_compare_with() {
        let both = [Bound::MaxDrop(0.1), Bound::Min(0.5)];
        assert_eq!(verdict(&both, None, 0.4).0, Verdict::Broken);
        assert_eq!(verdict(&both, None, 0.6).0, Verdict::New);
        assert_eq!(verdict(&both, Some(0.65), 0.6).0, Verdict::Held);
        assert_eq!(verdict(&both, Some(0.75), 0.6).0, Verdict::Broken);
    }

    #[test]
    fn figures_are_rounded_for_people_only() {
        let cases = [(0.1 + 0.2, "0.3"), (12_345_678.0, "12345678"), (-0.011_900_000_1, "-0.0119")];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }
}
