//! `qpipe-worker run TASK.json`: runs one stage and prints its events as JSON lines.

use std::path::Path;
use std::process::ExitCode;

use qpipe::task::{Event, PROTOCOL, Task};
use qpipe_worker::stages::{Context, Events, RUNS};
use qpipe_worker::{Error, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", task] => run(Path::new(task)),
        ["--version"] => {
            println!("qpipe-worker {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("qpipe-worker is started by qpipe; by hand: qpipe-worker run TASK.json");
            ExitCode::from(2)
        }
    }
}

fn run(path: &Path) -> ExitCode {
    let events = Events::new(Box::new(std::io::stdout()));
    let result = read(path).and_then(|task| {
        let run = RUNS.iter().find(|run| run.kind == task.kind);
        let run =
            run.ok_or_else(|| Error::bug(format!("the worker cannot run `{}`", task.kind)))?;
        (run.run)(&Context { task: &task, events: &events })
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
