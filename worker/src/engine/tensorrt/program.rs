//! The program: where it is, which version it is, and its run.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use qpipe::exec::{answer, nvidia};

use super::{CommandLine, Log, Version, command};
use crate::{Error, Result};

/// Environment variable that names the program.
pub const PROGRAM_VARIABLE: &str = "TRTEXEC";

/// Environment variable that names TensorRT's folder, as its archives unpack.
pub const FOLDER_VARIABLE: &str = "TENSORRT_DIR";

/// Where packages of distributions and containers put it, beside `PATH`.
const USUAL: &[&str] = &[
    "/usr/src/tensorrt/bin",
    "/opt/tensorrt/bin",
    "/usr/local/tensorrt/bin",
    "/usr/local/TensorRT/bin",
];

const NAME: &str = "trtexec";

const HELP: &str = "install TensorRT 8.5 or later and put trtexec on PATH, or name it: TENSORRT_DIR=/path/to/TensorRT, TRTEXEC=/path/to/trtexec";

/// How long it may take to print its help: it loads its libraries, from a slow disk at worst.
const PATIENCE: Duration = Duration::from_secs(30);

/// A trtexec that was found and told its version.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What its banner says.
    pub version: Version,
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its words.
    pub log: Log,
}

/// Path of the program: what `TRTEXEC` names, else in the folder that `TENSORRT_DIR` names, else on `PATH`, else in the usual places.
///
/// # Errors
/// None there.
pub fn find() -> Result<PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    find_in(variable(PROGRAM_VARIABLE), variable(FOLDER_VARIABLE), &path)
}

fn find_in(named: Option<PathBuf>, folder: Option<PathBuf>, path: &[PathBuf]) -> Result<PathBuf> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if let Some(named) = named {
        let named = absolute(named);
        if named.is_file() {
            return Ok(named);
        }
        return Err(Error::machine(format!(
            "{PROGRAM_VARIABLE}={}: expected the program trtexec",
            named.display()
        ))
        .help(HELP));
    }
    if let Some(folder) = folder {
        let folder = absolute(folder);
        let below = ["bin", "", "targets/x86_64-linux-gnu/bin", "targets/aarch64-linux-gnu/bin"];
        let mut places = below.iter().map(|below| folder.join(below).join(NAME));
        return places.find(|place| place.is_file()).ok_or_else(|| {
            Error::machine(format!(
                "{FOLDER_VARIABLE}={}: expected a folder with bin/trtexec in it",
                folder.display()
            ))
            .help(HELP)
        });
    }
    let usual = USUAL.iter().map(PathBuf::from);
    let mut places = path.iter().cloned().chain(usual).map(|folder| folder.join(NAME));
    let found = places.find(|place| place.is_file()).map(absolute);
    found.ok_or_else(|| {
        Error::machine("no trtexec: backend \"tensorrt\" drives that program of TensorRT, and it is neither on PATH nor in /usr/src/tensorrt/bin")
            .help(HELP)
    })
}

impl Program {
    /// Finds the program and asks its version.
    ///
    /// # Errors
    /// No program, one that does not start, one that is too old.
    pub fn find() -> Result<Self> {
        Self::at(find()?)
    }

    /// Asks the program at `path` for its version.
    ///
    /// # Errors
    /// One that does not start, is none of TensorRT's, or is too old.
    pub fn at(path: PathBuf) -> Result<Self> {
        Self::within(path, PATIENCE)
    }

    fn within(path: PathBuf, patience: Duration) -> Result<Self> {
        let mut program = Self::command(&path);
        program.args(command::help().arguments());
        let output = answer::of(program, patience).map_err(|error| cannot_start(&path, &error))?;
        let said = String::from_utf8_lossy(&output.output);
        if let Some(version) = Version::of_banner(&said) {
            if version < Version::OLDEST {
                return Err(too_old(&path, &version.to_string()));
            }
            return Ok(Self { path, version });
        }
        if said.contains("&&&& RUNNING TensorRT.trtexec") {
            return Err(too_old(&path, "older than 8.0"));
        }
        if output.status.is_none() {
            let told = format!("{} --help {}", path.display(), output.ending);
            return Err(Error::machine(told).help(
                "run it by hand: most often NVIDIA's driver hangs (`nvidia-smi` then hangs too), or a folder of its libraries does",
            ));
        }
        let error = String::from_utf8_lossy(&output.error);
        let line = error.lines().chain(said.lines()).map(str::trim).find(|line| !line.is_empty());
        Err(Error::machine(format!(
            "{} --help: no banner of trtexec ({}): {}",
            path.display(),
            output.ending,
            line.unwrap_or("it said nothing")
        ))
        .help("where its libraries are not found, put TensorRT's lib folder on LD_LIBRARY_PATH"))
    }

