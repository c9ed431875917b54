//! Runs through a real Slurm cluster; see [`crate::slurm_cluster`] for when they are skipped.

use std::process::Child;

use crate::project::{Project, Said, signal, wait_for};
use crate::slurm_cluster::Cluster;

/// A stage, a matrix on it, a matrix on that, and one that takes all of it.
const MATRIX: &str = r#"
[slurm]
options = ["--qos=normal"]
setup = "echo $SLURM_JOB_NAME >> $HERE/setup"

[stages.a]
kind = "command"
run = "echo a > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.m]
kind = "command"
matrix = { v = ["one", "two"] }
run = "(cat $QPIPE_IN_X; echo ${matrix.v}) > $QPIPE_OUT_X"
inputs = { x = "a" }
outputs = { x = "x" }

[stages.n]
kind = "command"
matrix = { v = ["one", "two"] }
run = "(cat $QPIPE_IN_X; echo n) > $QPIPE_OUT_X"
inputs = { x = "m[${matrix.v}]" }
outputs = { x = "x" }

[stages.end]
kind = "command"
run = "cat $QPIPE_IN_X $QPIPE_IN_Y > $QPIPE_OUT_X"
resources = { cpus = 1, memory = "64 MiB" }
timeout = "10 min"
inputs = { x = "n[one]", y = "n[two]" }
outputs = { x = "x" }
"#;

/// With `$HERE` replaced by the project's folder.
fn project(pipeline: &str) -> Project {
    let project = Project::new("");
    let folder = project.path("");
    project.write("p.toml", &pipeline.replace("$HERE/", &folder.to_string_lossy()));
    project
}

fn ended(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn a_pipeline_comes_out_as_on_this_machine_and_an_up_to_date_run_submits_nothing() {
    let Some(cluster) = Cluster::start() else { return };
    let (there, here) = (project(MATRIX), project(MATRIX));
    let said = there.said(&mut cluster.run(&there, &[]));
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in [
        "a: submitted as job 1\n",
        "m[one]: submitted as job 2_0\n",
        "n[two]: submitted as job 3_1\n",
        "end: submitted as job 4\n",
    ] {
        assert!(said.stderr.contains(line), "{line}{said:?}");
    }
    assert!(said.stdout.contains("6 ran, 0 cached"), "{said:?}");
    here.run(&[]);
    for artifact in ["a/x", "m[one]/x", "n[two]/x", "end/x"] {
        assert_eq!(there.artifact(artifact), here.artifact(artifact), "{artifact}");
    }
    assert_eq!(there.artifact("end/x"), "a\none\nn\na\ntwo\nn\n");
    assert_eq!(there.read("p.lock"), here.read("p.lock"));
    let before = cluster.jobs().len();
    assert_eq!(before, 6);
    let said = there.said(&mut cluster.run(&there, &[]));
    assert!(said.stdout.contains("0 ran, 6 cached"), "{said:?}");
    assert_eq!(cluster.jobs().len(), before);
    let setup = there.read("setup");
    assert_eq!(setup.lines().filter(|line| *line == "qpipe:p:m").count(), 2, "{setup}");
    let said = there.said(&mut cluster.run(&there, &["--force", "end"]));
    assert!(said.stdout.contains("1 ran, 5 cached"), "{said:?}");
    assert!(said.stderr.contains("end: submitted as job 7\nend: running (forced)\n"), "{said:?}");
    assert_eq!(cluster.jobs().len(), 7);
    there.verify();
}

#[test]
fn slurm_knows_the_dependencies_and_an_interrupt_cancels_all_jobs() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(MATRIX);
    let run = cluster.run(&project, &["--slurm-option=--hold", "--jobs=1"]).spawn().unwrap();
    wait_for("the jobs", || cluster.jobs().len() == 6);
    let shown = cluster.ask("scontrol", &["show", "job", "--oneliner"]);
    let job = |name: &str| {
        let found = shown.lines().find(|line| line.contains(&format!("JobName=qpipe:p:{name} ")));
        found.unwrap_or_else(|| panic!("no job {name} in {shown}"))
    };
    assert!(job("a").contains(" Dependency=(null) "), "{shown}");
    assert!(job("m").contains(" Dependency=afterok:1(unfulfilled) "), "{shown}");
    assert!(job("m").contains("ArrayTaskThrottle=1 "), "{shown}");
    assert!(job("n").contains(" Dependency=aftercorr:2_*(unfulfilled) "), "{shown}");
    assert!(job("end").contains(" Dependency=afterok:3_*(unfulfilled) "), "{shown}");
    assert!(job("end").contains(" MinMemoryNode=64M "), "{shown}");
    assert!(job("end").contains(" TimeLimit=00:15:00 "), "{shown}");
    signal(run.id(), libc::SIGINT);
    let said = ended(run);
    assert_eq!(said.code, Some(130), "{said:?}");
    let jobs = cluster.jobs();
    assert!(jobs.iter().all(|job| job.ends_with(" CANCELLED")), "{jobs:?}");
    assert!(!project.path("setup").exists(), "nothing ran");
}

