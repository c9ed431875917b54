//! `qpipe-trtexec` where there is no TensorRT: what it says, with a library that tells its version and nothing else.
#![cfg(feature = "tensorrt-11")]

use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_qpipe-trtexec"));
    program.env("TENSORRT_DIR", folder).args(arguments).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A folder as pip's `tensorrt_libs`, whose library makes nothing.
fn stand_in() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("stand_in.c");
    let text = "int getInferLibVersion(void) { return 110400; }\n\
                void *createInferRuntime_INTERNAL(void *logger, unsigned version) { return 0; }\n\
                void *createInferBuilder_INTERNAL(void *logger, unsigned version) { return 0; }\n";
    std::fs::write(&source, text).unwrap();
    for library in ["libnvinfer.so.11", "libnvonnxparser.so.11"] {
        let cc = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(root.path().join(library))
            .arg(&source)
            .status();
        assert!(cc.expect("a C compiler").success());
    }
    root
}

#[test]
fn a_library_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "expected a folder with libnvinfer.so.11 in it, in lib or in tensorrt_libs\n";
    assert!(
        said(&output).starts_with("[qpipe] [E] TENSORRT_DIR=") && said(&output).ends_with(expected),
        "{output:?}"
    );
}

#[test]
fn its_banner_has_the_librarys_version_and_its_help_the_flags() {
    let output = run(stand_in().path(), &["--help"]);
    assert!(output.status.success());
    let said = said(&output);
    let mut lines = said.lines();
    assert_eq!(
        lines.next(),
        Some("&&&& RUNNING TensorRT.trtexec [TensorRT v110400] [qpipe] # --help")
    );
    assert_eq!(lines.next(), Some("=== Model Options ==="));
    assert!(said.contains("\n  --builderOptimizationLevel=N "));
}

#[test]
fn a_flag_that_it_does_not_have_is_refused() {
    let output = run(stand_in().path(), &["--onnx=x.onnx", "--int8"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("\n[qpipe] [E] Unknown option: --int8\n=== Model Options ===\n"),
        "{output:?}"
    );
}

#[test]
fn what_cannot_be_read_or_built_fails_with_its_name() {
    let root = stand_in();
    let missing = run(root.path(), &["--loadEngine=/nowhere/x.engine"]);
    assert!(said(&missing).contains("[E] /nowhere/x.engine: No such file"), "{missing:?}");
    let missing = run(root.path(), &["--onnx=/nowhere/x.onnx"]);
    assert!(said(&missing).contains("[E] /nowhere/x.onnx: No such file"), "{missing:?}");
    let parser = root.path().join("libnvonnxparser.so.11");
    let model = root.path().join("x.onnx");
    std::fs::write(&model, "x").unwrap();
    let refused = run(root.path(), &[&format!("--onnx={}", model.display()), "--skipInference"]);
    let said = said(&refused);
    // Without a GPU that is what is missing.
    let expected = ["[E] cannot begin a build: ", "[E] CUDA: "];
    assert!(expected.iter().any(|words| said.contains(words)), "{refused:?}");
    assert!(said.trim_end().lines().last().unwrap().starts_with("&&&& FAILED TensorRT.trtexec"));
    assert_eq!(refused.status.code(), Some(1));
    // The lean runtime has none: only a build misses it.
    std::fs::remove_file(parser).unwrap();
    assert!(run(root.path(), &["--help"]).status.success());
}
