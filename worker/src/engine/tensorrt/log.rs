//! What trtexec says while it works: `[11/23/2026-16:35:38] [W] [TRT] text`.

use super::Version;

/// A line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line<'a> {
    /// `I`, `W`, `E`, `F` or `V`.
    severity: char,
    text: &'a str,
}

/// What of a log matters afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Version in the banner.
    pub version: Option<Version>,
    /// Errors, in order, each once.
    pub errors: Vec<String>,
    /// Hints and warnings of TensorRT that a user can do something about, each once.
    pub advice: Vec<String>,
    /// The GPU's name.
    pub device: Option<String>,
    /// Its compute capability, such as `9.0`.
    pub compute_capability: Option<String>,
    /// A timing cache was given and refused, in TensorRT's words.
    pub cache_refused: Option<String>,
    /// Seconds of the build.
    pub build_seconds: Option<f64>,
    /// Queries a second, by trtexec's own count.
    pub queries_per_second: Option<f64>,
    /// Lines without a stamp that follow errors, such as the node in the ONNX parser's errors.
    pub loose: Vec<String>,
    /// It printed its help text: it does not take the command line.
    pub helped: bool,
    /// The last line was of the help text, whose words say nothing of what happened.
    helping: bool,
    /// The last lines were a warning that the next may go on with.
    open: bool,
}

/// Warnings that nobody can do anything about here: we give Q/DQ graphs on purpose, ranges of `precision = "implicit"` are made up on purpose, and `--int8` and `--fp16` are
/// what versions up to 10 have (deprecated since 10.14). And what surrounds the counts of weights that were rounded away or clipped, which say it all.
const NOISE: &[&str] = &[
    "Calibrator won't be used in explicit precision mode",
    "Calibrator is not being used. Users must provide dynamic range",
    "TensorRT encountered issues when converting weights between types",
    "If this is not the desired behavior, please modify the weights",
    "Check verbose logs for the list of affected weights",
    "Weakly-typed networks have been deprecated",
];

/// Between a count of weights and what happened to them.
const AFFECTED: &str = " are affected by this issue: ";

/// How far a build is: what a line of the log begins, of [`STEPS`] in all.
const MILESTONES: &[(&str, u64)] = &[
    ("Start parsing network model", 1),
    ("Finish parsing network model", 2),
    ("Finished parsing network model", 2),
    ("timing cache in use", 3),
    ("[GraphReduction]", 4),
    ("Engine generation completed", 4),
    ("Engine built in", STEPS),
];

/// First line of the help text, which follows or precedes the error where a command line is refused.
const HELP: &str = "=== Model Options ===";

/// Steps of a build.
pub const STEPS: u64 = 5;

/// The step that a line of the log begins.
pub fn step(line: &str) -> Option<u64> {
    MILESTONES.iter().find(|(text, _)| line.contains(text)).map(|(_, step)| *step)
}

/// Lines that are many and say nothing new: averages of the trace, what options were set.
pub fn tedious(line: &str) -> bool {
    let text = parse(line).map_or(line, |line| line.text);
    const WORDS: &[&str] = &["Average on ", "... Omitting ", "------"];
    text.trim().is_empty() || WORDS.iter().any(|words| text.starts_with(words))
}

fn parse(line: &str) -> Option<Line<'_>> {
    let rest = line.strip_prefix('[')?.split_once("] [")?.1;
    let severity = rest.chars().next().filter(|c| "IWEFV".contains(*c))?;
    let text = rest.get(1..)?.strip_prefix(']')?;
    Some(Line { severity, text: text.strip_prefix(' ').unwrap_or(text) })
}

impl Log {
    /// The log of a whole text.
    #[cfg(test)]
    pub fn of(text: &str) -> Self {
        let mut log = Self::default();
        text.lines().for_each(|line| log.add(line));
        log
    }

