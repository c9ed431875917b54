//! The commit that a pipeline file's folder is at, so that a run can be done again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::supervised::Supervised;

/// A commit of a git work tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its name, all hexadecimal digits.
    pub id: String,
    /// Whether files under version control had changes that were not committed.
    pub dirty: bool,
}

/// A question that git answers while stages run.
#[derive(Debug)]
pub struct Asked(Receiver<Option<Commit>>);

/// How long a run waits at its end for git, in a work tree of very many files.
const PATIENCE: Duration = Duration::from_secs(5);

impl Asked {
    /// Asks for the commit of the work tree that a folder belongs to.
    ///
    /// Git is started before this returns: later, it could inherit the lock of a stage and be taken
    /// for a process that the stage left behind.
    pub fn about(folder: &Path) -> Self {
        let (sender, receiver) = channel();
        let git = Command::new("git")
            // Neither the index nor a watching process of the user's is touched.
            .args(["--no-optional-locks", "-c", "core.fsmonitor=false", "status"])
            .args(["--porcelain=v2", "--branch", "--untracked-files=no"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(git) = git {
            let git = Git::new(git);
            // Without a thread there is no answer; and nobody may be left to take one.
            let wait = move || sender.send(answer(git));
            let _ = std::thread::Builder::new().spawn(wait);
        }
        Self(receiver)
    }

    /// The answer; `None` where there is no work tree, no commit or no git.
    pub fn answer(self) -> Option<Commit> {
        self.0.recv_timeout(PATIENCE).ok().flatten()
    }
}

/// A git that was started, and whose end is its asker's to note.
struct Git {
    child: Child,
    _supervised: Supervised,
}

impl Git {
    fn new(child: Child) -> Self {
        let _supervised = Supervised::new(child.id().cast_signed());
        Self { child, _supervised }
    }
}

fn answer(git: Git) -> Option<Commit> {
    let Git { child, _supervised } = git;
    let output = child.wait_with_output().ok()?;
    read(&String::from_utf8_lossy(&output.stdout))
}

/// Reads what `git status --porcelain=v2 --branch` prints.
fn read(text: &str) -> Option<Commit> {
    let id = text.lines().find_map(|line| line.strip_prefix("# branch.oid "))?;
    let commit = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dirty = text.lines().any(|line| !line.starts_with('#'));
    commit.then(|| Commit { id: id.to_owned(), dirty })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Claimed, Digest};

    /// A stage that ends looks for what it left, among all children of this process.
    #[test]
    fn a_git_that_ended_is_left_to_who_asked_it() {
        let print = "printf '# branch.oid 12ab\\n'";
        let child = Command::new("sh").args(["-c", print]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let git = Git::new(child);
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let Claimed::Ours(claim) = cache.claim(&Digest::of(b"key")).unwrap() else {
            panic!("not ours")
        };
        // Children of other tests are theirs.
        claim.end_survivors(|other| other != pid || Supervised::is(other)).unwrap();
        assert_eq!(answer(git), Some(Commit { id: "12ab".to_owned(), dirty: false }));
    }

    #[test]
    fn a_commit_is_read_with_its_changes() {
        let clean = "# branch.oid 12ab\n# branch.head main\n";
        let commit = |dirty| Some(Commit { id: "12ab".to_owned(), dirty });
        assert_eq!(read(clean), commit(false));
        assert_eq!(read(&format!("{clean}1 .M N... 100644 100644 100644 1 2 a\n")), commit(true));
        assert_eq!(read("# branch.oid (initial)\n"), None);
        assert_eq!(read(""), None);
    }
}
