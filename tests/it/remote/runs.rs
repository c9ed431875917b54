//! Runs that share their results through a remote.

use std::net::SocketAddr;

use super::proxy::{Proxy, Then, Way};
use super::s3::{ID, S3, SECRET};
use crate::project::{Project, Said};

const CHAIN: &str = r#"
[params]
word = "one"

[stages.a]
kind = "command"
run = "echo a >> ran; echo ${params.word} > $QPIPE_OUT_X"
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "echo b >> ran; mkdir $QPIPE_OUT_F; cp $QPIPE_IN_X $QPIPE_OUT_F/copy; head -c 9000 /dev/zero > $QPIPE_OUT_F/zeros"
inputs = { x = "a" }
outputs = { f = "folder" }
"#;

/// A run with the bucket of a server as its remote.
fn run(project: &Project, address: SocketAddr, arguments: &[&str]) -> Said {
    let mut command = project.command(&[&["run", "p.toml"], arguments].concat());
    project.said(with_bucket(&mut command, address, SECRET))
}

fn with_bucket<'c>(
    command: &'c mut std::process::Command,
    address: SocketAddr,
    secret: &str,
) -> &'c mut std::process::Command {
    command
        .env("QPIPE_REMOTE", "s3://bucket/ci")
        .env("AWS_ENDPOINT_URL", format!("http://{address}"))
        .env("AWS_ACCESS_KEY_ID", ID)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("AWS_REGION", "us-east-1")
}

#[test]
fn a_colleague_runs_nothing_that_was_run_here() {
    let server = S3::start();
    let (one, two) = (Project::new(CHAIN), Project::new(CHAIN));
    let said = run(&one, server.address, &[]);
    assert!(said.stdout.ends_with("2 ran, 0 cached in N s\n"), "{said:?}");
    assert_eq!(one.ran(), ["a", "b"]);
    let said = run(&two, server.address, &[]);
    assert!(said.stdout.ends_with("0 ran, 0 cached, 2 pulled in N s\n"), "{said:?}");
    assert!(said.stderr.contains("a: pulled from the remote cache (4 B) in N s\n"), "{said:?}");
    assert!(two.ran().is_empty());
    assert_eq!(two.artifact("b/folder/copy"), "one\n");
    assert_eq!(two.read("p.lock"), one.read("p.lock"));
    two.verify();
    // Up to date now: the remote is not asked at all.
    server.requests();
    let said = run(&two, server.address, &["--locked"]);
    assert!(said.stdout.ends_with("0 ran, 2 cached in N s\n"), "{said:?}");
    assert_eq!(server.requests(), [""; 0]);
    // What one machine alone has made goes the other way, and --force asks nobody.
    run(&two, server.address, &["--set", "params.word=two"]);
    assert_eq!(two.ran(), ["a", "b"]);
    let said = run(&one, server.address, &["--set", "params.word=two"]);
    assert!(said.stdout.ends_with("2 pulled in N s\n"), "{said:?}");
    let said = run(&one, server.address, &["--set", "params.word=two", "--force", "a"]);
    assert!(said.stdout.ends_with("1 ran, 1 cached in N s\n"), "{said:?}");
}

#[test]
fn events_tell_of_what_is_pulled_and_pushed() {
    let server = S3::start();
    let (one, two) = (Project::new(CHAIN), Project::new(CHAIN));
    let events = |said: &Said, event: &str| -> Vec<serde_json::Value> {
        let lines = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|it: &serde_json::Value| it["event"] == event).collect()
    };
    let said = run(&one, server.address, &["--json"]);
    let pushed = events(&said, "pushed");
    assert_eq!(pushed.len(), 2, "{said:?}");
    assert_eq!((&pushed[0]["stage"], &pushed[0]["objects"]), (&"a".into(), &1.into()));
    let said = run(&two, server.address, &["--json"]);
    let pulled = events(&said, "pulled");
    assert_eq!(pulled.len(), 2, "{said:?}");
    assert_eq!((&pulled[1]["stage"], &pulled[1]["bytes"]), (&"b".into(), &9004.into()));
    assert_eq!(events(&said, "summary")[0]["pulled"], 2);
}