    /// The program with its libraries beside it found, and GPUs numbered as `nvidia-smi` does.
    fn command(path: &Path) -> Command {
        let mut command = Command::new(path);
        // Also where `/usr/local/bin/trtexec` is a link.
        let files = [Some(path.to_path_buf()), path.canonicalize().ok()];
        let beside = files.iter().flatten().filter_map(|file| Some(file.parent()?.join("../lib")));
        let named = std::env::var_os(FOLDER_VARIABLE).map(|folder| Path::new(&folder).join("lib"));
        let mut libraries: Vec<PathBuf> =
            beside.chain(named).filter(|folder| has_library(folder)).collect();
        let old = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        libraries.extend(std::env::split_paths(&old));
        if !old.is_empty() || !libraries.is_empty() {
            // It may run in another folder than this process.
            let libraries =
                libraries.into_iter().map(|folder| std::path::absolute(&folder).unwrap_or(folder));
            if let Ok(joined) = std::env::join_paths(libraries) {
                command.env("LD_LIBRARY_PATH", joined);
            }
        }
        command.env(nvidia::ORDER, nvidia::BY_BUS);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end. Each line goes to `each`, and all of them, in the order that they came, behind what is in the file `log`.
    ///
    /// # Errors
    /// A program that does not start, a log that cannot be written.
    pub fn run(&self, line: &CommandLine, log: &Path, each: &mut dyn FnMut(&str)) -> Result<Ended> {
        self.run_in(Path::new("."), line, log, each)
    }

    /// The same in `folder`, to which relative paths of `line` belong.
    ///
    /// # Errors
    /// Those of [`Program::run`].
    pub fn run_in(
        &self,
        folder: &Path,
        line: &CommandLine,
        log: &Path,
        each: &mut dyn FnMut(&str),
    ) -> Result<Ended> {
        let io = |error: std::io::Error| Error::io(log, &error);
        let mut file = std::fs::File::options().create(true).append(true).open(log).map_err(io)?;
        // One pipe for both: warnings go to standard error and belong to lines of the other.
        let (reader, writer) = std::io::pipe().map_err(io)?;
        let mut command = Self::command(&self.path);
        command.current_dir(folder);
        command.args(line.arguments()).stdout(writer.try_clone().map_err(io)?).stderr(writer);
        end_with_this_thread(&mut command);
        let mut child = command.spawn().map_err(|error| cannot_start(&self.path, &error))?;
        // It holds the pipe's other end, which must be closed for the reader to see the end.
        drop(command);
        let mut found = Log::default();
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).map_err(io)? > 0 {
            file.write_all(&bytes).map_err(io)?;
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            found.add(line);
            each(line);
            bytes.clear();
        }
        let status = child.wait().map_err(|error| cannot_start(&self.path, &error))?;
        Ok(Ended { status, log: found })
    }
}

/// Has the system end the program when the thread that starts it is gone, which here waits for it: a build takes minutes of a GPU.
fn end_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: two system calls, which a child may do between fork and exec; an error of the system's allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // It may have died before that was said.
            if libc::getppid().cast_unsigned() != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ECHILD));
            }
            Ok(())
        });
    }
}

fn has_library(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libnvinfer.so"))
}

fn too_old(path: &Path, version: &str) -> Error {
    Error::machine(format!("{} is TensorRT {version}: 8.5 or later is needed", path.display()))
        .help("its layer information and its handling of Q/DQ graphs begin there; TENSORRT_DIR or TRTEXEC names another")
}

fn cannot_start(path: &Path, error: &std::io::Error) -> Error {
    Error::machine(format!("{}: {error}", path.display())).help(HELP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_goes_before_what_is_found() {
        let root = tempfile::tempdir().unwrap();
        let touch = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (named, below) = (touch("mine"), touch("trt/bin/trtexec"));
        let on_path = touch("somewhere/trtexec");
        let path = [root.path().join("empty"), root.path().join("somewhere")];
        let folder = root.path().join("trt");
        assert_eq!(find_in(Some(named.clone()), Some(folder.clone()), &path).unwrap(), named);
        assert_eq!(find_in(None, Some(folder), &path).unwrap(), below);
        assert_eq!(find_in(None, None, &path).unwrap(), on_path);
        let error = find_in(Some(root.path().join("nothing")), None, &path).unwrap_err();
        assert!(error.message.starts_with("TRTEXEC="), "{error}");
        let error = find_in(None, Some(root.path().join("empty")), &path).unwrap_err();
        assert!(error.message.contains("expected a folder with bin/trtexec in it"), "{error}");
    }

    #[test]
    fn the_libraries_beside_a_link_are_those_of_what_it_names() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        for folder in ["trt/bin", "trt/lib", "bin"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["trt/bin/trtexec", "trt/lib/libnvinfer.so.10"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        symlink("../trt/bin/trtexec", root.path().join("bin/trtexec")).unwrap();
        for named in ["trt/bin/trtexec", "bin/trtexec"] {
            let command = Program::command(&root.path().join(named));
            let path = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").unwrap().1;
            let first = std::env::split_paths(path.unwrap()).next().unwrap();
            let lib = root.path().join("trt/lib").canonicalize().unwrap();
            assert_eq!(first.canonicalize().unwrap(), lib, "{named}");
        }
    }

    /// One that waits for a driver that hangs kept `qpipe doctor` waiting without a word.
    #[test]
    fn a_program_that_does_not_answer_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trtexec");
        let write = "printf '#!/bin/sh\\nexec sleep 60\\n' > \"$0\" && chmod 755 \"$0\"";
        let shell = Command::new("sh").args(["-c", write]).arg(&path).status().unwrap();
        assert!(shell.success());
        let error = Program::within(path, Duration::from_millis(200)).unwrap_err();
        assert!(error.message.contains("trtexec --help did not answer within"), "{error}");
        assert!(error.help.unwrap().contains("nvidia-smi"));
    }
}
