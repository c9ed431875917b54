//! Finding `qpipe-worker`, the program that does the stages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::answer;
use crate::task::UsableModel;

/// File name of the worker.
pub const NAME: &str = "qpipe-worker";

/// Environment variable that names another worker than the one beside this program.
pub const VARIABLE: &str = "QPIPE_WORKER";

/// Why there is no worker to use.
#[derive(Clone, Debug, thiserror::Error, miette::Diagnostic)]
pub enum WorkerError {
    /// It is not where it should be.
    #[error("{NAME} is missing: {} is not an executable file", path.display())]
    #[diagnostic(code(qpipe::worker::missing))]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do about it.
        #[help]
        help: String,
    },
    /// It does not start: most often a library of its own is missing.
    #[error("{} does not start: {reason}", path.display())]
    #[diagnostic(
        code(qpipe::worker::broken),
        help("`make deps` fetches its libraries, `cargo build --release` builds it again")
    )]
    Broken {
        /// The worker.
        path: PathBuf,
        /// What the system or the worker said.
        reason: String,
    },
    /// It belongs to another build.
    #[error("{} is version {found}, qpipe is version {}", path.display(), env!("CARGO_PKG_VERSION"))]
    #[diagnostic(
        code(qpipe::worker::version),
        help("build or install both together: cargo build --release")
    )]
    Version {
        /// The worker.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

/// The worker's path: what `QPIPE_WORKER` names, else the program beside this one.
///
/// It is not started, since that takes as long as libtorch takes to load; a worker refuses the task
/// of a qpipe of another version, and [`version`] asks it outright.
pub fn locate() -> Result<PathBuf, WorkerError> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = std::path::absolute(&path).unwrap_or_else(|_| path.into());
        return usable(path, format!("{VARIABLE} names this file: correct it, or unset it"));
    }
    let folder = std::env::current_exe()
        .and_then(|program| program.canonicalize())
        .ok()
        .and_then(|program| program.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    // Programs of `cargo test` stand one folder below those of `cargo build`.
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(&folder).to_path_buf(),
        _ => folder,
    };
    usable(
        folder.join(NAME),
        format!(
            "it belongs beside qpipe: `cargo build --release` in the project builds both, and \
             {VARIABLE}=PATH names one elsewhere"
        ),
    )
}

fn usable(path: PathBuf, help: String) -> Result<PathBuf, WorkerError> {
    use std::os::unix::fs::PermissionsExt;
    let executable = path
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    if executable { Ok(path) } else { Err(WorkerError::Missing { path, help }) }
}

/// It opens its libraries, from a slow disk at worst.
const PATIENCE: Duration = Duration::from_secs(120);

/// The version of the worker at `path`, which must be this program's own.
pub fn version(path: &Path) -> Result<String, WorkerError> {
    let broken = |reason: String| WorkerError::Broken { path: path.to_path_buf(), reason };
    let mut command = Command::new(path);
    command.arg("--version");
    let output = answer::of(command, PATIENCE).map_err(|error| broken(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.output);
    let Some(found) = text.trim().strip_prefix(NAME).map(str::trim) else {
        let said = String::from_utf8_lossy(&output.error);
        let said = said.trim().lines().last().unwrap_or_default();
        return Err(broken(format!("`--version` {}. {said}", output.ending)));
    };
    if found == env!("CARGO_PKG_VERSION") {
        Ok(found.to_owned())
    } else {
        Err(WorkerError::Version { path: path.to_path_buf(), found: found.to_owned() })
    }
}

/// Asks the worker, in one process, which models are so: `trainable`, `calibratable`, `buildable` or `feedable`, each with its files. It reads no data.
pub fn which(asked: &[(&str, Vec<&Path>)]) -> Result<Vec<UsableModel>, WorkerError> {
    let path = locate()?;
    let broken = |reason: String| WorkerError::Broken { path: path.clone(), reason };
    let mut command = Command::new(&path);
    command.arg("model");
    for (word, files) in asked {
        command.arg(word).args(files);
    }
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| broken(error.to_string()))?;
    let told = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    told.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or_default();
        let words: Vec<&str> = asked.iter().map(|(word, _)| *word).collect();
        broken(format!("`model {}` ended with {}. {said}", words.join(" "), output.status))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::test_program;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join(NAME);
        test_program::write(&path, &format!("#!/bin/sh\n{text}\n"));
        path
    }

    #[test]
    fn a_worker_of_the_same_version_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("echo {NAME} {}", env!("CARGO_PKG_VERSION"));
        let path = script(folder.path(), &text);
        assert_eq!(version(&path).unwrap(), env!("CARGO_PKG_VERSION"));
        assert_eq!(usable(path.clone(), String::new()).unwrap(), path);
    }

    #[test]
    fn a_worker_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "echo qpipe-worker 0.0.7");
        let error = version(&path).unwrap_err().to_string();
        assert!(error.contains("is version 0.0.7, qpipe is version"), "{error}");
    }

    #[test]
    fn a_worker_that_cannot_load_its_libraries_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), "echo 'libtorch.so: cannot open' >&2; exit 127");
        let error = version(&path).unwrap_err().to_string();
        assert!(error.contains("ended with exit status 127. libtorch.so: cannot open"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_program_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(usable(path, String::new()), Err(WorkerError::Missing { .. })));
    }
}
