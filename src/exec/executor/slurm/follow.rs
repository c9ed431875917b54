//! Following jobs: their events as they write them, their states as Slurm tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::client::Slurm;
use super::error::SlurmError;
use super::events::{Tail, Told};
use super::folder::Folder;
use super::job::{JobId, Seen};
use super::keys::HandOver;
use super::outcome::End;
use super::submit::Followed;
use crate::cache::{Digest, network};
use crate::exec::error::Result as RunResult;
use crate::exec::event::Event;
use crate::exec::failure::{StageFailure, failure};
use crate::plan::Plan;
use crate::task::Blame;

/// The run that the jobs are followed for.
pub trait Watcher {
    /// Something happened that is only told.
    fn event(&mut self, event: &Event);
    /// A stage is done: its key; seconds and whether its outputs are what they were, where it ran.
    /// `false` if the cache does not have its record, or not yet.
    fn done(&mut self, index: usize, key: &Digest, ran: Option<(f64, bool)>) -> RunResult<bool>;
    /// A stage failed after some seconds.
    fn failed(&mut self, index: usize, seconds: f64, failure: &StageFailure);
    /// A stage does not run: another that it needs failed, or one that it does not need.
    fn skipped(&mut self, index: usize, failed: Option<usize>);
    /// Waits; `true` as soon as a signal asks for the end.
    fn wait(&mut self, time: Duration) -> RunResult<bool>;
}

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All jobs are over.
    Over,
    /// A signal asked for the end, and all jobs were cancelled.
    Interrupted,
}

/// Events are read this often.
const TICK: Duration = Duration::from_millis(200);

/// Slurm is asked this often while something happens, and down to [`RARELY`] while nothing does: its
/// controller serves a whole cluster.
const OFTEN: Duration = Duration::from_millis(500);
const RARELY: Duration = Duration::from_secs(5);

/// With more jobs than this, the files of those that wait are not looked at: that many look-ups a second
/// are a load for a file server.
const MANY: usize = 32;

/// How often a job must be seen at its end before its events are believed to be complete: a file that
/// another machine writes may be seen late.
const PATIENCE: usize = 3;

/// How long the result of a success is looked for before it counts as lost; and on a server's file system, where what a machine knows may be a minute old
/// (nfs(5), `acdirmax`) and the server may not be asked (old kernels).
const LOST: Duration = Duration::from_secs(10);
const LOST_ON_SERVER: Duration = Duration::from_secs(90);

/// How long Slurm's word is awaited after a job told of a failure. A job that is cancelled or whose time
/// is up may need as long to end (`KillWait`, 30 s where nobody changed it).
const VERDICT: Duration = Duration::from_secs(40);

/// A job that is not over.
struct Open {
    job: Followed,
    tail: Tail,
    /// Its last known state and reason.
    state: Option<Seen>,
    /// How often it was seen at its end.
    over: usize,
    /// It told that it succeeded.
    success: Option<Option<(f64, bool)>>,
    /// It told that it failed, so many seconds after its start: what Slurm says is awaited, which may
    /// have ended it.
    failure: Option<(f64, StageFailure, Instant)>,
    /// Since when its key and record are looked for.
    looked: Option<Instant>,
    since: Instant,
}

/// Jobs that are followed.
pub struct Follower<'a> {
    plan: &'a Plan<'a>,
    slurm: Slurm,
    folder: &'a Folder,
    keys: HandOver,
    /// [`LOST`] or [`LOST_ON_SERVER`].
    lost: Duration,
    program: PathBuf,
    keep_going: bool,
    open: BTreeMap<usize, Open>,
    /// A stage failed: what has not begun is cancelled.
    ending: bool,
    cancelled: bool,
    unreachable: bool,
}

impl<'a> Follower<'a> {
    /// For jobs of a plan. `program`: what they start. `keep_going`: after a failure, go on with what
    /// does not need it.
    pub fn new(
        plan: &'a Plan<'a>,
        folder: &'a Folder,
        jobs: Vec<Followed>,
        program: PathBuf,
        keep_going: bool,
    ) -> Self {
        let open = jobs.into_iter().map(|job| {
            let tail = Tail::new(job.events.clone());
            let since = Instant::now();
            (
                job.index,
                Open {
                    job,
                    tail,
                    state: None,
                    over: 0,
                    success: None,
                    failure: None,
                    looked: None,
                    since,
                },
            )
        });
        let on_server = File::open(folder.jobs()).is_ok_and(|jobs| network::is_remote(&jobs));
        Self {
            plan,
            slurm: Slurm,
            folder,
            keys: HandOver::new(folder.keys()),
            lost: if on_server { LOST_ON_SERVER } else { LOST },
            program,
            keep_going,
            open: open.collect(),
            ending: false,
            cancelled: false,
            unreachable: false,
        }
    }

