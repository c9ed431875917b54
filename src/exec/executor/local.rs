//! Stages as processes of this machine, as many at a time as fit.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Executor, Work};
use crate::cache::Claimed;
use crate::exec::cost::estimate_left;
use crate::exec::error::{Result, RunError};
use crate::exec::estimate::Estimates;
use crate::exec::event::Event;
use crate::exec::failure::{StageFailure, failure};
use crate::exec::gpus::{Gpus, Shared};
use crate::exec::machine::{Inside, Machine};
use crate::exec::need::need;
use crate::exec::queue::Queue;
use crate::exec::resources::{Capacity, Grant, Pool};
use crate::exec::runner::{Needed, Run};
use crate::exec::scheduler::Scheduler;
use crate::exec::signals::Signals;
use crate::exec::stage_run::{self, End, Trial};
use crate::exec::{Options, machinery, remote};
use crate::task::Blame;

/// This machine.
#[derive(Debug)]
pub struct Local {
    capacity: Capacity,
}

impl Local {
    /// With what the options allow.
    pub fn new(options: &Options, gpus: &Gpus) -> Self {
        Self { capacity: Capacity::of_machine(options.jobs, gpus) }
    }
}

impl Executor for Local {
    fn execute(&self, run: &Run, work: Work) -> Result<()> {
        let mut ids = BTreeMap::new();
        if run.plan.order().any(|index| self.waits_for_gpus(run, index)) {
            self.tell_of_other_kinds(run);
            ids = run.gpus.ids();
        }
        let machine = Rc::new(Machine::open(ids)?);
        self.check(run, &machine)?;
        let (runtime, signals, ender) = machinery::start()?;
        let mut local = Progress {
            run,
            machine: Rc::clone(&machine),
            scheduler: work.scheduler,
            pool: Pool::among_others(self.capacity.clone(), machine),
            queue: Queue::default(),
            estimates: Estimates::new(run)?,
            needed: BTreeMap::new(),
            tries: BTreeMap::new(),
            tasks: FuturesUnordered::new(),
            elsewhere: BTreeMap::new(),
            looking: false,
            signals,
            stopping: false,
        };
        let mut fatal = None;
        runtime.block_on(async {
            let (mut flushed, mut flush) = (Instant::now(), None);
            let mut told = tokio::time::Instant::now();
            for needed in work.needed {
                local.push(needed);
            }
            loop {
                if !local.stopping {
                    local.start();
                }
                let wake = tokio::select! {
                    wake = local.tasks.next() => wake,
                    () = tokio::time::sleep_until(told + TELL) => {
                        told = tokio::time::Instant::now();
                        if let Some(seconds) = estimate_left(run) {
                            run.tell(&Event::TimeLeft { seconds });
                        }
                        continue;
                    }
                };
                let Some(wake) = wake else { break };
                if let Err(error) = local.wake(wake) {
                    if fatal.is_none() && !matches!(error, RunError::Interrupted) {
                        // The others end as if a signal had asked them to.
                        ender.end();
                    }
                    local.stopping = true;
                    fatal.get_or_insert(error);
                }
                if flushed.elapsed() > FLUSH {
                    flushed = Instant::now();
                    let cache = run.cache.clone();
                    // One at a time; what went wrong with it goes wrong with the last one as well.
                    if let Some(before) =
                        flush.replace(tokio::task::spawn_blocking(move || cache.flush()))
                    {
                        let _ = before.await;
                    }
                }
            }
        });
        let left = local.queue.len() + local.scheduler.left();
        run.summary.borrow_mut().skipped += left;
        match fatal {
            Some(error) => Err(error),
            None if local.stopping => Ok(()),
            None => none_left(left, || local.left(), run.plan.order().count()),
        }
    }
}

impl Local {
    /// Whether a stage that is not done is to be given GPUs.
    fn waits_for_gpus(&self, run: &Run, index: usize) -> bool {
        let cell = run.stage(index);
        !run.done.borrow().contains_key(&cell.id) && need(cell, &self.capacity).gpus > 0.0
    }

    /// Warns of GPUs that no stage is given.
    fn tell_of_other_kinds(&self, run: &Run) {
        let Shared { names, kind, others } = run.gpus.shared();
        if others.is_empty() {
            return;
        }
        let list: Vec<String> =
            others.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        let message = format!(
            "stages with `resources.gpus` are given GPUs of one kind, since their cache keys name it: {} ({kind}), not {}; `--gpus {}` gives them those",
            names.join(", "),
            list.join(", "),
            others[0].0
        );
        run.tell(&Event::Warning { stage: None, message: &message });
    }

    /// Refuses a stage that needs more than the machine has, before anything runs. Where a remote
    /// cache may have its result, it is refused once that does not.
    fn check(&self, run: &Run, machine: &Machine) -> Result<()> {
        if remote::is_there(run) {
            return Ok(());
        }
        for index in run.plan.order() {
            let cell = run.stage(index);
            if run.done.borrow().contains_key(&cell.id) {
                continue;
            }
            fits(run, index, &self.capacity, machine)?;
        }
        Ok(())
    }
}

