//! `[slurm]`: how stages are submitted to a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::interpolate::Interpolator;
use super::mistakes::Mistake;
use super::schema;
use super::tree::{Entry, Node, Value};

/// The `[slurm]` table: for `qpipe run --executor slurm`. No part of any stage's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slurm {
    /// Options of `sbatch` for all jobs, one a text, such as `"--partition=gpu"`. They win over what
    /// follows from a stage's `resources`; `--slurm-option` on the command line wins over them.
    pub options: Vec<String>,
    /// Shell lines that a job runs first, such as `module load cuda`.
    pub setup: String,
}

/// Options of `sbatch` that qpipe sets itself or cannot do with.
const OWN: &[&str] = &[
    "--array",
    "-a",
    "--comment",
    "--dependency",
    "-d",
    "--job-name",
    "-J",
    "--chdir",
    "-D",
    "--output",
    "-o",
    "--error",
    "-e",
    "--input",
    "-i",
    "--parsable",
    "--wrap",
    "--kill-on-invalid-dep",
    "--wait",
    "-W",
    "--test-only",
    "--clusters",
    "-M",
    "--ntasks",
    "-n",
    "--nodes",
    "-N",
];

/// What is wrong with an option of `sbatch`, and what to do about it.
pub fn check_option(option: &str) -> Result<(), (String, &'static str)> {
    const FORM: &str = "write it as one text, such as \"--partition=gpu\"";
    if !option.starts_with('-') {
        return Err((format!("\"{option}\" is no option of sbatch"), FORM));
    }
    let long = option.split('=').next().unwrap_or(option);
    let short = option.get(..2).filter(|_| !option.starts_with("--"));
    match OWN.iter().find(|own| **own == long || Some(**own) == short) {
        Some(own) => {
            let help = "qpipe gives this option itself: it finds its jobs, their order and their output by it";
            Err((format!("{own} cannot be given to sbatch"), help))
        }
        None => Ok(()),
    }
}

/// Reads the table; empty where it is not given, or has mistakes.
pub(super) fn read(entry: Option<&Entry>, reader: &mut Interpolator<'_>) -> Slurm {
    let Some((entry, table)) = entry.and_then(|entry| Some((entry, entry.node.table()?))) else {
        return Slurm::default();
    };
    let start = reader.mistakes.len();
    let mut table = reader.table(table);
    schema::write_out(schema::slurm(), &mut table);
    schema::check(schema::slurm(), &table, &entry.node, "slurm", &mut reader.mistakes);
    let tree = Node::new(Value::Table(table), entry.node.place);
    if reader.mistakes.len() > start || tree.is_broken() {
        return Slurm::default();
    }
    match Slurm::deserialize(tree.to_toml()) {
        Ok(slurm) => {
            for (index, option) in slurm.options.iter().enumerate() {
                if let Err((message, help)) = check_option(option) {
                    let node = tree.nearest(&["options".to_owned(), index.to_string()]);
                    let mistake = Mistake::new("slurm", node.place, message, "here");
                    reader.mistakes.push(mistake.help(help));
                }
            }
            slurm
        }
        Err(error) => {
            reader.mistakes.push(super::stage::from_serde(&tree, &error));
            Slurm::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_would_break_the_run_are_refused() {
        for good in [
            "--partition=gpu",
            "-pgpu",
            "--qos=high",
            "--account=a",
            "--constraint=a100",
            "--exclude=n1",
        ] {
            assert_eq!(check_option(good), Ok(()), "{good}");
        }
        for bad in [
            "gpu",
            "",
            "--array=0-3",
            "-a0-3",
            "--wait",
            "--dependency=afterok:1",
            "-dsingleton",
            "-o/x",
        ] {
            assert!(check_option(bad).is_err(), "{bad}");
        }
    }
}
