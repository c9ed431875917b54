//! `tune`: each list of flags is built twice, since two builds of one list differ, and the fastest engine is kept.

use serde_json::{Value, json};

use super::attempt::{Done, ENGINE, LAYERS, LOG};
use super::times::Times;
use super::{Attempt, Attempts};
use crate::{Error, Result};

/// Builds of each list of flags.
const BUILDS: usize = 2;

/// The fastest of all tries: what came of it, its flags, and a record of each try. Its files lie in the request's folder.
///
/// # Errors
/// What TensorRT refuses.
pub fn tune(attempts: &Attempts, candidates: &[Vec<String>]) -> Result<(Done, Vec<String>, Value)> {
    let folder = attempts.request.folder;
    let mut best: Option<(f64, tempfile::TempDir, Done, Vec<String>)> = None;
    let mut record = Vec::new();
    let all = candidates.len() * BUILDS;
    for index in 0..all {
        let flags = candidates[index / BUILDS].clone();
        let place = tempfile::tempdir_in(folder).map_err(|error| Error::io(folder, &error))?;
        let attempt = Attempt {
            folder: place.path(),
            flags: flags.clone(),
            timed: true,
            title: format!("try {} of {all}: ", index + 1),
        };
        let done = attempts.run(&attempt)?;
        let path = done.times.clone().unwrap_or_default();
        let times = Times::read(&std::fs::read(&path).map_err(|error| Error::io(&path, &error))?)?;
        let median = times.compute_ms.median;
        record.push(json!({
            "flags": flags,
            "build": index % BUILDS + 1,
            "compute_ms": times.compute_ms,
            "build_seconds": done.log.build_seconds,
            "advice": done.log.advice,
        }));
        if best.as_ref().is_none_or(|(least, ..)| median < *least) {
            best = Some((median, place, done, flags));
        }
    }
    let (_, place, done, flags) = best.ok_or_else(|| Error::bug("nothing was tried"))?;
    for name in [ENGINE, LAYERS, LOG] {
        let (from, to) = (place.path().join(name), folder.join(name));
        std::fs::rename(&from, &to).map_err(|error| Error::io(&to, &error))?;
    }
    Ok((done, flags, Value::Array(record)))
}
