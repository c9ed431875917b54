//! Slurm's programs: `sbatch`, `squeue`, `scontrol`, `scancel`.
//!
//! Their text is read rather than `--json`, which needs a plugin that not every cluster has, and whose
//! form changes with each version. Nothing needs accounting (`sacct`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use super::error::{Result, SlurmError};
use super::job::{Detail, FORMAT, JobId, Seen};

/// Slurm, as this user sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slurm;

impl Slurm {
    /// The cluster's name.
    ///
    /// # Errors
    ///
    /// Slurm is not installed, or does not answer.
    pub fn cluster(self) -> Result<String> {
        let text = ask("scontrol", &["show", "config"], "its configuration")?;
        let line = text.lines().find_map(|line| line.strip_prefix("ClusterName"));
        Ok(line.unwrap_or("").trim_start_matches([' ', '=']).trim().to_owned())
    }

    /// Submits a job script; `what` names it in errors. `lock` stays locked until `sbatch` is done, even
    /// if this process is killed meanwhile.
    pub fn submit(self, options: &[String], script: &str, what: &str, lock: &File) -> Result<u64> {
        let mut command = program("sbatch");
        command.arg("--parsable").args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A signal from the terminal must not end it between Slurm's answer and ours.
        command.process_group(0);
        let lock = lock.as_raw_fd();
        // SAFETY: one system call that is safe between fork and exec; no allocation.
        unsafe {
            command.pre_exec(move || match libc::fcntl(lock, libc::F_SETFD, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let missing = |source| SlurmError::NotInstalled { program: "sbatch", source };
        let mut child = command.spawn().map_err(missing)?;
        if let Some(mut input) = child.stdin.take() {
            // What goes wrong here, `sbatch` says itself.
            let _ = input.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().map_err(missing)?;
        let text = checked("sbatch", output, what)?;
        // `12`, or `12;cluster`.
        let number = text.trim().split(';').next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| {
            SlurmError::said("sbatch", what, &format!("no job number in `{}`", text.trim()))
        })
    }

    /// All jobs of this user that Slurm remembers, the elements of arrays one by one. It forgets those
    /// that are over after some minutes (`MinJobAge`).
    pub fn jobs(self) -> Result<Vec<Seen>> {
        let format = format!("--format={FORMAT}");
        let arguments = ["--me", "--array", "--noheader", "--states=all", &format];
        let text = ask("squeue", &arguments, "the list of jobs")?;
        Ok(text.lines().filter_map(Seen::parse).collect())
    }

    /// How a job ended; `None` if Slurm has forgotten it.
    pub fn detail(self, id: JobId) -> Option<Detail> {
        let job = id.job.to_string();
        let text = ask("scontrol", &["show", "job", "--oneliner", &job], "a job").ok()?;
        Detail::parse(&text, id)
    }

    /// Asks for the end of jobs. Those that are over already are no error.
    pub fn cancel(self, jobs: &BTreeSet<JobId>) -> Result<()> {
        let jobs: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        for some in jobs.chunks(500) {
            let arguments: Vec<&str> =
                std::iter::once("--quiet").chain(some.iter().map(String::as_str)).collect();
            ask("scancel", &arguments, "to cancel jobs")?;
        }
        Ok(())
    }
}

/// A program of Slurm's, without what the user has set for the own use of it: `squeue` would hide jobs of other partitions, accounts, names …, which then
/// count as lost, and `sbatch` would wait for the job's end.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"SQUEUE_") {
            command.env_remove(variable);
        }
    }
    for variable in ["SBATCH_WAIT", "SBATCH_ARRAY_INX"] {
        command.env_remove(variable);
    }
    command
}

fn ask(program: &'static str, arguments: &[&str], what: &str) -> Result<String> {
    let output = self::program(program)
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .map_err(|source| SlurmError::NotInstalled { program, source })?;
    checked(program, output, what)
}

fn checked(program: &'static str, output: Output, what: &str) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(SlurmError::said(program, what, &stderr))
}
