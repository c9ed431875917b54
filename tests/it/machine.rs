//! Runs beside and inside each other on one machine.

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
