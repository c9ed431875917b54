//! One attempt to bring a stage up to date: claim, scratch folder, process, record.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::attempt::{Attempt, Worked};
use super::error::{At, Result, RunError};
use super::event::Event;
use super::failure::{StageFailure, failure};
use super::host;
use super::machine::Machine;
use super::past::label;
use super::resources::Grant;
use super::runner::{Needed, Run};
use super::scratch::Scratch;
use super::signals::Signals;
use crate::cache::{
    ActionRecord, Cache, CacheError, Claim, Claimed, Digest, Lookup, StoredOutput, files,
};
use crate::config::{Origin, StageCell};
use crate::stages::contract::Output;
use crate::task::Blame;

/// A stage that is tried.
pub struct Trial<'r, 'p> {
    /// The run.
    pub run: &'r Run<'p>,
    /// The machine, among other runs.
    pub machine: Rc<Machine>,
    /// The stage.
    pub needed: Rc<Needed>,
    /// Attempts of this run that failed before.
    pub failed: u32,
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The stage is up to date.
    Done,
    /// It failed for good.
    Failed,
    /// It failed and may be tried again.
    Retry {
        /// So much later.
        after: Duration,
    },
    /// A stage of another run took one of its GPUs just before: it may begin with another one, or later.
    Elsewhere,
    /// Another run does it.
    Theirs {
        /// That run's process, where known.
        pid: Option<i32>,
    },
}

/// A stage that waits longer for other runs on the machine says so.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How much later than a stage's program a job's runner may be told that its time is up.
const LATE: Duration = Duration::from_millis(100);

/// Brings a stage up to date.
///
/// # Errors
///
/// What ends the run as a whole.
pub async fn attempt(trial: Trial<'_, '_>, grant: &Grant, signals: &mut Signals) -> Result<End> {
    let Trial { run, machine, needed, failed } = trial;
    if signals.any() {
        return Err(RunError::Interrupted);
    }
    let cell = run.stage(needed.stage);
    let (claim, scratch) = {
        let _hold = run.session.borrow().hold()?;
        let claim = match claim(run, cell, &needed.digest)? {
            Ok(claim) => claim,
            Err(pid) => return Ok(End::Theirs { pid }),
        };
        // Another run, or another stage of this one, may have done it meanwhile.
        if let (Lookup::Hit(record), false) = (run.cache.lookup(&needed.digest)?, needed.forced) {
            run.session.borrow_mut().pin(&needed.digest)?;
            run.cached(needed.stage, needed.digest, *record);
            return Ok(End::Done);
        }
        if needed.forced && failed == 0 {
            files::remove(&run.cache.place("checkpoints").join(needed.digest.hex()))?;
        }
        let (spares, done) = (&mut run.spares.borrow_mut(), run.done.borrow());
        (claim, Scratch::new(run.cache, spares, &needed.digest, cell, &done)?)
    };
    let turn = {
        let turn = machine.turn(grant.alone());
        tokio::pin!(turn);
        let mut told = false;
        loop {
            tokio::select! {
                turn = &mut turn => break turn.at("wait for", "the machine".as_ref())?,
                () = tokio::time::sleep(PATIENCE), if !told => {
                    told = true;
                    let alone = grant.alone();
                    run.tell(&Event::WaitingForMachine { stage: &cell.id, alone });
                }
                () = signals.next() => return Err(RunError::Interrupted),
            }
        }
    };
    let Some(cards) = machine.cards(&grant.gpus).at("lock", "its GPUs".as_ref())? else {
        return Ok(End::Elsewhere);
    };
    if failed == 0 {
        run.begun.borrow_mut().insert(needed.stage, Instant::now());
        run.tell(&Event::Started { stage: &cell.id, reason: &needed.why });
    }
    let (start, started) = (Instant::now(), Timestamp::now());
    let attempt = Attempt {
        cache: run.cache,
        pipeline: run.plan.pipeline(),
        cell,
        log: run.log(cell),
        timeout: cell.execution.timeout,
        grant,
        inside: machine.inside(&run.id, &cell.id, grant, &scratch.root),
        gpus: &run.gpus,
        reporter: &run.reporter,
    };
    let lost = spoiled(run, cell)?;
    let result = match lost.first() {
        None => attempt.run(&claim, &scratch, &run.done, signals).await,
        Some((port, from)) => {
            let message = format!("its input `{port}` (`{from}`) was changed or removed meanwhile");
            let help = "run again: its producer makes it anew";
            let failure = failure(Blame::Machine, message, Some(help));
            Ok(Err(StageFailure { failure, tail: Vec::new(), log: None }))
        }
    };
    let result =
        if lost.is_empty() { held_to_inputs(run, cell, &attempt, result)? } else { result };
    drop((cards, turn));
    let changed = run.keys.borrow_mut().inputs.changed(run.plan.pipeline(), cell)?;
    if !changed.is_empty() {
        // They may hold what came of either state of the files.
        files::remove(&scratch.checkpoints)?;
        if !matches!(result, Err(RunError::Interrupted)) {
            return Err(RunError::InputChanged { stage: cell.id.clone(), paths: changed });
        }
    }
    // The time of a job is up for one of its processes after the other.
    let in_job = run.options.part.is_some();
    if in_job
        && matches!(result, Ok(Ok(_)))
        && tokio::time::timeout(LATE, signals.next()).await.is_ok()
    {
        return Err(RunError::Interrupted);
    }
    let stored = match result? {
        Ok(worked) => {
            let times = Times { started, took: start.elapsed() };
            record(run, &needed, &scratch, worked, &times).await?
        }
        Err(failure) => Err(failure),
    };
    let seconds = start.elapsed().as_secs_f64();
    match stored {
        Ok((record, unchanged)) => {
            files::remove(&scratch.checkpoints)?;
            scratch.hand_back(run.cache, &mut run.spares.borrow_mut());
            run.ran(&needed, record, seconds, unchanged);
            Ok(End::Done)
        }
        Err(failure) => Ok(give_up(run, &needed, failed, seconds, &failure)),
    }
}

