//! The power goes: what was not flushed is lost, in any combination; what was is there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::events::stages;
use super::random::{Random, full};
use crate::project::Project;

/// `a` makes equal bytes in every turn, so that a later run stores what an earlier one flushed.
const PIPELINE: &str = r#"
[params]
turn = "0"

[stages.a]
kind = "command"
run = "echo $TURN > $TMPDIR/turn && echo equal > $QPIPE_OUT_X"
env = { TURN = "${params.turn}" }
outputs = { x = "x" }

[stages.b]
kind = "command"
run = "cat $QPIPE_IN_X > $QPIPE_OUT_X && echo $TURN >> $QPIPE_OUT_X"
env = { TURN = "${params.turn}" }
inputs = { x = "a" }
outputs = { x = "x" }

[stages.c]
kind = "command"
run = "mkdir -p $QPIPE_OUT_F/below && cat $QPIPE_IN_A $QPIPE_IN_B > $QPIPE_OUT_F/below/one && cat $QPIPE_IN_A > $QPIPE_OUT_F/two"
inputs = { a = "a", b = "b" }
outputs = { f = "folder" }

[stages.d]
kind = "command"
run = "cat $QPIPE_IN_F/below/one $QPIPE_IN_F/two > $QPIPE_OUT_X"
inputs = { f = "c" }
outputs = { x = "x" }
"#;

fn whole(turn: usize) -> String {
    format!("equal\nequal\n{turn}\nequal\n")
}

fn run(project: &Project, turn: usize) -> String {
    let set = format!("params.turn={turn}");
    project.run(&["--json", "--set", &set]).stdout
}

/// A line of the journal (`src/cache/journal.rs`).
#[derive(Clone)]
struct Line {
    kind: String,
    rest: Vec<String>,
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut fields = text.split('\t').map(str::to_owned);
        let kind = fields.next().unwrap();
        fields.next();
        Self { kind, rest: fields.collect() }
    }

    /// Its writer, with the number of a record.
    fn writer(&mut self) -> &mut String {
        let place = if self.kind == "s" { 0 } else { 2 };
        &mut self.rest[place]
    }

    fn text(&self) -> String {
        let rest = self.rest.join("\t");
        let sum = crc32fast::hash(format!("{}{rest}", self.kind).as_bytes());
        format!("{}\t{sum:08x}\t{rest}\n", self.kind)
    }
}

