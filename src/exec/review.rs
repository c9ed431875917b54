//! The review of a run: its figures beside those that were accepted last.

use std::collections::BTreeSet;

use serde::Serialize;

use super::event::Event;
use super::guards::{self, Outcome, Verdict};
use super::runner::Run;
use crate::cache::LockFile;

/// What the figures of a run are compared with.
#[derive(Clone, Debug, Default)]
pub struct Review {
    /// The lock file that was accepted last; an empty one if there is none.
    pub accepted: LockFile,
    /// Its name for people, such as `p.lock of HEAD`.
    pub against: String,
    /// What becomes of guards.
    pub guards: Guarding,
}

/// What becomes of guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarding {
    /// They are not looked at.
    #[default]
    No,
    /// A broken one keeps the lock file from being written.
    Hold,
    /// The lock file is written even if some are broken.
    Accept,
}

/// A figure that is not what it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Id of its stage.
    pub stage: String,
    /// Its name.
    pub metric: String,
    /// The accepted one.
    pub before: Option<f64>,
    /// That of this run.
    pub now: Option<f64>,
}

/// What came of a review.
#[derive(Debug)]
pub struct Reviewed<'r> {
    review: &'r Review,
    outcomes: Vec<Outcome>,
    changes: Vec<Figure>,
}

impl Run<'_> {
    /// Compares what this run came to with what was accepted, if that was asked for.
    pub(super) fn review(&self) -> Option<Reviewed<'_>> {
        let review = self.options.review.as_ref()?;
        let lock = &self.new_lock();
        let done = self.done.borrow();
        let guards = match review.guards {
            Guarding::No => &[][..],
            Guarding::Hold | Guarding::Accept => &self.plan.pipeline().guards,
        };
        let outcomes = guards.iter().map(|guard| {
            guards::check(guard, &review.accepted, lock, |stage| done.contains_key(stage))
        });
        let outcomes = outcomes.collect();
        let ids = done.keys().map(String::as_str);
        Some(Reviewed { review, outcomes, changes: changes(&review.accepted, lock, ids) })
    }
}

/// The figures of stages that differ; those of stages that have no accepted ones are left out.
fn changes<'s>(
    accepted: &LockFile,
    now: &LockFile,
    stages: impl Iterator<Item = &'s str>,
) -> Vec<Figure> {
    let mut found = Vec::new();
    for id in stages {
        let (Some(old), Some(new)) = (accepted.stages.get(id), now.stages.get(id)) else {
            continue;
        };
        let names: BTreeSet<&String> = old.metrics.keys().chain(new.metrics.keys()).collect();
        for name in names {
            let (before, now) = (old.metrics.get(name).copied(), new.metrics.get(name).copied());
            if before != now {
                let (stage, metric) = (id.to_owned(), name.clone());
                found.push(Figure { stage, metric, before, now });
            }
        }
    }
    found
}

impl Reviewed<'_> {
    fn count(&self, verdicts: &[Verdict]) -> usize {
        self.outcomes.iter().filter(|outcome| verdicts.contains(&outcome.verdict)).count()
    }

    /// How many guards are broken, and not accepted all the same.
    pub fn broken(&self) -> usize {
        if self.review.guards == Guarding::Accept { 0 } else { self.count(&[Verdict::Broken]) }
    }

    /// Whether the lock file may be written.
    pub fn accepts(&self) -> bool {
        self.broken() == 0
    }

    /// Tells of it.
    pub fn tell(&self, run: &Run) {
        let against = &self.review.against;
        if !self.changes.is_empty() {
            run.tell(&Event::Figures { against, changes: &self.changes });
        }
        if self.review.guards == Guarding::No {
            return;
        }
        for outcome in &self.outcomes {
            run.tell(&Event::Guard(outcome));
        }
        run.tell(&Event::Guards {
            against,
            held: self.count(&[Verdict::Held, Verdict::New]),
            broken: self.count(&[Verdict::Broken]),
            skipped: self.count(&[Verdict::Skipped]),
            accepted: self.review.guards == Guarding::Accept,
            outcomes: &self.outcomes,
        });
    }
}