#[test]
fn a_run_goes_on_without_a_remote_that_is_lost_or_refuses() {
    let server = S3::start();
    let lost = Proxy::start(server.address, Way::Up, 2000, Then::Refuse);
    let one = Project::new(CHAIN);
    let said = run(&one, lost.address, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.stderr.matches("going on without it").count(), 1, "{said:?}");
    assert_eq!(one.ran(), ["a", "b"]);
    let two = Project::new(CHAIN);
    let mut command = two.command(&["run", "p.toml"]);
    let said = two.said(with_bucket(&mut command, server.address, "falsches-geheimnis"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.stderr.matches("does not accept the credentials").count(), 1, "{said:?}");
    assert!(!format!("{said:?}").contains("falsches-geheimnis"), "{said:?}");
    assert_eq!(two.ran(), ["a", "b"]);
}

#[test]
fn the_file_names_the_remote_and_flags_win() {
    let remote = "[remote]\nurl = \"../shared\"\nmode = \"read-only\"\n";
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| {
        let project = Project::new("");
        project.write("below/p.toml", &format!("{remote}{CHAIN}"));
        std::os::unix::fs::symlink(folder.path(), project.path("shared")).unwrap();
        (project, name.to_owned())
    };
    let (one, _) = in_folder("one");
    assert_eq!(one.qpipe(&["run", "below/p.toml"]).code, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it is read-only");
    let said = one.qpipe(&["run", "below/p.toml", "--force", "a", "--remote-mode", "read-write"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(folder.path().join("v1").is_dir());
    let (two, _) = in_folder("two");
    let said = two.qpipe(&["run", "below/p.toml", "a"]);
    assert!(said.stdout.ends_with("0 ran, 0 cached, 1 pulled in N s\n"), "{said:?}");
    let (three, _) = in_folder("three");
    let said = three.qpipe(&["run", "below/p.toml", "a", "--no-remote"]);
    assert!(said.stdout.ends_with("1 ran, 0 cached in N s\n"), "{said:?}");
    let said = three.qpipe(&["run", "below/p.toml", "--remote", "ftp://me:geheim@host"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.starts_with("error: `ftp://host` is no remote cache: "), "{said:?}");
    let said = three.qpipe(&["run", "below/p.toml", "--remote-mode", "write"]);
    assert_eq!((said.code, said.stderr.lines().count()), (Some(2), 2), "{said:?}");
}

#[test]
fn what_the_lock_file_names_is_pushed_and_pulled() {
    let (one, two) = (Project::new(CHAIN), Project::new(CHAIN));
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("remote").display().to_string();
    let said = one.qpipe(&["cache", "push", "p.toml"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.starts_with("error: no remote cache is named\n"), "{said:?}");
    let said = one.qpipe(&["cache", "push", "p.toml", "--remote", &url]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.starts_with("error: [DIR]/p.lock is not there: nothing was"), "{said:?}");
    one.run(&[]);
    let said = one.qpipe(&["cache", "push", "p.toml", "--remote", &url]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.starts_with(&format!("2 results in {url}: 3 new objects, ")), "{said:?}");
    let said = one.qpipe(&["cache", "push", "p.toml", "--remote", &url]);
    assert!(said.stdout.ends_with(": 0 new objects, 0 B sent\n"), "{said:?}");

    two.write("p.lock", &one.read("p.lock"));
    let pull = || two.qpipe(&["cache", "pull", "p.toml", "--remote", &url]);
    assert_eq!(pull().stdout, format!("2 results pulled, 0 here already, 0 not in {url}\n"));
    assert_eq!(pull().stdout, format!("0 results pulled, 2 here already, 0 not in {url}\n"));
    two.verify();
    let said = two.run(&[]);
    assert!(said.stdout.ends_with("0 ran, 2 cached in N s\n"), "{said:?}");
    assert!(two.ran().is_empty());
}

#[test]
fn a_stage_that_is_too_large_for_this_machine_is_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().display().to_string();
    let stage = |memory: &str| {
        let resources = format!("resources = {{ memory = \"{memory}\" }}\n");
        Project::new(&format!("{CHAIN}{resources}"))
    };
    stage("1MB").run(&["--remote", &url]);
    let two = stage("900TB");
    let said = two.run(&["--remote", &url]);
    assert!(said.stdout.ends_with("2 pulled in N s\n"), "{said:?}");
    let three = stage("900TB");
    let other = ["run", "p.toml", "--remote", &url, "--set", "params.word=other"];
    let said = three.qpipe(&other);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("b: failed after N s\n"), "{said:?}");
    assert_eq!(three.ran(), ["a"]);
}
