//! What runs, what does not, and what is said of it.

use serde_json::Value;

use crate::project::Project;

/// `a` reads a file, `b` and `c` take from `a`, `d` from both. Each notes in `ran` that it ran.
const DIAMOND: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "echo a >> ran; head -c 3 $QPIPE_IN_SRC > $QPIPE_OUT_X"
files = { src = "src.txt" }
outputs = { x = "x.txt" }

[stages.b]
kind = "command"
run = "echo b >> ran; echo $WORD | cat $QPIPE_IN_X - > $QPIPE_OUT_X"
inputs = { x = "a" }
env = { WORD = "${params.word}" }
outputs = { x = "x.txt" }

[stages.c]
kind = "command"
run = "echo c >> ran; wc -c < $QPIPE_IN_X > $QPIPE_OUT_X"
inputs = { x = "a.x" }
outputs = { x = "x.txt" }

[stages.d]
kind = "command"
run = "echo d >> ran; cat $QPIPE_IN_B $QPIPE_IN_C > $QPIPE_OUT/d"
inputs = { b = "b.x", c = "c.x" }
outputs = { d = "d" }
"#;

fn diamond() -> Project {
    let project = Project::new(DIAMOND);
    project.write("src.txt", "abcdef\n");
    project
}

#[test]
fn a_file_with_the_line_ends_of_windows_runs_as_any_other() {
    let text = r#"
[stages.a]
kind = "command"
run = """
if true; then
  printf 'one\r\n' > $QPIPE_OUT_X
fi
"""
outputs = { x = "x" }
"#;
    let project = Project::new(&text.replace('\n', "\r\n"));
    let said = project.run(&[]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(project.artifact("a/x"), "one\r\n");
    // The same stage, from a file of the other kind.
    project.write("p.toml", text);
    let said = project.run(&[]);
    assert!(said.stderr.starts_with("a: cached"), "{}", said.stderr);
}

/// The next stage of the run uses the folder of the last one again.
#[test]
fn what_a_stage_leaves_is_nothing_to_the_next() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "echo junk > $TMPDIR/x; echo junk > $QPIPE_OUT/y; mkdir $QPIPE_OUT/../more; echo a > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "all=$(find $QPIPE_OUT/.. -mindepth 1 | sed 's|.*[.][.]/||' | sort); echo $all > $QPIPE_OUT_X; rmdir $TMPDIR; ln -s $PWD $TMPDIR"
inputs = { x = "a" }
outputs = { x = "x" }

[stages.c]
kind = "command"
run = "ls -A $TMPDIR > $QPIPE_OUT_X; cat $QPIPE_IN_X >> $QPIPE_OUT_X"
inputs = { x = "b" }
outputs = { x = "x" }
"#,
    );
    project.run(&["-j1"]);
    assert_eq!(project.artifact("b/x"), "in in/x out tmp\n");
    assert_eq!(project.artifact("c/x"), project.artifact("b/x"), "nothing was in tmp");
    assert!(project.path("p.toml").exists(), "what the link led to stays");
    project.verify();
}

#[test]
fn a_first_run_a_second_and_their_exact_words() {
    let project = diamond();
    let first = project.run(&["-j1"]);
    let lines =
        ["a", "b", "c", "d"].map(|s| format!("{s}: running (never ran)\n{s}: done in N s\n"));
    assert_eq!(first.stderr, lines.concat());
    assert_eq!(
        first.stdout,
        "artifacts in [DIR]/cache/view/p\nwrote [DIR]/p.lock\n4 ran, 0 cached in N s\n"
    );
    assert_eq!(project.ran(), ["a", "b", "c", "d"]);
    assert_eq!(project.artifact("d/d"), "abcone\n3\n");
    let second = project.run(&[]);
    assert_eq!(second.stderr, "a: cached\nb: cached\nc: cached\nd: cached\n");
    assert_eq!(second.stdout, "artifacts in [DIR]/cache/view/p\n0 ran, 4 cached in N s\n");
    assert!(project.ran().is_empty());
    project.verify();
}