    /// Takes the next line.
    pub fn add(&mut self, raw: &str) {
        if self.version.is_none() {
            self.version = Version::of_banner(raw);
        }
        let line = parse(raw);
        if raw.starts_with(HELP) {
            (self.helped, self.helping) = (true, true);
        } else if line.is_some() || raw.starts_with("&&&&") {
            self.helping = false;
        }
        if self.helping {
            return;
        }
        let Some(line) = line else {
            // Of the loader, of CUDA, of the parser; enough to tell, not so much as to fill memory.
            if !raw.trim().is_empty() && !raw.starts_with("&&&&") && self.loose.len() < 400 {
                self.loose.push(raw.to_owned());
            }
            return;
        };
        let of_runtime = line.text.starts_with("[TRT]");
        let text = line.text.strip_prefix("[TRT] ").unwrap_or(line.text);
        let open = std::mem::take(&mut self.open);
        match line.severity {
            'E' | 'F' => {
                if text.contains("timing cache will not be used") {
                    self.cache_refused = Some(text.to_owned());
                }
                push_new(&mut self.errors, text);
            }
            'W' => self.warn(text, open, of_runtime),
            'I' => self.inform(text),
            _ => {}
        }
    }

    fn warn(&mut self, text: &str, open: bool, of_runtime: bool) {
        if text.starts_with("  ") && open {
            if let Some(last) = self.advice.last_mut() {
                // Of a hint that came before, its second line too.
                if !last.ends_with(text.trim()) {
                    last.push(' ');
                    last.push_str(text.trim());
                }
                self.open = true;
            }
            return;
        }
        if NOISE.iter().any(|noise| text.contains(noise))
            || text.contains("Could not read timing cache")
        {
            return;
        }
        let text = text.strip_prefix("* ").unwrap_or(text).trim();
        let count = text.strip_prefix("- ").and_then(|text| text.split_once(AFFECTED));
        if let Some((weights, what)) = count {
            push_new(&mut self.advice, &format!("{weights}: {what}"));
        } else if !text.is_empty() {
            push_new(&mut self.advice, text);
            // Hints of trtexec itself have a second line, those of the library have not.
            self.open = !of_runtime;
        }
    }

    fn inform(&mut self, text: &str) {
        let after = |key: &str| text.strip_prefix(key).map(str::trim);
        let number = |key: &str| after(key)?.split(' ').next()?.parse::<f64>().ok();
        if text.contains("more performance might be enabled by") {
            push_new(&mut self.advice, text);
        } else if let Some(name) = after("Selected Device:") {
            self.device = Some(name.to_owned());
        } else if let Some(number) = after("Compute Capability:") {
            self.compute_capability = Some(number.to_owned());
        } else if let Some(seconds) = number("Engine built in") {
            self.build_seconds = Some(seconds);
        } else if let Some(rate) = number("Throughput:") {
            self.queries_per_second = Some(rate);
        }
    }

    /// Whether an error or a loose line has this in it; that line.
    pub fn said(&self, words: &str) -> Option<&str> {
        let lines = self.errors.iter().chain(&self.loose);
        lines.map(String::as_str).find(|line| line.contains(words))
    }
}

