//! Killed runners, killed stages, survivors, interrupts, two runs at once.

use std::time::{Duration, Instant};

use crate::project::{Project, lives, signal, wait_for};

/// Three stages that take some milliseconds and write in several steps, so that a kill may fall
/// anywhere.
const SLOW: &str = r#"
[stages.a]
kind = "command"
run = "for i in 1 2 3 4 5; do echo a$i >> $QPIPE_OUT_X; sleep 0.01; done"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "mkdir -p $QPIPE_OUT_F; cat $QPIPE_IN_X > $QPIPE_OUT_F/one; sleep 0.02; echo b > $QPIPE_OUT_F/two"
inputs = { x = "a" }
outputs = { f = "folder" }

[stages.c]
kind = "command"
run = "cat $QPIPE_IN_F/one > $QPIPE_OUT_X; sleep 0.02; cat $QPIPE_IN_F/two >> $QPIPE_OUT_X"
inputs = { f = "b" }
outputs = { x = "x" }
"#;

const WHOLE: &str = "a1\na2\na3\na4\na5\nb\n";

/// Instants spread over a run without a pattern, the same each time.
fn instants(count: u64, most_ms: u64) -> impl Iterator<Item = Duration> {
    let step = |state: u64| {
        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
    };
    std::iter::successors(Some(step(7)), move |state| Some(step(*state)))
        .map(move |state| Duration::from_micros((state >> 33) % (most_ms * 1000)))
        .take(usize::try_from(count).unwrap())
}

#[test]
fn a_runner_killed_at_any_instant_leaves_nothing_half_written() {
    let project = Project::new(SLOW);
    for instant in instants(30, 200) {
        let mut runner = project.start(&[]);
        std::thread::sleep(instant);
        let _ = runner.kill();
        runner.wait().unwrap();
        project.verify();
        if project.path("p.lock").exists() {
            std::fs::remove_file(project.path("cache/journal")).unwrap();
            std::fs::remove_file(project.path("p.lock")).unwrap();
        }
    }
    project.run(&[]);
    assert_eq!(project.artifact("c/x"), WHOLE);
    project.verify();
    let left = std::fs::read_dir(project.path("cache/scratch")).unwrap().count();
    assert_eq!(left, 0, "folders of killed attempts are removed");
}

#[test]
fn a_stage_killed_at_any_instant_fails_and_the_next_run_completes() {
    let project = Project::new(&SLOW.replace("run = \"", "run = \"echo $$ > pid; "));
    let mut killed = 0;
    for instant in instants(15, 120) {
        let runner = project.start(&[]);
        std::thread::sleep(instant);
        if let Ok(pid) = project.read("pid").trim().parse::<i32>() {
            // SAFETY: no memory is passed; the process may be gone already.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let ended = runner.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        killed += usize::from(said.contains("was killed by signal 9 (SIGKILL)"));
        assert_eq!(ended.status.success(), !said.contains("failed"), "{said}");
        project.verify();
        let _ = std::fs::remove_file(project.path("cache/journal"));
    }
    assert!(killed > 0, "no kill hit a stage");
    project.run(&[]);
    assert_eq!(project.artifact("c/x"), WHOLE);
}

/// A stage that leaves a process behind, in a session of its own, which goes on writing to the
/// output by its name and by an open descriptor.
const ORPHAN: &str = r#"
[stages.a]
kind = "command"
run = '''
if test -e first; then
    rm first
    setsid sh -c 'echo $$ > survivor; exec 7>> $QPIPE_OUT_X; while true; do echo bad >&7; echo bad >> $QPIPE_OUT_X; sleep 0.01; done' &
    while ! test -s survivor; do sleep 0.01; done
    WAIT
fi
echo good > $QPIPE_OUT_X
sleep 0.3
'''
outputs = { x = "x" }
"#;

#[test]
fn a_survivor_of_a_killed_runner_is_ended_and_cannot_reach_the_new_result() {
    let project = Project::new(&ORPHAN.replace("WAIT", "sleep 60"));
    project.write("first", "");
    let mut runner = project.start(&[]);
    wait_for("the survivor", || !project.read("survivor").trim().is_empty());
    runner.kill().unwrap();
    runner.wait().unwrap();
    let survivor = project.read("survivor");
    assert!(lives(&survivor), "it left its group and its session: nothing ended it yet");
    let said = project.run(&[]);
    assert!(
        said.stderr
            .contains("warning: processes of a killed run were still there and were ended: "),
        "{said:?}"
    );
    assert!(!lives(&survivor));
    assert_eq!(project.artifact("a/x"), "good\n");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(project.artifact("a/x"), "good\n");
    project.verify();
}

#[test]
fn a_process_left_behind_by_a_stage_that_ended_is_ended_before_its_output_is_kept() {
    let project = Project::new(&ORPHAN.replace("WAIT", "echo good > $QPIPE_OUT_X; exit 0"));
    project.write("first", "");
    let said = project.run(&[]);
    assert!(said.stderr.contains("a: warning: it left "), "{said:?}");
    assert!(!lives(&project.read("survivor")));
    let kept = project.artifact("a/x");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(project.artifact("a/x"), kept);
    project.verify();
}

#[test]
fn a_stage_dies_with_its_runner() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"echo $$ > pid; exec sleep 60\"]\noutputs = { x = \"x\" }\n",
    );
    let mut runner = project.start(&[]);
    wait_for("the stage", || project.read("pid").ends_with('\n'));
    let pid = project.read("pid");
    assert!(lives(&pid));
    runner.kill().unwrap();
    runner.wait().unwrap();
    wait_for("its end", || !lives(&pid));
}