#[test]
fn comments_order_spaces_and_a_touch_run_nothing() {
    let project = diamond();
    project.run(&[]);
    project.ran();
    let lock = project.read("p.lock");
    let mut tables: Vec<&str> = DIAMOND.split("\n\n").collect();
    tables.reverse();
    let text = tables.join("\n\n# another comment\n\n").replace(" = ", "   =  ");
    assert_ne!(text, DIAMOND);
    project.write("p.toml", &text);
    let file = std::fs::File::open(project.path("src.txt")).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    let said = project.run(&[]);
    assert!(project.ran().is_empty(), "{said:?}");
    assert_eq!(project.read("p.lock"), lock);
}

#[test]
fn a_parameter_runs_only_what_depends_on_it() {
    let project = diamond();
    project.run(&[]);
    project.ran();
    let said = project.run(&["--set", "params.word=two"]);
    assert_eq!(project.ran(), ["b", "d"]);
    assert_eq!(
        said.stderr,
        "a: cached\nc: cached\nb: running (env.WORD: one → two)\nb: done in N s\n\
         d: running (input b changed (from b))\nd: done in N s\n"
    );
    assert_eq!(project.artifact("d/d"), "abctwo\n3\n");
    // And back: it was all computed before.
    project.run(&[]);
    assert!(project.ran().is_empty());
    assert_eq!(project.artifact("d/d"), "abcone\n3\n");
}

#[test]
fn equal_bytes_stop_the_wave() {
    let project = diamond();
    project.run(&[]);
    project.ran();
    // `a` takes the first three bytes: its output stays.
    project.write("src.txt", "abcxyz\n");
    let said = project.run(&[]);
    assert_eq!(project.ran(), ["a"]);
    assert_eq!(
        said.stderr,
        "a: running (file src.txt changed)\na: done in N s, same result as before\n\
         b: cached\nc: cached\nd: cached\n"
    );
}

#[test]
fn a_folder_is_an_input_and_an_output() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "echo a >> ran; mkdir $QPIPE_OUT_F; cp -r $QPIPE_IN_SRC/. $QPIPE_OUT_F; mkdir $QPIPE_OUT_F/empty"
files = { src = "src" }
outputs = { f = "folder" }

[stages.b]
kind = "command"
run = ["sh", "-c", "echo b >> ran; cat $QPIPE_IN_F/one $QPIPE_IN_F/below/two > $QPIPE_OUT_X"]
inputs = { f = "a" }
outputs = { x = "x" }
"#,
    );
    project.write("src/one", "1");
    project.write("src/below/two", "2");
    project.run(&[]);
    assert_eq!((project.ran().len(), project.artifact("b/x").as_str()), (2, "12"));
    std::fs::create_dir(project.path("src/also empty")).unwrap();
    project.run(&[]);
    assert!(project.ran().is_empty());
    project.write("src/below/three", "3");
    project.run(&[]);
    assert_eq!(project.ran(), ["a", "b"]);
    // A user of a folder does not run because its name moved, only because its content did.
    std::fs::rename(project.path("src"), project.path("other")).unwrap();
    project.write("p.toml", &project.read("p.toml").replace("src = \"src\"", "src = \"other\""));
    project.run(&[]);
    assert!(project.ran().is_empty());
    project.verify();
}

