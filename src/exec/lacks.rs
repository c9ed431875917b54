//! What stages need of the machine and is not there: told before anything runs, not after hours of training.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::error::{Result, RunError};
use super::event::Event;
use super::facts::Untold;
use super::runner::Run;
use super::{ExecutorChoice, remote, worker};
use crate::config::StageCell;
use crate::stages::contract::{Fact, Runs};

/// A library, a program or a GPU that stages need and that is not there, or cannot be used. Without it such a stage can
/// neither run nor be looked up: what it is belongs to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing, in the words of `qpipe doctor`.
    pub what: &'static str,
    /// The first stage that needs it.
    pub stage: String,
    /// The file with that stage's table.
    pub file: PathBuf,
    /// Line of the table.
    pub line: usize,
    /// How many more stages need it.
    pub more: usize,
    /// What the worker said.
    pub reason: String,
    /// What it said to do.
    pub help: Option<String>,
}

impl Lack {
    /// Of one stage.
    fn new(cell: &StageCell, fact: Fact, reason: String, help: Option<String>) -> Self {
        Self {
            what: fact.words(),
            stage: cell.id.clone(),
            file: cell.file.to_path_buf(),
            line: cell.line,
            more: 0,
            reason,
            help,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { what, stage, file, line, more, reason, .. } = self;
        write!(f, "stage {stage} ({}:{line})", file.display())?;
        match more {
            0 => write!(f, " needs {what}: {reason}"),
            more => write!(f, " and {more} more need {what}: {reason}"),
        }
    }
}

impl RunError {
    /// Stages lack something; `keep_going`: whether the user may leave them out by that option.
    fn lacking(lacks: Vec<Lack>, keep_going: bool) -> Self {
        let mut help: Vec<&str> = Vec::new();
        for said in lacks.iter().filter_map(|lack| lack.help.as_deref()) {
            if !help.contains(&said) {
                help.push(said);
            }
        }
        help.push("`qpipe doctor` lists what is missing and how to get it");
        if keep_going {
            help.push("--keep-going runs all that can do without");
        }
        let help = help.join("; ");
        Self::Lacking { lacks, help }
    }
}

impl Run<'_> {
    /// Refuses to start where stages of this run lack what they need, or with `--keep-going` says that they will fail.
    ///
    /// All stages that are not known to be up to date are asked for, also those whose turn comes last: without the
    /// fact there is no key, so none of them could be found up to date later. A cluster's nodes have libraries of their own.
    pub(super) fn check_lacks(&self) -> Result<()> {
        if !self.runs_here() {
            return Ok(());
        }
        // Of a fact, and of the GPU that is named.
        let mut found: BTreeMap<(Fact, usize), Lack> = BTreeMap::new();
        let mut lacks = |cell: &StageCell, what: (Fact, usize), reason, help| {
            let lack = found.entry(what);
            lack.and_modify(|lack| lack.more += 1)
                .or_insert_with(|| Lack::new(cell, what.0, reason, help));
        };
        // What a remote cache has needs neither worker nor GPU.
        let remote = remote::is_there(self);
        for index in self.plan.order() {
            let cell = self.stage(index);
            if self.done.borrow().contains_key(&cell.id) {
                continue;
            }
            let keys = &mut *self.keys.borrow_mut();
            let view = keys.gpus.view(cell);
            for &fact in &cell.facts {
                match keys.facts.get(fact, &view)? {
                    Ok(_) => {}
                    Err(Untold::Worker(error)) => return Err(error.into()),
                    Err(Untold::Missing { reason, help }) => {
                        lacks(cell, (fact, view.gpu), reason, help)
                    }
                }
            }
            if cell.kind.runs == Runs::Worker && !remote {
                worker::locate()?;
            }
        }
        if self.options.keep_going {
            for lack in found.values() {
                let whose = if lack.more > 0 { "they" } else { "it" };
                let message = format!("{lack}; {whose} will fail, the others run");
                self.tell(&Event::Warning { stage: None, message: &message });
            }
            // It may be there when its turn comes.
            self.keys.borrow_mut().facts.forget();
            return Ok(());
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(RunError::lacking(found.into_values().collect(), self.options.part.is_none()))
    }

    /// Refuses to start where `--gpus` names one that is not there.
    pub(super) fn check_gpus(&self) -> Result<()> {
        match self.gpus.missing().filter(|_| self.runs_here()) {
            None => Ok(()),
            Some((name, there)) => Err(RunError::NoSuchGpu { name: name.to_owned(), there }),
        }
    }

    /// Whether stages run on this machine, and need what they need here.
    pub(super) fn runs_here(&self) -> bool {
        matches!(self.options.executor, ExecutorChoice::Local)
    }

    /// What a stage lacks whose facts could not be told; `None` where it lacks nothing.
    ///
    /// # Errors
    ///
    /// There is no worker, and the stage would run here.
    pub(super) fn lack_of(
        &self,
        cell: &StageCell,
        untold: Vec<(Fact, Untold)>,
    ) -> Result<Option<RunError>> {
        let mut lacks = Vec::new();
        for (fact, untold) in untold {
            match untold {
                Untold::Worker(error) if self.runs_here() => return Err(error.into()),
                Untold::Worker(error) => {
                    lacks.push(Lack::new(cell, fact, error.to_string(), None));
                }
                Untold::Missing { reason, help } => {
                    lacks.push(Lack::new(cell, fact, reason, help));
                }
            }
        }
        Ok((!lacks.is_empty()).then(|| RunError::lacking(lacks, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lack(what: &'static str, more: usize, help: &str) -> Lack {
        Lack {
            what,
            stage: "engine".to_owned(),
            file: "p.toml".into(),
            line: 7,
            more,
            reason: "none found".to_owned(),
            help: Some(help.to_owned()),
        }
    }

    #[test]
    fn all_that_is_missing_is_told_at_once_and_each_help_once() {
        use miette::Diagnostic;
        let lacks = vec![lack("A", 0, "get it"), lack("B", 2, "get it")];
        let error = RunError::lacking(lacks, true);
        assert_eq!(
            error.to_string(),
            "stage engine (p.toml:7) needs A: none found\n\
             stage engine (p.toml:7) and 2 more need B: none found"
        );
        assert_eq!(
            error.help().unwrap().to_string(),
            "get it; `qpipe doctor` lists what is missing and how to get it; \
             --keep-going runs all that can do without"
        );
    }
}
