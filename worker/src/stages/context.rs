//! What a stage's run is given: its task, and where its events go.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use qpipe::stages::contract::Contract;
use qpipe::stages::data::DataSpec;
use qpipe::task::{Event, Task, TaskInput};

use crate::data::Dataset;
use crate::engine::Told;
use crate::{Error, Result};

/// What a stage's run is given.
pub struct Context<'a> {
    /// What to do.
    pub task: &'a Task,
    /// Where to tell of it.
    pub events: &'a Events,
}

impl Context<'_> {
    /// The configuration, typed.
    pub fn config<C: Contract>(&self) -> Result<C> {
        serde_json::from_value(self.task.config.clone())
            .map_err(|error| Error::bug(format!("task of {}: {error}", self.task.stage)))
    }

    /// Path of what stands at input `port`, if it is connected.
    pub fn input(&self, port: &str) -> Option<&Path> {
        match self.task.inputs.get(port) {
            Some(TaskInput::Path { path }) => Some(path),
            _ => None,
        }
    }

    /// Path of what stands at input `port`.
    pub fn need(&self, port: &str) -> Result<&Path> {
        self.input(port).ok_or_else(|| self.missing("input", port))
    }

    /// The data set at input `port`, and the absolute paths of its ports `path` and `labels`.
    fn data(&self, port: &str) -> Result<(&DataSpec, &BTreeMap<String, PathBuf>)> {
        match self.task.inputs.get(port) {
            Some(TaskInput::Data { spec, paths }) => Ok((spec, paths)),
            _ => Err(self.missing("data set", port)),
        }
    }

    /// Opens the data set at input `port`, and warns of what the user should know of it, such as files that are ignored: figures of a part
    /// of the images are to be known as such.
    pub fn dataset(&self, port: &'static str) -> Result<Dataset> {
        let (spec, paths) = self.data(port)?;
        let dataset = Dataset::open(spec, paths).map_err(|error| error.key(port))?.of_key(port);
        dataset.notes().into_iter().for_each(|note| self.events.warn_of(port, note));
        Ok(dataset)
    }

    /// Where output `port` goes.
    pub fn output(&self, port: &str) -> Result<&Path> {
        let path = self.task.outputs.get(port).map(PathBuf::as_path);
        path.ok_or_else(|| self.missing("output", port))
    }

    /// The folder of the outputs, where files lie that are needed meanwhile.
    pub fn folder(&self) -> &Path {
        let output = self.task.outputs.values().next();
        output.and_then(|path| path.parent()).unwrap_or(Path::new("."))
    }

    /// How many images of a data set are used of so many that were asked for; warns where it has fewer.
    pub fn samples(&self, wanted: u64, dataset: &Dataset) -> usize {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if wanted > dataset.len() {
            self.events.warn(format!(
                "{wanted} images were asked for, the data set has {}: all of them are used",
                dataset.len()
            ));
        }
        wanted
    }

    fn missing(&self, what: &str, port: &str) -> Error {
        Error::bug(format!("task of {} has no {what} `{port}`", self.task.stage))
    }
}

/// Prints events as JSON lines on standard output; progress at most ten times a second.
pub struct Events {
    out: Mutex<(Box<dyn Write + Send>, Option<Instant>)>,
}

impl Events {
    /// Least time between two progress lines.
    const INTERVAL: Duration = Duration::from_millis(100);

    /// Events to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new((out, None)) }
    }

    /// Prints one event.
    ///
    /// A runner that is gone cannot read it; the parent-death signal ends this process then, so a
    /// failed write is not an error.
    pub fn send(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("an event serialises to JSON");
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = out.0.write_all(&line).and_then(|()| out.0.flush());
    }

    /// Tells how far the stage is: `done` of `total` `unit`s, `message` says of what.
    pub fn progress(&self, done: u64, total: u64, unit: &str, message: &str) {
        {
            let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            if done < total && out.1.is_some_and(|last| now - last < Self::INTERVAL) {
                return;
            }
            out.1 = Some(now);
        }
        let (unit, message) = (unit.to_owned(), message.to_owned());
        self.send(&Event::Progress { done, total, unit, message });
    }

    /// What an engine's build or benchmark says.
    pub fn told(&self, told: Told) {
        match told {
            Told::Progress { done, total, unit, message } => {
                self.progress(done, total, unit, message)
            }
            Told::Log(line) => self.log(line),
            Told::Warning(message) => self.warn(message),
        }
    }

    /// A line for the log.
    pub fn log(&self, message: impl Into<String>) {
        self.send(&Event::Log { message: message.into() });
    }

    /// Something that the user should know although the stage goes on.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(&Event::Warning { message: message.into(), key: None });
    }

    /// The same of a key of the stage's table, whose line is told.
    pub fn warn_of(&self, key: &str, message: impl Into<String>) {
        self.send(&Event::Warning { message: message.into(), key: Some(key.into()) });
    }
}