#[test]
fn a_failure_skips_its_users_and_a_job_that_was_cancelled_says_so() {
    let Some(cluster) = Cluster::start() else { return };
    let luck = "run = \"test ${matrix.v} = one || { echo no such luck; exit 3; }; (cat $QPIPE_IN_X; echo ${matrix.v})";
    let failing = MATRIX.replace("run = \"(cat $QPIPE_IN_X; echo ${matrix.v})", luck);
    let project = project(&failing);
    // Of the user's own, for the programs of Slurm: they would hide the jobs, and wait for each.
    let mut run = cluster.run(&project, &["--keep-going"]);
    let said = project.said(run.env("SQUEUE_NAMES", "others").env("SBATCH_WAIT", "1"));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("m[two]: failed after"), "{said:?}");
    assert!(said.stderr.contains("no such luck"), "{said:?}");
    assert!(said.stderr.contains("n[two]: skipped (m[two] failed)"), "{said:?}");
    assert!(said.stderr.contains("end: skipped (m[two] failed)"), "{said:?}");
    assert!(said.stdout.contains("3 ran, 0 cached, 1 failed, 2 not run"), "{said:?}");
    project.verify();
    // Somebody else ends the job. Slurm may call one of the run that ended running still.
    let running = || cluster.jobs().into_iter().find(|job| job.ends_with(" RUNNING"));
    wait_for("the end of all jobs", || running().is_none());
    project.write("p.toml", &MATRIX.replace("run = \"echo a", "run = \"sleep 60 && echo a"));
    let run = cluster.run(&project, &[]).spawn().unwrap();
    let mut found = None;
    wait_for("the job", || {
        found = running();
        found.is_some()
    });
    let job = found.unwrap().replace(" RUNNING", "");
    // Slurm forgets one that comes while the job is being started.
    wait_for("its end", || {
        cluster.ask("scancel", &[&job]);
        running().is_none()
    });
    let said = ended(run);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains(&format!("Slurm ended job {job}")), "{said:?}");
    assert!(said.stderr.contains("CANCELLED"), "{said:?}");
    assert!(said.stderr.contains("m[one]: skipped (a failed)"), "{said:?}");
}

/// A stage that waits for the file `go`, and its user.
const WAITING: &str = r#"
[stages.a]
kind = "command"
run = "echo a >> $HERE/ran; while ! test -e $HERE/go; do sleep 0.05; done; echo a > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "echo b >> $HERE/ran; cat $QPIPE_IN_X > $QPIPE_OUT_X"
inputs = { x = "a" }
outputs = { x = "x" }
"#;

/// A submitter that was killed while its first job ran.
fn killed(cluster: &Cluster, project: &Project) {
    let mut run = cluster.run(project, &[]).spawn().unwrap();
    wait_for("the first stage", || !project.read("ran").is_empty());
    wait_for("the second job", || cluster.jobs().len() == 2);
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn jobs_of_a_killed_submitter_are_taken_over() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    killed(&cluster, &project);
    // As if it had died between the submission and the note of it: found by its comment.
    let folder = std::fs::read_dir(project.path("cache/slurm")).unwrap().next().unwrap().unwrap();
    let state = folder.path().join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace("\"job\": 2", "\"job\": null")).unwrap();
    let run = cluster.run(&project, &[]).spawn().unwrap();
    project.write("go", "");
    let said = ended(run);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("b: job 2 of an earlier run goes on\n"), "{said:?}");
    assert_eq!(project.ran(), ["a", "b"]);
    wait_for("Slurm's word", || cluster.jobs() == ["1 COMPLETED", "2 COMPLETED"]);
    assert_eq!(project.artifact("b/x"), "a\n");
}

#[test]
fn jobs_of_another_definition_are_cancelled_and_submitted_anew() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    killed(&cluster, &project);
    project.write("p.toml", &project.read("p.toml").replace("echo a >", "echo other >"));
    project.write("go", "");
    // Only `a` is taken note of: it may end before it is cancelled, but not as the new one.
    let said = project.said(&mut cluster.run(&project, &[]));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("a: submitted as job 3\nb: submitted as job 4\n"), "{said:?}");
    assert_eq!(project.artifact("b/x"), "other\n");
}

