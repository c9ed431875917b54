//! `qpipe bundle` and `qpipe unbundle`: a pipeline and its results as one file, also from a stranger.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

use crate::project::{Project, Said};

/// Files, a folder and a program, from files of the user's.
const PIPELINE: &str = r#"
extends = "base/base.toml"

[stages.a]
kind = "command"
run = "echo a >> ran; cat $QPIPE_IN_SRC > $QPIPE_OUT_X"
files = { src = "data/src.txt" }
outputs = { x = "x.txt" }

[stages.folder]
kind = "command"
run = "echo folder >> ran; mkdir -p $QPIPE_OUT_D/below; cp $QPIPE_IN_X $QPIPE_OUT_D/below/x; echo y > $QPIPE_OUT_D/y"
inputs = { x = "a.x" }
outputs = { d = "d" }

[stages.program]
kind = "command"
run = "echo program >> ran; echo '#!/bin/sh' > $QPIPE_OUT_P; chmod +x $QPIPE_OUT_P"
outputs = { p = "p.sh" }
"#;

fn project() -> Project {
    let project = Project::new(PIPELINE);
    project.write("base/base.toml", "[params]\nword = 1\n");
    project.write("data/src.txt", "content\n");
    project.write("data/large.bin", &"x".repeat(3000));
    project
}

