//! A run that is a job of a cluster: one stage of the plan, whose producers are done elsewhere.

use super::error::{Result, RunError};
use super::event::Event;
use super::executor::slurm::{HandOver, definitions};
use super::runner::Run;
use crate::cache::{Digest, Lookup};

impl Run<'_> {
    /// Refuses a stage that is another now than the job was submitted for: its result would be taken
    /// for one of the old definition.
    pub(super) fn check_part(&self) -> Result<()> {
        let Some(part) = &self.options.part else { return Ok(()) };
        let definitions = definitions(self.plan);
        let same = |(index, digest): (&usize, &Digest)| {
            self.stage(*index).id == part.stage && *digest == part.definition
        };
        if definitions.iter().any(same) {
            return Ok(());
        }
        let file = self.plan.pipeline().file.clone();
        Err(RunError::Definition { file, stage: part.stage.clone() })
    }

    /// Takes what another stage than the job's own came to, as it was handed over. Its key is not made
    /// anew: it may hold facts of the node where the stage ran. `false`: the stage is this run's to
    /// look up.
    pub(super) fn handed(&self, index: usize) -> Result<bool> {
        let Some(part) = &self.options.part else { return Ok(false) };
        let cell = self.stage(index);
        if cell.id == part.stage {
            return Ok(false);
        }
        let missing = || RunError::HandOver {
            stage: part.stage.clone(),
            producer: cell.id.clone(),
            cache: self.cache.root().to_path_buf(),
        };
        let key = HandOver::new(part.hand_over.clone()).get(&cell.id).ok_or_else(missing)?;
        let _hold = self.session.borrow().hold()?;
        let Lookup::Hit(record) = self.cache.lookup(&key)? else { return Err(missing()) };
        self.session.borrow_mut().pin(&key)?;
        self.cached(index, key, *record);
        Ok(true)
    }

    /// Hands over what the job's stage came to.
    pub(super) fn hand_over(&self, index: usize, key: &Digest) {
        let Some(part) = self.options.part.as_ref() else { return };
        let stage = &self.stage(index).id;
        if *stage != part.stage {
            return;
        }
        if let Err(error) = HandOver::new(part.hand_over.clone()).put(stage, key) {
            // The stage itself succeeded; who waits for the key says what it lacks.
            self.tell(&Event::Warning { stage: Some(stage), message: &error.to_string() });
        }
    }
}