fn push_new(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|old| old == text) {
        list.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT8: &str = include_str!("recorded/int8-qdq.log");
    const HINTS: &str = include_str!("recorded/fp32-batch1-hints.log");
    const IGNORED: &str = include_str!("recorded/timing-cache-ignored.log");

    #[test]
    fn a_build_as_it_was_recorded() {
        let log = Log::of(INT8);
        assert_eq!(log.version, Some(Version::new(8, 5, 3)));
        assert_eq!(log.device.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(log.compute_capability.as_deref(), Some("9.0"));
        assert_eq!(log.build_seconds, Some(24.8584));
        assert_eq!(log.queries_per_second, Some(4496.87));
        assert_eq!(log.errors, Vec::<String>::new());
        assert_eq!(
            log.advice,
            [
                "FP32 and INT8 precisions have been specified - more performance might be enabled by additionally specifying --fp16 or --best"
            ]
        );
    }

    /// As 8.5.3 says it of a fine-tuned model.
    #[test]
    fn weights_that_were_changed_are_counted_in_one_line() {
        let log = Log::of(
            "[t] [W] [TRT] TensorRT encountered issues when converting weights between types and that could affect accuracy.\n\
             [t] [W] [TRT] If this is not the desired behavior, please modify the weights or retrain with regularization to adjust the magnitude of the weights.\n\
             [t] [W] [TRT] Check verbose logs for the list of affected weights.\n\
             [t] [W] [TRT] - 49 weights are affected by this issue: Detected values which are outside of int8_t range and clipped them to int8_t range.\n",
        );
        assert_eq!(
            log.advice,
            [
                "49 weights: Detected values which are outside of int8_t range and clipped them to int8_t range."
            ]
        );
    }

    #[test]
    fn hints_have_both_of_their_lines() {
        let log = Log::of(HINTS);
        assert_eq!(log.advice.len(), 2, "{:?}", log.advice);
        assert!(log.advice[0].starts_with("Throughput may be bound by Enqueue Time rather than"));
        assert!(log.advice[0].ends_with(
            "under-utilized. If not already in use, --useCudaGraph (utilize CUDA graphs where possible) may increase the throughput."
        ));
        assert!(log.advice[1].starts_with(
            "GPU compute time is unstable, with coefficient of variance = 6.17519%. If not"
        ));
    }

    /// As the reporting of 11.1 prints them (`recorded/README.md`).
    #[test]
    fn hints_of_version_11() {
        let log = Log::of(include_str!("recorded/hints-11.1.log"));
        assert_eq!(log.version, Some(Version::new(11, 1, 0)));
        assert_eq!(log.queries_per_second, Some(668.896));
        let ends: Vec<&str> = log.advice.iter().map(|it| it.rsplit(". ").next().unwrap()).collect();
        assert_eq!(
            ends,
            [
                "If you are using --noCudaGraph, removing it may increase throughput.",
                "Consider removing --includeDataTransfers to disable data transfers and potentially increase throughput.",
                "Consider removing --includeDataTransfers to disable data transfers and potentially increase throughput.",
                "If not already in use, locking GPU clock frequency may improve the stability.",
            ]
        );
        assert!(log.loose.is_empty() && !log.helped, "{log:?}");
    }

    /// As the sources of 10.16 print it: more lines of the device, other words of the parser, the deprecation of `--int8`.
    #[test]
    fn a_build_of_version_10() {
        let text = "&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec --onnx=x\n\
            [t] [W] Weakly-typed networks have been deprecated in TensorRT. You can use the AutoCast tool (https://nvidia.github.io/TensorRT-Model-Optimizer/guides/8_autocast.html) to convert the network to be strongly typed.\n\
            [t] [I] === Model Options ===\n\
            [t] [I] Available Devices: \n\
            [t] [I]   Device 0: \"NVIDIA H100 80GB HBM3\" UUID: GPU-1\n\
            [t] [I] Selected Device: NVIDIA H100 80GB HBM3\n\
            [t] [I] Selected Device ID: 0\n\
            [t] [I] Selected Device UUID: GPU-1\n\
            [t] [I] Compute Capability: 9.0\n\
            [t] [I] Start parsing network model.\n\
            [t] [I] Finished parsing network model. Parse time: 0.0213\n\
            [t] [I] Engine built in 24.8584 sec.\n\
            [t] [I] Skipped inference phase since --skipInference is added.\n\
            &&&& PASSED TensorRT.trtexec [TensorRT v101601] [b11] # trtexec --onnx=x\n";
        let log = Log::of(text);
        assert_eq!(log.version, Some(Version::new(10, 16, 1)));
        assert_eq!(log.device.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(log.compute_capability.as_deref(), Some("9.0"));
        assert_eq!(log.build_seconds, Some(24.8584));
        assert_eq!((log.advice, log.helped), (Vec::<String>::new(), false));
        let steps: Vec<u64> = text.lines().filter_map(step).collect();
        assert_eq!(steps, [1, 2, STEPS]);
    }

    #[test]
    fn a_refused_timing_cache_is_seen() {
        let log = Log::of(IGNORED);
        assert!(log.cache_refused.unwrap().contains("The timing cache will not be used!"));
        assert_eq!(Log::of(INT8).cache_refused, None);
    }

    #[test]
    fn a_build_goes_forward() {
        let steps: Vec<u64> = INT8.lines().filter_map(step).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5]);
        assert!(tedious("[11/23/2026-16:36:07] [I] Average on 10 runs - GPU latency: 0.22 ms"));
        assert!(tedious("[11/23/2026-16:36:07] [I] ... Omitting 600000 lines"));
        assert!(!tedious("[11/23/2026-16:36:07] [I] Starting inference"));
    }
}