    /// Follows all jobs to their end. The first signal cancels them, a second one stops waiting.
    pub fn run(mut self, watcher: &mut dyn Watcher) -> RunResult<Ended> {
        for open in self.open.values() {
            let (stage, job) = (&self.plan.stage(open.job.index).id, open.job.id.to_string());
            watcher.event(&Event::Submitted { stage, job: &job, attached: open.job.attached });
        }
        let (mut pause, mut asked) = (OFTEN, Instant::now());
        while !self.open.is_empty() {
            if watcher.wait(TICK)? {
                if self.cancelled {
                    break;
                }
                self.cancelled = true;
                self.slurm.cancel(&self.open.values().map(|open| open.job.id).collect())?;
                (pause, asked) = (OFTEN, Instant::now());
            }
            let mut busy = self.read_events(watcher)?;
            if asked.elapsed() >= pause {
                busy |= self.ask(watcher)?;
                asked = Instant::now();
                pause = if busy { OFTEN } else { (pause * 3 / 2).min(RARELY) };
            }
        }
        Ok(if self.cancelled { Ended::Interrupted } else { Ended::Over })
    }

    /// Reads what jobs wrote; whether any wrote something.
    fn read_events(&mut self, watcher: &mut dyn Watcher) -> RunResult<bool> {
        let (mut busy, many) = (false, self.open.len() > MANY);
        // Producers first: what they came to is known when their users tell of themselves.
        for index in self.plan.order() {
            // An earlier one's failure may have taken it.
            let Some(open) = self.open.get_mut(&index) else { continue };
            if many && open.state.as_ref().is_some_and(|seen| seen.state.is_pending()) {
                continue;
            }
            for told in open.tail.read() {
                busy = true;
                self.told(index, told, watcher)?;
            }
            self.succeed(index, watcher)?;
        }
        Ok(busy)
    }

