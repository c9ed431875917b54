//! The command line of `qpipe-trtexec`: those flags of TensorRT 11's trtexec that qpipe passes, and those of a pipeline's `flags` that the bindings
//! can fulfil. A flag that is none of them is refused, never ignored.

use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The model to build an engine of.
    pub onnx: Option<PathBuf>,
    /// The engine to run, where none is built.
    pub load_engine: Option<PathBuf>,
    /// Where the engine goes.
    pub save_engine: Option<PathBuf>,
    /// Least, best and greatest shapes of inputs whose extents are free.
    pub profile: [Vec<Shape>; 3],
    /// Shapes of inputs in a run.
    pub shapes: Vec<Shape>,
    /// How hard the builder looks for kernels, 0 to 5; `None`: its default.
    pub optimization_level: Option<i32>,
    /// Timings of a kernel that are averaged.
    pub avg_timing: i32,
    /// Memory that kernels may use, bytes; `None`: all.
    pub workspace: Option<usize>,
    /// Streams beside the first that kernels may run on; `None`: its default.
    pub max_aux_streams: Option<i32>,
    /// Kernels that are tried, at most; `None`: its default.
    pub max_tactics: Option<i32>,
    /// Whether float products may be computed in TF32.
    pub tf32: bool,
    /// Whether the engine keeps its layers' names and types.
    pub detailed: bool,
    /// Nothing is run.
    pub skip_inference: bool,
    /// Kernels are launched as a CUDA graph.
    pub cuda_graph: bool,
    /// Inputs and outputs are copied in each query.
    pub transfers: bool,
    /// Milliseconds before the clock starts.
    pub warm_up_ms: f64,
    /// Queries at least.
    pub iterations: u32,
    /// Seconds at least.
    pub seconds: f64,
    /// Files of inputs' values; the others are random.
    pub inputs: Vec<(String, PathBuf)>,
    /// Where the values of outputs go.
    pub export_output: Option<PathBuf>,
    /// Where times of queries go.
    pub export_times: Option<PathBuf>,
    /// Where the engine's layers go.
    pub export_layers: Option<PathBuf>,
    /// What the library says in detail is printed too.
    pub verbose: bool,
    /// Nothing but the flags is told.
    pub help: bool,
}

/// A tensor's name and extents: `input:8x3x224x224`.
pub type Shape = (String, Vec<i64>);

impl Default for Options {
    fn default() -> Self {
        Self {
            onnx: None,
            load_engine: None,
            save_engine: None,
            profile: Default::default(),
            shapes: Vec::new(),
            optimization_level: None,
            // As trtexec; the library's own is 1.
            avg_timing: 8,
            workspace: None,
            max_aux_streams: None,
            max_tactics: None,
            tf32: true,
            detailed: false,
            skip_inference: false,
            cuda_graph: true,
            transfers: false,
            warm_up_ms: 200.0,
            iterations: 10,
            seconds: 3.0,
            inputs: Vec::new(),
            export_output: None,
            export_times: None,
            export_layers: None,
            verbose: false,
            help: false,
        }
    }
}

/// What `--help` prints below the banner.
pub const HELP: &str = "\
=== Model Options ===
  --onnx=<file>                   ONNX model

=== Build Options ===
  --minShapes=spec                Least shapes of inputs whose extents are free
  --optShapes=spec                Shapes that the engine is optimised for
  --maxShapes=spec                Greatest shapes
                                  spec ::= name:1x3x224x224[,spec]; a name may stand in single quotes
  --builderOptimizationLevel=N    How hard the builder looks for kernels, 0 to 5 (default = 3)
  --avgTiming=N                   Timings of a kernel that are averaged (default = 8)
  --memPoolSize=spec              workspace:N, in MiB; suffixes B, K, M, G
  --maxAuxStreams=N               Streams beside the first that kernels may run on
  --maxTactics=N                  Kernels that are tried, at most (default = -1: as the builder likes)
  --noTF32                        No TF32 in float products
  --profilingVerbosity=mode       mode ::= layer_names_only|detailed|none (default = layer_names_only)
  --saveEngine=<file>             Save the serialized engine
  --loadEngine=<file>             Load a serialized engine