#[test]
fn a_job_that_reads_a_changed_file_and_one_that_sees_no_cache_say_so() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    project.write("go", "");
    let held = || {
        let run = cluster.run(&project, &["--slurm-option=--hold"]).spawn().unwrap();
        wait_for("the jobs", || {
            cluster.jobs().iter().filter(|job| job.ends_with(" PENDING")).count() == 2
        });
        run
    };
    let run = held();
    project.write("p.toml", &project.read("p.toml").replace("echo a >", "echo other >"));
    cluster.ask("scontrol", &["release", "1"]);
    let said = ended(run);
    assert!(said.stderr.contains("changed after the job of a was submitted"), "{said:?}");
    wait_for("the end of its user", || cluster.jobs().iter().all(|job| !job.ends_with(" PENDING")));
    let run = held();
    let folder = std::fs::read_dir(project.path("cache/slurm")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(folder.path().join("marker")).unwrap();
    cluster.ask("scontrol", &["release", "3"]);
    let said = ended(run);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("does not see the cache"), "{said:?}");
    assert!(project.ran().is_empty());
}

#[test]
fn cancel_ends_the_jobs_of_a_submitter_that_is_gone() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    killed(&cluster, &project);
    let said = project.said(&mut cluster.qpipe(&project, &["cancel", "p.toml"]));
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "cancelled 2 jobs\n"), "{said:?}");
    wait_for("their end", || cluster.jobs() == ["1 CANCELLED", "2 CANCELLED"]);
    let said = project.said(&mut cluster.qpipe(&project, &["cancel", "p.toml"]));
    assert_eq!(said.stdout, "no jobs are pending or running\n");
    assert_eq!(project.ran(), ["a"]);
}

/// A stage, and two that need it. Nothing of the folder is in their keys.
const SHARED: &str = r#"
[stages.r]
kind = "command"
run = "echo r >> ran; echo r > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.a]
kind = "command"
run = "echo a >> ran; (cat $QPIPE_IN_X; echo a) > $QPIPE_OUT_X"
inputs = { x = "r" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "echo b >> ran; (cat $QPIPE_IN_X; echo b) > $QPIPE_OUT_X"
inputs = { x = "a" }
outputs = { x = "x" }
"#;

#[test]
fn what_pending_jobs_need_is_not_collected() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(SHARED);
    let forget = || std::fs::remove_file(project.path("p.lock")).unwrap();
    let kept = || {
        let said = project.qpipe(&["cache", "gc", "--keep-days", "0"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.stdout.trim().rsplit_once("; ").unwrap().1.to_owned()
    };
    project.run(&["r"]);
    forget();
    let mut run = cluster.run(&project, &["--slurm-option=--hold"]).spawn().unwrap();
    wait_for("the jobs", || cluster.jobs() == ["1 PENDING", "2 PENDING"]);
    run.kill().unwrap();
    run.wait().unwrap();
    // No lock file, no recent run and no process needs it: only the jobs do.
    assert_eq!(kept(), "1 result kept");
    cluster.ask("scontrol", &["release", "1"]);
    wait_for("the first job", || cluster.jobs()[0] == "1 COMPLETED");
    assert_eq!(kept(), "2 results kept", "what a job made, too");
    cluster.ask("scontrol", &["release", "2"]);
    let said = project.said(&mut cluster.run(&project, &["--slurm-option=--hold"]));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(project.ran(), ["r", "a", "b"]);
    assert_eq!(project.artifact("b/x"), "r\na\nb\n");
    assert_eq!(kept(), "3 results kept", "the lock file has them");
    forget();
    assert_eq!(kept(), "0 results kept", "the jobs are over");
}

#[test]
fn a_job_takes_what_it_needs_from_a_remote_cache() {
    let Some(cluster) = Cluster::start() else { return };
    let remote = tempfile::tempdir().unwrap();
    let flags = ["--remote", remote.path().to_str().unwrap()];
    let (here, there) = (project(SHARED), project(SHARED));
    here.run(&[&flags[..], &["a"]].concat());
    assert_eq!(here.ran(), ["r", "a"]);
    // The cluster's cache has nothing of it.
    let said = there.said(&mut cluster.run(&there, &flags));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("a: submitted as job 2\n"), "{said:?}");
    assert_eq!(there.ran(), ["b"], "the others came from the remote: {said:?}");
    assert_eq!(there.artifact("b/x"), "r\na\nb\n");
    there.verify();
    // A job puts what it made into the remote after it has told of it.
    wait_for("the last job", || cluster.jobs().iter().all(|job| job.ends_with(" COMPLETED")));
    let said = here.run(&flags);
    assert!(said.stderr.contains("b: pulled from the remote cache"), "{said:?}");
    assert!(here.ran().is_empty());
    assert_eq!(here.read("p.lock"), there.read("p.lock"));
}

#[test]
fn a_job_whose_time_is_up_says_so() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    let run = cluster.run(&project, &["--slurm-option=--time=1"]).spawn().unwrap();
    wait_for("the first stage", || !project.read("ran").is_empty());
    // Slurm counts in minutes: its administrator brings the end nearer.
    cluster.ask("scontrol", &["update", "job=1", "EndTime=now"]);
    let said = ended(run);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("Slurm ended job 1 on "), "{said:?}");
    assert!(said.stderr.contains(": TIMEOUT"), "{said:?}");
    assert!(said.stderr.contains("raise the stage's `timeout`"), "{said:?}");
    assert!(said.stderr.contains("b: skipped (a failed)"), "{said:?}");
}