/// Refuses a stage that needs more than the machine has, or than this run can have of it.
fn fits(run: &Run, index: usize, capacity: &Capacity, machine: &Machine) -> Result<()> {
    let cell = run.stage(index);
    let need = need(cell, capacity);
    let (file, line, stage) = (cell.file.to_path_buf(), cell.line, cell.id.clone());
    if let Some((what, needed, there)) = capacity.lacks(&need) {
        return Err(RunError::TooLarge { file, line, stage, what, needed, there });
    }
    match machine.shared_by().filter(|_| need.alone) {
        Some(Inside { stage: outer, run, .. }) => {
            Err(RunError::Inside { file, line, stage, outer: outer.clone(), run: run.clone() })
        }
        None => Ok(()),
    }
}

/// A run that nothing stopped and that leaves stages is no success: what they wait for does not come.
fn none_left(left: usize, names: impl Fn() -> Vec<String>, stages: usize) -> Result<()> {
    if left == 0 { Ok(()) } else { Err(RunError::Left { left, names: names(), stages }) }
}

/// At most this much work is lost with the machine's power.
const FLUSH: Duration = Duration::from_secs(1);

/// How often it is told how long the run will take.
const TELL: Duration = Duration::from_secs(1);

/// How often it is looked whether another run has done a stage, or has given a GPU back.
const LOOK: Duration = Duration::from_millis(50);

/// What happened to a stage.
enum Wake {
    /// An attempt is over.
    Ended(Rc<Needed>, Grant, Result<End>),
    /// It was looked for in the remote cache.
    Pulled(Rc<Needed>, Result<bool>),
    /// Its result was put into the remote cache, or was not.
    Pushed,
    /// It may be tried again.
    Again(Rc<Needed>),
    /// Other runs may have given GPUs back.
    Look,
    /// A signal came while it waited for that.
    Interrupted,
}

type Task<'t> = Pin<Box<dyn Future<Output = Wake> + 't>>;

/// A run on its way.
struct Progress<'r, 'p> {
    run: &'r Run<'p>,
    machine: Rc<Machine>,
    scheduler: Scheduler,
    pool: Pool,
    queue: Queue,
    estimates: Estimates,
    needed: BTreeMap<usize, Rc<Needed>>,
    /// Attempts that failed, of each stage.
    tries: BTreeMap<usize, u32>,
    tasks: FuturesUnordered<Task<'r>>,
    /// Since when stages wait for GPUs that stages of other runs have; `None`: it was told.
    elsewhere: BTreeMap<usize, Option<Instant>>,
    /// Whether one of the tasks is to wake this when that may be over.
    looking: bool,
    signals: Signals,
    /// Nothing is started any more.
    stopping: bool,
}

impl<'r, 'p> Progress<'r, 'p> {
    /// A stage waits for its turn, after a look into the remote cache: that needs no part of the
    /// machine.
    fn push(&mut self, needed: Needed) {
        if let Some(lack) = &needed.lack {
            return self.cannot(&needed, lack);
        }
        let (run, needed) = (self.run, Rc::new(needed));
        if needed.forced || !remote::is_there(run) {
            return self.again(needed);
        }
        let mut signals = self.signals.clone();
        self.tasks.push(Box::pin(async move {
            tokio::select! {
                () = signals.next() => Wake::Interrupted,
                found = remote::pull(run, &needed) => Wake::Pulled(needed, found),
            }
        }));
    }

    /// The result of a stage that ran goes to the remote cache, while others run.
    fn share(&mut self, needed: Rc<Needed>) {
        let (run, mut signals) = (self.run, self.signals.clone());
        self.tasks.push(Box::pin(async move {
            tokio::select! {
                () = signals.next() => Wake::Interrupted,
                () = remote::push(run, &needed) => Wake::Pushed,
            }
        }));
    }

    fn again(&mut self, needed: Rc<Needed>) {
        let stage = needed.stage;
        if let Err(error) = fits(self.run, stage, self.pool.capacity(), &self.machine) {
            return self.cannot(&needed, &error);
        }
        let need = need(self.run.stage(stage), self.pool.capacity());
        self.queue.push(stage, self.estimates.priority(stage), need);
        self.needed.insert(stage, needed);
    }

    /// A stage fails before it starts: the machine does not have what it needs.
    fn cannot(&mut self, needed: &Needed, why: &RunError) {
        use miette::Diagnostic;
        let help = why.help().map(|help| help.to_string());
        let failure = failure(Blame::Machine, why.to_string(), help.as_deref());
        let failure = StageFailure { failure, tail: Vec::new(), log: None };
        self.run.failed(needed, 0.0, &failure);
        self.failed(needed.stage);
    }

    /// A stage failed for good, and with it what needs it.
    fn failed(&mut self, stage: usize) {
        let lost: Vec<usize> = self.scheduler.failed(stage);
        self.run.lost(&lost, stage);
        self.queue.drop_stages(&lost);
        self.stopping |= !self.run.options.keep_going;
    }

