//! `setup/fetch.py`: one clear error for each way in which fetching fails.

use std::path::Path;
use std::process::Command;

use crate::pipelines::root;

/// Runs a copy of the set-up in a folder of its own; exit code and standard error.
fn fetch(folder: &Path, component: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new("python3");
    command.arg(folder.join("setup/fetch.py")).arg(component);
    command.env_remove("LIBTORCH").env_remove("ORT_DYLIB_PATH").env_remove("QPIPE_DEPS");
    // Nothing of the user's own settings, and nothing that an earlier run kept.
    command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_NO_CACHE_DIR", "1");
    for (name, value) in environment {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("setup")).unwrap();
    for entry in std::fs::read_dir(root().join("setup")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap();
            std::fs::copy(&path, folder.path().join("setup").join(name)).unwrap();
        }
    }
    folder
}

/// No half-fetched component, and no scratch folder.
fn nothing_is_left(folder: &Path) {
    let left = std::fs::read_dir(folder.join(".deps")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn without_a_network_the_index_is_named() {
    let folder = copy();
    // A port that nobody listens on.
    let index = [("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "0")];
    let (code, said) = fetch(folder.path(), "python", &index);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("python.txt: the package index cannot be reached"), "{said}");
    assert!(said.contains(" help: check the network"), "{said}");
    nothing_is_left(folder.path());
}

#[test]
fn a_wrong_checksum_is_refused() {
    let folder = copy();
    let wheels = folder.path().join("wheels");
    std::fs::create_dir(&wheels).unwrap();
    // A real, if empty, wheel of a pinned name, with other bytes than the pinned ones.
    let make = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/packaging-26.3-py3-none-any.whl', 'w') as wheel:
    info = 'packaging-26.3.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: packaging\\nVersion: 26.3\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
";
    let made = Command::new("python3").args(["-c", make]).arg(&wheels).status().unwrap();
    assert!(made.success());
    let pin = format!("packaging==26.3 --hash=sha256:{}\n", "0".repeat(64));
    std::fs::write(folder.path().join("setup/python.txt"), pin).unwrap();
    let wheels = wheels.display().to_string();
    let (code, said) =
        fetch(folder.path(), "python", &[("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", &wheels)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a package does not have the pinned SHA-256"), "{said}");
    assert!(said.contains("do not use it"), "{said}");
    nothing_is_left(folder.path());
}

#[test]
fn ones_own_libraries_are_not_fetched() {
    let folder = copy();
    let own = [
        ("LIBTORCH", "/opt/libtorch"),
        ("ORT_DYLIB_PATH", "/opt/ort.so"),
        ("PIP_INDEX_URL", "http://127.0.0.1:9/"),
    ];
    let (code, said) = fetch(folder.path(), "native", &own);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!folder.path().join(".deps").exists());
}

#[test]
fn a_component_that_is_not_known_is_refused() {
    let folder = copy();
    let (code, said) = fetch(folder.path(), "torch", &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("no component `torch`; there are: native, data, python"), "{said}");
}
