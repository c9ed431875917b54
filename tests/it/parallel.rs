//! Several stages at a time: resources, timeouts, retries, priorities, runs beside each other.

use std::collections::BTreeSet;

use crate::project::{Project, wait_for};

/// A stage that says when it begins and waits until as many others have begun as it expects.
fn meeting(name: &str, others: usize, more: &str) -> String {
    format!(
        "[stages.{name}]\nkind = \"command\"\nrun = '''\ntouch begun.{name}\n\
         for i in $(seq 2000); do test $(ls begun.* | wc -l) -ge {others} && break; sleep 0.01; done\n\
         ls begun.* | wc -l > $QPIPE_OUT_X\n'''\noutputs = {{ x = \"x\" }}\n{more}\n"
    )
}

/// A stage that counts how many run beside it: the most it saw is its output.
fn counting(name: &str, more: &str) -> String {
    format!(
        "[stages.{name}]\nkind = \"command\"\nrun = '''\ntouch now.{name}; most=0\n\
         for i in $(seq 20); do n=$(ls now.* | wc -l); test $n -gt $most && most=$n; sleep 0.01; done\n\
         rm now.{name}; echo $most > $QPIPE_OUT_X\n'''\noutputs = {{ x = \"x\" }}\n{more}\n"
    )
}

fn most(project: &Project, names: &[&str]) -> usize {
    let seen = |name: &&str| project.artifact(&format!("{name}/x")).trim().parse().unwrap();
    names.iter().map(seen).max().unwrap()
}

/// A run with GPUs of which no driver tells, whatever machine this is.
fn run_with_gpus(project: &Project, more: &[&str]) {
    project.program("bin/nvidia-smi", "#!/bin/sh\nexit 9\n");
    let mut command = project.command(&[&["run", "p.toml"], more].concat());
    command.env("PATH", format!("{}:/usr/bin:/bin", project.path("bin").display()));
    let said = project.said(&mut command);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn as_many_as_jobs_allow_run_at_a_time() {
    let names = ["a", "b", "c", "d"];
    let light = "resources = { cpus = 0.1 }";
    let all: String = names.iter().map(|name| meeting(name, 4, light)).collect();
    let project = Project::new(&all);
    // Each ends only when all four have begun.
    project.run(&["-j4"]);
    assert_eq!(most(&project, &names), 4);
    let counted: String = names.iter().map(|name| counting(name, light)).collect();
    let project = Project::new(&counted);
    project.run(&["-j2"]);
    assert!(most(&project, &names) <= 2);
    let halves = ["a", "b"].map(|name| meeting(name, 2, "resources = { cpus = 0.1, gpus = 0.5 }"));
    let project = Project::new(&halves.concat());
    run_with_gpus(&project, &["-j2", "--gpus", "0"]);
    assert_eq!(most(&project, &["a", "b"]), 2, "a run has the whole of a GPU for its stages");
}

#[test]
fn what_a_stage_takes_is_not_given_twice() {
    let names = ["a", "b", "c", "d"];
    let all: String =
        names.iter().map(|name| counting(name, "resources = { cpus = 0.1, gpus = 1 }")).collect();
    let project = Project::new(&all);
    run_with_gpus(&project, &["-j8", "--gpus", "7,GPU-x"]);
    assert!(most(&project, &names) <= 2, "two GPUs");
    let alone: String = names
        .iter()
        .map(|name| counting(name, "resources = { cpus = 0.1 }\nexclusive = true"))
        .collect();
    let project = Project::new(&alone);
    project.run(&["-j8"]);
    assert_eq!(most(&project, &names), 1);
}

#[test]
fn a_stage_sees_the_gpus_that_it_was_given() {
    let stage = |name: &str, gpus: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"echo $CUDA_VISIBLE_DEVICES > $QPIPE_OUT_X # {name}\"\n\
             outputs = {{ x = \"x\" }}\nresources = {{ cpus = 0.1, gpus = {gpus} }}\n"
        )
    };
    let all = [stage("part", "0.5"), stage("one", "1"), stage("two", "2")].concat();
    let project = Project::new(&all);
    run_with_gpus(&project, &["--gpus", "0,GPU-x"]);
    assert_eq!(project.artifact("two/x"), "0,GPU-x\n");
    for name in ["part/x", "one/x"] {
        let given = project.artifact(name);
        assert!(["0\n", "GPU-x\n"].contains(&given.as_str()), "{name}: {given}");
    }
}

