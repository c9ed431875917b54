//! The events that a job writes, read as they come.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::task::Blame;

/// What a job tells of its stage: the part of [`crate::exec::Event`] that matters here, owned.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Told {
    Cached {
        stage: String,
        #[serde(default)]
        warnings: Vec<String>,
    },
    Pulled {
        stage: String,
    },
    Started {
        stage: String,
        reason: String,
    },
    Waiting {
        stage: String,
        pid: Option<i32>,
    },
    Progress {
        stage: String,
        done: u64,
        total: u64,
        unit: String,
        message: String,
    },
    Log {
        stage: String,
        message: String,
    },
    Warning {
        stage: Option<String>,
        message: String,
    },
    Finished {
        stage: String,
        seconds: f64,
        unchanged: bool,
    },
    Failed {
        stage: String,
        seconds: f64,
        blame: Blame,
        message: String,
        help: Option<String>,
        #[serde(default)]
        tail: Vec<String>,
        log: Option<PathBuf>,
    },
    /// The job's run ended without a verdict on the stage.
    Error {
        message: String,
        help: Option<String>,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// A file that grows, read a line at a time.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Bytes read.
    at: u64,
    /// The beginning of a line that is not complete.
    part: Vec<u8>,
}

impl Tail {
    /// From the beginning of a file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, at: 0, part: Vec::new() }
    }

    /// The events that came since. What is no event is left out: a `setup` may print, and a job that
    /// was killed may leave half a line.
    pub fn read(&mut self) -> Vec<Told> {
        // A file that another machine writes may not be seen yet, or for a moment.
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_to_end(&mut bytes)).is_err() {
            return Vec::new();
        }
        self.at += bytes.len() as u64;
        self.part.extend(bytes);
        let Some(end) = self.part.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.part.split_off(end + 1);
        let lines = std::mem::replace(&mut self.part, rest);
        let lines = String::from_utf8_lossy(&lines).into_owned();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The last `count` lines of a file; none where there is none.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    const MOST: u64 = 64 << 10;
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let start = SeekFrom::Start(length.saturating_sub(MOST));
    if file.seek(start).and_then(|_| file.read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|&line| line.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Event;

    #[test]
    fn what_a_run_prints_is_read_as_it_comes() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.read(), []);
        let mut file = File::create(&path).unwrap();
        let line = |event: &Event| serde_json::to_string(event).unwrap();
        let started = line(&Event::Started { stage: "a", reason: "never ran" });
        let finished = line(&Event::Finished { stage: "a", seconds: 0.5, unchanged: true });
        let (half, rest) = finished.split_at(20);
        write!(file, "module loaded\n{started}\n{half}").unwrap();
        let told = Told::Started { stage: "a".to_owned(), reason: "never ran".to_owned() };
        assert_eq!(tail.read(), [told]);
        assert_eq!(tail.read(), []);
        let failed = line(&Event::Failed {
            stage: "a",
            seconds: 1.0,
            blame: Blame::Machine,
            message: "no",
            help: None,
            tail: &["x".to_owned()],
            log: Some(Path::new("/l")),
        });
        write!(file, "{rest}\n{failed}\n{{\"event\":\"summary\",\"ran\":1}}\n").unwrap();
        let told = tail.read();
        let told_finished = Told::Finished { stage: "a".to_owned(), seconds: 0.5, unchanged: true };
        assert_eq!((&told[0], told.len()), (&told_finished, 3));
        assert!(
            matches!(&told[1], Told::Failed { message, tail, .. } if message == "no" && tail == &["x"])
        );
        assert_eq!(told[2], Told::Other);
    }

    #[test]
    fn the_last_lines_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        assert_eq!(last_lines(&path, 2), [""; 0]);
        std::fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(last_lines(&path, 2), ["2", "3"]);
        assert_eq!(last_lines(&path, 9), ["1", "2", "3"]);
    }
}
