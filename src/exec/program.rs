//! `command` stages: any program.

use std::ffi::OsString;
use std::path::Path;

use super::failure::{ending, failure};
use super::process::{Ended, Launch};
use super::scratch::Scratch;
use super::secrets::Secrets;
use crate::config::{Pipeline, StageCell};
use crate::stages::command::{Command, Run};
use crate::stages::contract::{Metrics, PortType};
use crate::task::{Blame, Failure};

/// How the program is started: in the pipeline file's folder, its inputs and outputs in the
/// environment, and the values of its secrets.
pub fn launch(
    pipeline: &Pipeline,
    cell: &StageCell,
    config: &Command,
    scratch: &Scratch,
    secrets: &Secrets,
) -> Launch {
    let line: Vec<OsString> = match &config.run {
        Run::Shell(text) => vec!["sh".into(), "-c".into(), text.into()],
        Run::Arguments(words) => {
            let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
            // What is meant below the pipeline's folder is not looked for below this process's.
            if let Some(first) = words.first_mut()
                && first.to_string_lossy().contains('/')
            {
                *first = pipeline.folder.join(&*first).into_os_string();
            }
            words
        }
    };
    let mut env: Vec<(String, OsString)> = vec![
        ("QPIPE_OUT".to_owned(), scratch.out().into_os_string()),
        ("QPIPE_SEED".to_owned(), cell.seed.to_string().into()),
        ("TMPDIR".to_owned(), scratch.temporary().into_os_string()),
    ];
    for (port, path) in &scratch.inputs {
        env.push((format!("QPIPE_IN_{}", variable(port)), path.into()));
    }
    for output in cell.stage.outputs() {
        let path = scratch.out().join(&output.file);
        env.push((format!("QPIPE_OUT_{}", variable(&output.port)), path.into()));
    }
    env.extend(config.env.iter().map(|(name, value)| (name.clone(), secrets.put_in(value))));
    Launch { line, env, folder: pipeline.folder.clone() }
}

/// A port's name in a variable's: capitals, all else than letters and digits as `_`.
pub(super) fn variable(port: &str) -> String {
    port.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect()
}

/// What came of it.
pub fn outcome(config: &Command, ended: &Ended) -> Result<(), Failure> {
    if ended.status.success() {
        return Ok(());
    }
    let line = match &config.run {
        Run::Shell(text) => text.clone(),
        Run::Arguments(words) => words.join(" "),
    };
    let mut first =
        line.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    if first.len() < line.trim().len() {
        first.push_str(" …");
    }
    Err(failure(Blame::User, format!("`{first}` {}", ending(ended.status)), None))
}

/// A program that could not be started.
pub fn not_started(launch: &Launch, error: &std::io::Error) -> Failure {
    let program = Path::new(&launch.line[0]).display().to_string();
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => "install it, or correct its name in `run`",
        std::io::ErrorKind::PermissionDenied => "make the file executable: chmod +x",
        _ => "start it by hand to see what is wrong",
    };
    failure(Blame::User, format!("`{program}` cannot be started: {error}"), Some(help))
}

/// The figures in its outputs of type metrics.
pub fn metrics(cell: &StageCell, scratch: &Scratch) -> Result<Metrics, Failure> {
    let mut metrics = Metrics::new();
    for output in cell.stage.outputs().iter().filter(|output| output.kind == PortType::Metrics) {
        let text = std::fs::read(scratch.out().join(&output.file)).unwrap_or_default();
        let read: Metrics = serde_json::from_slice(&text).map_err(|error| {
            let message = format!(
                "output `{}` ({}) is no JSON object of figures: {error}",
                output.port, output.file
            );
            let help = "a file of type metrics holds one object, such as {\"top1\": 0.91}";
            failure(Blame::User, message, Some(help))
        })?;
        metrics.extend(read);
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_become_variables() {
        assert_eq!(variable("my-model.v2"), "MY_MODEL_V2");
    }
}
