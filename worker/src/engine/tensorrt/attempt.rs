//! One build by trtexec, with the timing cache where there is one, and once more without it where it may be at fault.

use std::path::{Path, PathBuf};

use super::layers::Layers;
use super::{Caching, Log, Program, Source, TimingCache, command, failure, log};
use crate::engine::{Build, Told};
use crate::{Error, Result};

/// The engine's file, its layers as TensorRT tells them, and all that trtexec said.
pub const ENGINE: &str = "model.engine";
pub const LAYERS: &str = "layer-info.json";
pub const LOG: &str = "build.log";
pub const TIMES: &str = "times.json";

/// All builds of a stage.
pub struct Attempts<'a> {
    pub program: &'a Program,
    pub request: &'a Build<'a>,
    pub source: Source<'a>,
    pub cache: Option<TimingCache>,
}

/// One of them.
pub struct Attempt<'a> {
    /// Where its files go.
    pub folder: &'a Path,
    /// Flags that were chosen for it.
    pub flags: Vec<String>,
    /// Whether the engine is run and timed after it was built.
    pub timed: bool,
    /// Beginning of what is said of it, such as `try 2 of 6: `.
    pub title: String,
}

/// What came of it.
pub struct Done {
    pub log: Log,
    pub layers: Layers,
    /// `off`, `new`, `used`, `refused` or `failed`.
    pub cache: &'static str,
    /// The file of times, where it was timed.
    pub times: Option<PathBuf>,
}

impl Attempts<'_> {
    /// Builds.
    ///
    /// # Errors
    /// What TensorRT refuses.
    pub fn run(&self, attempt: &Attempt) -> Result<Done> {
        let Some(cache) = &self.cache else {
            let ended = self.without_cache(attempt)?;
            return self.done(attempt, ended.log, "off");
        };
        let tell = self.request.tell;
        // What happens beside others is no measure for later builds, neither times nor failures.
        let shared = self.request.tensorrt.timing_cache == Caching::Shared;
        // A folder of its own: trtexec locks the file by another beside it, and leaves that behind.
        let own = tempfile::tempdir_in(attempt.folder)
            .map_err(|error| Error::io(attempt.folder, &error))?;
        let place = own.path().join("timing.cache");
        let there = cache.copy_to(&place)?;
        let ended = self.start(attempt, Some(&place))?;
        let (failed, refused) = (failure::of_cache(&ended), ended.log.cache_refused.clone());
        let again = format!("remove {} to try it again", cache.note().display());
        if ended.status.success() {
            let state = match &refused {
                Some(words) if shared => {
                    tell(Told::Warning(format!(
                        "TensorRT {} refused its timing cache and built without it ({words}); later builds do not use one: {again}",
                        self.program.version
                    )));
                    cache.refuse(words);
                    "refused"
                }
                Some(_) => "refused",
                None => {
                    if shared {
                        cache.publish(&place);
                    }
                    if there { "used" } else { "new" }
                }
            };
            return self.done(attempt, ended.log, state);
        }
        let Some(reason) = failed else { return Err(self.failed(&ended)) };
        tell(Told::Log(&format!("again without a timing cache: {reason}")));
        // Where this fails too it was not the cache.
        let ended = self.without_cache(attempt)?;
        if shared {
            tell(Told::Warning(format!(
                "a build with a timing cache failed ({reason}) and was done again without one, as later builds are; {again}"
            )));
            cache.refuse(&reason);
        }
        self.done(attempt, ended.log, "failed")
    }

    fn without_cache(&self, attempt: &Attempt) -> Result<super::Ended> {
        let ended = self.start(attempt, None)?;
        if ended.status.success() { Ok(ended) } else { Err(self.failed(&ended)) }
    }

    fn start(&self, attempt: &Attempt, cache: Option<&Path>) -> Result<super::Ended> {
        let (version, folder) = (self.program.version, attempt.folder);
        let line =
            command::build(version, &self.source, &attempt.flags, attempt.timed, folder, cache);
        let mut each = |line: &str| {
            if log::tedious(line) {
                return;
            }
            (self.request.tell)(Told::Log(line));
            if let Some(step) = log::step(line) {
                let words = line.rsplit("] ").next().unwrap_or(line);
                let message = format!("{}{words}", attempt.title);
                (self.request.tell)(Told::Progress {
                    done: step,
                    total: log::STEPS,
                    unit: "steps",
                    message: &message,
                });
            }
        };
        self.program.run(&line, &attempt.folder.join(LOG), &mut each)
    }

    fn failed(&self, ended: &super::Ended) -> Error {
        failure::of(self.program, "cannot build the model", ended, Some(self.request.model))
    }

    fn done(&self, attempt: &Attempt, log: Log, cache: &'static str) -> Result<Done> {
        let engine = attempt.folder.join(ENGINE);
        if !engine.is_file() {
            return Err(Error::machine(format!(
                "trtexec said that it passed and wrote no {}",
                engine.display()
            )));
        }
        let path = attempt.folder.join(LAYERS);
        let text = std::fs::read(&path).map_err(|error| Error::io(&path, &error))?;
        let layers = Layers::read(&text, &self.request.model.graph)?;
        let times = attempt.timed.then(|| attempt.folder.join(TIMES));
        Ok(Done { log, layers, cache, times })
    }
}