    /// Names of stages that were neither done nor lost.
    fn left(&self) -> Vec<String> {
        let (notes, lost, done) =
            (self.run.notes.borrow(), self.run.lost.borrow(), self.run.done.borrow());
        let open = |index: &usize| !notes.contains_key(index) && !lost.contains_key(index);
        let names = self.run.plan.order().filter(open).map(|index| &self.run.stage(index).id);
        names.filter(|name| !done.contains_key(*name)).cloned().collect()
    }

    /// Starts what fits.
    fn start(&mut self) {
        while let Some((stage, grant)) = self.queue.take(&mut self.pool) {
            let Some(needed) = self.needed.remove(&stage) else { continue };
            let trial = Trial {
                run: self.run,
                machine: Rc::clone(&self.machine),
                needed: Rc::clone(&needed),
                failed: self.tries.get(&stage).copied().unwrap_or(0),
            };
            let mut signals = self.signals.clone();
            self.tasks.push(Box::pin(async move {
                let result = stage_run::attempt(trial, &grant, &mut signals).await;
                Wake::Ended(needed, grant, result)
            }));
        }
        self.wait_for_gpus();
    }

    /// Looks again in a while where stages wait for GPUs that stages of other runs have.
    fn wait_for_gpus(&mut self) {
        let waiting = self.queue.elsewhere();
        for &stage in &waiting {
            let since = self.elsewhere.entry(stage).or_insert_with(|| Some(Instant::now()));
            if since.is_some_and(|since| since.elapsed() > stage_run::PATIENCE) {
                *since = None;
                let stage = &self.run.stage(stage).id;
                self.run.tell(&Event::WaitingForGpu { stage });
            }
        }
        if waiting.is_empty() || self.looking {
            return;
        }
        self.looking = true;
        let mut signals = self.signals.clone();
        self.tasks.push(Box::pin(async move {
            tokio::select! {
                () = signals.next() => Wake::Interrupted,
                () = tokio::time::sleep(LOOK) => Wake::Look,
            }
        }));
    }

    fn wake(&mut self, wake: Wake) -> Result<()> {
        let (needed, end) = match wake {
            Wake::Interrupted => return Err(RunError::Interrupted),
            Wake::Again(needed) => {
                self.again(needed);
                return Ok(());
            }
            Wake::Pushed => return Ok(()),
            Wake::Look => {
                self.looking = false;
                return Ok(());
            }
            Wake::Pulled(needed, found) => {
                if !found? {
                    self.again(needed);
                    return Ok(());
                }
                (needed, End::Done)
            }
            Wake::Ended(needed, grant, result) => {
                self.pool.give_back(&grant);
                if matches!(result, Err(RunError::Interrupted)) {
                    self.run.interrupted(&needed);
                }
                (needed, result?)
            }
        };
        let stage = needed.stage;
        match end {
            End::Done => {
                if remote::is_news(self.run, stage) {
                    self.share(needed);
                }
                self.scheduler.succeeded(stage);
                self.look()?;
            }
            End::Failed => self.failed(stage),
            End::Retry { after } => {
                *self.tries.entry(stage).or_default() += 1;
                self.later(needed, after);
            }
            End::Elsewhere => self.again(needed),
            End::Theirs { pid } => {
                // Another stage of this run with the same key needs no word.
                let own = std::process::id().cast_signed();
                if pid != Some(own) {
                    let stage = &self.run.stage(stage).id;
                    self.run.tell(&Event::Waiting { stage, pid });
                }
                self.watch(needed);
            }
        }
        Ok(())
    }

    /// Looks up all whose producers have become up to date.
    fn look(&mut self) -> Result<()> {
        // What was missing may be there by now.
        self.run.keys.borrow_mut().facts.forget();
        while let Some(index) = self.scheduler.take() {
            match self.run.look(index)? {
                None => self.scheduler.succeeded(index),
                Some(needed) => self.push(needed),
            }
        }
        Ok(())
    }

    /// Tries a stage again after a while.
    fn later(&mut self, needed: Rc<Needed>, after: Duration) {
        let mut signals = self.signals.clone();
        self.tasks.push(Box::pin(async move {
            tokio::select! {
                () = signals.next() => Wake::Interrupted,
                () = tokio::time::sleep(after) => Wake::Again(needed),
            }
        }));
    }

    /// Tries a stage again when the other run that does it is over.
    fn watch(&mut self, needed: Rc<Needed>) {
        let (run, mut signals) = (self.run, self.signals.clone());
        self.tasks.push(Box::pin(async move {
            loop {
                tokio::select! {
                    () = signals.next() => return Wake::Interrupted,
                    () = tokio::time::sleep(LOOK) => {}
                }
                // The claim itself is let go of again: the stage has no part of the machine yet.
                if !matches!(run.cache.claim(&needed.digest), Ok(Claimed::Theirs(_))) {
                    return Wake::Again(needed);
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a run ended with exit code 0.
    #[test]
    fn stages_that_are_left_over_are_no_success() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        assert!(none_left(0, names, 3).is_ok());
        let error = none_left(2, names, 3).unwrap_err();
        let message = "2 of 3 stages were not run, though nothing failed: a, b";
        assert_eq!(error.to_string(), message);
    }
}
