//! The machine among several runs: who measures has it alone.
//!
//! Each stage that runs holds the lock file `machine` in shared mode, one that needs the machine
//! alone holds it alone. To begin, both pass through the file `gate`: one that waits to be alone
//! holds the gate meanwhile, so that no new stage begins and its turn comes. The files lie in a
//! folder of this user's; runs of other users are not seen.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::flock;

/// The machine is ours, with others or alone, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _machine: File,
}

/// Waits for the machine. Where its lock files cannot be made there is nobody to wait for.
pub async fn turn(alone: bool) -> io::Result<Option<Turn>> {
    let Some(folder) = folder() else { return Ok(None) };
    let open = |name: &str| {
        File::options().create(true).append(true).open(folder.join(name)).map(Some).or_else(
            |error| {
                let refused = matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                );
                if refused { Ok(None) } else { Err(error) }
            },
        )
    };
    let (Some(gate), Some(machine)) = (open("gate")?, open("machine")?) else { return Ok(None) };
    let kind = if alone { libc::LOCK_EX } else { libc::LOCK_SH };
    lock(&gate, kind).await?;
    lock(&machine, kind).await?;
    Ok(Some(Turn { _machine: machine }))
}

/// Takes a lock without keeping the thread.
async fn lock(file: &File, kind: i32) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match flock::attempt(file, kind) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}

/// `$XDG_RUNTIME_DIR/qpipe`, or a folder of this user's among the temporary files.
fn folder() -> Option<PathBuf> {
    // SAFETY: no memory is passed, and it cannot fail.
    let user = unsafe { libc::geteuid() };
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("qpipe"),
        None => PathBuf::from("/tmp").join(format!("qpipe-{user}")),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder)
}
