//! A pipeline in a folder of its own, and the program run on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A pipeline in a folder of its own; its cache lies in `cache` there.
pub struct Project {
    folder: tempfile::TempDir,
}

/// What came of a command.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    /// A folder with the pipeline `p.toml`.
    pub fn new(pipeline: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("p.toml", pipeline);
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes a program. Another process does it: a child that a test forks meanwhile would inherit the
    /// open file, and a file that is open for writing cannot be executed.
    pub fn program(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// An artifact of the pipeline `p` by its readable name.
    pub fn artifact(&self, name: &str) -> String {
        self.read(&format!("cache/view/p/{name}"))
    }

    /// The program, to be run in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpipe"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("QPIPE_CACHE", self.path("cache"))
            .env("NO_COLOR", "1")
            // A machine of its own: other tests' benchmarks and stages are none of its business.
            .env("QPIPE_MACHINE", self.path(".machine"))
            .env_remove("QPIPE_PROFILE")
            .env_remove("QPIPE_WORKER")
            .env_remove("QPIPE_REMOTE")
            .env_remove("QPIPE_REMOTE_MODE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn qpipe(&self, arguments: &[&str]) -> Said {
        self.said(&mut self.command(arguments))
    }

    /// Runs a command to its end; its output without this folder's path and without times.
    pub fn said(&self, command: &mut Command) -> Said {
        let output = command.output().unwrap();
        let clean = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let folder = self.folder.path().canonicalize().unwrap();
            let text = text.replace(&folder.display().to_string(), "[DIR]");
            without_times(&text.replace(&self.folder.path().display().to_string(), "[DIR]"))
        };
        Said {
            code: output.status.code(),
            stdout: clean(&output.stdout),
            stderr: clean(&output.stderr),
        }
    }

    /// `qpipe run p.toml` with more arguments; it must succeed.
    pub fn run(&self, more: &[&str]) -> Said {
        let said = self.qpipe(&[&["run", "p.toml"], more].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    }

    /// The stages that said that they ran since this was asked last: lines of the file `ran`.
    pub fn ran(&self) -> Vec<String> {
        let ran = self.read("ran").lines().map(str::to_owned).collect();
        let _ = std::fs::remove_file(self.path("ran"));
        ran
    }

    /// `qpipe cache verify`; it must find nothing.
    pub fn verify(&self) {
        let said = self.qpipe(&["cache", "verify"]);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    }

    /// Starts a run and does not wait for it.
    pub fn start(&self, more: &[&str]) -> Child {
        self.command(&[&["run", "p.toml"], more].concat()).spawn().unwrap()
    }
}

/// Replaces ids of runs by `RUN` and what follows `2025-01-31 12:00:00 UTC`-like times in a line by
/// nothing; the line's beginning stays.
pub fn without_runs(text: &str) -> String {
    let mut clean = String::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        while let Some((start, end)) = run_id(&line) {
            line.replace_range(start..end, "RUN");
        }
        let line = match line.split_once(" UTC") {
            Some((before, _)) => before[..before.len().saturating_sub(19)].trim_end().to_owned(),
            None => line,
        };
        clean.push_str(&line);
        clean.push('\n');
    }
    clean
}

/// Where an id such as `20250131-120000-0a1b2c3d` stands.
fn run_id(line: &str) -> Option<(usize, usize)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    line.char_indices().find_map(|(start, _)| {
        let rest = &line[start..];
        let time = digits(rest) == 8 && rest[8..].starts_with('-');
        let time = time && digits(&rest[9..]) == 6 && rest[15..].starts_with('-');
        let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
        (time && hex(&rest[16..]) == 8).then_some((start, start + 24))
    })
}

/// Waits for something that must come.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives; a zombie does not.
pub fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

/// Replaces `0.12 s` and the names of log folders, which differ from run to run.
fn without_times(text: &str) -> String {
    let mut clean = String::new();
    for line in text.split_inclusive('\n') {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for index in 1..words.len() {
            let seconds = words[index].trim_end_matches(['\n', ',', ':']) == "s";
            if seconds && words[index - 1].parse::<f64>().is_ok() {
                words[index - 1] = "N".to_owned();
            }
        }
        let mut line = words.join(" ");
        if let Some((before, after)) = line.split_once("/logs/")
            && let Some((_, stage)) = after.split_once('/')
        {
            line = format!("{before}/logs/RUN/{stage}");
        }
        clean.push_str(&line);
    }
    clean
}