#[test]
fn two_runs_at_once_do_the_work_once() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo a >> ran; sleep 0.5; echo a > $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    let first = project.start(&[]);
    wait_for("the first", || !project.read("ran").is_empty());
    let second = project.run(&[]);
    let expected = format!(
        "a: waiting for the run of process {}, which does the same\na: cached\n",
        first.id()
    );
    assert_eq!(second.stderr, expected);
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(project.ran(), ["a"]);
}

#[test]
fn an_interrupt_asks_and_nothing_is_kept() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"trap 'echo asked > asked; exit 0' TERM; echo $$ > pid; touch $QPIPE_OUT_X; while true; do sleep 0.01; done\"\noutputs = { x = \"x\" }\n",
    );
    let runner = project.start(&[]);
    wait_for("the stage", || project.read("pid").ends_with('\n'));
    signal(runner.id(), libc::SIGINT);
    let ended = runner.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(
        String::from_utf8_lossy(&ended.stderr),
        "a: running (never ran)\nerror: interrupted\n"
    );
    assert_eq!(project.read("asked"), "asked\n");
    assert!(!lives(&project.read("pid")));
    let plan = project.qpipe(&["plan", "p.toml"]).stdout;
    assert!(plan.starts_with("a  runs (?): never ran\n"), "{plan}");
    // The run is known, and what it was at.
    let log = project.qpipe(&["log", "p.toml"]).stdout;
    assert!(log.contains("  0 ran, 0 cached, 1 interrupted  "), "{log}");
    let show = project.qpipe(&["show", "p.toml", "last"]).stdout;
    assert!(show.contains("\na: interrupted after ") && show.ends_with(": never ran\n"), "{show}");
    let why = project.qpipe(&["why", "p.toml", "a"]).stdout;
    assert!(why.contains("  last time, in run ") && why.contains(": interrupted\n"), "{why}");
}

#[test]
fn a_second_interrupt_kills_what_does_not_listen() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"trap 'echo asked > asked' TERM; echo $$ > pid; while true; do sleep 0.01; done\"\noutputs = { x = \"x\" }\n",
    );
    let runner = project.start(&[]);
    wait_for("the stage", || project.read("pid").ends_with('\n'));
    let start = Instant::now();
    signal(runner.id(), libc::SIGTERM);
    wait_for("the question", || !project.read("asked").is_empty());
    signal(runner.id(), libc::SIGINT);
    assert_eq!(runner.wait_with_output().unwrap().status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(4), "before the five seconds of grace are over");
    assert!(!lives(&project.read("pid")));
}

/// As Slurm ends a job: all of its processes are told, and the shell of a stage goes on with the next line. What it leaves was taken for a result.
#[test]
fn a_stage_that_ends_as_the_run_is_asked_to_end_is_not_done() {
    for _ in 0..10 {
        let project = Project::new(
            "[stages.a]\nkind = \"command\"\nrun = \"kill -TERM $PPID; echo part > $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
        );
        let said = project.qpipe(&["run", "p.toml"]);
        assert_eq!(said.code, Some(130), "{said:?}");
        assert!(!project.path("p.lock").exists());
    }
}