    /// Passes on what a job told.
    fn told(&mut self, index: usize, told: Told, watcher: &mut dyn Watcher) -> RunResult<()> {
        let id = self.plan.stage(index).id.as_str();
        let Some(open) = self.open.get_mut(&index) else { return Ok(()) };
        match &told {
            Told::Cached { stage, .. } | Told::Pulled { stage } if stage == id => {
                open.success = Some(None);
            }
            Told::Finished { stage, seconds, unchanged } if stage == id => {
                open.success = Some(Some((*seconds, *unchanged)));
            }
            Told::Started { stage, reason } if stage == id => {
                open.since = Instant::now();
                watcher.event(&Event::Started { stage, reason });
            }
            Told::Waiting { stage, pid } if stage == id => {
                watcher.event(&Event::Waiting { stage, pid: *pid });
            }
            Told::Progress { stage, done, total, unit, message } if stage == id => {
                watcher.event(&Event::Progress {
                    stage,
                    done: *done,
                    total: *total,
                    unit,
                    message,
                });
            }
            Told::Log { stage, message } if stage == id => {
                watcher.event(&Event::Log { stage, message });
            }
            Told::Warning { message, .. } => {
                watcher.event(&Event::Warning { stage: Some(id), message });
            }
            Told::Failed { stage, seconds, blame, message, help, tail, log } if stage == id => {
                let failure = failure(*blame, message.clone(), help.as_deref());
                let failure = StageFailure { failure, tail: tail.clone(), log: log.clone() };
                open.failure = Some((*seconds, failure, Instant::now()));
            }
            // A job that is cancelled says that it was interrupted: Slurm's state says more.
            Told::Error { message, help } if message != "interrupted" => {
                let seconds = open.since.elapsed().as_secs_f64();
                let failure = failure(Blame::Machine, message.clone(), help.as_deref());
                let failure = StageFailure { failure, tail: Vec::new(), log: None };
                self.fail(index, seconds, &failure, watcher)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a success over, as soon as its key and record are seen.
    fn succeed(&mut self, index: usize, watcher: &mut dyn Watcher) -> RunResult<()> {
        let Some(open) = self.open.get_mut(&index) else { return Ok(()) };
        let Some(ran) = open.success else { return Ok(()) };
        if let Some(key) = self.keys.get(&self.plan.stage(index).id)
            && watcher.done(index, &key, ran)?
        {
            self.open.remove(&index);
            return Ok(());
        }
        if open.looked.get_or_insert_with(Instant::now).elapsed() >= self.lost {
            let seconds = open.since.elapsed().as_secs_f64();
            let message =
                format!("job {} succeeded, but its result is not in this cache", open.job.id);
            let help = "the cache must be on a file system that all nodes and this machine share";
            let failure = failure(Blame::Machine, message, Some(help));
            let failure = StageFailure { failure, tail: Vec::new(), log: None };
            self.fail(index, seconds, &failure, watcher)?;
        }
        Ok(())
    }

    /// Takes note of a failure, of what can no longer run, and cancels what shall not.
    fn fail(
        &mut self,
        index: usize,
        seconds: f64,
        failure: &StageFailure,
        watcher: &mut dyn Watcher,
    ) -> RunResult<()> {
        self.open.remove(&index);
        if self.cancelled {
            return Ok(());
        }
        watcher.failed(index, seconds, failure);
        let (mut lost, mut jobs) = (BTreeSet::from([index]), BTreeSet::new());
        for user in self.plan.order().collect::<Vec<_>>() {
            let needs = self.plan.producers(user).iter().any(|producer| lost.contains(producer));
            if needs && self.open.contains_key(&user) {
                lost.insert(user);
                jobs.extend(self.open.remove(&user).map(|open| open.job.id));
                watcher.skipped(user, Some(index));
            }
        }
        // Slurm does so too, but not with a job that is held.
        self.slurm.cancel(&jobs)?;
        self.ending |= !self.keep_going;
        Ok(())
    }

    /// Asks Slurm for the state of all jobs; whether anything changed.
    fn ask(&mut self, watcher: &mut dyn Watcher) -> RunResult<bool> {
        let seen = match self.slurm.jobs() {
            Ok(seen) => seen,
            Err(SlurmError::Unreachable { said }) => {
                if !std::mem::replace(&mut self.unreachable, true) {
                    let message = format!("Slurm does not answer, asking again: {said}");
                    watcher.event(&Event::Warning { stage: None, message: &message });
                }
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.unreachable = false;
        let mut busy = self.drop_what_shall_not_begin(&seen, watcher)?;
        let seen: BTreeMap<JobId, Seen> = seen.into_iter().map(|seen| (seen.id, seen)).collect();
        for index in self.open.keys().copied().collect::<Vec<_>>() {
            let Some(open) = self.open.get_mut(&index) else { continue };
            let now = seen.get(&open.job.id);
            if now != open.state.as_ref() {
                busy = true;
                if now.is_some() {
                    open.state = now.cloned();
                }
            }
            let waited = open.failure.as_ref().is_some_and(|(.., since)| since.elapsed() > VERDICT);
            let goes_on = now.is_some_and(|now| !now.state.is_over()) && !waited;
            if goes_on || (open.success.is_some() && !self.cancelled) {
                busy |= open.failure.is_some();
                open.over = 0;
                continue;
            }
            open.over += 1;
            busy = true;
            if self.cancelled {
                self.open.remove(&index);
            } else if open.over >= PATIENCE || open.failure.is_some() {
                self.ended(index, now, watcher)?;
            }
        }
        Ok(busy)
    }

    /// After a failure without `keep_going`: cancels jobs that have not begun.
    fn drop_what_shall_not_begin(
        &mut self,
        seen: &[Seen],
        watcher: &mut dyn Watcher,
    ) -> RunResult<bool> {
        if !self.ending || self.cancelled {
            return Ok(false);
        }
        let pending: BTreeSet<JobId> =
            seen.iter().filter(|seen| seen.state.is_pending()).map(|seen| seen.id).collect();
        let lost: Vec<usize> = self
            .open
            .values()
            .filter(|open| pending.contains(&open.job.id))
            .map(|open| open.job.index)
            .collect();
        let jobs = lost.iter().filter_map(|index| self.open.remove(index)).map(|open| open.job.id);
        self.slurm.cancel(&jobs.collect())?;
        lost.iter().for_each(|&index| watcher.skipped(index, None));
        Ok(!lost.is_empty())
    }

    /// A job is over and told nothing.
    fn ended(
        &mut self,
        index: usize,
        now: Option<&Seen>,
        watcher: &mut dyn Watcher,
    ) -> RunResult<()> {
        let Some(open) = self.open.get(&index) else { return Ok(()) };
        let needs_open = |producer: &usize| self.open.contains_key(producer);
        if now.is_some_and(|now| now.reason == "DependencyNeverSatisfied")
            && self.plan.producers(index).iter().any(needs_open)
        {
            // Its producer's own end will be told, and takes it along.
            return Ok(());
        }
        let id = open.job.id;
        let marker = self.folder.marker();
        let end = End {
            id,
            state: now.map(|now| now.state.0.as_str()),
            reason: now.map_or("", |now| now.reason.as_str()),
            node: now.map_or("", |now| now.node.as_str()),
            detail: self.slurm.detail(id),
            events: &open.job.events,
            marker: &marker,
            program: &self.program,
        };
        let (mut failure, mut seconds) = (end.failure(), open.since.elapsed().as_secs_f64());
        if let Some((took, told, _)) = open.failure.clone() {
            // Its own output says more, but not why it was ended.
            let failure_of_slurm = failure.failure;
            failure = told;
            seconds = took;
            if now.is_some_and(|now| now.state.is_by_slurm()) {
                failure.failure = failure_of_slurm;
            }
        }
        self.fail(index, seconds, &failure, watcher)
    }
}
