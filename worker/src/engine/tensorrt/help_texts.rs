//! Tests: every flag that [`super::command`] passes to a version of trtexec stands in that version's help text (`recorded/README.md`).

use std::path::Path;

use qpipe::stages::build_engine::Precision;

use super::command::{self, CommandLine, Source};
use super::pairs::Pairs;
use super::{Version, flags, infer};
use crate::bench::Protocol;
use crate::engine::{Note, Timing};

const TEXTS: &[&str] = &[
    include_str!("recorded/help-8.5.txt"),
    include_str!("recorded/help-8.6.txt"),
    include_str!("recorded/help-10.0.txt"),
    include_str!("recorded/help-10.8.txt"),
    include_str!("recorded/help-10.16.txt"),
    include_str!("recorded/help-11.0.txt"),
    include_str!("recorded/help-11.1.txt"),
];

/// Flags of ours that a version calls deprecated, all of which it still takes. The texts of 10.14 and 10.15 say the same as that of 10.16.
const DEPRECATED: &[(Version, &[&str])] =
    &[(Version::new(10, 16, 1), &["--best", "--fp16", "--fp8", "--int4", "--int8"])];

/// Flags that take a value, which the texts do not show.
const UNSHOWN: &[&str] = &["--builderOptimizationLevel"];

const PRECISIONS: &[Precision] = &[
    Precision::Fp32,
    Precision::Fp16,
    Precision::Int8,
    Precision::Int8Fp32,
    Precision::Best,
    Precision::Implicit,
    Precision::Tf32,
];

/// Models without Q/DQ pairs, and with those of each type.
const PAIRS: [Pairs; 5] = [
    Pairs { int8: false, float8: false, int4: false },
    Pairs { int8: true, float8: false, int4: false },
    Pairs { int8: false, float8: true, int4: false },
    Pairs { int8: false, float8: false, int4: true },
    Pairs { int8: true, float8: false, int4: true },
];

/// A help text.
struct Help {
    version: Version,
    text: &'static str,
}

/// A flag in it: `--warmUp=N    Run for N milliseconds …`.
struct Entry<'a> {
    /// What stands behind `=`.
    form: Option<&'a str>,
    /// Its first line.
    about: &'a str,
}

impl Help {
    fn all() -> Vec<Self> {
        let of = |&text| Self { version: Version::of_banner(text).expect("a banner"), text };
        TEXTS.iter().map(of).collect()
    }

    fn find(&self, name: &str) -> Option<Entry<'static>> {
        self.text.lines().find_map(|line| {
            let (said, about) = line.strip_prefix("  --")?.split_once(' ')?;
            let (flag, form) = match said.split_once('=') {
                Some((flag, form)) => (flag, Some(form)),
                None => (said, None),
            };
            let about = about.trim();
            (name.strip_prefix("--") == Some(flag)).then_some(Entry { form, about })
        })
    }

    /// `[Deprecated]` before what it does, or `Note: --fp16, … are deprecated` elsewhere.
    fn calls_deprecated(&self, name: &str) -> bool {
        let of_list = |line: &str| {
            let listed = line.split_once("Note: ")?.1.split_once(" are deprecated")?.0;
            Some(listed.split(", ").any(|it| it == name))
        };
        self.find(name).is_some_and(|entry| entry.about.starts_with("[Deprecated]"))
            || self.text.lines().filter_map(of_list).any(|found| found)
    }

    /// What is wrong with an argument.
    fn refusal(&self, argument: &str) -> Option<String> {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let Some(Entry { form, .. }) = self.find(name) else {
            return Some("no such flag".to_owned());
        };
        let fits = match (form, value) {
            (None, value) => value.is_some() == UNSHOWN.contains(&name),
            (Some(_), None) => false,
            (Some("N" | "M"), Some(value)) => value.parse::<f64>().is_ok_and(|it| it >= 0.0),
            (Some("spec"), Some(value)) => value.split_once(':').is_some(),
            (Some("<file>"), Some(value)) => value.starts_with('/'),
            // `mode ::= layer_names_only|detailed|none`, in the same line.
            (Some("mode"), Some(value)) => self
                .find(name)
                .and_then(|entry| entry.about.split_once("::= "))
                .is_some_and(|(_, modes)| modes.split(['|', ' ']).any(|mode| mode == value)),
            (Some(_), Some(_)) => false,
        };
        (!fits).then(|| format!("its text shows {name}={}", form.unwrap_or("nothing")))
    }
}

fn note(input: &str, batch: Option<usize>) -> Note {
    Note {
        version: 1,
        backend: "tensorrt".to_owned(),
        runtime: String::new(),
        file: "model.engine".to_owned(),
        batch,
        input_name: input.to_owned(),
        input: [3, 224, 224],
        output_name: "y".to_owned(),
        classes: 10,
        shape: Vec::new(),
        more: Vec::new(),
        ending: None,
        quantized: false,
        on_gpu: None,
        precision: None,
        processor: None,
    }
}

