//! `qpipe doctor`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Exit;
use crate::exec::{answer, stderr, stdout, worker};
use crate::task::Component;

/// Lists what qpipe needs: each component, its version, where it was found and how to get it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe doctor
  qpipe doctor --json";

/// The worker itself waits half a minute for each program that it asks.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does it: success where all that stages need is there.
pub fn run(args: &Args) -> Exit {
    let components = components();
    let complete = components.iter().all(|c| c.version.is_some() || !c.required);
    if args.json {
        match serde_json::to_string_pretty(&components) {
            Ok(text) => stdout::line(format_args!("{text}")),
            Err(error) => {
                stderr::line(format_args!("error: {error}"));
                return Exit::Bug;
            }
        }
    } else {
        stdout::write(text(&components).as_bytes());
        if !complete {
            stderr::line(format_args!("error: something that stages need is missing"));
        }
    }
    if complete { Exit::Success } else { Exit::Machine }
}

/// This program, its worker, and what the worker finds.
fn components() -> Vec<Component> {
    let mut components = vec![Component {
        name: "qpipe".to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        path: std::env::current_exe().ok(),
        required: true,
        help: String::new(),
    }];
    let found = worker::locate().and_then(|path| {
        let version = worker::version(&path)?;
        Ok((path, version))
    });
    match found {
        Ok((path, version)) => {
            let asked = ask(&path);
            components.push(Component {
                name: worker::NAME.to_owned(),
                version: Some(version),
                path: Some(path),
                required: true,
                help: format!("{}=PATH names another", worker::VARIABLE),
            });
            match asked {
                Ok(asked) => components.extend(asked),
                Err(reason) => components.push(missing("worker's libraries", reason)),
            }
        }
        Err(error) => {
            let help = miette::Diagnostic::help(&error).map(|help| help.to_string());
            let reason = [Some(error.to_string()), help].into_iter().flatten();
            components.push(missing(worker::NAME, reason.collect::<Vec<_>>().join("; ")));
        }
    }
    components
}

fn missing(name: &str, help: String) -> Component {
    Component { name: name.to_owned(), version: None, path: None, required: true, help }
}

fn ask(path: &PathBuf) -> Result<Vec<Component>, String> {
    let mut command = Command::new(path);
    command.arg("doctor");
    let answer = answer::of(command, PATIENCE).map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer.output).map_err(|error| {
        let said = String::from_utf8_lossy(&answer.error);
        format!("{} doctor {}: {error}. {}", path.display(), answer.ending, said.trim())
    })
}

fn text(components: &[Component]) -> String {
    let width = components.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for component in components {
        let mark = match (&component.version, component.required) {
            (Some(_), _) => "ok     ",
            (None, true) => "MISSING",
            (None, false) => "none   ",
        };
        let version = component.version.as_deref().unwrap_or("");
        let place = component.path.as_ref().map(|path| path.display().to_string());
        let line = format!(
            "{mark}  {:width$}  {version:10}  {}",
            component.name,
            place.unwrap_or_default()
        );
        text.push_str(line.trim_end());
        text.push('\n');
        if component.version.is_none() && !component.help.is_empty() {
            text.push_str(&format!("         {}\n", component.help));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let there = Component {
            name: "libtorch".to_owned(),
            version: Some("2.11.0".to_owned()),
            path: Some("/lib/libtorch.so".into()),
            required: true,
            help: "unused".to_owned(),
        };
        let optional = Component {
            name: "GPU".to_owned(),
            version: None,
            path: None,
            required: false,
            help: "optional".to_owned(),
        };
        let absent = missing("worker", "build it".to_owned());
        let shown = text(&[there, optional, absent]);
        let expected = "\
ok       libtorch  2.11.0      /lib/libtorch.so
none     GPU
         optional
MISSING  worker
         build it
";
        assert_eq!(shown, expected);
    }
}
