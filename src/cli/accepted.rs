//! The lock file that was accepted last: in a revision of git, or a file.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cache::LockFile;
use crate::config::Pipeline;
use crate::exec::{Review, RunError};

/// The lock file as it is before the run.
pub fn on_disk(pipeline: &Pipeline) -> Result<Review, RunError> {
    let path = pipeline.lock_file();
    let accepted = LockFile::read(&path)?.unwrap_or_default();
    Ok(Review { accepted, against: format!("{} before", name(&path)), ..Review::default() })
}

/// The accepted lock file: that of `against`, a file or a revision; else that of HEAD; without git
/// the one that is there.
pub fn find(pipeline: &Pipeline, against: Option<&str>) -> Result<Review, RunError> {
    let path = pipeline.lock_file();
    if let Some(file) = against.map(Path::new).filter(|file| file.is_file()) {
        let accepted = LockFile::read(file)?.unwrap_or_default();
        return Ok(Review { accepted, against: file.display().to_string(), ..Review::default() });
    }
    let git = Git { folder: &pipeline.folder };
    let unknown = |revision: &str| RunError::Against { name: revision.to_owned() };
    match (git.is_there()?, against) {
        (true, _) => {
            let revision = against.unwrap_or("HEAD");
            let commit = git.commit(revision)?;
            if commit.is_none() && against.is_some() {
                return Err(unknown(revision));
            }
            // Before its first commit, a repository has accepted nothing.
            let bytes = commit.map(|commit| git.show(&commit, &name(&path))).transpose()?.flatten();
            let accepted = bytes.map(|bytes| LockFile::parse(&path, &bytes)).transpose()?;
            let against = format!("{} of {revision}", name(&path));
            let accepted = accepted.unwrap_or_default();
            Ok(Review { accepted, against, ..Review::default() })
        }
        (false, Some(revision)) => Err(unknown(revision)),
        (false, None) => on_disk(pipeline),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().display().to_string()
}

/// The repository that a folder lies in.
struct Git<'f> {
    folder: &'f Path,
}

impl Git<'_> {
    fn command(&self, arguments: &[&str]) -> Result<std::process::Output, std::io::Error> {
        Command::new("git")
            .arg("-C")
            .arg(self.folder)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
    }

    fn error(what: &str, reason: &str) -> RunError {
        RunError::Git { what: what.to_owned(), reason: reason.trim().replace('\n', "; ") }
    }

    /// Whether the folder lies in a work tree; without the program git, it does not.
    fn is_there(&self) -> Result<bool, RunError> {
        const WHAT: &str = "the work tree";
        let output = match self.command(&["rev-parse", "--is-inside-work-tree"]) {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Self::error(WHAT, &error.to_string())),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        match (output.status.success(), said.contains("not a git repository")) {
            (true, _) => Ok(output.stdout.starts_with(b"true")),
            (false, true) => Ok(false),
            // Such as a folder of another user's, which git does not trust.
            (false, false) => Err(Self::error(WHAT, &said)),
        }
    }

    /// The digest of a revision's commit; `None` if there is none of that name.
    fn commit(&self, revision: &str) -> Result<Option<String>, RunError> {
        let named = format!("{revision}^{{commit}}");
        let output = self
            .command(&["rev-parse", "--verify", "--quiet", "--end-of-options", &named])
            .map_err(|error| Self::error(revision, &error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let commit = text.lines().last().map(str::to_owned);
        Ok(commit.filter(|_| output.status.success()))
    }

    /// A file beside the pipeline file as it stands in a commit; `None` where it is not there.
    fn show(&self, commit: &str, name: &str) -> Result<Option<Vec<u8>>, RunError> {
        let ask = |arguments: &[&str]| {
            let output = self.command(arguments);
            let output = output.map_err(|error| Self::error(name, &error.to_string()))?;
            if output.status.success() {
                return Ok(output.stdout);
            }
            Err(Self::error(name, &String::from_utf8_lossy(&output.stderr)))
        };
        // Paths of `ls-tree` are relative to the folder; a name is no pattern there.
        if ask(&["ls-tree", "-z", commit, "--", name])?.is_empty() {
            return Ok(None);
        }
        ask(&["show", &format!("{commit}:./{name}")]).map(Some)
    }
}