#[test]
fn a_job_that_takes_more_memory_than_it_asked_for_says_so() {
    let Some(cluster) = Cluster::start_with_bounded_memory() else { return };
    // A shell that holds 200 MB, and more with each round.
    let project = project(
        r#"
[stages.a]
kind = "command"
run = "echo a >> $HERE/ran; x=$(head -c 200000000 /dev/zero | tr '\\0' x); while ! test -e $HERE/go; do sleep 0.1; done; echo $x > $QPIPE_OUT_X"
resources = { cpus = 1, memory = "64 MiB" }
outputs = { x = "x" }
"#,
    );
    // Where Slurm does not count memory, this fails rather than waits.
    let said = project.said(&mut cluster.run(&project, &["--slurm-option=--time=1"]));
    assert!(said.stderr.contains("Slurm ended job 1 on "), "{said:?}");
    // Without control groups, Slurm kills the job and forgets why.
    let killed = said.stderr.contains("by signal 9") && said.code == Some(3);
    assert!(killed || said.stderr.contains(": OUT_OF_MEMORY"), "{said:?}");
    assert!(said.stderr.contains("raise `resources = { memory = … }`"), "{said:?}");
}

#[test]
fn what_slurm_refuses_is_shown_in_its_words() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(WAITING);
    let said = project.said(&mut cluster.run(&project, &["--slurm-option=--partition=nowhere"]));
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("error: sbatch refused the job of a: "), "{said:?}");
    assert!(said.stderr.contains("invalid partition specified: nowhere"), "{said:?}");
    assert!(said.stderr.contains("help: `sinfo` lists the partitions"), "{said:?}");
    assert!(cluster.jobs().is_empty());
}

#[test]
fn a_machine_without_slurm_is_told_so() {
    let project = project(WAITING);
    let mut command = project.command(&["run", "p.toml", "--executor", "slurm"]);
    let said = project.said(command.env("PATH", "/nowhere"));
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("error: cannot start scontrol: "), "{said:?}");
    assert!(said.stderr.contains("needs Slurm's commands on the PATH"), "{said:?}");
}

/// A model, its TensorRT engine, and a copy of that.
const ENGINE: &str = r#"
[stages.model]
kind = "command"
run = "echo model > $QPIPE_OUT_M"
outputs = { m = { file = "model.onnx", type = "model" } }

[stages.engine]
kind = "build-engine"
model = "model.m"
backend = "tensorrt"

[stages.copy]
kind = "command"
run = "cp -r $QPIPE_IN_E $QPIPE_OUT_X"
inputs = { e = "engine.engine" }
outputs = { x = "x" }
"#;

#[test]
fn only_the_nodes_need_the_libraries() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(ENGINE);
    project.program(
        "worker",
        r#"#!/bin/sh
case "$1" in
facts)
    if test -n "$SLURM_JOB_ID"
    then echo '{"facts": {"tensor-rt": "10.3"}}'
    else echo '{"facts": {}, "missing": {"tensor-rt": {"message": "no trtexec"}}}'
    fi ;;
run)
    out=$(sed -n 's/.*"engine": "\(.*\/out\/.*\)".*/\1/p' "$2")
    mkdir "$out"; echo engine > "$out/e"; echo {} > "$out/../layers.json"
    echo '{"event": "done", "metrics": {}}' ;;
esac
"#,
    );
    let run = || {
        let mut command = cluster.run(&project, &[]);
        project.said(command.env("QPIPE_WORKER", project.path("worker")))
    };
    let mut here = project.command(&["run", "p.toml"]);
    let said = project.said(here.env("QPIPE_WORKER", project.path("worker")));
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("needs TensorRT (trtexec): no trtexec"), "{said:?}");
    project.run(&["model"]);
    // The engine is the first that would run, and its key cannot be made here.
    let said = run();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("2 ran, 1 cached"), "{said:?}");
    assert_eq!(project.artifact("copy/x/e"), "engine\n");
    let jobs = cluster.jobs().len();
    let said = run();
    assert!(said.stdout.contains("0 ran, 3 cached"), "{said:?}");
    assert_eq!(cluster.jobs().len(), jobs, "one was submitted");
    project.verify();
}
