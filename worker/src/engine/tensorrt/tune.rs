//! `tune`: each list of flags is built twice, since two builds of one list differ, and the fastest engine is kept.

use serde_json::{Value, json};

use super::attempt::{Done, ENGINE, LAYERS, LOG};
use super::times::Times;
use super::{Attempt, Attempts};
use crate::engine::Told;
use crate::{Error, Result};

/// Builds of each list of flags.
const BUILDS: usize = 2;

/// The fastest of all tries: what came of it, its flags, and a record of each try. Its files lie in the request's folder. A list that fails is told in a
/// warning, recorded, and not built a second time.
///
/// # Errors
/// What TensorRT refuses of the first list, where it refuses all.
pub fn tune(attempts: &Attempts, candidates: &[Vec<String>]) -> Result<(Done, Vec<String>, Value)> {
    let (folder, tell) = (attempts.request.folder, attempts.request.tell);
    let mut best: Option<(f64, tempfile::TempDir, Done, Vec<String>)> = None;
    let mut record = Vec::new();
    let mut failures: Vec<(String, Error)> = Vec::new();
    let all = candidates.len() * BUILDS;
    for (list, flags) in candidates.iter().enumerate() {
        for build in 1..=BUILDS {
            let place = tempfile::tempdir_in(folder).map_err(|error| Error::io(folder, &error))?;
            let title = format!("try {} of {all}: ", list * BUILDS + build);
            let attempt =
                Attempt { folder: place.path(), flags: flags.clone(), timed: true, title };
            let (done, times) = match timed(attempts, &attempt) {
                Ok(timed) => timed,
                Err(error) => {
                    let failed = format!("{}\"{}\" failed", attempt.title, flags.join(" "));
                    tell(Told::Log(&format!("{failed}: {}", error.message)));
                    record.push(json!({"flags": flags, "build": build, "failed": error.message}));
                    failures.push((failed, error));
                    break;
                }
            };
            let median = times.compute_ms.median;
            record.push(json!({
                "flags": flags,
                "build": build,
                "compute_ms": times.compute_ms,
                "build_seconds": done.log.build_seconds,
                "advice": done.log.advice,
            }));
            if best.as_ref().is_none_or(|(least, ..)| median < *least) {
                best = Some((median, place, done, flags.clone()));
            }
        }
    }
    let Some((_, place, done, flags)) = best else {
        let first = failures.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or_else(|| Error::bug("nothing was tried")));
    };
    for (failed, error) in &failures {
        tell(Told::Warning(format!(
            "{failed}, the fastest of the others is kept: {}",
            error.message
        )));
    }
    for name in [ENGINE, LAYERS, LOG] {
        let (from, to) = (place.path().join(name), folder.join(name));
        std::fs::rename(&from, &to).map_err(|error| Error::io(&to, &error))?;
    }
    Ok((done, flags, Value::Array(record)))
}

/// Builds and times one engine.
fn timed(attempts: &Attempts, attempt: &Attempt) -> Result<(Done, Times)> {
    let done = attempts.run(attempt)?;
    let path = done.times.clone().unwrap_or_default();
    let text = std::fs::read(&path).map_err(|error| Error::io(&path, &error))?;
    let times = Times::read(&text)?;
    Ok((done, times))
}
