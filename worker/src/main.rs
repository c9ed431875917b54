//! `qpipe-worker run TASK.json`: runs one stage and prints its events as JSON lines.
//!
//! Also `facts NAME…` (a JSON object: facts of the machine for cache keys, and the files they were read from),
//! `doctor` (a JSON list of components), `model inspect FILE` and `model diff A B` (text, or JSON with `--json` behind
//! them), `model trainable FILE… calibratable FILE… buildable FILE…` (a JSON list, for `qpipe check`) and `--version`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use qpipe::cli::Exit;
use qpipe::exec::{nvidia, stderr, stdout};
use qpipe::stages::contract::Fact;
use qpipe::task::{Blame, Event, PROTOCOL, Task};
use qpipe_worker::stages::{Context, Events, RUNS};
use qpipe_worker::{Error, Result, components, inspect, torch};

fn main() -> ExitCode {
    // As the driver and trtexec number GPUs, before anything asks CUDA for one: a key names the one that computes.
    // SAFETY: this process has started no other thread yet that could read the environment.
    unsafe { std::env::set_var(nvidia::ORDER, nvidia::BY_BUS) };
    torch::open_cuda();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", task] => run(Path::new(task)),
        ["facts", ref names @ ..] => facts(names),
        ["model", ref arguments @ ..] => model(arguments),
        ["doctor"] => print(&components::all()),
        ["--version"] => {
            println!("qpipe-worker {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            stderr::line(format_args!(
                "qpipe-worker is started by qpipe; by hand: qpipe-worker run TASK.json"
            ));
            ExitCode::from(2)
        }
    }
}

/// Prints `{"facts": {name: value}, "files": [path], "missing": {name: {"message": …, "help": …}}}`; the error of a fact that cannot be told is
/// printed for people too. `libtorch-cuda:1` is the fact `libtorch-cuda` of the second GPU.
fn facts(names: &[&str]) -> ExitCode {
    let (mut facts, mut files, mut missing) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for &name in names {
        let (word, gpu) = name.split_once(':').unwrap_or((name, "0"));
        let told = serde_json::from_value::<Fact>(word.into())
            .map_err(|error| Error::bug(error.to_string()))
            .and_then(|fact| {
                let gpu = gpu.parse().map_err(|_| Error::bug(format!("no fact is {name}")))?;
                facts.insert(name, components::fact(fact, gpu)?);
                files.extend(components::files(fact));
                Ok(())
            });
        if let Err(error) = told {
            eprintln!("{}", error.message);
            if let Some(help) = &error.help {
                eprintln!("{help}");
            }
            let Error { message, help, .. } = error;
            missing.insert(name, serde_json::json!({ "message": message, "help": help }));
        }
    }
    let told = print(&serde_json::json!({ "facts": facts, "files": files, "missing": missing }));
    if missing.is_empty() { told } else { ExitCode::FAILURE }
}

/// Does `qpipe model`; its output and exit code are the runner's own.
fn model(arguments: &[&str]) -> ExitCode {
    let (asked, arguments) = match arguments {
        [rest @ .., "--exit-code"] => (true, rest),
        all => (false, all),
    };
    match inspect::run(arguments) {
        Ok(told) => {
            stdout::write(told.text.as_bytes());
            match asked && told.found {
                _ if stdout::failed() => Exit::Machine.into(),
                true => Exit::Pending.into(),
                false => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            stderr::line(format_args!("error: {}", error.message));
            if let Some(help) = &error.help {
                stderr::line(format_args!("  help: {help}"));
            }
            match error.blame {
                // The command line names the file.
                Blame::User => Exit::Usage,
                blame => blame.into(),
            }
            .into()
        }
    }
}

fn print(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string(value) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path) -> ExitCode {
    let events = Events::new(Box::new(std::io::stdout()));
    let result = read(path).and_then(|task| {
        let run = RUNS.iter().find(|run| run.kind == task.kind);
        let run =
            run.ok_or_else(|| Error::bug(format!("the worker cannot run `{}`", task.kind)))?;
        let trains = ["train", "finetune"].contains(&task.kind.as_str());
        if trains {
            // Before CUDA is asked for anything.
            be_deterministic(task.config.get("deterministic").is_some_and(|on| on == true))?;
        }
        let named = task.config.get("device").and_then(|word| word.as_str()).unwrap_or("auto");
        let device = torch::open_device(named)?;
        if device != tch::Device::Cpu {
            events.log(format!("libtorch computes on {}", components::device_name(device)));
        }
        // Training may round to TF32; what is compared with a runtime, layer by layer, may not.
        torch::allow_tf32(trains)?;
        tch::set_num_threads(i32::try_from(task.threads).unwrap_or(1).max(1));
        let context = Context { task: &task, events: &events };
        (run.run)(&context).map_err(|error| torch::explain(error, &task.kind, &task.config))
    });
    match result {
        Ok(metrics) => {
            events.send(&Event::Done { metrics });
            ExitCode::SUCCESS
        }
        Err(error) => {
            events.send(&Event::Failed { failure: error.into() });
            ExitCode::FAILURE
        }
    }
}

/// Sets libtorch to give the same bits each time, or to be as fast as it can.
fn be_deterministic(on: bool) -> Result<()> {
    const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
    if on && std::env::var_os(WORKSPACE).is_none() {
        // cuBLAS reads it when it is first used; with any other workspace its sums have no fixed order.
        // SAFETY: this process has started no other thread yet that could read the environment.
        unsafe { std::env::set_var(WORKSPACE, ":4096:8") };
    }
    torch::deterministic(on)
}

fn read(path: &Path) -> Result<Task> {
    let text = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
    let task: Task = serde_json::from_slice(&text)
        .map_err(|error| Error::bug(format!("{}: {error}", path.display())))?;
    if task.protocol != PROTOCOL || task.version != env!("CARGO_PKG_VERSION") {
        return Err(Error::machine(format!(
            "qpipe is version {}, its worker {}",
            task.version,
            env!("CARGO_PKG_VERSION")
        ))
        .help("install both from one build: cargo build --release"));
    }
    Ok(task)
}