/// Results of other stages that a stage needs and that are not what those made, as ports and references. What is damaged is removed: the stages that made
/// it run again.
fn spoiled(run: &Run<'_>, cell: &StageCell) -> Result<Vec<(String, String)>> {
    let (done, mut spoiled) = (run.done.borrow(), Vec::new());
    for input in &cell.inputs {
        let Origin::Stage { id, port, .. } = &input.origin else { continue };
        let output = done.get(id).and_then(|record| record.outputs.get(port));
        if let Some(output) = output.filter(|output| !run.cache.is_sound(output)) {
            run.cache.discard(output)?;
            spoiled.push((input.port.clone(), format!("{id}.{port}")));
        }
    }
    Ok(spoiled)
}

/// A stage that wrote into what other stages read has failed, whatever it says: nobody knows which content its own result is of.
fn held_to_inputs(
    run: &Run<'_>,
    cell: &StageCell,
    attempt: &Attempt<'_, '_>,
    result: Result<std::result::Result<Worked, StageFailure>>,
) -> Result<Result<std::result::Result<Worked, StageFailure>>> {
    let spoiled = spoiled(run, cell)?;
    let (Some((port, from)), Ok(ended)) = (spoiled.first(), &result) else { return Ok(result) };
    let tail = ended.as_ref().err().map(|failed| failed.tail.clone()).unwrap_or_default();
    let message = format!("it changed its input `{port}`");
    let help = format!(
        "`{from}` is a file of the cache, which other stages read too: change a copy of it \
         (a stage beside this one that changed it fails in the same words)"
    );
    let failure = failure(Blame::User, message, Some(&help));
    let log = attempt.log.exists().then(|| attempt.log.clone());
    Ok(Ok(Err(StageFailure { failure, tail, log })))
}

