//! Standard error.

use std::fmt;
use std::io::Write as _;

/// Writes it. What standard error does not take, since its reader is gone or its disk is full, can be told nowhere: the exit code still says it.
pub fn write(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

/// Writes a line.
pub fn line(text: fmt::Arguments) {
    write(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                into.push(path);
            }
        }
    }

    /// The macros panic where standard error cannot be written.
    #[test]
    fn nothing_else_writes_to_standard_error() {
        let mut files = Vec::new();
        sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
        assert!(files.len() > 100);
        let macros =
            ["eprint", "eprintln", "print", "println", "dbg"].map(|name| name.to_owned() + "!(");
        let mut found = Vec::new();
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            // Tests may print.
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let printed = macros.iter().any(|name| {
                    line.match_indices(name.as_str()).any(|(at, _)| {
                        !line[..at].ends_with(|before: char| {
                            before.is_alphanumeric() || ".:_".contains(before)
                        })
                    })
                });
                if printed {
                    found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
