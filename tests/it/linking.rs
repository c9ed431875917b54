//! What the runner is linked to.

use std::process::Command;

/// Libraries in a program's dynamic section, by `readelf`'s reading of it.
fn needed(program: &str) -> Vec<String> {
    let output = Command::new("readelf").args(["-d", program]).output();
    let output = output.expect("readelf, of binutils, which the compiler's linker needs anyway");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter(|line| line.contains("(NEEDED)"));
    names
        .filter_map(|line| Some(line.split('[').nth(1)?.trim_end_matches(']').to_owned()))
        .collect()
}

#[test]
fn the_runner_needs_only_the_systems_own_libraries() {
    let needed = needed(env!("CARGO_BIN_EXE_qpipe"));
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
    let own =
        ["libc.so", "libm.so", "libgcc_s.so", "ld-linux", "libdl.so", "libpthread.so", "librt.so"];
    let foreign: Vec<&String> =
        needed.iter().filter(|name| !own.iter().any(|own| name.starts_with(own))).collect();
    assert!(foreign.is_empty(), "qpipe is linked to {foreign:?}");
}

#[test]
fn the_worker_is_linked_to_libtorch() {
    // So that the test above cannot pass because it reads nothing.
    let worker = std::path::Path::new(env!("CARGO_BIN_EXE_qpipe")).with_file_name("qpipe-worker");
    assert!(worker.is_file(), "no qpipe-worker: build all with `cargo test --workspace`");
    let needed = needed(&worker.display().to_string());
    assert!(needed.iter().any(|name| name.starts_with("libtorch")), "{needed:?}");
}
