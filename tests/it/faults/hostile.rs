//! Names and links that want to leave their folder, files that are none, caches that lie.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::project::Project;

fn command(run: &str, outputs: &str) -> String {
    format!("[stages.a]\nkind = \"command\"\nrun = '''{run}'''\noutputs = {outputs}\n")
}

fn fifo(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn an_output_that_is_a_link_is_stored_as_a_copy() {
    // To a file of the system's.
    let project = Project::new(&command("ln -s /etc/passwd $QPIPE_OUT_X", r#"{ x = "x" }"#));
    project.run(&[]);
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    assert_eq!(project.artifact("a/x"), passwd);
    project.verify();
    // To a folder of the user's: its files stay where they are, writable, and are copied.
    let project = Project::new(&command(
        "ln -s $PWD/data $QPIPE_OUT_X; mkdir $QPIPE_OUT_Y; ln -s $PWD/data $QPIPE_OUT_Y/below",
        r#"{ x = "x", y = "y" }"#,
    ));
    project.write("data/deep/file", "text");
    let before = std::fs::metadata(project.path("data/deep/file")).unwrap();
    project.run(&[]);
    assert_eq!(project.read("data/deep/file"), "text", "the user's file");
    let after = std::fs::metadata(project.path("data/deep/file")).unwrap();
    assert_eq!(before.permissions(), after.permissions());
    let names: Vec<_> = std::fs::read_dir(project.path("data/deep")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(project.artifact("a/x/deep/file"), "text");
    assert_eq!(project.artifact("a/y/below/deep/file"), "text");
    project.write("data/deep/file", "other");
    assert_eq!(project.artifact("a/x/deep/file"), "text");
    project.verify();
}

#[test]
fn an_output_that_is_no_file_is_refused() {
    for (what, run, message) in [
        ("a link to a folder above", "ln -s .. $QPIPE_OUT_X", "the folder contains itself"),
        ("a loop", "ln -s x $QPIPE_OUT_X", "output `x` was not written"),
        ("nothing behind a link", "ln -s /nowhere $QPIPE_OUT_X", "output `x` was not written"),
        ("a pipe", "mkfifo $QPIPE_OUT_X", "it is neither a file nor a folder"),
        (
            "a pipe in a folder",
            "mkdir $QPIPE_OUT_X; mkfifo $QPIPE_OUT_X/p",
            "it is neither a file nor a folder",
        ),
        ("a device", "ln -s /dev/zero $QPIPE_OUT_X", "it is neither a file nor a folder"),
        (
            "a line break",
            "mkdir $QPIPE_OUT_X; touch \"$QPIPE_OUT_X/a\nb\"",
            "has a line break in it",
        ),
        (
            "no UTF-8",
            "mkdir $QPIPE_OUT_X; touch \"$QPIPE_OUT_X/$(printf 'a\\377b')\"",
            "its name is not UTF-8",
        ),
    ] {
        let project = Project::new(&command(run, r#"{ x = "x" }"#));
        let said = project.qpipe(&["run", "p.toml"]);
        assert_eq!(said.code, Some(1), "{what}: {said:?}");
        assert!(
            said.stderr.contains("error: stage a failed: ") && said.stderr.contains(message),
            "{what}: {said:?}"
        );
        assert!(project.path("p.toml").exists(), "{what}");
        project.verify();
    }
}

#[test]
fn an_input_that_is_no_file_is_refused_and_links_are_followed() {
    let pipeline = "[stages.a]\nkind = \"command\"\nrun = \"cat $QPIPE_IN_D/* > $QPIPE_OUT_X\"\nfiles = { d = \"data\" }\noutputs = { x = \"x\" }\n";
    let refused = |make: &dyn Fn(&Project), message: &str| {
        let project = Project::new(pipeline);
        make(&project);
        let said = project.qpipe(&["run", "p.toml"]);
        assert!(said.code == Some(2) && said.stderr.contains(message), "{message}: {said:?}");
    };
    let neither = "cannot be digested: it is neither a file nor a folder";
    refused(&|project| fifo(&project.path("data")), neither);
    refused(&|project| symlink("/dev/zero", project.path("data")).unwrap(), neither);
    refused(&|project| drop(UnixListener::bind(project.path("data")).unwrap()), neither);
    let folder = |project: &Project| std::fs::create_dir(project.path("data")).unwrap();
    refused(
        &|project| {
            folder(project);
            fifo(&project.path("data/p"));
        },
        neither,
    );
    refused(
        &|project| {
            folder(project);
            symlink("..", project.path("data/up")).unwrap();
        },
        "the folder contains itself",
    );
    refused(
        &|project| {
            folder(project);
            project.write("data/a\nb", "");
        },
        "has a line break in it",
    );
    // A link is what it leads to: a change there is a change here.
    let project = Project::new(pipeline);
    project.write("elsewhere", "one");
    project.write("data/file", "text");
    symlink("../elsewhere", project.path("data/link")).unwrap();
    project.run(&[]);
    assert_eq!(project.artifact("a/x"), "textone");
    project.write("elsewhere", "two");
    project.run(&[]);
    assert_eq!(project.artifact("a/x"), "texttwo");
    // Names of the greatest length.
    let project = Project::new(&command(
        &format!(
            "mkdir $QPIPE_OUT_X; echo long > $QPIPE_OUT_X/{0}; echo long > $QPIPE_OUT/{0}",
            "n".repeat(255)
        ),
        &format!("{{ x = \"x\", y = \"{}\" }}", "n".repeat(255)),
    ));
    project.run(&[]);
    assert_eq!(project.artifact(&format!("a/x/{}", "n".repeat(255))), "long\n");
    assert_eq!(project.artifact(&format!("a/{}", "n".repeat(255))), "long\n");
    project.verify();
}

#[test]
fn output_names_that_leave_their_folder_are_mistakes_of_the_file() {
    for file in ["/tmp/x", "../x", "a/../../x", "a/./b", "a//b", "a/", ".", ""] {
        let project = Project::new(&command("true", &format!("{{ x = \"{file}\" }}")));
        let said = project.qpipe(&["run", "p.toml"]);
        let message = format!("\"{file}\" is not a file name below the stage's output folder");
        assert!(said.code == Some(2) && said.stderr.contains(&message), "{said:?}");
    }
    let project = Project::new(&command("true", r#"{ x = "a", y = "a/b" }"#));
    let said = project.qpipe(&["run", "p.toml"]);
    assert!(said.stderr.contains("\"a/b\" lies in output `x`, \"a\""), "{said:?}");
}

#[test]
fn a_lock_file_with_names_that_traverse_writes_nothing() {
    let project = Project::new(&command("echo x > $QPIPE_OUT_X", r#"{ x = "x" }"#));
    project.run(&[]);
    let lock = project.read("p.lock");
    let bad = lock
        .replace("[stages.a]", "[stages.\"../../escape\"]")
        .replace("outputs.x", "outputs.\"../../x\"");
    assert_ne!(bad, lock);
    project.write("p.lock", &bad);
    for arguments in [&["plan", "p.toml"][..], &["why", "p.toml", "a"], &["run", "p.toml"]] {
        let said = project.qpipe(arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    assert!(!project.path("../escape").exists() && !project.path("cache/escape").exists());
    assert_eq!(project.read("p.lock"), lock);
    // And one that is none.
    for text in [
        "\u{0}",
        "format = 2\n[stages",
        "format = 1\n",
        "format = 2\n[stages.a]\nkey = \"../../etc\"\n",
    ] {
        project.write("p.lock", text);
        let said = project.qpipe(&["run", "p.toml", "--locked"]);
        assert!(
            said.code == Some(4) && said.stderr.contains("p.lock is no lock file of qpipe: "),
            "{text:?}: {said:?}"
        );
        // Without --locked too, since what it says would be lost; one of an older form is written anew.
        if text == "format = 1\n" {
            project.run(&[]);
            assert_eq!(project.read("p.lock"), lock);
        } else {
            let said = project.qpipe(&["run", "p.toml"]);
            assert_eq!((said.code, project.read("p.lock").as_str()), (Some(4), text), "{said:?}");
        }
    }
}

/// A line of the journal with its checksum.
fn line(kind: &str, rest: &str) -> String {
    format!("{kind}\t{:08x}\t{rest}\n", crc32fast::hash(format!("{kind}{rest}").as_bytes()))
}

#[test]
fn a_record_or_manifest_with_paths_that_traverse_is_not_used() {
    let folder = "mkdir $QPIPE_OUT_F; echo one > $QPIPE_OUT_F/one";
    let project =
        Project::new(&command(&format!("echo ran >> ran; {folder}"), r#"{ f = "folder" }"#));
    project.run(&[]);
    project.ran();
    // The record: its output is to appear above its folder.
    let journal = project.read("cache/journal");
    let record = journal.lines().find(|line| line.starts_with("r\t")).unwrap();
    let rest = record.splitn(3, '\t').nth(2).unwrap();
    let bad = rest.replace("\"file\":\"folder\"", "\"file\":\"../../../escape\"");
    assert_ne!(bad, rest);
    project.write("cache/journal", &format!("{journal}{}", line("r", &bad)));
    let said = project.run(&[]);
    assert!(said.stderr.contains("an output of its record lies outside of its folder"), "{said:?}");
    assert_eq!(project.ran(), ["ran"]);
    assert!(!project.path("cache/escape").exists() && !project.path("escape").exists());
    // The manifest, under the digest of its own text: a file above the folder.
    let one = "one\n";
    let digest = qpipe::cache::Digest::of(one.as_bytes());
    let text = format!("qpipe tree 1\n{digest} 4 ../../../../escape\n");
    let manifest = qpipe::cache::Digest::of(text.as_bytes()).hex();
    let object = format!("cache/objects/{}/{}", &manifest[..2], &manifest[2..]);
    project.write(&object, &text);
    let rest = project
        .read("cache/journal")
        .lines()
        .rfind(|line| line.starts_with("r\t"))
        .unwrap()
        .to_owned();
    let rest = rest.splitn(3, '\t').nth(2).unwrap().to_owned();
    let old = rest.split("\"digest\":\"").nth(1).unwrap()[..64].to_owned();
    let journal = project.read("cache/journal");
    project
        .write("cache/journal", &format!("{journal}{}", line("r", &rest.replace(&old, &manifest))));
    let said = project.run(&[]);
    assert!(said.stderr.contains("is gone or cut short"), "{said:?}");
    assert_eq!(project.ran(), ["ran"]);
    assert!(!project.path("cache/escape").exists() && !project.path("escape").exists());
    assert_eq!(project.artifact("a/folder/one"), "one\n");
    // An object that is a link to somewhere else is none.
    let object = project.path("cache/view/p/a/folder/one").canonicalize().unwrap();
    let hex = digest.hex();
    let stored = project.path(&format!("cache/objects/{}/{}", &hex[..2], &hex[2..]));
    std::fs::remove_file(&object).unwrap();
    std::fs::remove_file(&stored).unwrap();
    project.write("elsewhere", one);
    symlink(project.path("elsewhere"), &stored).unwrap();
    project.run(&[]);
    assert_eq!(project.ran(), ["ran"]);
    assert!(!stored.is_symlink());
}

#[test]
fn a_command_knows_what_the_guide_says_and_no_more() {
    let project = Project::new(
        r#"
[stages.a]
kind = "command"
run = "env | sort > $QPIPE_OUT_ENV; echo $PWD > $QPIPE_OUT_PWD; cat > $QPIPE_OUT_IN; ls -l /proc/self/fd > $QPIPE_OUT_FD"
env = { OWN = "set here" }
outputs = { env = "env", pwd = "pwd", in = "in", fd = "fd" }
"#,
    );
    let mut run = project.command(&["run", "p.toml"]);
    run.env("OF_THE_USER", "inherited");
    assert_eq!(project.said(&mut run).code, Some(0));
    let env = project.artifact("a/env");
    let value = |name: &str| env.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!((value("OWN"), value("OF_THE_USER")), (Some("set here"), Some("inherited")));
    let added: Vec<&str> = env
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("QPIPE_") || *name == "TMPDIR")
        .collect();
    let expected = [
        "QPIPE_ATTEMPT",
        "QPIPE_CACHE",
        "QPIPE_INSIDE",
        "QPIPE_MACHINE",
        "QPIPE_OUT",
        "QPIPE_OUT_ENV",
        "QPIPE_OUT_FD",
        "QPIPE_OUT_IN",
        "QPIPE_OUT_PWD",
        "QPIPE_SEED",
        "TMPDIR",
    ];
    assert_eq!(added, expected);
    assert!(value("TMPDIR").unwrap().starts_with(value("QPIPE_CACHE").unwrap()));
    assert_eq!(
        project.artifact("a/pwd").trim(),
        project.path("").canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(project.artifact("a/in"), "", "standard input is empty");
    // Of the cache it has only its own lock open, and its output.
    let open = project.artifact("a/fd");
    let cache: Vec<&str> =
        open.lines().filter_map(|line| line.split_once("/cache/")).map(|(_, path)| path).collect();
    let lock = cache.iter().filter(|path| path.starts_with("locks/")).count();
    let output = cache.iter().filter(|path| path.starts_with("scratch/")).count();
    assert_eq!((lock, output, cache.len()), (1, 1, 2), "{open}");
}
