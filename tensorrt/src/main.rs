//! `qpipe-trtexec`: a trtexec for the TensorRT 11 that pip installs, which has none. Flags, log and files are those of trtexec as far as
//! qpipe uses them ([`qpipe_tensorrt::options`]).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use qpipe_tensorrt::options::{self, Options};
use qpipe_tensorrt::{
    Error, Listener, Plan, Protocol, Result, Session, Severity, build, files, gpu, library,
    register_plugins,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let line = arguments.join(" ");
    let libraries = match Libraries::open() {
        Ok(libraries) => libraries,
        Err(error) => {
            say('E', &error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let banner = |word: &str| {
        println!("&&&& {word} TensorRT.trtexec [TensorRT v{}] [qpipe] # {line}", libraries.version);
    };
    banner("RUNNING");
    let done = match options::parse(&arguments) {
        Ok(options) if options.help => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(options) => run(&options, &libraries),
        Err(reason) => {
            say('E', &reason);
            print!("{}", options::HELP);
            banner("FAILED");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => {
            banner("PASSED");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say('E', &error.to_string());
            banner("FAILED");
            ExitCode::FAILURE
        }
    }
}

/// Lines of the log, each as trtexec stamps it.
fn say(severity: char, text: &str) {
    for line in text.lines() {
        println!("[qpipe] [{severity}] {line}");
    }
}

/// The library, opened, and where its parser is looked for, which only builds need: the lean runtime has none.
struct Libraries {
    folder: Option<PathBuf>,
    version: u32,
}

impl Libraries {
    fn open() -> Result<Self> {
        let folder = std::env::var_os(library::FOLDER_VARIABLE).filter(|it| !it.is_empty());
        let folder = folder.map(PathBuf::from);
        let path = library::find(folder.as_deref(), library::TENSORRT)?;
        let version = library::version(&path)?;
        qpipe_tensorrt::open(&path)?;
        Ok(Self { folder, version })
    }
}

fn listener(verbose: bool) -> Listener {
    Arc::new(move |severity, text| {
        let letter = match severity {
            Severity::InternalError => 'F',
            Severity::Error => 'E',
            Severity::Warning => 'W',
            Severity::Info => 'I',
            Severity::Verbose if verbose => 'V',
            Severity::Verbose => return,
        };
        text.lines().for_each(|line| say(letter, &format!("[TRT] {line}")));
    })
}

fn run(options: &Options, libraries: &Libraries) -> Result<()> {
    let named = options.onnx.iter().chain(&options.load_engine);
    for path in named {
        std::fs::File::open(path).map_err(|error| Error::file(path, error))?;
    }
    // Before the library, which fails worse where CUDA does.
    let (name, capability) = gpu()?;
    say('I', &format!("Selected Device: {name}"));
    say('I', &format!("Compute Capability: {capability}"));
    let plugins = library::find(libraries.folder.as_deref(), library::PLUGINS);
    let registered = plugins.and_then(|it| register_plugins(&it, listener(options.verbose)));
    if let Err(error) = registered {
        // Few models have one.
        say('I', &format!("NVIDIA's plugins are not there: {error}"));
    }
    let engine = match (&options.onnx, &options.load_engine) {
        (Some(onnx), _) => built(onnx, options, libraries)?,
        (None, Some(path)) => std::fs::read(path).map_err(|error| Error::file(path, error))?,
        (None, None) => unreachable!("the command line has one of them"),
    };
    if options.skip_inference && options.export_layers.is_none() {
        return Ok(());
    }
    let mut session = Session::load(&engine, listener(options.verbose))?;
    drop(engine);
    if let Some(path) = &options.export_layers {
        write(path, &session.layers()?)?;
    }
    if options.skip_inference {
        say('I', "Skipped inference phase since --skipInference is added.");
        return Ok(());
    }
    session.set_shapes(&options.shapes)?;
    session.set_noise()?;
    for (name, path) in &options.inputs {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
        session.set_raw(name, &bytes)?;
    }
    say('I', "Starting inference");
    let begin = Instant::now();
    let queries = session.time(&Protocol::from(options), &|words| say('W', words))?;
    if let (Some(first), Some(last)) = (queries.first(), queries.last()) {
        // Over the time of the queries that were counted.
        let seconds = (last.start + last.latency_ms - first.start) / 1e3;
        say('I', &format!("Throughput: {} qps", queries.len() as f64 / seconds));
    }
    say('I', &format!("Inferred for {} s", begin.elapsed().as_secs_f64()));
    if let Some(path) = &options.export_times {
        write(path, &files::times(&queries))?;
    }
    if let Some(path) = &options.export_output {
        write(path, &files::outputs(&session.run()?))?;
    }
    Ok(())
}

fn built(onnx: &Path, options: &Options, libraries: &Libraries) -> Result<Vec<u8>> {
    let parser = library::find(libraries.folder.as_deref(), library::PARSER)?;
    qpipe_tensorrt::open_parser(&parser)?;
    say('I', "Start parsing network model.");
    let begin = Instant::now();
    let plan = Plan { onnx, profile: options.profile.clone(), options };
    let engine = build(&plan, listener(options.verbose))?;
    say('I', &format!("Engine built in {} sec.", begin.elapsed().as_secs_f64()));
    if let Some(path) = &options.save_engine {
        std::fs::write(path, &engine).map_err(|error| {
            say('E', "Saving engine to file failed.");
            Error::file(path, error)
        })?;
    }
    Ok(engine)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Error::file(path, error))
}
