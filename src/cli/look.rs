//! What commands have in common that look at a pipeline and its cache and change nothing.

use std::borrow::Cow;

use super::pipeline_args::CacheArgs;
use super::{Exit, PipelineArgs, fail};
use crate::cache::Cache;
use crate::config::Pipeline;
use crate::exec::reporter::terminal;
use crate::exec::{Action, Preview, RunError, stdout};

/// A pipeline and its cache; the cache may not be there.
pub struct Look {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Its cache.
    pub cache: Cache,
}

impl Look {
    /// Reads the pipeline file and finds the cache; what goes wrong is shown already.
    pub fn new(pipeline: &PipelineArgs, cache: &CacheArgs, json: bool) -> Result<Self, Exit> {
        let pipeline = pipeline.load()?;
        let cache = Cache::at(&cache.root(&pipeline.folder));
        let cache = cache.map_err(|error| fail::run(RunError::from(error), json))?;
        Ok(Self { pipeline, cache })
    }
}

/// The exit code of a look: with `ask`, whether there is work.
pub fn exit<'p>(previews: impl IntoIterator<Item = &'p Preview>, ask: bool) -> Exit {
    let pending = previews.into_iter().any(|preview| preview.action != Action::Cached);
    if ask && pending { Exit::Pending } else { Exit::Success }
}

/// Prints on standard output; on a terminal, lines that are too long go on with an indent.
pub fn print_wrapped(text: &str) {
    print(&terminal::wrapped(text, 4, &console::Term::stdout()));
}

/// Prints on standard output. What a terminal would obey becomes blanks: texts come from records, and
/// a cache may be shared.
pub fn print(text: &str) {
    print_raw(&plain(text));
}

/// A text without what a terminal would obey.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |letter: char| letter.is_control() && letter != '\n';
    if text.contains(obeyed) { text.replace(obeyed, " ").into() } else { text.into() }
}

/// Prints on standard output as it is.
pub fn print_raw(text: &str) {
    stdout::write(text.as_bytes());
}

/// Prints JSON for programs.
pub fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string(value).expect("what is shown serialises to JSON");
    print_raw(&format!("{text}\n"));
}
