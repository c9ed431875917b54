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

/// Our own, for the TensorRT 11 that pip installs: beside this program.
const OWN: &str = "qpipe-trtexec";

const HELP: &str = "install TensorRT 8.5 or later and put trtexec on PATH, or name it: TENSORRT_DIR=/path/to/TensorRT, TRTEXEC=/path/to/trtexec; for the TensorRT 11 that pip installs, \
                    which has none, `make build-tensorrt-11` in qpipe's sources builds one (docs/tensorrt.md)";

/// How long it may take to print its help: it loads its libraries, from a slow disk at worst.
const PATIENCE: Duration = Duration::from_secs(30);

/// A trtexec that was found and told its version.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What its banner says.
    pub version: Version,
    /// Whether it is qpipe's own.
    pub own: bool,
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its words.
    pub log: Log,
}

/// Path of the program: what `TRTEXEC` names, else in the folder that `TENSORRT_DIR` names, else on `PATH`, else in the usual places, else qpipe's own
/// beside this program, which comes first where `TENSORRT_DIR` names a folder with pip's libraries and no program.
///
/// # Errors
/// None there.
fn find() -> Result<PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let own = std::env::current_exe().ok().map(|program| program.with_file_name(OWN));
    let own = own.filter(|program| program.is_file());
    find_in(variable(PROGRAM_VARIABLE), variable(FOLDER_VARIABLE), &path, own)
}

fn find_in(
    named: Option<PathBuf>,
    folder: Option<PathBuf>,
    path: &[PathBuf],
    own: Option<PathBuf>,
) -> Result<PathBuf> {
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
        let own = own.filter(|_| libraries_of(&folder).next().is_some());
        return places.find(|place| place.is_file()).or(own).ok_or_else(|| {
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
    found.or(own).ok_or_else(|| {
        Error::machine("no trtexec: backend \"tensorrt\" drives that program of TensorRT, and it is neither on PATH nor in /usr/src/tensorrt/bin")
            .help(HELP)
    })
}

/// Files whose change may mean another version: the program, and the libraries where `TENSORRT_DIR` names their folder, which pip replaces alone.
pub fn files() -> Vec<PathBuf> {
    let named = std::env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty());
    let folders = named.iter().flat_map(|folder| libraries_of(Path::new(folder)));
    let libraries = folders.flat_map(|folder| libraries_in(&folder).collect::<Vec<_>>());
    find().into_iter().chain(libraries).collect()
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
            let own =
                said.lines().any(|line| line.starts_with("&&&& ") && line.contains("] [qpipe] "));
            return Ok(Self { path, version, own });
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
        let named = std::env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty());
        let named = named.iter().flat_map(|folder| libraries_of(Path::new(folder)));
        let mut libraries: Vec<PathBuf> =
            beside.filter(|folder| has_library(folder)).chain(named).collect();
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

/// Folders with the library in or below one: of an archive, of pip's packages.
fn libraries_of(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = ["lib", "", "tensorrt_libs"].map(|below| folder.join(below));
    folders.into_iter().filter(|folder| has_library(folder))
}

fn has_library(folder: &Path) -> bool {
    libraries_in(folder).next().is_some()
}

/// The library's files in a folder: `libnvinfer.so.11`, and what links to it.
fn libraries_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvinfer.so"))
    })
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
        let find = |named: Option<&Path>, folder: Option<&Path>, path: &[PathBuf], own: bool| {
            let own = own.then(|| touch("worker/qpipe-trtexec"));
            find_in(named.map(Path::to_owned), folder.map(Path::to_owned), path, own)
        };
        for own in [false, true] {
            assert_eq!(find(Some(&named), Some(&folder), &path, own).unwrap(), named);
            assert_eq!(find(None, Some(&folder), &path, own).unwrap(), below);
            assert_eq!(find(None, None, &path, own).unwrap(), on_path);
            let error = find(Some(&root.path().join("nothing")), None, &path, own).unwrap_err();
            assert!(error.message.starts_with("TRTEXEC="), "{error}");
            let empty = root.path().join("empty");
            let error = find(None, Some(&empty), &path, own).unwrap_err();
            assert!(error.message.contains("expected a folder with bin/trtexec in it"), "{error}");
            assert!(error.help.unwrap().contains("make build-tensorrt-11"));
        }
        // Pip's packages have no program: qpipe's own is for them.
        let own = root.path().join("worker/qpipe-trtexec");
        touch("site-packages/tensorrt_libs/libnvinfer.so.11");
        for folder in ["site-packages", "site-packages/tensorrt_libs"] {
            let folder = root.path().join(folder);
            assert_eq!(find(None, Some(&folder), &path, true).unwrap(), own);
            assert!(find(None, Some(&folder), &path, false).is_err());
        }
        assert_eq!(find(None, None, &path[..1], true).unwrap(), own);
        let libraries: Vec<PathBuf> = libraries_of(&root.path().join("site-packages"))
            .flat_map(|folder| libraries_in(&folder).collect::<Vec<_>>())
            .collect();
        assert_eq!(libraries, [root.path().join("site-packages/tensorrt_libs/libnvinfer.so.11")]);
    }

    #[test]
    fn our_own_program_is_known_by_its_banner() {
        let root = tempfile::tempdir().unwrap();
        for (name, tag) in [("trtexec", "[b106]"), ("qpipe-trtexec", "[qpipe]")] {
            let path = root.path().join(name);
            let text = format!(
                "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v110400] {tag} # --help'\n"
            );
            let write = "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"";
            let shell = Command::new("sh").args(["-c", write]).arg(&path).arg(text).status();
            assert!(shell.unwrap().success());
            let program = Program::at(path).unwrap();
            assert_eq!((program.version, program.own), (Version::new(11, 4, 0), tag == "[qpipe]"));
        }
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
