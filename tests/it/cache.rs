//! `qpipe cache`, and a cache that was damaged.

use std::os::unix::fs::PermissionsExt;

use crate::project::{Project, wait_for};

const CHAIN: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "echo a >> ran; echo ${params.word} > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "echo b >> ran; mkdir $QPIPE_OUT_F; cp $QPIPE_IN_X $QPIPE_OUT_F/copy; echo more > $QPIPE_OUT_F/more"
inputs = { x = "a" }
outputs = { f = "folder" }
"#;

/// Flips one bit of an artifact, behind the cache's back.
fn flip(project: &Project, name: &str) {
    let path = project.path(&format!("cache/view/p/{name}")).canonicalize().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_is_found_named_and_repaired() {
    for (artifact, stages) in [("a/x", "p/a, p/b"), ("b/folder/more", "p/b")] {
        let project = Project::new(CHAIN);
        project.run(&[]);
        project.ran();
        project.verify();
        flip(&project, artifact);
        let said = project.qpipe(&["cache", "verify"]);
        assert_eq!(said.code, Some(4));
        // The copy in the folder has the content of `a/x`: they are one object.
        assert!(said.stderr.contains(&format!("(output of {stages})\n")), "{said:?}");
        // What was made from it may be of the damage.
        let doubtful = said.stderr.contains("input x of p/b is damaged, its result may be of that");
        assert_eq!(doubtful, artifact == "a/x", "{said:?}");
        let faults = if doubtful { ": 2 faults\n" } else { ": 1 fault\n" };
        assert!(said.stdout.ends_with(faults), "{said:?}");
        assert_eq!(project.qpipe(&["cache", "verify", "--repair"]).code, Some(0));
        project.verify();
        let said = project.run(&[]);
        let expected: &[&str] = if artifact == "a/x" { &["a", "b"] } else { &["b"] };
        assert_eq!(project.ran(), expected, "{said:?}");
        assert_eq!(project.artifact("b/folder/copy"), "one\n");
        project.verify();
    }
}

#[test]
fn an_object_that_is_gone_or_short_is_made_again() {
    let project = Project::new(CHAIN);
    project.run(&[]);
    let lock = project.read("p.lock");
    project.ran();
    for (artifact, ran) in [("a/x", "a"), ("b/folder/more", "b")] {
        let path = project.path(&format!("cache/view/p/{artifact}")).canonicalize().unwrap();
        std::fs::remove_file(&path).unwrap();
        let said = project.run(&[]);
        if ran == "a" {
            let why = "a: running (record damaged: output ";
            assert!(said.stderr.contains(why), "{said:?}");
            assert_eq!(project.ran(), [ran]);
        } else {
            // In a folder it was a link, which is made anew.
            assert!(project.ran().is_empty(), "{said:?}");
        }
        assert!(path.exists());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&path, "").unwrap();
        project.run(&[]);
        assert_eq!(project.ran(), [ran]);
    }
    assert_eq!(project.read("p.lock"), lock);
    project.verify();
}

/// A run writes its record under another name first; one of a killed run is gone after an hour.
#[test]
fn a_collection_leaves_a_record_that_is_being_written() {
    let project = Project::new(CHAIN);
    project.run(&[]);
    let records = || {
        let names = std::fs::read_dir(project.path("cache/runs")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().into_owned()
        };
        names.map(name).collect::<Vec<_>>()
    };
    assert_eq!(records().len(), 1);
    let path = project.path("cache/runs/.1a2b3c4d.0.tmp");
    let file = std::fs::File::create(&path).unwrap();
    let collect = || assert_eq!(project.qpipe(&["cache", "gc", "--keep-days", "0"]).code, Some(0));
    collect();
    assert_eq!(records(), [".1a2b3c4d.0.tmp"]);
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    collect();
    assert!(records().is_empty());
}

#[test]
fn a_collection_keeps_what_a_lock_file_names() {
    let project = Project::new(CHAIN);
    project.run(&["--set", "params.word=two"]);
    project.run(&[]);
    project.ran();
    let kept = project.qpipe(&["cache", "gc"]);
    assert!(
        kept.stdout.starts_with("removed 0 results and 0 objects: "),
        "used a moment ago: {kept:?}"
    );
    let dry = project.qpipe(&["cache", "gc", "--keep-days", "0", "--dry-run"]).stdout;
    let said = project.qpipe(&["cache", "gc", "--keep-days", "0"]).stdout;
    assert_eq!(dry.replace("would remove", "removed"), said);
    assert!(said.starts_with("removed 2 results and 2 objects: "), "{said}");
    assert!(said.ends_with("; 2 results kept\n"), "{said}");
    let small = project.qpipe(&["cache", "gc", "--max-size", "0.002 kB"]);
    assert_eq!(small.code, Some(0), "{small:?}");
    assert!(
        small.stderr.starts_with("note: what lock files and running stages need has ")
            && small.stderr.ends_with(" B, more than --max-size 2 B\n"),
        "{small:?}"
    );
    project.verify();
    project.run(&[]);
    assert!(project.ran().is_empty());
    let said = project.run(&["--set", "params.word=two"]);
    assert_eq!(project.ran(), ["a", "b"]);
    assert!(
        said.stderr.contains("a: running (run: echo a >> ran; echo one > $QPIPE_OUT_X → "),
        "{said:?}"
    );
    // Without its lock file, nothing needs it; a pipeline that is named is to have one.
    std::fs::remove_file(project.path("p.lock")).unwrap();
    let named = project.qpipe(&["cache", "gc", "p.toml", "--cache", "cache"]);
    assert_eq!(named.code, Some(2), "{named:?}");
    assert!(
        named.stderr.contains("p.lock is not there: nothing was computed yet")
            && named.stderr.contains("`qpipe run` of the pipeline file writes it"),
        "{named:?}"
    );
    assert!(
        project.qpipe(&["cache", "gc", "--keep-days", "0"]).stdout.ends_with("; 0 results kept\n")
    );
    let status = project.qpipe(&["cache", "status"]).stdout;
    assert!(
        status.starts_with("[DIR]/cache\n  0 results of 1 pipeline\n  0 objects, 0 B\n"),
        "{status}"
    );
}