=== Inference Options ===
  --shapes=spec                   Shapes of inputs whose extents are free
  --loadInputs=spec               name:file[,spec]: raw values, little endian (default = random values)
  --iterations=N                  Queries at least (default = 10)
  --warmUp=N                      Milliseconds before the clock starts (default = 200)
  --duration=N                    Seconds at least (default = 3)
  --includeDataTransfers          Copy inputs and outputs in each query
  --noCudaGraph                   Launch kernel by kernel
  --skipInference                 Build, and run nothing

=== Reporting Options ===
  --avgRuns=N                     Taken and without effect: no averages are printed
  --exportTimes=<file>            Times of queries, JSON
  --exportOutput=<file>           Values of outputs, JSON
  --exportLayerInfo=<file>        Layers of the engine, JSON
  --verbose                       All that the library says
  --help                          This text

Without effect, since they are defaults: --useCudaGraph, --useSpinWait, --stronglyTyped, --noDataTransfers
";

/// Reads a command line, without the program's name.
///
/// # Errors
/// What is wrong with it: `Unknown option: --int8`.
pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut seen: Vec<&str> = Vec::new();
    for argument in arguments {
        let argument = argument.as_ref();
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        if seen.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        seen.push(name);
        if !switch(&mut options, name, value)? && !valued(&mut options, name, value)? {
            return Err(format!("Unknown option: {argument}"));
        }
    }
    if !options.help && options.onnx.is_some() == options.load_engine.is_some() {
        return Err("expected either --onnx=<file> or --loadEngine=<file>".to_owned());
    }
    if options.onnx.is_some() {
        // What is built is run with the shapes that it is optimised for.
        let given = |name: &str| options.shapes.iter().any(|(known, _)| known == name);
        let best = options.profile[1].iter().filter(|(name, _)| !given(name));
        let best: Vec<Shape> = best.cloned().collect();
        options.shapes.extend(best);
    }
    Ok(options)
}

/// Takes a flag without a value; whether it is one.
fn switch(options: &mut Options, name: &str, value: Option<&str>) -> Result<bool, String> {
    match name {
        "--help" | "-h" => options.help = true,
        "--verbose" => options.verbose = true,
        "--noTF32" => options.tf32 = false,
        "--skipInference" => options.skip_inference = true,
        "--noCudaGraph" => options.cuda_graph = false,
        "--includeDataTransfers" => options.transfers = true,
        "--useCudaGraph" | "--useSpinWait" | "--stronglyTyped" | "--noDataTransfers" => {}
        _ => return Ok(false),
    }
    match value {
        None => Ok(true),
        Some(value) => Err(format!("{name}={value}: {name} takes no value")),
    }
}