/// A project with a bundle of it, `b.qpipe`.
fn bundled() -> Project {
    let project = project();
    project.run(&[]);
    let said = project.qpipe(&["bundle", "p.toml", "-o", "b.qpipe", "--inputs"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    project
}

/// Unpacks a bundle into the folder `there` of another project.
fn unbundle(other: &Project, bundle: &Path, more: &[&str]) -> Said {
    let bundle = bundle.to_str().unwrap();
    other.qpipe(&[&["unbundle", bundle, "there"], more].concat())
}

#[test]
fn a_bundle_that_is_not_there_is_told_as_that() {
    let there = Project::new("");
    std::fs::create_dir(there.path("study")).unwrap();
    for (name, what) in [("none.qpipe", ""), ("study", ": that is a folder")] {
        let said = there.qpipe(&["unbundle", name]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert_eq!(
            said.stderr,
            format!(
                "error: there is no file {name}{what}\n  help: name the bundle; `qpipe bundle FILE` \
                 writes one, FILE's name with the ending .qpipe\n"
            )
        );
    }
    assert!(!there.path("none").exists(), "nothing was unpacked");
}

#[test]
fn a_colleague_finds_everything_done() {
    let project = bundled();
    let there = Project::new("");
    let said = unbundle(&there, &project.path("b.qpipe"), &[]);
    let expected = "4 files, 3 results; 0 were in the cache already\nnow: qpipe run there/p.toml\n";
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), expected), "{said:?}");
    let said = there.qpipe(&["run", "there/p.toml", "--locked=strict", "-j1"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.ends_with("0 ran, 3 cached in N s\n"), "{said:?}");
    assert_eq!(there.artifact("folder/d/below/x"), "content\n");
    let program = there.path("cache/view/p/program/p.sh").metadata().unwrap();
    assert_eq!(program.permissions().mode() & 0o777, 0o555);
    there.verify();
    assert!(project.qpipe(&["cache", "gc", "--keep-days", "0"]).code == Some(0));
    let said = there.qpipe(&["cache", "gc", "--keep-days", "0"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = there.qpipe(&["run", "there/p.toml"]);
    assert!(said.stdout.ends_with("0 ran, 3 cached in N s\n"), "its lock file keeps it: {said:?}");
    let again = unbundle(&there, &project.path("b.qpipe"), &[]);
    let expected = "0 files, 0 results; 3 were in the cache already\n";
    assert!(again.code == Some(0) && again.stdout.starts_with(expected), "{again:?}");
}

#[test]
fn a_file_above_that_is_extended_keeps_its_place_and_the_cache_lies_beside_the_pipeline() {
    let project = project();
    let text =
        PIPELINE.replace("base/base.toml", "../base/base.toml").replace("data/src", "../data/src");
    project.write("below/p.toml", &text);
    assert_eq!(project.qpipe(&["run", "below/p.toml"]).code, Some(0));
    let said = project.qpipe(&["bundle", "below/p.toml", "--inputs"]);
    assert!(said.stdout.starts_with("p.qpipe: 4 files, 3 results, "), "{said:?}");
    let there = Project::new("");
    let bundle = project.path("p.qpipe");
    let mut command = there.command(&["unbundle", bundle.to_str().unwrap()]);
    let said = there.said(command.env_remove("QPIPE_CACHE"));
    assert!(said.stdout.ends_with("now: qpipe run p/below/p.toml\n"), "{said:?}");
    let mut command = there.command(&["run", "p/below/p.toml"]);
    let said = there.said(command.env_remove("QPIPE_CACHE"));
    assert!(said.stdout.ends_with("0 ran, 3 cached in N s\n"), "{said:?}");
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let project = bundled();
    let first = std::fs::read(project.path("b.qpipe")).unwrap();
    let touched = std::fs::File::options().append(true).open(project.path("data/src.txt")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    project.qpipe(&["bundle", "p.toml", "-o", "again.qpipe", "--inputs"]);
    assert_eq!(std::fs::read(project.path("again.qpipe")).unwrap(), first);
    let names: Vec<String> = members(&project.path("b.qpipe")).into_iter().map(|m| m.0).collect();
    assert_eq!(names[0], "manifest.json");
    let mut sorted = names[1..].to_vec();
    sorted.sort_by_key(|name| (!name.starts_with('f'), !name.starts_with('r'), name.clone()));
    assert_eq!(sorted, names[1..]);
}

#[test]
fn what_is_not_packed_is_said() {
    let project = project();
    let said = project.qpipe(&["bundle", "p.toml"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.starts_with("error: [DIR]/p.lock is not there: nothing was"), "{said:?}");
    project.run(&["a"]);
    let said = project.qpipe(&["bundle", "p.toml", "--stages", "folder", "program"]);
    let expected = "\
folder: not packed, it is not in the lock file
program: not packed, it is not in the lock file
[DIR]/data/src.txt: not packed, inputs are packed with --inputs
";
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), expected), "{said:?}");
    assert!(said.stdout.starts_with("p.qpipe: 3 files, 1 result, 1 object; "), "{said:?}");
    let said =
        project.qpipe(&["bundle", "p.toml", "--inputs", "--max-input", "1kB", "--stages", "a"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "8 bytes: {said:?}");
    project.write("data/src.txt", &"x".repeat(2000));
    let said =
        project.qpipe(&["bundle", "p.toml", "--inputs", "--max-input", "1kB", "--stages", "a"]);
    assert!(
        said.stderr.contains("src.txt: not packed, 1.95 KiB is more than --max-input"),
        "{said:?}"
    );
    let object = project.path("cache/view/p/a/x.txt").canonicalize().unwrap();
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, "damaged\n").unwrap();
    let said = project.qpipe(&["bundle", "p.toml", "-o", "new.qpipe"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(
        said.stderr.contains("is damaged: its content is not what its digest says"),
        "{said:?}"
    );
    let left = std::fs::read_dir(project.path("")).unwrap().map(|it| it.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("new.qpipe")));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let project = bundled();
    let there = Project::new("");
    there.write("there/data/src.txt", "mine\n");
    let said = unbundle(&there, &project.path("b.qpipe"), &[]);
    assert_eq!(said.code, Some(4), "{said:?}");
    let error =
        "error: [DIR]/there/data/src.txt is there already, and is not what the bundle holds\n";
    assert!(said.stderr.starts_with(error), "{said:?}");
    assert!(!there.path("there/p.toml").exists() && !there.path("cache").exists());
    assert_eq!(there.read("there/data/src.txt"), "mine\n");
    let said = unbundle(&there, &project.path("b.qpipe"), &["--force"]);
    assert_eq!((said.code, there.read("there/data/src.txt").as_str()), (Some(0), "content\n"));
    // A link on the way leads elsewhere: not even with --force.
    let elsewhere = Project::new("");
    std::fs::create_dir(elsewhere.path("there")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(""), elsewhere.path("there/data")).unwrap();
    let said = unbundle(&elsewhere, &project.path("b.qpipe"), &["--force"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(!elsewhere.path("src.txt").exists() && !elsewhere.path("there/p.toml").exists());
}

type Member = (String, EntryType, Vec<u8>);

/// The members of a bundle.
fn members(path: &Path) -> Vec<Member> {
    let decoder = zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut archive = Archive::new(decoder);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        (name, entry.header().entry_type(), content)
    });
    entries.collect()
}

/// A bundle of members as they are.
fn write(path: &Path, members: &[Member]) {
    let encoder = zstd::Encoder::new(std::fs::File::create(path).unwrap(), 1).unwrap();
    let mut archive = Builder::new(encoder.auto_finish());
    for (name, kind, content) in members {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        if kind.is_symlink() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        archive.append(&header, content.as_slice()).unwrap();
    }
    archive.finish().unwrap();
}

/// Unpacks a hostile bundle: it must be refused and leave nothing.
fn refused(bundle: &Path, why: &str) {
    let outer = Project::new("");
    let said = unbundle(&outer, bundle, &["--force"]);
    assert!(matches!(said.code, Some(3 | 4)), "{why}: {said:?}");
    assert!(said.stderr.contains(why), "{why}: {said:?}");
    assert!(!outer.path("there").exists(), "{why}");
    assert!(!outer.path("evil").exists(), "{why}");
    if outer.path("cache").exists() {
        let journal = outer.read("cache/journal");
        assert!(!journal.contains("kind"), "{why}: no record came in: {journal}");
        let scratch = std::fs::read_dir(outer.path("cache/scratch"));
        assert_eq!(scratch.map_or(0, Iterator::count), 0, "{why}");
    }
}

#[test]
fn a_hostile_bundle_is_refused_and_leaves_nothing() {
    let project = bundled();
    let good = members(&project.path("b.qpipe"));
    let path = project.path("bad.qpipe");
    write(&path, &good);
    assert_eq!(
        unbundle(&Project::new(""), &path, &[]).code,
        Some(0),
        "the tools of this test work"
    );

    let changed = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut members = good.clone();
        change(&mut members);
        write(&path, &members);
    };
    let manifest = |from: &str, to: &str| {
        changed(&|members| {
            let text = String::from_utf8(members[0].2.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            members[0].2 = text.replacen(from, to, 1).into_bytes();
        });
    };
    let evil = project.path("evil");
    let inside = "is not inside of the folder";
    for (to, why) in [
        ("../evil", inside),
        ("a/../../evil", inside),
        (evil.to_str().unwrap(), inside),
        (".git/hooks/post-checkout", "is one of git's or qpipe's own"),
        ("p.toml/x", "is a file and a folder"),
    ] {
        manifest("\"data/src.txt\"", &format!("\"{to}\""));
        refused(&path, why);
        assert!(!evil.exists());
    }
    manifest("\"format\": 1", "\"format\": 9");
    refused(&path, "it has format 9, this qpipe reads 1");
    manifest("\"bytes\": ", "\"bytes\": 9999999999999");
    refused(&path, "has room for");
    manifest("\"bytes\": ", "\"bytes\": 1");
    refused(&path, "has another size than the manifest says");

    let last = good.len() - 1;
    changed(&|members| members[1].1 = EntryType::Symlink);
    refused(&path, "is no plain file");
    changed(&|members| members[last].1 = EntryType::Link);
    refused(&path, "is no plain file");
    changed(&|members| members[1].0 = "../evil".to_owned());
    refused(&path, "something else stands where files/");
    changed(&|members| {
        members.insert(1, ("././@LongLink".to_owned(), EntryType::GNULongName, vec![b'x'; 9]))
    });
    refused(&path, "something else stands where files/");
    for at in 1..good.len() {
        changed(&|members| members[at].2[0] ^= 1);
        refused(&path, "does not have its digest");
        changed(&|members| drop(members.remove(at)));
        refused(&path, "is no whole bundle");
    }
    // Whoever forges a bundle makes its digests fit.
    let forged = |at: usize, from: &str, to: &str| {
        changed(&|members| {
            let old = members[at].2.clone();
            let new = String::from_utf8(old.clone()).unwrap().replacen(from, to, 1).into_bytes();
            assert_ne!(old, new);
            let [before, after] = [&old, &new].map(|content| {
                let (digest, bytes) = (qpipe::cache::Digest::of(content), content.len());
                format!("\"digest\": \"{digest}\",\n      \"bytes\": {bytes}")
            });
            let manifest = String::from_utf8(members[0].2.clone()).unwrap();
            assert!(manifest.contains(&before), "{manifest}");
            members[0].2 = manifest.replace(&before, &after).into_bytes();
            members[at].2 = new;
        });
    };
    let record = |stage: &str| {
        let stage = format!("\"stage\":\"p/{stage}\"");
        let of = |m: &Member| {
            m.0.starts_with("records/") && String::from_utf8_lossy(&m.2).contains(&stage)
        };
        good.iter().position(of).unwrap()
    };
    forged(record("a"), "\"file\":\"x.txt\"", "\"file\":\"../evil\"");
    refused(&path, "has an output outside of its folder");
    forged(record("a"), "\"seed\":0", "\"seed\":1");
    refused(&path, "belongs to another key");
    forged(record("a"), "\"bytes\":8", "\"bytes\":9");
    refused(&path, "has an output that is not in it");
    forged(record("folder"), "\"bytes\":10", "\"bytes\":11");
    refused(&path, "a folder of the record");
    changed(&|members| members.push(("evil".to_owned(), EntryType::Regular, vec![0; 9])));
    refused(&path, "it holds more than its manifest says");
    // A gigabyte of zeros is a few kilobytes here.
    changed(&|members| members[0].2 = vec![b' '; (64 << 20) + 1]);
    refused(&path, "its manifest is too large");
    let whole = std::fs::read(project.path("b.qpipe")).unwrap();
    for part in 0..12 {
        std::fs::write(&path, &whole[..whole.len() * part / 12]).unwrap();
        refused(&path, "is no whole bundle");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused(&path, "it is damaged or cut short");
    let bomb = zstd::encode_all(&vec![0_u8; 1 << 20][..], 1).unwrap();
    std::fs::write(&path, [&whole[..], &bomb].concat()).unwrap();
    refused(&path, "it holds more than its manifest says");
    std::fs::write(&path, "no bundle").unwrap();
    refused(&path, "is no whole bundle");
}

/// A limit of file sizes stands for a full disk.
#[test]
fn a_bundle_that_cannot_be_written_is_named_not_what_goes_into_it() {
    let project = Project::new(
        "[stages.a]\nkind = \"command\"\nrun = \"head -c 300000 /dev/urandom > $QPIPE_OUT_X\"\noutputs = { x = \"x\" }\n",
    );
    project.run(&[]);
    let line = format!(
        "trap '' XFSZ; ulimit -f 64; exec {} bundle p.toml -o b.qpipe",
        env!("CARGO_BIN_EXE_qpipe")
    );
    let own = project.command(&[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).current_dir(project.path(""));
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = project.said(&mut command);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("cannot write b.qpipe: File too large"), "{said:?}");
    assert!(!project.path("b.qpipe").exists());
}