#[test]
fn a_failure_is_shown_and_never_cached() {
    let project = Project::new(
        r#"
[stages.good]
kind = "command"
run = "echo good >> ran; touch $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.bad]
kind = "command"
run = '''
echo bad >> ran
touch $QPIPE_OUT_X
for i in $(seq 25); do echo line $i; done; sleep 0.3; echo reason >&2
exit 7
'''
outputs = { x = "x" }

[stages.after]
kind = "command"
run = "cp $QPIPE_IN_X $QPIPE_OUT_X"
inputs = { x = "bad" }
outputs = { x = "x" }

[stages.other]
kind = "command"
run = "echo other >> ran; touch $QPIPE_OUT_X"
outputs = { x = "x" }
"#,
    );
    // One at a time: `bad` comes first, since `after` waits for it.
    let said = project.qpipe(&["run", "p.toml", "-j1"]);
    assert_eq!(said.code, Some(1));
    let tail: String = (7..=25).map(|i| format!("  │ line {i}\n")).collect();
    let expected = format!(
        "bad: running (never ran)\nbad: failed after N s\n\
         \nlast lines of bad:\n{tail}  │ reason\n\nerror: stage bad failed: `echo bad >> ran …` ended with exit status 7\n  \
         log:  [DIR]/cache/logs/RUN/bad.log\n\nafter: skipped (bad failed)\n"
    );
    assert_eq!(said.stderr, expected);
    assert_eq!(said.stdout, "0 ran, 0 cached, 1 failed, 3 not run in N s\n");
    assert!(!project.path("p.lock").exists());
    assert_eq!(project.ran(), ["bad"]);
    let again = project.qpipe(&["run", "p.toml", "-j1", "--keep-going"]);
    assert_eq!((again.code, project.ran().join(" ").as_str()), (Some(1), "bad good other"));
    assert!(again.stdout.ends_with("2 ran, 0 cached, 1 failed, 1 not run in N s\n"), "{again:?}");
    project.verify();
}

#[test]
fn an_output_that_is_not_written_is_named() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "echo text > $QPIPE_OUT/other; touch $QPIPE_OUT_X"
outputs = { x = "x", y = "below/y.txt" }
"#,
    );
    for _ in 0..2 {
        let said = project.qpipe(&["run", "p.toml"]);
        assert_eq!(said.code, Some(1));
        let expected = "error: stage a failed: output `y` was not written: below/y.txt\n  \
                        help: the program must write it into the folder $QPIPE_OUT\n";
        assert!(said.stderr.contains(expected), "{said:?}");
    }
    // An undeclared file is nobody's business; a declared one may be empty.
    let text = project.read("p.toml").replace(", y = \"below/y.txt\"", "");
    project.write("p.toml", &text);
    project.run(&[]);
    assert_eq!(project.artifact("a/x"), "");
    assert!(!project.path("cache/view/p/a/other").exists());
}

#[test]
fn an_input_that_changes_meanwhile_is_named_and_nothing_is_kept() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "cp $QPIPE_IN_SRC $QPIPE_OUT_X; echo a >> ran; test -e once || { touch once; echo new > src.txt; }"
files = { src = "src.txt" }
outputs = { x = "x" }
"#,
    );
    project.write("src.txt", "old\n");
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(4));
    let expected = "a: running (never ran)\n\
        error: [DIR]/src.txt changed while a ran: its result is not kept\n  \
        help: run again when nothing writes to it any more\n";
    assert_eq!(said.stderr, expected);
    project.run(&[]);
    assert_eq!((project.ran().len(), project.artifact("a/x").as_str()), (2, "new\n"));
    // The old content was not recorded under the old key either.
    project.write("src.txt", "old\n");
    project.run(&[]);
    assert_eq!((project.ran().len(), project.artifact("a/x").as_str()), (1, "old\n"));
}

#[test]
fn a_plan_says_what_would_run_and_writes_nothing() {
    let project = diamond();
    let plan = project.qpipe(&["plan", "p.toml"]);
    assert_eq!(
        plan.stdout,
        "a  runs (?): never ran\nb  may run (?): depends on a\nc  may run (?): depends on a\n\
         d  may run (?): depends on b, c\n0 cached, 1 to run, 3 that may run\n\
         time: unknown, none of these stages has run yet\n"
    );
    assert!(!project.path("cache").exists() && !project.path("p.lock").exists());
    project.run(&[]);
    let plan =
        project.qpipe(&["plan", "p.toml", "--json", "--set", "params.word=x", "--force", "c"]);
    let mut json: Value = serde_json::from_str(&plan.stdout).unwrap();
    for stage in json["stages"].as_array_mut().unwrap() {
        // `why` shows these; see there.
        let stage = stage.as_object_mut().unwrap();
        assert!(stage.remove("last").is_some());
        stage.remove("changes");
        stage.remove("estimate");
    }
    assert!(json.as_object_mut().unwrap().remove("estimate").is_some());
    let expected = serde_json::json!({"stages": [
        {"stage": "a", "action": "cached", "reason": null},
        {"stage": "b", "action": "run", "reason": "env.WORD: one → x"},
        {"stage": "c", "action": "run", "reason": "forced"},
        {"stage": "d", "action": "maybe", "reason": "depends on b, c"},
    ]});
    assert_eq!(json, expected);
    project.ran();
    project.qpipe(&["plan", "p.toml", "--set", "params.word=x"]);
    assert!(project.ran().is_empty());
}