/// Takes a flag with a value; whether it is one.
fn valued(options: &mut Options, name: &str, value: Option<&str>) -> Result<bool, String> {
    let given = || value.ok_or_else(|| format!("{name} expects a value: {name}=…"));
    let file = || given().map(|value| Some(PathBuf::from(value)));
    let bad = |expected: &str| format!("{name}={}: expected {expected}", value.unwrap_or_default());
    let count = || given()?.parse::<i32>().map(Some).map_err(|_| bad("a whole number"));
    let number = || {
        let number = given()?.parse::<f64>().ok().filter(|it| it.is_finite() && *it >= 0.0);
        number.ok_or_else(|| bad("a number, at least 0"))
    };
    let shapes = || pairs(given()?, extents).ok_or_else(|| bad("name:1x3x224x224[,…]"));
    match name {
        "--onnx" => options.onnx = file()?,
        "--loadEngine" => options.load_engine = file()?,
        "--saveEngine" => options.save_engine = file()?,
        "--exportOutput" => options.export_output = file()?,
        "--exportTimes" => options.export_times = file()?,
        "--exportLayerInfo" => options.export_layers = file()?,
        "--minShapes" => options.profile[0] = shapes()?,
        "--optShapes" => options.profile[1] = shapes()?,
        "--maxShapes" => options.profile[2] = shapes()?,
        "--shapes" => options.shapes = shapes()?,
        "--loadInputs" => {
            let files = pairs(given()?, |file| (!file.is_empty()).then(|| PathBuf::from(file)));
            options.inputs = files.ok_or_else(|| bad("name:file[,…]"))?;
        }
        "--builderOptimizationLevel" => options.optimization_level = count()?,
        "--avgTiming" => {
            options.avg_timing = given()?.parse().map_err(|_| bad("a whole number"))?
        }
        "--maxAuxStreams" => options.max_aux_streams = count()?,
        "--maxTactics" => options.max_tactics = count()?,
        "--memPoolSize" => {
            let size = given()?.strip_prefix("workspace:").and_then(bytes);
            options.workspace = Some(size.ok_or_else(|| bad("workspace:N, in MiB"))?);
        }
        "--profilingVerbosity" => {
            options.detailed = match given()? {
                "detailed" => true,
                "layer_names_only" | "none" => false,
                _ => return Err(bad("layer_names_only, detailed or none")),
            };
        }
        "--iterations" => {
            options.iterations = given()?.parse().map_err(|_| bad("a whole number"))?;
        }
        "--warmUp" => options.warm_up_ms = number()?,
        "--duration" => options.seconds = number()?,
        "--avgRuns" => drop(count()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `8x3x224x224`.
fn extents(text: &str) -> Option<Vec<i64>> {
    let extent = |text: &str| text.parse().ok().filter(|extent| *extent >= 0);
    text.split('x').map(extent).collect()
}

/// `name:value[,name:value]`: a name with a colon in it stands in single quotes; none may be empty.
fn pairs<T>(text: &str, value: impl Fn(&str) -> Option<T>) -> Option<Vec<(String, T)>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let (name, behind) = match rest.strip_prefix('\'') {
            Some(rest) => {
                let (name, behind) = rest.split_once('\'')?;
                (name, behind.strip_prefix(':')?)
            }
            None => rest.split_once(':')?,
        };
        let (mine, next) = match behind.split_once(',') {
            Some((mine, next)) => (mine, Some(next)),
            None => (behind, None),
        };
        if name.is_empty() {
            return None;
        }
        found.push((name.to_owned(), value(mine)?));
        match next {
            Some(next) => rest = next.trim_start(),
            None => return Some(found),
        }
    }
}

/// Bytes of `512`, `512M` (MiB), `1.5G`, `64K`, `100B`.
fn bytes(text: &str) -> Option<usize> {
    let (number, shift) = match text.strip_suffix(['B', 'K', 'M', 'G']) {
        Some(number) => (number, 10 * "BKMG".find(&text[number.len()..])?),
        None => (text, 20),
    };
    let number: f64 = number.parse().ok().filter(|it: &f64| it.is_finite() && *it >= 0.0)?;
    Some((number * (1_u64 << shift) as f64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_read() {
        let line = [
            "--onnx=/in/m.onnx",
            "--profilingVerbosity=detailed",
            "--minShapes=x:1x3x8x8",
            "--optShapes='in:0':4x3x8x8,y:4",
            "--maxShapes=x:8x3x8x8",
            "--skipInference",
            "--saveEngine=/out/e",
            "--exportLayerInfo=/out/l",
            "--memPoolSize=workspace:1.5G",
            "--builderOptimizationLevel=5",
            "--noTF32",
        ];
        let options = parse(&line).unwrap();
        let expected = Options {
            onnx: Some("/in/m.onnx".into()),
            save_engine: Some("/out/e".into()),
            export_layers: Some("/out/l".into()),
            profile: [
                vec![("x".to_owned(), vec![1, 3, 8, 8])],
                vec![("in:0".to_owned(), vec![4, 3, 8, 8]), ("y".to_owned(), vec![4])],
                vec![("x".to_owned(), vec![8, 3, 8, 8])],
            ],
            shapes: vec![("in:0".to_owned(), vec![4, 3, 8, 8]), ("y".to_owned(), vec![4])],
            detailed: true,
            skip_inference: true,
            workspace: Some(3 << 29),
            optimization_level: Some(5),
            tf32: false,
            ..Options::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_run_is_read() {
        let line = [
            "--loadEngine=e",
            "--loadInputs='x':0-input.raw",
            "--exportOutput=o",
            "--iterations=1",
            "--warmUp=0",
            "--duration=0.5",
            "--includeDataTransfers",
            "--noCudaGraph",
            "--avgRuns=1000",
        ];
        let options = parse(&line).unwrap();
        assert_eq!(options.inputs, [("x".to_owned(), PathBuf::from("0-input.raw"))]);
        assert_eq!((options.iterations, options.warm_up_ms, options.seconds), (1, 0.0, 0.5));
        assert!(options.transfers && !options.cuda_graph && !options.skip_inference);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, reason) in [
            (&["--onnx=m", "--int8"][..], "Unknown option: --int8"),
            (&["--onnx=m", "--timingCacheFile=c"], "Unknown option: --timingCacheFile=c"),
            (&["--onnx=m", "extra"], "Unknown option: extra"),
            (&["--onnx"], "--onnx expects a value: --onnx=…"),
            (&["--onnx=m", "--verbose=1"], "--verbose=1: --verbose takes no value"),
            (&["--onnx=m", "--verbose", "--verbose"], "--verbose is given twice"),
            (&["--onnx=m", "--warmUp=-1"], "--warmUp=-1: expected a number, at least 0"),
            (&["--onnx=m", "--warmUp=nan"], "--warmUp=nan: expected a number, at least 0"),
            (&["--onnx=m", "--iterations=x"], "--iterations=x: expected a whole number"),
            (&["--onnx=m", "--shapes=x"], "--shapes=x: expected name:1x3x224x224[,…]"),
            (&["--onnx=m", "--shapes=x:1xa"], "--shapes=x:1xa: expected name:1x3x224x224[,…]"),
            (&["--onnx=m", "--shapes=:1"], "--shapes=:1: expected name:1x3x224x224[,…]"),
            (
                &["--onnx=m", "--memPoolSize=dlaSRAM:1"],
                "--memPoolSize=dlaSRAM:1: expected workspace:N, in MiB",
            ),
            (
                &["--onnx=m", "--profilingVerbosity=all"],
                "--profilingVerbosity=all: expected layer_names_only, detailed or none",
            ),
            (&["--verbose"], "expected either --onnx=<file> or --loadEngine=<file>"),
            (
                &["--onnx=m", "--loadEngine=e"],
                "expected either --onnx=<file> or --loadEngine=<file>",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), reason);
        }
    }

    #[test]
    fn sizes_have_the_suffixes_of_trtexec() {
        assert_eq!(bytes("512"), Some(512 << 20));
        assert_eq!(bytes("0.25M"), Some(1 << 18));
        assert_eq!(
            (bytes("64K"), bytes("100B"), bytes("2G")),
            (Some(64 << 10), Some(100), Some(2 << 30))
        );
        assert_eq!((bytes(""), bytes("M"), bytes("-1"), bytes("1T")), (None, None, None, None));
    }

    /// Each flag that is read stands in the text, and the other way round.
    #[test]
    fn the_help_text_has_all_flags() {
        let told: Vec<&str> = HELP
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.starts_with("--"))
            .collect();
        for flag in told {
            let known = [None, Some("")].into_iter().any(|value| {
                let mut options = Options::default();
                let taken = switch(&mut options, flag, value)
                    .and_then(|it| Ok(it || valued(&mut options, flag, value)?));
                taken != Ok(false)
            });
            assert!(known, "{flag}");
        }
    }
}