#[test]
fn nothing_is_removed_under_a_run() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"echo a >> ran; while ! test -e go; do sleep 0.01; done; echo a > $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    let runner = project.start(&[]);
    wait_for("the run", || !project.read("ran").is_empty());
    let said = project.qpipe(&["cache", "clear", "--yes"]);
    let expected = format!("error: the cache [DIR]/cache is in use by process {}\n", runner.id());
    assert_eq!(said.code, Some(4));
    assert!(said.stderr.starts_with(&expected), "{said:?}");
    // A collection goes on beside it and leaves alone what it needs.
    assert_eq!(project.qpipe(&["cache", "gc", "--keep-days", "0"]).code, Some(0));
    project.write("go", "");
    assert!(runner.wait_with_output().unwrap().status.success());
    project.verify();
    assert_eq!(project.qpipe(&["cache", "clear"]).code, Some(2));
    assert_eq!(project.qpipe(&["cache", "clear", "--yes"]).code, Some(0));
    assert!(project.path("cache/CACHEDIR.TAG").exists());
    project.run(&[]);
    assert_eq!(project.ran().len(), 2);
}

/// A `/` cannot stand in the name of a folder.
#[test]
fn cells_whose_names_look_alike_have_artifacts_and_logs_of_their_own() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nmatrix = { n = [\"c/d\", \"c_d\"] }\n\
         run = \"printf %s '${matrix.n}' > $QPIPE_OUT_X; echo log of '${matrix.n}'\"\n\
         outputs = { x = \"x\" }\n",
    );
    project.run(&[]);
    assert_eq!(project.artifact("a[c_d]/x"), "c_d");
    let folders = std::fs::read_dir(project.path("cache/view/p")).unwrap();
    let mut names: Vec<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!((names.len(), names[0].as_str()), (2, "a[c_d]"), "{names:?}");
    assert!(names[1].starts_with("a[c_d]~"), "{names:?}");
    assert_eq!(project.artifact(&format!("{}/x", names[1])), "c/d");
    for name in ["c/d", "c_d"] {
        let said = project.qpipe(&["log", "p.toml", "--stage", &format!("a[{name}]")]);
        assert_eq!(said.stdout, format!("log of {name}\n"), "{said:?}");
    }
}

/// Of the same length, so that nothing but its time shows it.
#[test]
fn a_damaged_artifact_is_made_again_before_it_is_used() {
    for artifact in ["a/x", "b/folder/more"] {
        let project = Project::new(CHAIN);
        project.run(&[]);
        project.ran();
        flip(&project, artifact);
        let said = project.qpipe(&["status", "p.toml", "--exit-code"]);
        assert_eq!(said.code, Some(10), "{said:?}");
        let said = project.run(&[]);
        assert!(said.stderr.contains("record damaged: output"), "{said:?}");
        assert_eq!(said.stderr.contains("a: cached"), artifact != "a/x", "{said:?}");
        assert_eq!(project.artifact("a/x"), "one\n");
        assert_eq!(project.artifact("b/folder/copy"), "one\n");
        assert_eq!(project.artifact("b/folder/more"), "more\n");
        project.verify();
        project.ran();
        project.run(&[]);
        assert!(project.ran().is_empty());
    }
}

/// What was only touched, or copied without its times, is read and kept.
#[test]
fn an_artifact_of_another_time_is_read_and_used() {
    let project = Project::new(CHAIN);
    project.run(&[]);
    project.ran();
    let path = project.path("cache/view/p/a/x").canonicalize().unwrap();
    let time = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let sealed = time();
    let earlier = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::open(&path).unwrap().set_modified(earlier).unwrap();
    // Who only looks writes nothing.
    assert_eq!(project.qpipe(&["status", "p.toml", "--exit-code"]).code, Some(0));
    assert_eq!(time(), earlier);
    project.run(&[]);
    assert!(project.ran().is_empty());
    assert!(time() != earlier && time() != sealed, "sealed again, in its own second");
}

#[test]
fn a_stage_that_writes_into_its_input_fails_and_what_it_damaged_is_made_again() {
    let project = Project::new(
        r#"
[stages.make]
kind = "command"
run = "echo make >> ran; echo good > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.edit]
kind = "command"
run = "echo edit >> ran; test -e gentle || { chmod u+w $QPIPE_IN_X; printf EVIL | dd of=$QPIPE_IN_X conv=notrunc 2>/dev/null; }; cat $QPIPE_IN_X > $QPIPE_OUT_Y"
inputs = { x = "make.x" }
files = { f = "settings" }
outputs = { y = "y" }

[stages.use]
kind = "command"
run = "cat $QPIPE_IN_X $QPIPE_IN_Y > $QPIPE_OUT_Z"
inputs = { x = "make.x", y = "edit.y" }
outputs = { z = "z" }
"#,
    );
    project.write("settings", "1");
    let said = project.qpipe(&["run", "p.toml"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let told = "error: stage edit failed: it changed its input `x`\n  help: `make.x` is a file of the cache";
    assert!(said.stderr.contains(told), "{said:?}");
    assert_eq!(project.ran(), ["make", "edit"]);
    project.write("gentle", "");
    project.run(&[]);
    assert_eq!(project.ran(), ["make", "edit"], "nothing of the damage is recorded");
    assert_eq!(project.artifact("use/z"), "good\ngood\n");
    project.verify();
}
