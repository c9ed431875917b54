//! flock(2): locks of open files, gone with the last process that has the file open.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Takes a lock without waiting; `WouldBlock` if another open file holds it.
pub(crate) fn attempt(file: &File, operation: i32) -> io::Result<()> {
    call(file, operation | libc::LOCK_NB)
}

/// Takes a lock, however long that takes.
pub(crate) fn wait(file: &File, operation: i32) -> io::Result<()> {
    loop {
        match call(file, operation) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Takes a lock, or gives up after `limit` with `WouldBlock`.
pub(crate) fn wait_for(file: &File, operation: i32, limit: Duration) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match attempt(file, operation) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn call(file: &File, operation: i32) -> io::Result<()> {
    // SAFETY: flock on a descriptor that `file` keeps open; no memory is passed.
    let result = unsafe { libc::flock(file.as_raw_fd(), operation) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