/// All kinds of command lines that a version is given.
fn lines(version: Version) -> Vec<CommandLine> {
    let mut lines = Vec::new();
    let folder = Path::new("/stage");
    for (input, batch) in
        [("input", Some(8)), ("input", None), ("onnx::in:0", Some(8)), ("onnx::in:0", None)]
    {
        let note = note(input, batch);
        let batches = batch.is_none().then_some([1, 8, 32]);
        let source = Source { onnx: Path::new("/model.onnx"), note: &note, batches, more: &[] };
        for pairs in PAIRS {
            let usual = PRECISIONS.iter().filter_map(|&it| {
                flags::precision(version, it, pairs).ok().map(|chosen| (chosen, false))
            });
            let tried = flags::candidates(version, pairs, &[]).into_iter().flatten();
            for (chosen, timed) in usual.chain(tried.map(|chosen| (chosen, true))) {
                for cache in [None, Some(Path::new("/stage/timing.cache"))] {
                    lines.push(command::build(version, &source, &chosen, timed, folder, cache));
                }
            }
        }
        for (cuda_graph, seconds) in [(true, 3.0), (false, 0.25)] {
            let timing = Timing {
                folder,
                note: &note,
                batches: &[8],
                protocol: Protocol { warmup: 1, iterations: 10, seconds },
                warmup_ms: 200,
                cuda_graph,
                scratch: folder,
                tell: &|_| (),
            };
            lines.push(command::time(version, &timing, 8, Path::new("/stage/times.json")));
        }
        let files = infer::Files {
            engine: Path::new("/stage/model.engine"),
            input: "0-input.raw",
            output: Path::new("/a:b/0-output.json"),
        };
        lines.push(command::infer(version, &note, 8, &files));
    }
    lines
}

fn name(argument: &str) -> &str {
    argument.split('=').next().unwrap_or(argument)
}

#[test]
fn every_flag_stands_in_the_help_text_of_its_version() {
    for help in Help::all() {
        let version = help.version;
        let lines = lines(version);
        assert!(lines.len() >= 40, "{version}: {}", lines.len());
        for line in &lines {
            for argument in line.arguments() {
                if let Some(refusal) = help.refusal(argument) {
                    panic!("{version} refuses {argument}: {refusal}; of {:?}", line.arguments());
                }
            }
            // All parsers refuse what is left over of a flag that was given twice.
            let mut names: Vec<&str> = line.arguments().iter().map(|it| name(it)).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{version}: {names:?}");
        }
    }
}

/// The program of ours that does the work of 11's where pip installed it. It keeps no timing cache, and is asked for none.
#[test]
fn our_own_program_takes_what_is_passed() {
    let version = Version::new(11, 4, 0);
    for line in lines(version) {
        let timing_cache = |argument: &&String| argument.starts_with("--timingCacheFile=");
        let arguments: Vec<&String> =
            line.arguments().iter().filter(|argument| !timing_cache(argument)).collect();
        qpipe_tensorrt::options::parse(&arguments)
            .unwrap_or_else(|refusal| panic!("{refusal}; of {arguments:?}"));
    }
}

#[test]
fn flags_that_a_version_calls_deprecated_are_known() {
    for help in Help::all() {
        let lines = lines(help.version);
        let mut found: Vec<&str> = lines
            .iter()
            .flat_map(CommandLine::arguments)
            .map(|argument| name(argument))
            .filter(|name| help.calls_deprecated(name))
            .collect();
        found.sort_unstable();
        found.dedup();
        let row = DEPRECATED.iter().find(|(version, _)| *version == help.version);
        let known = row.map_or(&[][..], |(_, names)| names);
        assert_eq!(found, known, "{}", help.version);
    }
}

/// The checks above can fail: what a version lacks, a value too much, one too few, one of another form.
#[test]
fn what_a_version_does_not_have_is_refused() {
    let refused = |index: usize, argument: &str| Help::all()[index].refusal(argument).is_some();
    assert!(refused(0, "--skipInference") && !refused(0, "--buildOnly"));
    assert!(refused(1, "--buildOnly") && !refused(1, "--skipInference"));
    assert!(
        refused(0, "--builderOptimizationLevel=5") && !refused(1, "--builderOptimizationLevel=5")
    );
    assert!(refused(5, "--fp16") && !refused(4, "--fp16") && refused(4, "--fp16=1"));
    assert!(refused(4, "--noCudaGraph") && !refused(5, "--noCudaGraph"));
    assert!(refused(0, "--profilingVerbosity=more") && refused(0, "--profilingVerbosity"));
    assert!(refused(6, "--warmUp=soon") && refused(6, "--shapes=8") && refused(6, "--onnx"));
    assert!(refused(0, "--fp8") && !refused(1, "--fp8"));
    assert!(refused(2, "--int4") && !refused(3, "--int4"));
    assert!(refused(0, "--warm") && refused(0, "warmUp=200"));
    let last = Help::all().pop().expect("a text");
    assert!(last.calls_deprecated("--useSpinWait") && !last.calls_deprecated("--noSpinWait"));
}

#[test]
fn what_the_pipeline_says_is_not_said_twice() {
    for help in Help::all() {
        let more = ["--useSpinWait", "--builderOptimizationLevel=4"].map(str::to_owned);
        let note = note("input", Some(8));
        let source = Source { onnx: Path::new("/x.onnx"), note: &note, batches: None, more: &more };
        for chosen in flags::candidates(help.version, PAIRS[1], &more).unwrap() {
            let line =
                command::build(help.version, &source, &chosen, true, Path::new("/stage"), None);
            for said in &more {
                let count = line.arguments().iter().filter(|it| name(it) == name(said)).count();
                assert_eq!(count, 1, "{}: {said} of {:?}", help.version, line.arguments());
            }
        }
    }
}
