//! A stage's process: in a group of its own, dead with its runner, its lines read as they come.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::lines::Lines;
use super::signals::Signals;
use super::spawn::spawn;
use super::supervised::Supervised;
use crate::cache::{Claim, MARK};

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// Program and arguments.
    pub line: Vec<OsString>,
    /// Variables added to this process's environment.
    pub env: Vec<(String, OsString)>,
    /// Where it runs.
    pub folder: PathBuf,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Whether a signal to the runner ended it.
    pub interrupted: bool,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Processes that it left behind; they are dead.
    pub survivors: Vec<i32>,
}

/// How long a process that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// Longer than any stage runs.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How long output may still come after the last process that could print is dead.
const DRAIN: Duration = Duration::from_secs(2);

/// Starts a process and stays with it until it and all that it started are gone.
///
/// A signal to the runner is passed on to the group as SIGTERM, and so is the end of its time
/// (`timeout`); five seconds later, or at a second signal, all are killed.
pub async fn supervise(
    launch: &Launch,
    claim: &Claim,
    timeout: Option<Duration>,
    signals: &mut Signals,
    mut line: impl FnMut(Stream, &str),
) -> std::io::Result<Ended> {
    let mut child = spawn(launch, &[(MARK, claim.mark().as_ref())], claim.descriptor())?;
    let group = child.pid;
    let _supervised = Supervised::new(group);
    let (mut output, mut error) = (child.output.take(), child.error.take());
    let (mut output_lines, mut error_lines) = (Lines::default(), Lines::default());
    let (mut status, mut interrupted, mut survivors) = (None, false, Vec::new());
    let (mut asked, mut timed_out) = (false, false);
    let deadline = tokio::time::sleep(timeout.unwrap_or(FOREVER));
    tokio::pin!(deadline);
    let (mut out_buffer, mut error_buffer) = (vec![0; 1 << 14], vec![0; 1 << 12]);
    while status.is_none() || output.is_some() || error.is_some() {
        tokio::select! {
            count = read(&mut output, &mut out_buffer) => {
                output_lines.push(&out_buffer[..count]).iter().for_each(|text| line(Stream::Output, text));
            }
            count = read(&mut error, &mut error_buffer) => {
                error_lines.push(&error_buffer[..count]).iter().for_each(|text| line(Stream::Error, text));
            }
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                // Before their output is awaited: one that goes on would hold the pipes open.
                survivors = claim.end_survivors(Supervised::is)?;
                deadline.as_mut().reset(tokio::time::Instant::now() + DRAIN);
            }
            () = signals.next() => {
                signal_group(group, if asked { libc::SIGKILL } else { libc::SIGTERM });
                if !asked {
                    deadline.as_mut().reset(tokio::time::Instant::now() + GRACE);
                }
                (asked, interrupted) = (true, true);
            }
            () = &mut deadline => {
                if status.is_some() {
                    break;
                }
                signal_group(group, if asked { libc::SIGKILL } else { libc::SIGTERM });
                timed_out |= !asked;
                asked = true;
                deadline.as_mut().reset(tokio::time::Instant::now() + GRACE);
            }
        }
    }
    output_lines.take().iter().for_each(|text| line(Stream::Output, text));
    error_lines.take().iter().for_each(|text| line(Stream::Error, text));
    let status = match status {
        Some(status) => status,
        None => child.wait().await?,
    };
    // Slurm tells all processes of a job at once, and a shell goes on after what it waited for was ended.
    interrupted |= signals.came().await;
    Ok(Ended { status, interrupted, timed_out, survivors })
}

fn signal_group(group: i32, signal: i32) {
    // SAFETY: no memory is passed; a group that is gone is no error worth telling.
    unsafe { libc::killpg(group, signal) };
}

/// Reads some bytes; at the end, or after an error, the pipe is done.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return std::future::pending().await };
    let count = open.read(buffer).await.unwrap_or(0);
    if count == 0 {
        *pipe = None;
    }
    count
}
