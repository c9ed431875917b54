//! Stages that the worker does: a task file in, events out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::error::{At, Result};
use super::failure::{ending, failure};
use super::process::{Ended, Launch};
use super::scratch::Scratch;
use crate::config::{Origin, Pipeline, StageCell};
use crate::stages::contract::Metrics;
use crate::task::{Blame, Event, Failure, PROTOCOL, Task, TaskInput};

/// Writes the task file and says how the worker is started.
pub fn launch(
    worker: &Path,
    pipeline: &Pipeline,
    cell: &StageCell,
    scratch: &Scratch,
    threads: usize,
) -> Result<Launch> {
    let mut inputs = BTreeMap::new();
    for input in &cell.inputs {
        let task = match &input.origin {
            Origin::Data(name) => pipeline
                .data
                .get(name)
                .map(|data| TaskInput::Data { spec: data.spec.clone(), paths: data.paths.clone() }),
            Origin::Stage { .. } | Origin::Path(_) => {
                scratch.inputs.get(&input.port).map(|path| TaskInput::Path { path: path.clone() })
            }
        };
        inputs.extend(task.map(|task| (input.port.clone(), task)));
    }
    let outputs = cell.stage.outputs().into_iter();
    let task = Task {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stage: cell.id.clone(),
        kind: cell.kind.name.to_owned(),
        config: cell.stage.config(),
        inputs,
        outputs: outputs.map(|output| (output.port, scratch.out().join(output.file))).collect(),
        scratch: scratch.temporary(),
        checkpoints: scratch.checkpoints.clone(),
        seed: cell.seed,
        threads,
    };
    let path = scratch.root.join("task.json");
    // A path that `--set` names from a folder whose own name is not UTF-8 is none of JSON's.
    let json =
        serde_json::to_vec_pretty(&task).map_err(std::io::Error::other).at("write", &path)?;
    std::fs::write(&path, json).at("write", &path)?;
    Ok(Launch {
        line: vec![worker.into(), "run".into(), path.into()],
        env: environment(scratch),
        folder: scratch.temporary(),
    })
}

/// How often libgomp looks whether other threads have come to a barrier before it sleeps.
///
/// libtorch meets at a barrier for each operator. By default libgomp looks some hundred thousand times, which on a
/// machine whose cores are busy (here with the loader's own threads) is most of the time: 29 s of processor time for an
/// evaluation that takes 5 s with this value.
const SPIN_COUNT: &str = "2000";

fn environment(scratch: &Scratch) -> Vec<(String, OsString)> {
    let mut env = vec![("TMPDIR".to_owned(), scratch.temporary().into())];
    let chosen = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
    if chosen.iter().all(|name| std::env::var_os(name).is_none()) {
        env.push(("GOMP_SPINCOUNT".to_owned(), SPIN_COUNT.into()));
    }
    env
}

/// What the worker has said so far of how it ended.
#[derive(Debug, Default)]
pub struct Verdict(Option<std::result::Result<Metrics, Failure>>);

impl Verdict {
    /// Takes an event; one that is no verdict is given back.
    pub fn take(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Done { metrics } => self.0 = Some(Ok(metrics)),
            Event::Failed { failure } => self.0 = Some(Err(failure)),
            other => return Some(other),
        }
        None
    }

    /// What came of the stage.
    pub fn outcome(self, ended: &Ended) -> std::result::Result<Metrics, Failure> {
        use std::os::unix::process::ExitStatusExt;
        match self.0 {
            Some(Err(failure)) => return Err(failure),
            Some(Ok(metrics)) if ended.status.success() => return Ok(metrics),
            _ => {}
        }
        let message = format!("the worker {} without saying why", ending(ended.status));
        Err(match ended.status.signal() {
            Some(libc::SIGKILL) => {
                let help =
                    "most often the system ran out of memory: a smaller batch_size needs less";
                failure(Blame::Machine, message, Some(help))
            }
            Some(libc::SIGILL) => {
                let help = "a library was built for another processor: `qpipe doctor` lists them";
                failure(Blame::Machine, message, Some(help))
            }
            _ => failure(Blame::Bug, message, Some("its last lines and its log may tell more")),
        })
    }
}
