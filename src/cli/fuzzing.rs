//! Fuzz target: records of runs, as `log`, `show` and `diff` show them.

use std::collections::BTreeMap;

use super::{diff, log, look, show};
use crate::cache::{Cache, fuzzing};
use crate::config::{self, Pipeline};
use crate::exec::{self, RunRecord, Snapshot, Status};

thread_local! {
    static PIPELINE: Pipeline = config::fuzzing::read(
        b"[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs = { x = \"x\" }\n",
    )
    .expect("it is a pipeline");
}

/// The record of a run, and behind a byte 0 that of another.
///
/// # Panics
///
/// Where a record is believed that is another run's, is not read back, or cannot be shown.
pub fn run_record(bytes: &[u8]) {
    let runs: Vec<RunRecord> = bytes.splitn(2, |byte| *byte == 0).filter_map(read).collect();
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return };
    let cache = Cache::at(&fuzzing::place("no cache")).expect("a cache that is not there");
    for run in &runs {
        let metrics: BTreeMap<_, _> = run
            .stages
            .keys()
            .map(|id| (id.clone(), [(id.clone(), serde_json::json!(run.seconds))].into()))
            .collect();
        shown(&log::line(run));
        shown(&show::run_text(run, &metrics));
        for stage in run.stages.keys() {
            assert!(run.log(&cache, stage).is_none());
        }
        let counted: usize = Status::ALL.iter().map(|status| run.count(*status)).sum();
        assert_eq!(counted, run.stages.len());
        let name = exec::find_run(&runs, &run.id).map(|found| &found.id);
        assert!(
            run.id.is_empty() || run.id.starts_with("last") || name.is_ok_and(|id| *id == run.id)
        );
    }
    let state = |run| Snapshot::of_run(&cache, run).expect("an empty cache is read");
    let found = PIPELINE.with(|pipeline| exec::diff(pipeline, &state(first), &state(last)));
    assert!(runs.len() == 2 || found.stages.is_empty(), "a run differs from itself: {found:?}");
    shown(&diff::text(&found));
    serde_json::to_string(&found).expect("a difference serialises to JSON");
}

fn read(json: &[u8]) -> Option<RunRecord> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    let Id { id } = serde_json::from_slice(json).ok()?;
    assert_eq!(
        RunRecord::read("another", json).is_some(),
        id == "another" && RunRecord::read(&id, json).is_some()
    );
    let run = RunRecord::read(&id, json)?;
    assert!(run.seconds.is_finite());
    let again = serde_json::to_vec(&run).expect("a record of a run serialises to JSON");
    assert_eq!(RunRecord::read(&id, &again).as_ref(), Some(&run));
    Some(run)
}

fn shown(text: &str) {
    let plain = look::plain(text);
    let obeyed = |letter: char| letter.is_control() && letter != '\n';
    assert!(!plain.contains(obeyed), "a terminal would obey {plain:?}");
}
