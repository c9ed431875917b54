//! Python with the packages that `make deps-test` fetched.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::json;

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the worker's parent").to_path_buf()
}

/// Folder of the fetched packages.
///
/// # Panics
/// If they are not there: `make test` fetches them.
pub fn packages() -> PathBuf {
    let packages = project().join(".deps/python");
    assert!(packages.join("onnx").is_dir(), "no Python packages: run `make deps-test` first");
    packages
}

/// A program of `tests/models`, run by Python with PyTorch, torchvision and the fetched packages.
///
/// # Panics
/// If PyTorch is not there: `make test` fetches it.
pub fn torch(program: &str) -> Command {
    let torch = project().join(".deps/pytorch");
    assert!(torch.join("torch").is_dir(), "no PyTorch: run `make deps-test` first");
    with(&[torch, packages()], program)
}

/// A program of `tests/models`, run by Python with the packages of an optional component before PyTorch's and the others.
///
/// # Panics
/// If the component is not there: `make test-exporters` and `make test-parity` fetch them.
pub fn exporter(component: &str, program: &str) -> Command {
    let deps =
        std::env::var_os("QPIPE_DEPS").map_or_else(|| project().join(".deps"), PathBuf::from);
    let own = deps.join(component);
    assert!(
        own.is_dir(),
        "no component `{component}`: run `make deps-exporters` or `make deps-parity` first"
    );
    with(&[own, project().join(".deps/pytorch"), packages()], program)
}

fn with(packages: &[PathBuf], program: &str) -> Command {
    let joined = |parts: &[PathBuf]| std::env::join_paths(parts).expect("paths without a colon");
    let deps = project().join(".deps");
    let libraries = [deps.join("pytorch/stubs"), deps.join("native/nvidia/cu13/lib")];
    let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    command
        .env("PYTHONPATH", joined(packages))
        .env("LD_LIBRARY_PATH", joined(&libraries))
        .arg(project().join("worker/tests/models").join(program));
    command
}

/// Runs a Python program with arguments and returns what it prints. ONNX and ONNX Runtime take a second to import, so that a process which has
/// done so starts it.
///
/// # Panics
/// If it fails, with what it said.
pub fn run(program: &str, arguments: &[&Path]) -> String {
    // As many as there are tests at a time.
    static IDLE: Mutex<Vec<Server>> = Mutex::new(Vec::new());
    let idle = IDLE.lock().expect("no test fails here").pop();
    let mut server = idle.unwrap_or_else(Server::start);
    let folder = tempfile::tempdir().expect("a folder");
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    let job = json!({ "program": program, "arguments": arguments, "out": out, "err": err });
    let status = server.answer(&job);
    IDLE.lock().expect("no test fails here").push(server);
    let said = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    };
    assert_eq!(status, "0", "python: {}", said(&err));
    said(&out)
}

/// A process of `python_server.py`. It ends with this one, whose end of its input is closed then.
struct Server {
    _process: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Self {
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let mut child = Command::new(python)
            .env("PYTHONPATH", packages())
            .arg("-c")
            .arg(include_str!("python_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let jobs = child.stdin.take().expect("piped");
        Self { _process: child, jobs, answers }
    }

    fn answer(&mut self, job: &serde_json::Value) -> String {
        writeln!(self.jobs, "{job}").expect("python3 reads on");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }
}
