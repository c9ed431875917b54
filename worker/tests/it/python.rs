//! Python with the packages that `make deps-test` fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Runs a Python program with arguments and returns what it prints.
///
/// # Panics
/// If it fails, with what it said.
pub fn run(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
        .env("PYTHONPATH", packages())
        .arg("-c")
        .arg(program)
        .args(arguments)
        .output()
        .expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python: {said}");
    String::from_utf8(output.stdout).expect("text")
}
