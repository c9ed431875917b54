//! What happened: status, costs, runs, logs, artifacts' origins, differences.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::project::{Project, without_runs};

/// `a` writes a word, `b` counts its letters as a figure. `a` fails without the file `ok`.
const PIPELINE: &str = r#"
[params]
word = "abc"

[stages.a]
kind = "command"
run = "echo $WORD; printf %s $WORD > $QPIPE_OUT_X; test -e ok"
env = { WORD = "${params.word}" }
outputs = { x = "x.txt" }

[stages.b]
kind = "command"
run = ["sh", "-c", "echo \"{\\\"letters\\\": $(wc -c < $QPIPE_IN_X)}\" > $QPIPE_OUT_M"]
inputs = { x = "a" }
outputs = { m = { file = "m.json", type = "metrics" } }
"#;

fn project() -> Project {
    let project = Project::new(PIPELINE);
    project.write("ok", "");
    project
}

fn says(project: &Project, arguments: &[&str]) -> String {
    let said = project.qpipe(arguments);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    without_runs(&said.stdout)
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    let said = project.qpipe(&[arguments, &["--json"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn status_has_a_line_for_each_stage() {
    let project = Project::new(PIPELINE);
    assert_eq!(
        says(&project, &["status", "p.toml"]),
        "a  would run: never ran\nb  may run: depends on a\n\
         0 up to date, 1 to run, 1 that may run\ncache: [DIR]/cache (not there yet)\n"
    );
    assert!(!project.path("cache").exists());
    assert_eq!(project.qpipe(&["run", "p.toml"]).code, Some(1));
    let said = project.qpipe(&["status", "p.toml", "--exit-code"]);
    assert_eq!(said.code, Some(10));
    let lines: Vec<&str> = said.stdout.lines().collect();
    let failed = "a  failed: `echo $WORD; printf %s $WORD > $QPIPE_OUT_X; test -e ok` ended with \
                  exit status 1 (20";
    assert!(lines[0].starts_with(failed), "{said:?}");
    assert!(lines[0].ends_with(" UTC; log: [DIR]/cache/logs/RUN/a.log)"), "{said:?}");
    assert_eq!(lines[2], "0 up to date, 1 to run, 1 that may run, 1 failed last time");
    project.write("ok", "");
    project.run(&[]);
    assert_eq!(
        says(&project, &["status", "p.toml", "--exit-code"]),
        "a  up to date\nb  up to date\n2 up to date\nlast run: RUN,\ncache: [DIR]/cache\n"
    );
    let status = json(&project, &["status", "p.toml", "--set", "params.word=x"]);
    assert_eq!(
        status["counts"],
        serde_json::json!({"cached": 0, "run": 1, "maybe": 1, "unknown": 0})
    );
    assert_eq!(status["last_run"]["ran"], 2);
    assert_eq!(status["stages"][0]["reason"], "env.WORD: abc → x");
}

#[test]
fn looking_takes_no_lock_and_needs_no_right_to_write() {
    let project = project();
    project.run(&[]);
    let lock = File::open(project.path("cache/lock")).unwrap();
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    let journal = File::open(project.path("cache/journal")).unwrap();
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::flock(journal.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    let files = || {
        let output = Command::new("find").arg(project.path("cache")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = files();
    let rights = |mode| {
        for folder in ["cache", "cache/index", "cache/runs"] {
            let permissions = std::fs::Permissions::from_mode(mode);
            let _ = std::fs::set_permissions(project.path(folder), permissions);
        }
    };
    rights(0o555);
    let looks: [&[&str]; 7] = [
        &["plan", "p.toml", "--set", "params.word=x"],
        &["status", "p.toml"],
        &["why", "p.toml", "a", "b"],
        &["log", "p.toml"],
        &["show", "p.toml", "last"],
        &["show", "p.toml", "b"],
        &["diff", "p.toml", "lock", "last"],
    ];
    for look in looks {
        says(&project, look);
    }
    rights(0o755);
    assert_eq!(files(), before);
}

#[test]
fn a_plan_tells_how_long_stages_took() {
    let project = project();
    let plan = says(&project, &["plan", "p.toml"]);
    assert_eq!(
        plan,
        "a  runs (?): never ran\nb  may run (?): depends on a\n0 cached, 1 to run, 1 that may run\n\
         time: unknown, none of these stages has run yet\n"
    );
    project.run(&[]);
    let plan = project.qpipe(&["plan", "p.toml", "--set", "params.word=x"]).stdout;
    let lines: Vec<&str> = plan.lines().collect();
    assert!(lines[0].starts_with("a  runs (~0."), "{plan}");
    assert!(lines[1].starts_with("b  may run (~0."), "{plan}");
    assert!(lines[3].starts_with("time: ~0."), "{plan}");
    assert!(lines[3].ends_with(" at a time)"), "{plan}");
    let json = json(&project, &["plan", "p.toml", "--force", "a"]);
    let number = |value: &Value| value.as_f64().unwrap();
    let (a, b) = (&json["stages"][0]["estimate"], &json["stages"][1]["estimate"]);
    assert_eq!(json["estimate"]["run"]["work"], *a);
    let sum = number(a) + number(b);
    assert!((number(&json["estimate"]["all"]["wall"]) - sum).abs() < 1e-6, "one after the other");
    assert_eq!(
        says(&project, &["plan", "p.toml"]),
        "a  cached\nb  cached\n2 cached, 0 to run, 0 that may run\n"
    );
}

#[test]
fn runs_are_listed_and_shown() {
    let project = project();
    assert_eq!(says(&project, &["log", "p.toml"]), "no runs yet of p in [DIR]/cache\n");
    project.run(&["-q"]);
    // Nothing to do: no trace.
    project.run(&[]);
    project.run(&["--set", "params.word=it's me", "-q"]);
    let log = project.qpipe(&["log", "p.toml"]).stdout;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    let tails = [
        " s  2 ran, 0 cached  qpipe run p.toml --set 'params.word=it'\\''s me' -q",
        " s  2 ran, 0 cached  qpipe run p.toml -q",
    ];
    for (line, tail) in lines.iter().zip(tails) {
        assert!(line.ends_with(tail), "{line}");
    }
    assert_eq!(json(&project, &["log", "p.toml", "-n", "1"])["runs"].as_array().unwrap().len(), 1);
    assert_eq!(says(&project, &["log", "p.toml", "--stage", "a"]), "it's me\n");
    assert_eq!(says(&project, &["log", "p.toml", "--stage", "a", "--run", "last~1"]), "abc\n");
    let said = project.qpipe(&["log", "p.toml", "--stage", "b"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.starts_with("error: no log of b: it printed nothing"), "{said:?}");
    let show = says(&project, &["show", "p.toml", "last"]);
    let stages = show.split_once("  stages    ").unwrap().1;
    let stages: Vec<&str> = stages.lines().filter(|line| !line.contains(" ran in ")).collect();
    assert_eq!(
        stages,
        [
            "2 ran, 0 cached",
            "  env.WORD: abc → it's me",
            "  input x changed (from a): ba7816bf8f01 → c4201c3489b4",
            "  letters = 6",
        ],
        "{show}"
    );
    let id = lines[0].split(' ').next().unwrap();
    assert_eq!(json(&project, &["show", "p.toml", id])["run"]["id"], *id);
    for (name, message) in [
        ("last~7", "error: there is no run `last~7`: the cache remembers 2\n"),
        ("c", "error: no stage is named `c`\n"),
        ("20010101", "error: no run of this pipeline is named `20010101`\n"),
    ] {
        let said = project.qpipe(&["show", "p.toml", name]);
        assert_eq!(said.code, Some(2));
        assert!(said.stderr.starts_with(message), "{said:?}");
    }
}

#[test]
fn an_artifact_knows_where_it_comes_from_and_how_it_is_made_again() {
    let project = project();
    let git = |arguments: &[&str]| {
        let names = ["-c", "user.name=n", "-c", "user.email=n@example.org"];
        let mut command = Command::new("git");
        command.args(names).args(arguments).current_dir(project.path(""));
        assert!(command.output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "p.toml"]);
    git(&["commit", "-q", "-m", "one"]);
    project.run(&["--set", "params.word=it's"]);
    let found = &json(&project, &["show", "p.toml", "b"])["stages"][0];
    let commit = found["commit"]["id"].as_str().unwrap();
    assert_eq!((commit.len(), &found["commit"]["dirty"]), (40, &Value::from(false)));
    let commands = [
        "cd [DIR]".to_owned(),
        format!("git checkout {commit}"),
        r"qpipe run p.toml b --set 'params.word=it'\''s'".to_owned(),
    ];
    assert_eq!(found["commands"], serde_json::json!(commands));
    assert_eq!(found["chain"][0]["stage"], "a");
    assert_eq!(found["inputs"][0]["what"], "input x (from a)");
    assert_eq!(found["metrics"]["letters"], 4);
    // The command lines make the same bytes again.
    let a = &json(&project, &["show", "p.toml", "a"])["stages"][0];
    for stage in [a, found] {
        let folder = project.path("").canonicalize().unwrap();
        let line = stage["program"].as_str().unwrap();
        let line = line.replace("[DIR]", folder.to_str().unwrap());
        let mut command = Command::new("sh");
        let status = command.args(["-c", &line]).current_dir(project.path("")).status().unwrap();
        assert!(status.success(), "{line}");
    }
    assert_eq!(project.read("out/x.txt"), project.artifact("a/x.txt"));
    assert_eq!(project.read("out/m.json"), project.artifact("b/m.json"));
    // A change that is not committed.
    project.write("p.toml", &PIPELINE.replace("abc", "abcd"));
    project.run(&[]);
    let text = project.qpipe(&["show", "p.toml", "b"]).stdout;
    let dirty = format!("git checkout {commit}  # with changes that were not committed\n");
    assert!(text.contains(&dirty), "{text}");
}

/// Not what ran last, which may be that of other values.
#[test]
fn the_result_of_the_file_as_it_is_asked_about_is_shown() {
    let project = project();
    project.run(&[]);
    project.run(&["--set", "params.word=longer"]);
    let letters = |more: &[&str]| {
        let found = &json(&project, &[&["show", "p.toml", "b"], more].concat())["stages"][0];
        (found["metrics"]["letters"].clone(), found["current"].clone())
    };
    assert_eq!(letters(&[]), (3.into(), true.into()));
    assert_eq!(letters(&["--set", "params.word=longer"]), (6.into(), true.into()));
    // What was never run: the last result, which is said.
    assert_eq!(letters(&["--set", "params.word=none"]), (6.into(), false.into()));
    let said = project.qpipe(&["show", "p.toml", "b", "--set", "params.word=none"]);
    assert!(said.stdout.contains("  of the last run: the file, its inputs"), "{}", said.stdout);
    // Of a run that is no longer known, the command has the values with which it is asked about.
    std::fs::remove_dir_all(project.path("cache/runs")).unwrap();
    let more = ["--set", "params.word=longer"];
    let found = &json(&project, &[&["show", "p.toml", "b"][..], &more].concat())["stages"][0];
    assert_eq!(found["commands"][1], "qpipe run p.toml b --set params.word=longer");
}

/// Two files of one name in one cache: each has its own runs, and it is told once what they share.
#[test]
fn files_of_one_name_have_runs_of_their_own() {
    let project = project();
    project.run(&[]);
    let other = |arguments: &[&str]| {
        let said = project.qpipe(arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    };
    let text = project.read("p.toml");
    std::fs::create_dir(project.path("other")).unwrap();
    for file in ["ok", "src.txt"] {
        let _ = std::fs::copy(project.path(file), project.path("other").join(file));
    }
    project.write("other/p.toml", &text.replace("abc", "other"));
    let cache = project.path("cache");
    let run = ["run", "other/p.toml", "--cache", cache.to_str().unwrap()];
    let first = other(&run);
    let told = "warning: [DIR]/p.toml is called \"p\" too and has this cache: [DIR]/cache/view/p shows the artifacts of whichever ran last";
    assert!(first.stderr.contains(told), "{first:?}");
    let again = other(&[&run[..], &["--force", "a"]].concat());
    assert!(!again.stderr.contains("is called"), "{again:?}");
    assert!(!project.run(&["--force", "a"]).stderr.contains("is called"));
    let runs = |arguments: &[&str]| other(arguments).stdout.lines().count();
    assert_eq!(runs(&["log", "p.toml"]), 2);
    assert_eq!(runs(&["log", "other/p.toml", "--cache", cache.to_str().unwrap()]), 2);
    // By another way to it, it is the same file; and whose file is gone may have been moved.
    std::os::unix::fs::symlink(project.path("p.toml"), project.path("p2.toml")).unwrap();
    project.write("p.toml", &format!("[pipeline]\nname = \"p\"\n{text}"));
    assert_eq!(runs(&["log", "p2.toml"]), 2);
    std::fs::remove_file(project.path("other/p.toml")).unwrap();
    assert_eq!(runs(&["log", "p.toml"]), 4);
}

#[test]
fn two_runs_are_compared() {
    let project = project();
    project.run(&[]);
    project.run(&["--set", "params.word=abcd"]);
    let diff = says(&project, &["diff", "p.toml", "last~1", "last"]);
    let lines: Vec<&str> = diff.lines().filter(|line| !line.contains("output m")).collect();
    assert_eq!(
        lines,
        [
            "from run RUN to run RUN",
            "a",
            "  env.WORD: abc → abcd",
            "  output x: ba7816bf8f01 (3 B) → 88d4266fd4e6 (4 B)",
            "b",
            "  input x changed (from a): ba7816bf8f01 → 88d4266fd4e6",
            "  letters = 3 → 4 (+1)",
            "2 differ, 0 alike",
        ],
        "{diff}"
    );
    let same = says(&project, &["diff", "p.toml", "lock", "last~1"]);
    assert_eq!(same, "from the lock file to run RUN\n0 differ, 2 alike\n");
    let diff = json(&project, &["diff", "p.toml", "last", "last~1"]);
    let metric = serde_json::json!({"name": "letters", "old": 4.0, "new": 3.0, "difference": -1.0});
    assert_eq!(diff["stages"][1]["metrics"], serde_json::json!([metric]));
    std::fs::remove_file(project.path("ok")).unwrap();
    project.qpipe(&["run", "p.toml", "--set", "params.word=x"]);
    assert_eq!(
        says(&project, &["diff", "p.toml", "last~1", "last"]),
        "from run RUN to run RUN\na: failed in run RUN\nb: only in run RUN\n2 differ, 0 alike\n"
    );
}

#[test]
fn a_slow_git_keeps_no_stage_waiting_and_is_no_process_of_a_stage() {
    let project = Project::new(
        &PIPELINE.replace("test -e ok", "true").replace("echo \\", "touch go; echo \\"),
    );
    // It answers only when the last stage runs.
    project.program(
        "bin/git",
        "#!/bin/sh\nuntil test -e go; do sleep 0.01; done\necho '# branch.oid 12ab'\n",
    );
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap());
    let said = project.said(project.command(&["run", "p.toml"]).env("PATH", path));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.stderr.contains("warning"), "{said:?}");
    assert_eq!(json(&project, &["show", "p.toml", "b"])["stages"][0]["commit"]["id"], "12ab");
}

#[test]
fn stages_that_were_never_begun_are_counted_as_the_run_counted_them() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"exit 1\"\noutputs = { x = \"x\" }\n\
         [stages.b]\nkind = \"command\"\nrun = \"true\"\ninputs = { x = \"a.x\" }\noutputs = { x = \"x\" }\n\
         [stages.c]\nkind = \"command\"\nrun = \"touch $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    let said = project.qpipe(&["run", "p.toml", "--jobs", "1"]);
    assert!(said.stdout.contains("0 ran, 0 cached, 1 failed, 2 not run"), "{said:?}");
    let said = project.qpipe(&["log", "p.toml"]);
    assert!(said.stdout.contains("1 failed, 2 not run"), "{said:?}");
    let shown = project.qpipe(&["show", "p.toml", "last"]).stdout;
    assert!(shown.contains("b: not run, because a failed\n1 more stage not run: "), "{shown}");
    assert_eq!(json(&project, &["log", "p.toml"])["runs"][0]["skipped"], 2);
    assert_eq!(json(&project, &["status", "p.toml"])["last_run"]["skipped"], 2);
}

#[test]
fn no_runs_are_not_asked_for() {
    let said = project().qpipe(&["log", "p.toml", "-n", "0"]);
    assert!(said.code == Some(2) && said.stderr.contains("invalid value '0' for '--limit <N>'"));
}
