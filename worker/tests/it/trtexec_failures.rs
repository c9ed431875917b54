//! Builds by trtexec that fail, in part or whole, of what is no fault of the model.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::trtexec::{Machine, message};

/// The log of such a build begins with errors of builds that succeed.
#[test]
fn a_gpu_without_memory_is_no_matter_of_pairs() {
    let machine = Machine::new("memory");
    let ended = machine.build("engine", "fixed.onnx", json!({}));
    let told = message(&ended);
    assert!(
        told.starts_with("TensorRT 8.5.3 cannot build the model: the GPU has too little free memory: 2: [virtualMemoryBuffer"),
        "{told}"
    );
    let help = ended.failure.unwrap()["help"].to_string();
    assert!(help.contains("smaller batch") && !help.contains("insert-qdq"), "{help}");
}

#[test]
fn a_list_of_flags_that_fails_costs_no_other() {
    let machine = Machine::new("best-fails");
    let built = machine.build("engine", "fixed.onnx", json!({"tune": true}));
    assert_eq!(built.failure, None, "{built:?}");
    assert_ne!(built.metrics["flags"], json!(["--best"]));
    let tries = built.metrics["tries"].as_array().unwrap();
    let lists: Vec<(String, bool)> =
        tries.iter().map(|it| (it["flags"].to_string(), it.get("failed").is_some())).collect();
    let usual = r#"["--int8","--fp16"]"#;
    let expected = [
        (usual, false),
        (usual, false),
        (r#"["--int8"]"#, false),
        (r#"["--int8"]"#, false),
        (r#"["--best"]"#, true),
    ];
    assert_eq!(lists, expected.map(|(list, failed)| (list.to_owned(), failed)));
    let reason = tries[4]["failed"].as_str().unwrap();
    assert!(reason.contains("Could not find any implementation for node /conv1/Conv"), "{reason}");
    assert_eq!(
        built.warnings,
        [format!("try 5 of 6: \"--best\" failed, the fastest of the others is kept: {reason}")]
    );

    let none = Machine::new("all-fail").build("engine", "fixed.onnx", json!({"tune": true}));
    assert!(message(&none).contains("Could not find any implementation for node"), "{none:?}");
    assert_eq!(none.warnings, Vec::<String>::new());
}

/// A build takes minutes of a GPU that nobody waits for any more.
#[test]
fn a_build_ends_with_the_worker_that_is_killed() {
    let machine = Machine::new("hang");
    let mut worker = machine.build_task("engine", "fixed.onnx", json!({}));
    let mut worker = worker.stdout(Stdio::null()).spawn().unwrap();
    let within = |what: &str, done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let number = || -> Option<u32> {
        let calls = std::fs::read_to_string(machine.path("calls")).ok()?;
        calls.lines().rev().find_map(|line| line.parse().ok())
    };
    within("the build did not start", &|| number().is_some());
    // Who it is: its number may be another's later.
    let program = format!("/proc/{}/cmdline", number().unwrap());
    let builds = || std::fs::read_to_string(&program).is_ok_and(|line| line == "sleep\x00300\0");
    within("the build goes on", &builds);
    worker.kill().unwrap();
    worker.wait().unwrap();
    within("the build outlived its worker", &|| !builds());
}
