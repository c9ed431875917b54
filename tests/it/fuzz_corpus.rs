//! The fuzz targets (docs/fuzzing.md) without a fuzzer: each takes the files of its corpus and some
//! thousand changed ones. The changes come from a fixed seed; `QPIPE_FUZZ_RUNS` asks for more of them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use qpipe::fuzzing::{TARGETS, Target};

/// Changed files a target.
const RUNS: u64 = 2000;

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|_| panic!("{} is there", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target))
}

/// Numbers that look random (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A part of some bytes, up to 64 of them.
    fn part<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.below(bytes.len());
        let length = self.below(64).min(bytes.len() - start);
        &bytes[start..start + length]
    }
}

/// A changed copy; `others`: where other content comes from.
fn changed(bytes: &[u8], others: &[(PathBuf, Vec<u8>)], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = numbers.next() as u8,
            2 => {
                let end = (at + numbers.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let part = numbers.part(&bytes).to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let words =
                    ["\0", "\n", "\"", "'", "\\", "${", "}", "[", "{", "=", "\t", ".", "-1", "ä"];
                let word = words[numbers.below(words.len())];
                bytes.splice(at..at, word.bytes());
            }
            _ => {
                let other = numbers.below(others.len());
                let part = numbers.part(&others[other].1).to_vec();
                let end = (at + part.len() * numbers.below(2)).min(bytes.len());
                bytes.splice(at..end, part);
            }
        }
    }
    bytes
}

/// Gives bytes to a target; those that it does not bear are left in a file.
fn give((name, target): Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&path, bytes).unwrap();
        panic!("the target {name} does not bear {what}: see {}", path.display());
    }
}

#[test]
fn the_corpora_and_what_is_like_them_are_borne() {
    let runs = std::env::var("QPIPE_FUZZ_RUNS").ok();
    let runs = runs.map_or(RUNS, |runs| runs.parse().expect("QPIPE_FUZZ_RUNS is a number"));
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || {
                let corpus = corpus(target.0);
                for (path, bytes) in &corpus {
                    give(*target, bytes, &path.display().to_string());
                }
                // A pipeline is read and shown several times: it takes as long as all others.
                let share = if target.0 == "pipeline" { 4 } else { 1 };
                for run in 0..runs / share {
                    let mut numbers = Numbers(run);
                    let (path, bytes) = &corpus[numbers.below(corpus.len())];
                    let bytes = changed(bytes, &corpus, &mut numbers);
                    give(*target, &bytes, &format!("change {run} of {}", path.display()));
                }
            });
        }
    });
}

#[test]
fn each_target_has_a_program_and_a_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |below: &str| -> Vec<String> {
        let files = fs::read_dir(folder.join(below)).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    // The reader of models is the worker's, whose own tests replay its corpus.
    let mut expected: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).chain(["onnx"]).collect();
    expected.sort_unstable();
    assert_eq!(names("fuzz_targets"), expected);
    assert_eq!(names("corpus"), expected);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in expected {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name}");
    }
}
