//! The key of a stage, as soon as what it takes from others is known.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::error::Result;
use super::facts::{Facts, Untold};
use super::gpus::Gpus;
use super::inputs::Inputs;
use super::{facts, report_stage};
use crate::cache::{ActionKey, ActionRecord, Cache, CacheError, Digest};
use crate::config::{Origin, Pipeline, StageCell};
use crate::plan::Plan;
use crate::stages::contract::{Fact, Runs};

/// Makes keys.
#[derive(Debug)]
pub struct Keys {
    /// The user's files.
    pub inputs: Inputs,
    /// The machine.
    pub facts: Facts,
    /// What stages see of its GPUs.
    pub gpus: Rc<Gpus>,
}

/// Records of the stages that are done, by id.
pub type Done = BTreeMap<String, ActionRecord>;

impl Keys {
    /// For the selected stages of a plan.
    pub fn new(cache: &Cache, plan: &Plan, gpus: Rc<Gpus>) -> Self {
        let wanted = plan.order().flat_map(|index| {
            let cell = plan.stage(index);
            let view = gpus.view(cell);
            cell.facts.iter().map(move |fact| (*fact, view.clone()))
        });
        let facts = Facts::new(cache, wanted);
        Self { inputs: Inputs::new(cache), facts, gpus }
    }

    /// The key of a stage whose producers are all `done`.
    ///
    /// It lacks the facts that are given back: they cannot be told here. A result has no such key.
    ///
    /// # Errors
    ///
    /// Inputs that cannot be read.
    pub fn key(
        &mut self,
        pipeline: &Pipeline,
        cell: &StageCell,
        done: &Done,
    ) -> Result<(ActionKey, Vec<(Fact, Untold)>)> {
        let mut key = self.without_facts(pipeline, cell, done)?;
        let untold = self.add_facts(cell, &mut key)?;
        Ok((key, untold))
    }

    /// Adds the facts of the machine to a key; those that cannot be told are given back.
    ///
    /// # Errors
    ///
    /// Of the cache alone.
    pub fn add_facts(
        &mut self,
        cell: &StageCell,
        key: &mut ActionKey,
    ) -> Result<Vec<(Fact, Untold)>> {
        let mut untold = Vec::new();
        let view = self.gpus.view(cell);
        for &fact in &cell.facts {
            match self.facts.get(fact, &view)? {
                Ok(value) => drop(key.facts.insert(facts::name(fact), value)),
                Err(why) => untold.push((fact, why)),
            }
        }
        Ok(untold)
    }

    /// The key of a stage but for the facts of the machine.
    ///
    /// # Errors
    ///
    /// Inputs that cannot be read.
    pub fn without_facts(
        &mut self,
        pipeline: &Pipeline,
        cell: &StageCell,
        done: &Done,
    ) -> Result<ActionKey> {
        let mut inputs = BTreeMap::new();
        for input in &cell.inputs {
            let digest = match &input.origin {
                Origin::Stage { id, port, .. } => produced(done, id, port)?,
                Origin::Data(name) => match pipeline.data.get(name) {
                    Some(data) => self.inputs.data(data)?,
                    None => return Err(dangling(&format!("data.{name}")).into()),
                },
                Origin::Path(path) => self.inputs.with_companions(path)?,
            };
            inputs.insert(input.port.clone(), digest);
        }
        Ok(ActionKey { inputs, ..written(pipeline, cell) })
    }

    /// Writes what was learnt of files and libraries.
    pub fn save(&mut self) -> Result<()> {
        self.inputs.save()?;
        self.facts.save()
    }
}

/// What of a stage's key the pipeline file alone decides: all but inputs and facts.
pub(super) fn written(pipeline: &Pipeline, cell: &StageCell) -> ActionKey {
    let config = match cell.kind.runs {
        Runs::Runner => report_stage::config(pipeline, cell),
        Runs::Worker | Runs::Program => cell.stage.config(),
    };
    ActionKey {
        format: ActionKey::FORMAT,
        kind: cell.kind.name.to_owned(),
        kind_version: cell.kind.version,
        config,
        inputs: BTreeMap::new(),
        seed: cell.seed,
        facts: BTreeMap::new(),
    }
}

fn produced(done: &Done, id: &str, port: &str) -> Result<Digest> {
    let output = done.get(id).and_then(|record| record.outputs.get(port));
    output.map(|output| output.digest).ok_or_else(|| dangling(&format!("{id}.{port}")).into())
}

/// Config refuses such references; a record of an older version of a kind could still lack a port.
fn dangling(name: &str) -> CacheError {
    CacheError::NotStorable {
        path: name.into(),
        reason: "nothing of that name was made".to_owned(),
        help: "`qpipe cache verify --repair` removes records that do not fit".to_owned(),
    }
}
