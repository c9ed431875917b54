//! A question to a program: its answer, of bounded size and within bounded time.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::failure::ending;
use super::supervised::Supervised;

/// What a program answered.
#[derive(Debug)]
pub struct Said {
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error.
    pub error: Vec<u8>,
    /// How it ended, for people: `ended with exit status 1`.
    pub ending: String,
    /// The same; `None`: it did not within its time, and was killed.
    pub status: Option<ExitStatus>,
}

/// No answer is longer, bytes; what is more is not read, and the program is told so by a closed pipe.
const LONGEST: u64 = 4 << 20;

/// How long a pipe may stay open after the program is gone: processes that it started may hold it.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a program that answers within `patience`, or is killed then.
///
/// # Errors
///
/// A program that cannot be started.
pub fn of(mut command: Command, patience: Duration) -> io::Result<Said> {
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let _supervised = Supervised::new(child.id().cast_signed());
    let (output, error) = (collect(child.stdout.take()), collect(child.stderr.take()));
    // The end of its output comes with its own end, as a rule.
    let first = output.recv_timeout(patience).unwrap_or_default();
    let status = end(&mut child, patience.saturating_sub(start.elapsed()))?;
    let more = if first.is_empty() { output.recv_timeout(DRAIN).ok() } else { None };
    let ending = match status {
        Some(status) => ending(status),
        None => format!("did not answer within {} s", patience.as_secs()),
    };
    let error = error.recv_timeout(DRAIN).unwrap_or_default();
    Ok(Said { output: more.unwrap_or(first), error, ending, status })
}

/// What a pipe gives, once it is closed.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is; nobody may wait for it any more.
        let _ = pipe.map(|pipe| pipe.take(LONGEST).read_to_end(&mut bytes));
        let _ = sender.send(bytes);
    });
    receiver
}

/// Waits for a program; `None`: its time was up, and it was killed.
fn end(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(script: &str, patience: Duration) -> Said {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        of(command, patience).unwrap()
    }

    #[test]
    fn an_answer_has_an_end() {
        let minute = Duration::from_secs(60);
        let said = ask("echo yes; echo no >&2; exit 3", minute);
        assert_eq!((&said.output[..], &said.error[..]), (&b"yes\n"[..], &b"no\n"[..]));
        assert_eq!(said.ending, "ended with exit status 3");
        assert_eq!(ask("exec yes", minute).output.len() as u64, LONGEST);
        let said = ask("echo part; exec sleep 60", Duration::from_millis(200));
        assert_eq!(said.ending, "did not answer within 0 s");
        assert_eq!(said.output, b"part\n");
    }
}
