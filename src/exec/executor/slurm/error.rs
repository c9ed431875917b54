//! What Slurm or the files about its jobs refuse.

use std::path::PathBuf;

/// What Slurm or the files about its jobs refuse.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SlurmError {
    /// A program of Slurm is not there.
    #[error("cannot start {program}: {source}")]
    #[diagnostic(
        code(qpipe::slurm::not_installed),
        help(
            "`--executor slurm` needs Slurm's commands on the PATH of this machine: run it on a login node, or leave the option out to run here"
        )
    )]
    NotInstalled {
        /// Its name.
        program: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The controller does not answer.
    #[error("Slurm does not answer: {said}")]
    #[diagnostic(
        code(qpipe::slurm::unreachable),
        help(
            "`sinfo` shows whether the cluster is up; jobs that were submitted before go on, and the same command finds them again"
        )
    )]
    Unreachable {
        /// What its program printed.
        said: String,
    },
    /// A program of Slurm refused what was asked.
    #[error("{program} refused {what}: {said}")]
    #[diagnostic(code(qpipe::slurm::refused))]
    Refused {
        /// Its name.
        program: &'static str,
        /// What was asked for.
        what: String,
        /// What it printed.
        said: String,
        /// What to do about it.
        #[help]
        help: String,
    },
    /// The system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    #[diagnostic(code(qpipe::slurm::io), help("check permissions, and the room left on the disk"))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file about submitted jobs cannot be understood.
    #[error("{} cannot be read: {reason}", path.display())]
    #[diagnostic(
        code(qpipe::slurm::state),
        help(
            "`squeue --me` shows what is submitted; cancel its jobs with `scancel`, remove the file and run again"
        )
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Result of what is asked of Slurm.
pub type Result<T, E = SlurmError> = std::result::Result<T, E>;

impl SlurmError {
    /// What a program that failed meant.
    pub(super) fn said(program: &'static str, what: &str, stderr: &str) -> Self {
        let lines: Vec<&str> =
            stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said = lines.join("; ");
        let down = [
            "Unable to contact slurm controller",
            "Connection refused",
            "Zero Bytes were transmitted",
            "Socket timed out",
            "Protocol authentication error",
            "munge",
            "Unable to establish configuration source",
            "Could not establish a configuration source",
        ];
        if down.iter().any(|sign| said.contains(sign)) {
            return Self::Unreachable { said };
        }
        let help = if said.contains("artition") {
            "`sinfo` lists the partitions; name one with `--slurm-option=--partition=NAME` or `[slurm] options`"
        } else if said.contains("ccount") || said.to_lowercase().contains("qos") {
            "`sacctmgr show associations user=$USER` lists what you may use; name it in `[slurm] options`"
        } else if said.contains("node configuration")
            || said.contains("resources")
            || said.contains("Memory")
        {
            "no node has what the stage asks for: see its `resources`, and `sinfo -N -o '%N %c %m %G'` for what nodes have"
        } else {
            "the options come from the stage's `resources`, `[slurm] options` and `--slurm-option`"
        };
        Self::Refused { program, what: what.to_owned(), said, help: help.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_down_is_told_from_a_refusal() {
        let down = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n";
        assert!(matches!(SlurmError::said("squeue", "jobs", down), SlurmError::Unreachable { .. }));
        let refused = "sbatch: error: invalid partition specified: foo\nsbatch: error: Batch job submission failed: Invalid partition name specified\n";
        let SlurmError::Refused { said, help, .. } = SlurmError::said("sbatch", "a", refused)
        else {
            panic!("it was refused")
        };
        assert!(said.contains("invalid partition specified: foo"), "{said}");
        assert!(help.contains("sinfo"), "{help}");
    }
}