#[test]
fn more_than_the_machine_has_is_refused_before_anything_runs() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo a >> ran; touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n\n\
         [stages.b]\nkind = \"command\"\nrun = \"touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n\
         resources = { gpus = 3 }\n",
    );
    let said = project.qpipe(&["run", "p.toml", "--gpus", "0"]);
    assert_eq!(said.code, Some(3));
    assert_eq!(
        said.stderr,
        "error: stage b ([DIR]/p.toml:6) needs 3 GPUs; this machine has 1\n  \
         help: lower its `resources`, or run it on a larger machine\n"
    );
    assert!(project.ran().is_empty());
}

#[test]
fn a_stage_that_takes_too_long_is_ended() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo $$ > pid; echo said; sleep 60\"\noutputs = { x = \"x\" }\n\
         timeout = \"300 ms\"\n",
    );
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.stderr,
        "a: running (never ran)\na: failed after N s\n\nlast lines of a:\n  │ said\n\n\
         error: stage a failed: it ran longer than its timeout of N s\n  \
         help: raise `timeout`, or find out what it waits for\n  log:  [DIR]/cache/logs/RUN/a.log\n\n"
    );
    assert!(!crate::project::lives(&project.read("pid")));
}

#[test]
fn a_stage_that_fails_is_tried_again() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo a >> ran; test $(wc -l < ran) -eq 3 && touch $QPIPE_OUT_X\"\n\
         outputs = { x = \"x\" }\nretries = { count = 2, backoff = \"10 ms\" }\n",
    );
    let said = project.run(&[]);
    assert_eq!(project.ran().len(), 3);
    let again = |attempt| {
        format!(
            "a: failed after N s: `echo a >> ran; test $(wc -l < ran) -eq 3 && touch $QPIPE_OUT_X` \
             ended with exit status 1; attempt {attempt} of 3 in N s\n"
        )
    };
    let expected = ["a: running (never ran)\n", &again(2), &again(3), "a: done in N s\n"].concat();
    assert_eq!(said.stderr, expected);
    project.write("p.toml", &project.read("p.toml").replace("-eq 3", "-eq 9"));
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!((said.code, project.ran().len()), (Some(1), 3));
}

#[test]
fn retries_wait_without_keeping_the_machine() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"test -e b.done && touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n\
         retries = { count = 100, backoff = \"20 ms\" }\n\n\
         [stages.b]\nkind = \"command\"\nrun = \"touch b.done $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    project.run(&["-j1"]);
}

#[test]
fn the_critical_path_comes_first() {
    let stage = |name: &str, inputs: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"echo {name} >> ran; touch $QPIPE_OUT_X\"\n\
             outputs = {{ x = \"x\" }}\ninputs = {{ {inputs} }}\n"
        )
    };
    let all = [stage("short", ""), stage("long", ""), stage("next", "i = \"long\"")];
    let project = Project::new(&all.concat());
    project.run(&["-j1"]);
    assert_eq!(project.ran(), ["long", "short", "next"]);
}

#[test]
fn stages_with_the_same_key_run_once() {
    let stage = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"echo x >> ran; sleep 0.2; touch $QPIPE_OUT_X\"\n\
             outputs = {{ x = \"x\" }}\nresources = {{ cpus = 0.1 }}\n"
        )
    };
    let all: String = ["a", "b", "c"].into_iter().map(stage).collect();
    let project = Project::new(&all);
    let said = project.run(&["-j3"]);
    assert_eq!(project.ran().len(), 1, "{said:?}");
    assert!(said.stdout.contains("1 ran, 2 cached"), "{said:?}");
}

