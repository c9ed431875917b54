//! Runs beside and inside each other on one machine.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Duration;

use crate::project::{Project, wait_for};

const QPIPE: &str = env!("CARGO_BIN_EXE_qpipe");

/// A `command` stage with one output; it hangs for no longer than half a minute.
fn stage(name: &str, run: &str, more: &str) -> String {
    format!(
        "[stages.{name}]\nkind = \"command\"\nrun = '''\n{run}\ntouch $QPIPE_OUT_X\n'''\n\
         outputs = {{ x = \"x\" }}\ntimeout = \"30 s\"\n{more}\n"
    )
}

const ALONE: &str = "exclusive = true";

/// It waited for the stage that waited for it.
#[test]
fn a_run_inside_a_stage_cannot_have_the_machine_alone() {
    let project = Project::new(&stage("outer", &format!("set -e; {QPIPE} run inner.toml"), ""));
    project.write("inner.toml", &stage("inner", "echo inner >> ran", ALONE));
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let all = crate::project::without_runs(&said.stderr);
    let error = "error: stage inner ([DIR]/inner.toml:1) needs the machine alone, but this run is inside stage outer of run RUN, which shares it";
    assert!(all.contains(error), "{all}");
    assert!(all.contains("help: give stage outer `exclusive = true`"), "{all}");
    assert!(project.ran().is_empty());
}

/// What the stage has alone its runs share as runs share a machine.
#[test]
fn runs_inside_a_stage_that_has_the_machine_alone_take_turns_in_it() {
    let run = format!("set -e; {QPIPE} run a.toml & {QPIPE} run b.toml; wait $!");
    let project = Project::new(&stage("outer", &run, ALONE));
    for name in ["a", "b"] {
        let count = format!(
            "touch now.{name}; for i in $(seq 40); do ls now.* | wc -l >> most; sleep 0.01; done; rm now.{name}"
        );
        project.write(&format!("{name}.toml"), &stage(name, &count, ALONE));
    }
    project.run(&[]);
    let most = project.read("most");
    assert_eq!((most.lines().count(), most.lines().max()), (80, Some("1")));
}