/// Whether a stage that failed is tried again.
fn give_up(
    run: &Run<'_>,
    needed: &Needed,
    failed: u32,
    seconds: f64,
    failure: &StageFailure,
) -> End {
    let cell = run.stage(needed.stage);
    let retries = cell.execution.retries;
    if failed >= retries.count {
        run.failed(needed, seconds, failure);
        return End::Failed;
    }
    let after = retries.pause(failed + 1);
    run.tell(&Event::Retrying {
        stage: &cell.id,
        seconds,
        message: &failure.failure.message,
        attempt: failed + 2,
        attempts: retries.count + 1,
        after: after.as_secs_f64(),
    });
    End::Retry { after }
}

/// The right to run a stage, or the process that has it.
fn claim(
    run: &Run,
    cell: &StageCell,
    key: &Digest,
) -> Result<std::result::Result<Claim, Option<i32>>> {
    loop {
        match run.cache.claim(key)? {
            Claimed::Ours(claim) => return Ok(Ok(claim)),
            Claimed::Theirs(pid) => return Ok(Err(pid)),
            Claimed::Survivors(pids) => {
                let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
                let message = format!(
                    "processes of a killed run still worked on it and were ended: {}",
                    pids.join(", ")
                );
                run.tell(&Event::Warning { stage: Some(&cell.id), message: &message });
            }
        }
    }
}

/// When a stage began and how long it took.
struct Times {
    started: Timestamp,
    took: Duration,
}

/// Outputs larger than this are read by another thread, so that the other stages' lines go on.
const LARGE: u64 = 4 << 20;

/// Moves the outputs into the store and publishes the record. Also says whether all outputs are what
/// they were the last time.
async fn record(
    run: &Run<'_>,
    needed: &Needed,
    scratch: &Scratch,
    worked: Worked,
    times: &Times,
) -> Result<std::result::Result<(ActionRecord, bool), StageFailure>> {
    let cell = run.stage(needed.stage);
    let (cache, out, outputs) = (run.cache.clone(), scratch.out(), cell.stage.outputs());
    // Until the record is there, nothing else keeps the objects from being collected.
    let hold = run.session.borrow().hold()?;
    let stored = if files::size(&out) > LARGE {
        let stored = tokio::task::spawn_blocking(move || store(&cache, &out, outputs)).await;
        stored.map_err(std::io::Error::other).at("store", &scratch.out())??
    } else {
        store(&cache, &out, outputs)?
    };
    let outputs = match stored {
        Ok(outputs) => outputs,
        Err(message) => {
            let failure = failure(Blame::User, message, None);
            return Ok(Err(StageFailure { failure, tail: Vec::new(), log: None }));
        }
    };
    let unchanged = run.past.outputs(cell)?.is_some_and(|before| {
        before
            .iter()
            .map(|(port, digest)| (port, *digest))
            .eq(outputs.iter().map(|(port, output)| (port, output.digest)))
    });
    let record = ActionRecord {
        key: needed.key.clone(),
        outputs,
        metrics: worked.metrics,
        warnings: worked.warnings,
        started: times.started.to_string(),
        seconds: times.took.as_secs_f64(),
        stage: label(run.plan.pipeline(), cell),
        host: host::name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    run.cache.record(&record)?;
    run.session.borrow_mut().pin(&needed.digest)?;
    drop(hold);
    Ok(Ok((record, unchanged)))
}

/// Moves a stage's outputs into the store; or says what is wrong with one, which is the stage's own
/// fault and not the cache's.
fn store(
    cache: &Cache,
    out: &Path,
    outputs: Vec<Output>,
) -> Result<std::result::Result<BTreeMap<String, StoredOutput>, String>> {
    let mut found = BTreeMap::new();
    for Output { port, kind, file } in outputs {
        let stored = match cache.store(&out.join(&file)) {
            Ok(stored) => stored,
            Err(error @ (CacheError::NotStorable { .. } | CacheError::StillWritten { .. })) => {
                return Ok(Err(format!("output `{port}`: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        let (digest, directory, bytes) = (stored.digest, stored.directory, stored.bytes);
        found.insert(port, StoredOutput { digest, kind, file, directory, bytes });
    }
    Ok(Ok(found))
}