#[test]
fn after_a_failure_what_runs_is_brought_to_its_end() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"touch begun; while ! test -s pid || kill -0 $(cat pid); do sleep 0.01; done; touch $QPIPE_OUT_X\"\n\
         outputs = { x = \"x\" }\nresources = { cpus = 0.1 }\n\n\
         [stages.b]\nkind = \"command\"\nrun = \"while ! test -e begun; do sleep 0.01; done; echo $$ > pid; exit 1\"\n\
         outputs = { x = \"x\" }\nresources = { cpus = 0.1 }\n\n\
         [stages.c]\nkind = \"command\"\nrun = \"echo c >> ran\"\ninputs = { x = \"a\" }\noutputs = { x = \"x\" }\n",
    );
    // `a` ends when the end of `b` has been noticed.
    let said = project.qpipe(&["run", "p.toml", "-j2"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("a: done in"), "{said:?}");
    assert!(project.ran().is_empty(), "nothing begins after a failure");
    assert!(said.stdout.ends_with("1 ran, 0 cached, 1 failed, 1 not run in N s\n"), "{said:?}");
}

#[test]
fn an_interrupt_ends_all_that_run() {
    let names = ["a", "b", "c"];
    let stage = |name: &&str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"echo $$ > pid.{name}; sleep 60\"\n\
             outputs = {{ x = \"x\" }}\nresources = {{ cpus = 0.1 }}\n"
        )
    };
    let all: String = names.iter().map(stage).collect();
    let project = Project::new(&all);
    let runner = project.start(&["-j3"]);
    let pids = || names.map(|name| project.read(&format!("pid.{name}")));
    wait_for("all stages", || pids().iter().all(|pid| pid.ends_with('\n')));
    crate::project::signal(runner.id(), libc::SIGINT);
    assert_eq!(runner.wait_with_output().unwrap().status.code(), Some(130));
    assert!(pids().iter().all(|pid| !crate::project::lives(pid)));
}

#[test]
fn two_runs_on_one_machine_leave_a_benchmark_alone() {
    // Two caches: nothing but the machine is common to them.
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let stage = |name: &str, more: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = '''\ntouch {place}/now.{name}; most=0\n\
             for i in $(seq 40); do n=$(ls {place}/now.* | wc -l); test $n -gt $most && most=$n; sleep 0.01; done\n\
             rm {place}/now.{name}; echo $most > $QPIPE_OUT_X\n'''\noutputs = {{ x = \"x\" }}\n{more}\n"
        )
    };
    let others = ["a", "b", "c", "d"];
    let all: String = others.iter().map(|name| stage(name, "")).collect();
    let (one, two) = (Project::new(&all), Project::new(&stage("alone", "exclusive = true")));
    let machine = tempfile::tempdir().unwrap();
    let command = |project: &Project, more: &str| {
        let mut command = project.command(&["run", "p.toml", more]);
        // One session has such a folder of its own, cron has none.
        command
            .env("XDG_RUNTIME_DIR", project.path(""))
            .env("QPIPE_MACHINE", machine.path().join("locks"));
        command
    };
    let runner = command(&one, "-j2").spawn().unwrap();
    let begun = || {
        let names = std::fs::read_dir(folder.path()).unwrap();
        names.count() > 0
    };
    wait_for("the first run", begun);
    let said = two.said(&mut command(&two, "-j1"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(runner.wait_with_output().unwrap().status.success());
    assert_eq!(two.artifact("alone/x"), "1\n");
}

#[test]
fn a_run_leaves_a_record_and_an_up_to_date_one_does_not() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    let runs = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(project.path("cache/runs")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    project.run(&[]);
    let first = runs();
    assert_eq!(first.len(), 1);
    project.run(&[]);
    assert_eq!(runs(), first);
    let record = project.read(&format!("cache/runs/{}", first.first().unwrap()));
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["stages"]["a"]["status"], "ran");
    assert_eq!(record["stages"]["a"]["reason"], "never ran");
    assert_eq!(record["pipeline"], "p");
}
