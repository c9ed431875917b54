//! Standard output.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use super::stderr;

/// Whether something could not be written.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Writes it. A reader that is gone needs no answer, and is no reason to end a training; what cannot be written for another reason, such as a full disk, is told
/// once, and [`failed`] from then on.
pub fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        stderr::line(format_args!("error: standard output cannot be written: {error}"));
    }
}

/// Writes a line.
pub fn line(text: fmt::Arguments) {
    write(format!("{text}\n").as_bytes());
}

/// Whether something was not written that a reader waits for.
pub fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}
