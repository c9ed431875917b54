//! Runs by name: an id, the beginning of one, `last`, `last~2`.

use super::history::RunRecord;

/// No run has that name, or several have.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{message}")]
#[diagnostic(code(qpipe::run::unknown_run))]
pub struct UnknownRun {
    /// What was asked for.
    message: String,
    /// What to do about it.
    #[help]
    help: String,
}

/// The run of that name among `runs`, newest first.
///
/// # Errors
///
/// [`UnknownRun`]: none, or more than one.
pub fn find_run<'r>(runs: &'r [RunRecord], name: &str) -> Result<&'r RunRecord, UnknownRun> {
    let unknown = |message: String, help: &str| UnknownRun { message, help: help.to_owned() };
    const LIST: &str = "`qpipe log FILE` lists the runs";
    if let Some(back) = name.strip_prefix("last") {
        let back = match back.strip_prefix('~') {
            Some(number) => number.parse().ok(),
            None => back.is_empty().then_some(0),
        };
        if let Some(back) = back {
            let count = runs.len();
            return runs.get::<usize>(back).ok_or_else(|| {
                unknown(format!("there is no run `{name}`: the cache remembers {count}"), LIST)
            });
        }
    }
    let mut found = runs.iter().filter(|run| run.id.starts_with(name));
    match (found.next(), found.next()) {
        _ if name.is_empty() => Err(unknown("a run's name is empty".to_owned(), LIST)),
        (Some(run), None) => Ok(run),
        (Some(one), Some(other)) => match runs.iter().find(|run| run.id == name) {
            Some(run) => Ok(run),
            None => Err(unknown(
                format!("several runs begin with `{name}`, such as {} and {}", one.id, other.id),
                "write more of the id",
            )),
        },
        (None, _) => Err(unknown(format!("no run of this pipeline is named `{name}`"), LIST)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_run_is_named_by_its_id_a_prefix_or_its_age() {
        let run = |id: &str| RunRecord {
            id: id.to_owned(),
            pipeline: "p".to_owned(),
            file: "/p.toml".into(),
            command: Vec::new(),
            arguments: Vec::new(),
            commit: None,
            started: String::new(),
            seconds: 0.0,
            host: String::new(),
            version: String::new(),
            stages: BTreeMap::new(),
            skipped: BTreeMap::new(),
            left: 0,
        };
        let runs = [run("20250102-1-12"), run("20250102-1-1"), run("20250101-1-7")];
        let find = |name: &str| find_run(&runs, name).map(|run| run.id.clone());
        assert_eq!(find("last").unwrap(), "20250102-1-12");
        assert_eq!(find("last~2").unwrap(), "20250101-1-7");
        assert_eq!(find("20250101").unwrap(), "20250101-1-7");
        assert_eq!(
            find("20250102-1-1").unwrap(),
            "20250102-1-1",
            "whole, though another begins so"
        );
        let error = |name: &str| find(name).unwrap_err().to_string();
        assert_eq!(error("last~3"), "there is no run `last~3`: the cache remembers 3");
        assert_eq!(error("x"), "no run of this pipeline is named `x`");
        assert_eq!(
            error("20250102"),
            "several runs begin with `20250102`, such as 20250102-1-12 and 20250102-1-1"
        );
        assert!(find("").is_err());
    }
}