#[test]
fn targets_and_force() {
    let project = diamond();
    project.run(&["c"]);
    assert_eq!(project.ran(), ["a", "c"]);
    assert_eq!(project.read("p.lock").matches("[stages.").count(), 2);
    project.run(&["--force", "c", "-j", "1"]);
    assert_eq!(project.ran(), ["b", "c", "d"]);
    assert_eq!(project.read("p.lock").matches("[stages.").count(), 4);
    let said = project.qpipe(&["run", "p.toml", "aa"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert_eq!(said.stderr, "error: no stage is named `aa`\n  help: did you mean `a`?\n");
}

#[test]
fn patterns_choose_stages_and_exclude_leaves_out() {
    let project = diamond();
    project.run(&["b+", "--exclude", "d"]);
    assert_eq!(project.ran(), ["a", "b"]);
    project.run(&["kind:command", "--exclude", "c"]);
    assert!(project.ran().is_empty(), "`d` needs `c`");
    project.run(&["?"]);
    assert_eq!(project.ran(), ["c", "d"]);
    let plan = project.qpipe(&["plan", "p.toml", "c", "--exclude", "a"]);
    assert_eq!((plan.code, plan.stdout.as_str()), (Some(2), ""));
    assert!(plan.stderr.starts_with("error: nothing is left: "), "{plan:?}");
    let graph = project.qpipe(&["graph", "p.toml", "--exclude", "b"]);
    assert_eq!(graph.stdout, "p\n└─ a (command) ← src.txt\n   └─ c (command)\n");
}

#[test]
fn json_lines_tell_the_whole_run() {
    let project = diamond();
    project.run(&["a"]);
    let said = project.run(&["--json", "b"]);
    let events: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["planned", "cached", "started", "finished", "summary"]);
    assert_eq!((&events[1]["stage"], &events[2]["stage"]), (&"a".into(), &"b".into()));
    assert_eq!(events[2]["reason"], "never ran");
    assert_eq!(events[3]["unchanged"], false);
    assert_eq!((&events[4]["ran"], &events[4]["cached"]), (&1.into(), &1.into()));
    assert_eq!(said.stderr, "");
    let quiet = project.run(&["--quiet"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn a_lock_file_of_a_newer_qpipe_is_not_written_over() {
    let project = diamond();
    project.write("p.lock", "# Written by a newer one.\nformat = 3\n");
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (
            Some(4),
            "error: [DIR]/p.lock has format 3, which this qpipe does not know\n  \
             help: a newer qpipe wrote it: use that, or remove the file, and a run writes it anew\n"
        )
    );
    assert!(project.read("p.lock").ends_with("format = 3\n"));
    assert!(project.ran().is_empty(), "nothing ran in vain");
    project.write("p.lock", "format = 1\n");
    project.run(&[]);
    let whole = project.read("p.lock");
    assert!(whole.contains("format = 2\n"), "one of an older form is made anew");
    // As a merge leaves it: a run of one stage would forget the others.
    let merged = whole.clone() + "<<<<<<< ours\n";
    project.write("p.lock", &merged);
    let said = project.qpipe(&["run", "p.toml", "a"]);
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    for part in ["[DIR]/p.lock is no lock file of qpipe: line ", "restore it from version control"]
    {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert_eq!(project.read("p.lock"), merged);
    assert_eq!(project.qpipe(&["run", "p.toml", "a", "--no-lock"]).code, Some(0));
    std::fs::remove_file(project.path("p.lock")).unwrap();
    project.run(&[]);
    assert_eq!(project.read("p.lock"), whole);
}

/// The lock file is committed: a trial does not put its results in the place of those of the file as it stands.
#[test]
fn a_run_with_set_leaves_the_lock_file_of_others_alone() {
    let project = diamond();
    let two = ["--set", "params.word=two"];
    let said = "[DIR]/p.lock left as it is: it belongs to runs without this --set\n";
    // Where there is none it writes one, and so do runs that set the same keys.
    let first = project.run(&two);
    assert!(first.stdout.contains("wrote [DIR]/p.lock\n"), "{first:?}");
    assert!(project.read("p.lock").contains("\nset = ['params.word']\n"));
    let again = project.run(&["--set", "params.word=three"]);
    assert!(again.stdout.contains("wrote [DIR]/p.lock\n"), "{again:?}");
    let more = project.run(&["--set", "params.word=three", "--set", "pipeline.seed=9"]);
    assert!(more.stdout.contains(said), "{more:?}");
    // The file as it stands has the first right to it.
    project.run(&[]);
    let lock = project.read("p.lock");
    // Where it would say the same, there is nothing to tell.
    let same = project.run(&["--set", "params.word=one"]);
    assert!(!same.stdout.contains("p.lock"), "{same:?}");
    let other = project.run(&two);
    assert!(other.stdout.contains(said), "{other:?}");
    assert_eq!(project.read("p.lock"), lock);
    project.run(&["--locked"]);
    // What is accepted by name is written.
    let ci = |more: &[&str]| project.qpipe(&[&["ci", "p.toml"], &two[..], more].concat());
    let held = ci(&[]);
    assert!(held.code == Some(0) && project.read("p.lock") == lock, "{held:?}");
    let accepted = ci(&["--accept"]);
    assert!(accepted.stdout.contains("wrote [DIR]/p.lock\n"), "{accepted:?}");
    assert_ne!(project.read("p.lock"), lock);
}

#[test]
fn a_locked_run_changes_nothing() {
    let project = diamond();
    let said = project.qpipe(&["run", "p.toml", "--locked"]);
    assert_eq!(said.code, Some(4));
    assert_eq!(
        said.stderr,
        "error: [DIR]/p.lock would change, and --locked forbids it: there is no such file\n  \
         help: run without --locked and commit the lock file, or undo the change\n"
    );
    project.run(&[]);
    let lock = project.read("p.lock");
    project.run(&["--locked"]);
    project.ran();
    let said = project.qpipe(&["run", "p.toml", "--locked", "--set", "params.word=two"]);
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.contains("stage b has another key (env.WORD: one → two)"), "{said:?}");
    assert!(project.ran().is_empty());
    // Elsewhere, with an empty cache, the same results come out: that is what it is for.
    std::fs::remove_dir_all(project.path("cache")).unwrap_or_default();
    assert!(project.qpipe(&["cache", "clear", "--yes"]).code != Some(0), "it is gone");
    project.run(&["--locked"]);
    assert_eq!((project.ran().len(), project.read("p.lock")), (4, lock));
}

#[test]
fn figures_of_a_command_stand_in_the_report() {
    let project = Project::new(
        r#"
[stages.size]
kind = "command"
run = "echo '{\"kb\": 12, \"list\": [1]}' > $QPIPE_OUT_M"
outputs = { m = { file = "m.json", type = "metrics" } }

[stages.report]
kind = "report"
"#,
    );
    let said = project.run(&[]);
    let table = "\np\n\n\nvariant   kb\n────────────\nsize      12\n\n";
    assert_eq!(said.stdout.split_once("artifacts").unwrap().0, table);
    assert!(project.artifact("report/report.md").contains("| size | 12 |"));
    assert_eq!(project.run(&[]).stdout.split_once("artifacts").unwrap().0, table);
    let broken = project.read("p.toml").replace("echo '{", "echo 'x{");
    project.write("p.toml", &broken);
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1));
    let expected = "stage size failed: output `m` (m.json) is no JSON object of figures: ";
    assert!(said.stderr.contains(expected), "{said:?}");
}

#[test]
fn a_program_that_is_not_there() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = [\"./no-such-program\"]\noutputs = { x = \"x\" }\n",
    );
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1));
    let expected = "error: stage a failed: `[DIR]/./no-such-program` cannot be started: \
                    No such file or directory (os error 2)\n  \
                    help: install it, or correct its name in `run`\n";
    assert!(said.stderr.contains(expected), "{said:?}");
}

