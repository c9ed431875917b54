//! `--locked`: the lock file stays as it is, and what runs is what stands there.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error::{Result, RunError};
use super::options::Locked;
use super::{facts, keys, reason};
use crate::cache::{ActionKey, Digest, LockFile, LockedStage};
use crate::config::{Origin, Pipeline, StageCell};
use crate::plan::Plan;
use crate::stages::contract::Fact;

/// A lock file that must not change.
///
/// What depends on the machine cannot be the same on every one: an engine for its processor, a
/// benchmark's figures. So a stage is *free* of the lock file if its key differs from the one there
/// only in facts of the machine and in inputs that come from free stages, or if it measures this host,
/// which gives other figures each time. All others have exactly the key and the outputs of the file.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: LockFile,
    strict: bool,
    free: RefCell<BTreeSet<String>>,
}

impl Held {
    /// The lock file of a pipeline, if it must not change; all that the pipeline file alone decides
    /// is compared with it already, so that nothing runs in vain.
    pub fn new(plan: &Plan, locked: Locked) -> Result<Option<Self>> {
        if locked == Locked::No {
            return Ok(None);
        }
        let path = plan.pipeline().lock_file();
        let file = LockFile::read(&path)?;
        let strict = locked == Locked::Strict;
        let (missing, file) = (file.is_none(), file.unwrap_or_default());
        let held = Self { path, file, strict, free: RefCell::default() };
        if missing {
            return Err(held.refuse("there is no such file".to_owned()));
        }
        held.check(plan)?;
        Ok(Some(held))
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        let pipeline = plan.pipeline();
        let there: BTreeSet<&str> = pipeline.stages.iter().map(|cell| cell.id.as_str()).collect();
        if let Some(id) = self.file.stages.keys().find(|id| !there.contains(id.as_str())) {
            return Err(self.refuse(format!("stage {id} is no longer in the pipeline")));
        }
        for index in plan.order() {
            let cell = plan.stage(index);
            let (_, old) = self.entry(cell)?;
            let ActionKey { inputs, facts, .. } = old.clone();
            let new = ActionKey { inputs, facts, ..keys::written(pipeline, cell) };
            if new != old {
                return Err(self.differs(pipeline, cell, &new, &old));
            }
        }
        Ok(())
    }

    fn entry(&self, cell: &StageCell) -> Result<(&LockedStage, ActionKey)> {
        let Some(locked) = self.file.stages.get(&cell.id) else {
            return Err(self.refuse(format!("stage {} is not in it", cell.id)));
        };
        let key = locked.action_key().ok_or_else(|| {
            let id = &cell.id;
            self.refuse(format!("what it says of stage {id} does not have the key that it names"))
        })?;
        Ok((locked, key))
    }

    /// Refuses a key that is not the one in the file; for a stage that is free of it, says why.
    pub fn hold(
        &self,
        pipeline: &Pipeline,
        cell: &StageCell,
        key: &ActionKey,
        digest: &Digest,
    ) -> Result<Option<String>> {
        let (locked, old) = self.entry(cell)?;
        if locked.key == *digest {
            if !self.strict && key.facts.contains_key(&facts::name(Fact::Host)) {
                self.free.borrow_mut().insert(cell.id.clone());
            }
            return Ok(None);
        }
        if self.strict || !self.differs_by_machine(cell, key, &old) {
            return Err(self.differs(pipeline, cell, key, &old));
        }
        self.free.borrow_mut().insert(cell.id.clone());
        let file = self.path.file_name().unwrap_or_default().display();
        let changes = changes(pipeline, cell, key, &old);
        Ok(Some(format!("not the key of {file}, by the machine alone ({changes})")))
    }

    fn differs_by_machine(&self, cell: &StageCell, new: &ActionKey, old: &ActionKey) -> bool {
        let free = self.free.borrow();
        let from_free = |port: &String| {
            cell.inputs.iter().any(|input| {
                let Origin::Stage { id, .. } = &input.origin else { return false };
                input.port == *port && free.contains(id)
            })
        };
        let ActionKey { inputs, facts, .. } = new.clone();
        ActionKey { inputs, facts, ..old.clone() } == *new
            && new.inputs.keys().eq(old.inputs.keys())
            && new.inputs.iter().all(|(port, now)| old.inputs[port] == *now || from_free(port))
    }

    /// Refuses outputs that are not those in the file.
    pub fn conclude(&self, new: &LockFile) -> Result<()> {
        let free = self.free.borrow();
        for (id, stage) in new.stages.iter().filter(|(id, _)| !free.contains(*id)) {
            let Some(old) = self.file.stages.get(id).filter(|old| old.outputs != stage.outputs)
            else {
                continue;
            };
            let short = |digest: Option<&Digest>| digest.map_or("none".to_owned(), Digest::short);
            let changed = stage.outputs.iter().find_map(|(port, digest)| {
                let before = old.outputs.get(port);
                let change = format!("{port}: {} → {}", short(before), digest.short());
                (before != Some(digest)).then_some(change)
            });
            let changed = changed.unwrap_or_else(|| "an output is gone".to_owned());
            let what = format!("stage {id} came out otherwise than before ({changed})");
            return Err(self.refuse(what));
        }
        Ok(())
    }

    fn differs(
        &self,
        pipeline: &Pipeline,
        cell: &StageCell,
        new: &ActionKey,
        old: &ActionKey,
    ) -> RunError {
        let changes = changes(pipeline, cell, new, old);
        self.refuse(format!("stage {} has another key ({changes})", cell.id))
    }

    fn refuse(&self, what: String) -> RunError {
        RunError::Locked { path: self.path.clone(), what }
    }
}

/// Old and new values of what differs, the first few.
fn changes(pipeline: &Pipeline, cell: &StageCell, new: &ActionKey, old: &ActionKey) -> String {
    const SHOWN: usize = 3;
    let changes = reason::changes(pipeline, Some(cell), new, old);
    let mut texts: Vec<String> = changes.iter().take(SHOWN).map(reason::Change::text).collect();
    if changes.len() > SHOWN {
        texts.push(format!("and {} more", changes.len() - SHOWN));
    }
    texts.join("; ")
}