/// Objects that a record needs: its outputs, and the files of its folders.
fn objects(project: &Project, json: &str) -> Vec<String> {
    let record: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut found = Vec::new();
    for output in record["outputs"].as_object().unwrap().values() {
        let digest = output["digest"].as_str().unwrap().to_owned();
        if output["directory"] == true {
            let manifest =
                project.read(&format!("cache/objects/{}/{}", &digest[..2], &digest[2..]));
            found.extend(manifest.lines().skip(1).map(|line| line[..64].to_owned()));
        }
        found.push(digest);
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

/// Leaves of a file what a loss of power may: all, a part, zeros, nothing.
fn damage(random: &mut Random, path: &Path) {
    let bytes = std::fs::read(path).unwrap_or_default();
    let keep = random.below(bytes.len() + 1);
    let left = match random.below(5) {
        0 => return,
        1 => Some(bytes[..keep].to_vec()),
        2 => Some(vec![0; bytes.len()]),
        3 => Some([&bytes[..keep], &vec![0; bytes.len() - keep]].concat()),
        _ => None,
    };
    // A new file: the old one may have other names, which were flushed.
    std::fs::remove_file(path).unwrap();
    if let Some(left) = left {
        std::fs::write(path, left).unwrap();
    }
}

/// What the journal looks like after the machine was started anew: written by another start, all
/// after the last flush kept, cut or zeroed. Gives back the records' flushed lines.
fn restart(project: &Project, random: &mut Random, turn: usize) -> Vec<Line> {
    let text = project.read("cache/journal");
    let text = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let mut lines: Vec<Line> = text.lines().map(Line::parse).collect();
    let mut flushed: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines.iter_mut().filter(|line| line.kind == "s") {
        let (writer, number) = line.writer().rsplit_once('#').unwrap();
        flushed.insert(writer.to_owned(), number.parse().unwrap());
    }
    let last = lines.iter().rposition(|line| line.kind == "s").map_or(0, |last| last + 1);
    let sure = |line: &mut Line| {
        let (writer, number) = line.writer().rsplit_once('#').unwrap();
        flushed.get(writer).is_some_and(|flushed| number.parse::<u64>().unwrap() <= *flushed)
    };
    let records = lines.iter_mut().filter(|line| line.kind == "r");
    let durable: Vec<Line> = records.filter_map(|line| sure(line).then(|| line.clone())).collect();
    for line in &mut lines {
        let boot = format!("{turn:012x}");
        line.writer().replace_range(..12, &boot);
    }
    let before: String = lines[..last].iter().map(Line::text).collect();
    let mut after: Vec<u8> =
        lines[last..].iter().flat_map(|line| line.text().into_bytes()).collect();
    match random.below(3) {
        0 => after.truncate(random.below(after.len() + 1)),
        1 => {
            let start = random.below(after.len() + 1);
            let end = start + random.below(after.len() + 1 - start);
            after[start..end].fill(0);
        }
        _ => {}
    }
    std::fs::write(project.path("cache/journal"), [before.as_bytes(), &after].concat()).unwrap();
    // What is shown says under which start, too.
    let mut shown = project.read("cache/view/.p.shown");
    if shown.len() > 12 {
        shown.replace_range(..12, &format!("{turn:012x}"));
        project.write("cache/view/.p.shown", &shown);
    }
    durable
}

#[test]
fn a_loss_of_power_loses_nothing_flushed_and_nothing_damaged_is_used() {
    let mut random = Random::new(0);
    let project = Project::new(PIPELINE);
    let (mut killed, mut doubtful, mut flushed) = (0, 0, 0);
    let start = std::time::Instant::now();
    run(&project, 0);
    // Kills come while a run goes on, however fast the machine is.
    let longest = usize::try_from(start.elapsed().as_millis()).unwrap();
    for turn in 1..=if full() { 400 } else { 60 } {
        // All that is there now has been flushed.
        let objects_now = files(&project.path("cache/objects"));
        let before: BTreeMap<PathBuf, u64> =
            objects_now.into_iter().map(|path| (path.clone(), inode(&path))).collect();
        let known = keys(&project);
        let set = format!("params.turn={turn}");
        let mut runner =
            project.command(&["run", "p.toml", "-j2", "--json", "--set", &set]).spawn().unwrap();
        if random.one_in(4) {
            // It comes to its end: all of it is flushed.
            assert!(runner.wait().unwrap().success());
        } else {
            std::thread::sleep(random.instant(longest));
            killed += usize::from(runner.try_wait().unwrap().is_none());
            let _ = runner.kill();
            runner.wait().unwrap();
        }
        let mut durable = restart(&project, &mut random, turn);
        durable.retain(|line| !known.contains(&line.rest[0]));
        flushed += durable.len();
        let needed: BTreeSet<String> =
            durable.iter().flat_map(|line| objects(&project, &line.rest[4])).collect();
        for path in files(&project.path("cache/objects")) {
            // What an earlier flush covers is the file of that time, not one that took its place.
            if before.get(&path) != Some(&inode(&path)) && !needed.contains(&name(&path)) {
                doubtful += 1;
                damage(&mut random, &path);
            }
        }
        for place in ["trees", "index", "view", "runs", "logs", "active", "locks"] {
            for path in files(&project.path(&format!("cache/{place}"))) {
                // Names can be lost, of links as well; of a link's content there is nothing to lose.
                let link = path.is_symlink() || place == "trees";
                match random.below(3) {
                    0 if link => std::fs::remove_file(&path).unwrap(),
                    0 => damage(&mut random, &path),
                    _ => {}
                }
            }
        }
        // What was flushed is not done again: of an earlier turn, whether or not a run has mended
        // anything before, and of this one.
        let earlier = random.below(turn);
        let check_earlier = || {
            let said = run(&project, earlier);
            assert!(stages(&said, "started").is_empty(), "turn {earlier} was lost: {said}");
            assert_eq!(project.artifact("d/x"), whole(earlier), "{said}");
        };
        if random.one_in(2) {
            check_earlier();
        }
        let said = run(&project, turn);
        assert_eq!(project.artifact("d/x"), whole(turn), "{said}");
        for line in &durable {
            let stage = line.rest[3].trim_start_matches("p/");
            assert!(
                stages(&said, "cached").contains(&stage.to_owned()),
                "{stage} was lost: {said}"
            );
        }
        check_earlier();
        project.qpipe(&["cache", "verify", "--repair"]);
        project.verify();
    }
    println!("{killed} runs killed, {doubtful} objects not flushed, {flushed} records flushed");
    assert!(killed > 10 && doubtful > 10 && flushed > 10, "{killed}, {doubtful}, {flushed}");
}

/// Keys of all records.
fn keys(project: &Project) -> BTreeSet<String> {
    let journal = project.read("cache/journal");
    let lines = journal.lines().map(Line::parse).filter(|line| line.kind == "r");
    lines.map(|line| line.rest[0].clone()).collect()
}

/// The digest that an object's path names.
fn name(path: &Path) -> String {
    let part = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    format!("{}{}", part(path.parent().unwrap()), part(path))
}
