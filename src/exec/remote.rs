//! The remote cache in a run: a result that another machine has is taken, one that is new is given.
//! Whatever fails of it is a warning.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::error::Result;
use super::event::{Event, PULLING};
use super::runner::{Needed, Run, Status};
use crate::cache::ActionRecord;
use crate::cache::remote::{Remote, RemoteEvent};
use crate::config::StageCell;

/// Progress is told ten times a second at most.
const PACE: Duration = Duration::from_millis(100);

/// The remote of a run, unless it was switched off.
fn of<'r>(run: &'r Run<'_>) -> Option<&'r Remote> {
    run.options.remote.as_deref().filter(|remote| !remote.is_off())
}

/// Whether a result may be looked for in a remote.
pub fn is_there(run: &Run<'_>) -> bool {
    of(run).is_some()
}

/// Whether a stage has a result that a remote should get: it ran, and the remote may be written to.
pub fn is_news(run: &Run<'_>, stage: usize) -> bool {
    let ran = run.notes.borrow().get(&stage).is_some_and(|note| note.status == Status::Ran);
    ran && of(run).is_some_and(Remote::writes)
}

/// Takes a stage's result from the remote, if that has it; whether the stage is up to date now.
///
/// # Errors
///
/// Of this machine's cache alone.
pub async fn pull(run: &Run<'_>, needed: &Needed) -> Result<bool> {
    let Some(remote) = of(run) else { return Ok(false) };
    let cell = run.stage(needed.stage);
    let (start, told) = (Instant::now(), Cell::new(Instant::now()));
    let watch = |event: RemoteEvent<'_>| match event {
        RemoteEvent::Warning(message) => run.tell(&Event::Warning { stage: None, message }),
        RemoteEvent::Progress { done, total } => {
            if told.get().elapsed() >= PACE {
                told.set(Instant::now());
                let (stage, unit, message) = (&*cell.id, "B", PULLING);
                run.tell(&Event::Progress { stage, done, total, unit, message });
            }
        }
    };
    let Some(fetched) = remote.fetch_record(&needed.digest, &watch).await else {
        return Ok(false);
    };
    if !outputs_of(&fetched.record, cell) {
        let message = "the remote's record of it has other outputs than the stage";
        run.tell(&Event::Warning { stage: Some(&cell.id), message });
        return Ok(false);
    }
    if !remote.fetch_outputs(run.cache, &fetched, &watch).await? {
        return Ok(false);
    }
    // A collection that went on meanwhile may have taken what no record named yet.
    let _hold = run.session.borrow().hold()?;
    let record = fetched.record;
    if !record.outputs.values().all(|output| run.cache.is_sound(output)) {
        return Ok(false);
    }
    run.cache.record(&record)?;
    run.session.borrow_mut().pin(&needed.digest)?;
    run.pulled(needed, record, start.elapsed().as_secs_f64());
    Ok(true)
}

/// Whether a record has the outputs that a stage has, under the names that it gives them.
fn outputs_of(record: &ActionRecord, cell: &StageCell) -> bool {
    let outputs = cell.stage.outputs();
    outputs.len() == record.outputs.len()
        && outputs.iter().all(|expected| {
            record
                .outputs
                .get(&expected.port)
                .is_some_and(|found| found.file == expected.file && found.kind == expected.kind)
        })
}

/// Puts the result of a stage that ran into the remote.
pub async fn push(run: &Run<'_>, needed: &Needed) {
    let Some(remote) = of(run) else { return };
    let cell = run.stage(needed.stage);
    let Some(record) = run.done.borrow().get(&cell.id).cloned() else { return };
    let watch = |event: RemoteEvent<'_>| {
        if let RemoteEvent::Warning(message) = event {
            run.tell(&Event::Warning { stage: None, message });
        }
    };
    if let Some(pushed) = remote.push(run.cache, &record, &watch).await {
        let (stage, objects, bytes) = (&*cell.id, pushed.objects, pushed.bytes);
        run.tell(&Event::Pushed { stage, objects, bytes });
    }
}