/// The one that waits to be alone kept the gate closed to the run inside, for which the other waited.
#[test]
fn a_run_inside_a_stage_passes_one_that_waits_to_be_alone() {
    let run = format!(
        "set -e; touch begun; while ! test -e go; do sleep 0.01; done; {QPIPE} run inner.toml"
    );
    let project = Project::new(&stage("outer", &run, ""));
    project.write("inner.toml", &stage("inner", "echo inner >> ran", ""));
    project.write("alone.toml", &stage("alone", "echo alone >> ran", ALONE));
    let outer = project.start(&[]);
    wait_for("the outer stage", || project.path("begun").exists());
    let alone = project.command(&["run", "alone.toml"]).spawn().unwrap();
    // It has the gate well before it says that it waits.
    std::thread::sleep(Duration::from_millis(500));
    project.write("go", "");
    for runner in [outer, alone] {
        let output = runner.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(project.ran(), ["inner", "alone"]);
}

/// Its lock files are where anybody may have put something before.
#[test]
fn a_folder_of_lock_files_that_is_not_ours_is_refused() {
    let project = Project::new(&stage("a", "echo a >> ran", ""));
    let folder = project.path("locks");
    let run = || {
        let mut command = project.command(&["run", "p.toml"]);
        project.said(command.env("QPIPE_MACHINE", &folder))
    };
    let refused = |what: &str| {
        let said = run();
        let error =
            format!("error: [DIR]/locks, where runs on this machine wait for each other, {what}");
        assert!(said.code == Some(4) && said.stderr.contains(&error), "{what}: {said:?}");
        assert!(said.stderr.contains("set QPIPE_MACHINE to a folder of your own"), "{said:?}");
        assert!(project.ran().is_empty());
    };
    std::fs::create_dir(project.path("elsewhere")).unwrap();
    symlink(project.path("elsewhere"), &folder).unwrap();
    refused("is no folder\n  help: remove it");
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let open = |mode| std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
    open(0o755);
    refused("is open to other users (mode 755)\n  help: chmod 700 [DIR]/locks");
    open(0o700);
    if chown(&folder, Some(65534), None).is_ok() {
        refused("belongs to user 65534, not to 0\n  help: have it removed");
        chown(&folder, Some(0), None).unwrap();
    }
    symlink(project.path("p.toml"), folder.join("gate")).unwrap();
    let said = run();
    let told = said.stderr.contains("cannot wait for the machine");
    assert!(said.code == Some(3) && told, "{said:?}");
    std::fs::remove_file(folder.join("gate")).unwrap();
    assert_eq!(run().code, Some(0));
}

/// Lists two cards.
const NVIDIA_SMI: &str =
    "#!/bin/sh\nfor n in 0 1; do echo \"$n, GPU-$n, A100, 550.54.15, 8.0, Disabled\"; done\n";

/// A run of a project with GPUs, on the machine of another one.
fn with_gpus(project: &Project, gpus: &str, machine: &Project) -> std::process::Command {
    project.program("bin/nvidia-smi", NVIDIA_SMI);
    let mut command = project.command(&["run", "p.toml", "-j4", "--gpus", gpus]);
    let path = format!("{}:/usr/bin:/bin", project.path("bin").display());
    command.env("PATH", path).env("QPIPE_MACHINE", machine.path(".machine"));
    command
}

const ONE_GPU: &str = "resources = { cpus = 0.1, gpus = 1 }";

/// A stage that says which GPU it has, and then waits for a file.
fn holding(name: &str, folder: &Project, file: &str) -> String {
    let place = folder.path("").display().to_string();
    let run = format!(
        "echo $CUDA_VISIBLE_DEVICES > {place}/saw.{name}; while ! test -e {place}/{file}; do sleep 0.01; done"
    );
    stage(name, &run, ONE_GPU)
}

/// Both had the first card of the machine.
#[test]
fn two_runs_have_two_gpus() {
    let one = Project::new("");
    one.write("p.toml", &holding("a", &one, "saw.b"));
    let two = Project::new(&holding("b", &one, "saw.a"));
    // Each ends only when the other has begun.
    let runner = with_gpus(&one, "0,1", &one).spawn().unwrap();
    let said = two.said(&mut with_gpus(&two, "GPU-0,GPU-1", &one));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(runner.wait_with_output().unwrap().status.success());
    let mut saw = [one.read("saw.a"), one.read("saw.b")].map(|saw| saw.trim().replace("GPU-", ""));
    saw.sort();
    assert_eq!(saw, ["0", "1"]);
}

#[test]
fn a_stage_waits_for_a_gpu_of_another_run_and_others_go_on() {
    let one = Project::new("");
    one.write("p.toml", &holding("a", &one, "go"));
    let light = stage("light", "sleep 3; touch $GO", "resources = { cpus = 0.1 }");
    let two = Project::new(&[holding("b", &one, "go"), light].concat());
    let runner = with_gpus(&one, "1", &one).spawn().unwrap();
    wait_for("the first run", || one.path("saw.a").exists());
    let said = two.said(with_gpus(&two, "GPU-1", &one).env("GO", one.path("go")));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(runner.wait_with_output().unwrap().status.success());
    let order: Vec<&str> = said.stderr.lines().collect();
    let place = |line: &str| order.iter().position(|said| said.starts_with(line)).unwrap();
    let waits = place("b: waiting for a GPU that no stage of another run has");
    assert!(place("light: running") < waits && waits < place("light: done"), "{said:?}");
    assert!(place("light: done") < place("b: running"), "{said:?}");
}

#[test]
fn a_run_that_waits_for_a_gpu_can_be_interrupted() {
    let one = Project::new("");
    one.write("p.toml", &holding("a", &one, "go"));
    let two = Project::new(&holding("b", &one, "go"));
    let first = with_gpus(&one, "1", &one).spawn().unwrap();
    wait_for("the first run", || one.path("saw.a").exists());
    let mut second = with_gpus(&two, "1", &one).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "b: waiting for a GPU that no stage of another run has\n");
    crate::project::signal(second.id(), libc::SIGINT);
    assert_eq!(second.wait_with_output().unwrap().status.code(), Some(130));
    one.write("go", "");
    assert!(first.wait_with_output().unwrap().status.success());
}

/// The stage has the card, and the run inside it would wait for that.
#[test]
fn a_run_inside_a_stage_has_its_gpu() {
    let inner = format!("set -e; {QPIPE} run inner.toml");
    for more in [ONE_GPU.to_owned(), format!("{ONE_GPU}\n{ALONE}")] {
        let project = Project::new(&stage("outer", &inner, &more));
        project.write("inner.toml", &holding("inner", &project, "p.toml"));
        let said = project.said(&mut with_gpus(&project, "1,0", &project));
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(project.read("saw.inner"), "0\n");
    }
}