#[test]
fn a_graph_in_all_formats() {
    let project = diamond();
    let draw = |format: &str| project.qpipe(&["graph", "p.toml", "c", "--format", format]).stdout;
    assert_eq!(draw("text"), "p\n└─ a (command) ← src.txt\n   └─ c (command)\n");
    assert!(draw("dot").starts_with("digraph \"p\" {"));
    assert!(draw("mermaid").starts_with("flowchart LR\n"));
    assert!(draw("svg").starts_with("<svg xmlns=") && draw("svg").ends_with("</svg>\n"));
}

#[test]
fn an_up_to_date_run_of_forty_stages_takes_milliseconds() {
    let values: Vec<String> = (0..40).map(|value| value.to_string()).collect();
    let project = Project::new(&format!(
        r#"
[stages.a]
kind = "command"
matrix = {{ v = [{}] }}
run = "cp $QPIPE_IN_SRC $QPIPE_OUT_X; echo ${{matrix.v}} >> $QPIPE_OUT_X"
files = {{ src = "src.txt" }}
outputs = {{ x = "x" }}
"#,
        values.join(", ")
    ));
    project.write("src.txt", "text\n");
    assert!(project.run(&[]).stdout.contains("40 ran, 0 cached"));
    let times = (0..10).map(|_| {
        let start = std::time::Instant::now();
        assert!(project.run(&[]).stdout.contains("0 ran, 40 cached"));
        start.elapsed()
    });
    let best = times.min().unwrap();
    // With optimisation it takes about 5 ms; what starts a process or reads all inputs takes more.
    assert!(best < std::time::Duration::from_millis(100), "{best:?}");
}

