//! The worker's part of `qpipe model`.

use std::path::Path;

use super::{Difference, Lint, Summary};
use crate::{Error, Result};

/// Does `inspect FILE [--json]`, `diff A B [--json]` or `lint FILE [--target RUNTIME] [--json]`; gives what is to be printed.
///
/// # Errors
/// A file that cannot be read; arguments that say neither.
pub fn run(arguments: &[&str]) -> Result<String> {
    let json = arguments.last() == Some(&"--json");
    let given = &arguments[..arguments.len() - usize::from(json)];
    let text = match given {
        ["inspect", file] => {
            let summary = Summary::read(Path::new(file))?;
            if json { summary.json()? } else { summary.text() }
        }
        ["diff", a, b] => {
            let difference = Difference::read(Path::new(a), Path::new(b))?;
            if json { difference.json()? } else { difference.text() }
        }
        ["lint", file] | ["lint", file, "--target", _] => {
            let lint = Lint::read(Path::new(file), given.get(3).copied())?;
            if json { lint.json()? } else { lint.text() }
        }
        _ => {
            return Err(Error::user(
                "expected `inspect FILE`, `diff FILE FILE` or `lint FILE`, and `--json`",
            )
            .help("qpipe model --help"));
        }
    };
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}
