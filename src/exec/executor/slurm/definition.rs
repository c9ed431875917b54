//! What a job was submitted for: a digest that changes when the stage or its options change.

use std::collections::BTreeMap;

use serde_json::json;

use super::script::JobOptions;
use crate::cache::Digest;
use crate::config::Origin;
use crate::plan::Plan;

/// Digests of the definitions of all stages of a plan: kind, version, configuration, where its inputs
/// come from, the seed, and so of its producers. Contents of files are not looked at: a job that reads
/// a file which changed meanwhile says so itself.
pub fn definitions(plan: &Plan) -> BTreeMap<usize, Digest> {
    let pipeline = plan.pipeline();
    let position: BTreeMap<&str, usize> =
        pipeline.stages.iter().enumerate().map(|(index, cell)| (cell.id.as_str(), index)).collect();
    let mut digests = BTreeMap::new();
    for index in plan.order() {
        let cell = plan.stage(index);
        let inputs: Vec<_> = cell
            .inputs
            .iter()
            .map(|input| {
                let origin = match &input.origin {
                    Origin::Stage { id, port, .. } => {
                        let digest: Option<&Digest> =
                            position.get(id.as_str()).and_then(|index| digests.get(index));
                        json!({ "stage": digest, "port": port })
                    }
                    Origin::Data(name) => match pipeline.data.get(name) {
                        Some(data) => json!({ "data": data.spec, "paths": data.paths }),
                        None => json!(null),
                    },
                    Origin::Path(path) => json!({ "path": path }),
                };
                json!({ "port": input.port, "origin": origin })
            })
            .collect();
        let definition = json!({
            "stage": cell.id,
            "kind": cell.kind.name,
            "version": cell.kind.version,
            "config": cell.stage.config(),
            "inputs": inputs,
            "seed": cell.seed,
        });
        digests.insert(index, digest(definition));
    }
    digests
}

/// Digest of what a job is: its stage's definition, whether it runs in any case, what it asks of Slurm,
/// and how it is run.
pub fn job(definition: &Digest, forced: bool, options: &[String], jobs: &JobOptions) -> Digest {
    digest(json!({
        "definition": definition,
        "forced": forced,
        "options": options,
        "program": jobs.program,
        "arguments": jobs.arguments,
        "setup": jobs.setup,
        "sbatch": jobs.sbatch,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn digest(mut value: serde_json::Value) -> Digest {
    value.sort_all_objects();
    Digest::of(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::test_pipeline;

    fn of(lines: &[&str]) -> Vec<Digest> {
        let pipeline = test_pipeline(lines);
        definitions(&Plan::new(&pipeline)).into_values().collect()
    }

    #[test]
    fn a_change_reaches_the_users_and_no_other() {
        let before = of(&["a < /x", "b < a", "c"]);
        assert_eq!(before, of(&["a < /x", "b < a", "c"]));
        let after = of(&["a < /y", "b < a", "c"]);
        assert_ne!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
        assert_eq!(before[2], after[2]);
    }

    #[test]
    fn what_a_job_is_depends_on_its_options() {
        let definition = Digest::of(b"a");
        let options = JobOptions::default();
        let plain = job(&definition, false, &[], &options);
        assert_ne!(plain, job(&definition, false, &["--mem=1M".to_owned()], &options));
        let other = JobOptions { sbatch: vec!["--qos=x".to_owned()], ..options.clone() };
        assert_ne!(plain, job(&definition, false, &[], &other));
        // How many elements run at a time is no matter of a job that is there.
        assert_eq!(plain, job(&definition, false, &[], &JobOptions { limit: Some(2), ..options }));
    }
}