#[test]
fn a_secret_reaches_the_program_and_no_file() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "printf %s \"$TOKEN\" | tr -d '\\n' | wc -c > $QPIPE_OUT_X"
env = { TOKEN = "<${secret.QPIPE_TEST_TOKEN}>" }
outputs = { x = "x" }
"#,
    );
    assert_eq!(project.qpipe(&["check", "p.toml"]).code, Some(0));
    assert_eq!(project.qpipe(&["plan", "p.toml"]).code, Some(0));
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1));
    let expected = "error: stage a failed: the environment variable `QPIPE_TEST_TOKEN` is not set\n  \
                    help: the stage takes it as a secret: set it where qpipe runs\n";
    assert!(said.stderr.contains(expected), "{said:?}");
    let said = project.said(project.command(&["run", "p.toml"]).env("QPIPE_TEST_TOKEN", ""));
    assert!(said.stderr.contains(&expected.replace("not set", "empty")), "{said:?}");
    let run = |value: &str| {
        let mut command = project.command(&["run", "p.toml"]);
        project.said(command.env("QPIPE_TEST_TOKEN", value)).stdout
    };
    assert!(run("open-sesame").contains("1 ran, 0 cached"));
    assert_eq!(project.artifact("a/x").trim(), "13");
    assert!(run("another").contains("0 ran, 1 cached"), "the value is not part of the key");
    let holding = |text: &str| {
        let mut grep = std::process::Command::new("grep");
        let grep = grep.args(["-rlF", text, "cache", "p.toml", "p.lock"]);
        let found = grep.current_dir(project.path("")).output().unwrap().stdout;
        String::from_utf8(found).unwrap()
    };
    assert_eq!(holding("open-sesame"), "");
    assert!(holding("<${secret.QPIPE_TEST_TOKEN}>").contains("cache/"), "records hold its name");
}
