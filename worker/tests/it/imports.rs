//! Imports go one way: stages → the work → the model → torch. See `docs/architecture.md`.

use std::path::{Path, PathBuf};

/// Modules of a package with their rank: one may use those of a lower rank only, and itself.
type Ranks = &'static [(&'static str, u8)];

const WORKER: Ranks = &[
    ("error", 0),
    ("graph", 1),
    ("torch", 2),
    ("shapes", 2),
    ("ops", 3),
    ("onnx", 4),
    ("interp", 4),
    ("passes", 5),
    ("zoo", 4),
    ("data", 5),
    ("bench", 4),
    ("detection", 5),
    ("train", 6),
    ("quant", 6),
    ("engine", 7),
    ("analysis", 7),
    ("components", 8),
    ("inspect", 8),
    ("search", 8),
    ("stages", 9),
];

const RUNNER: Ranks = &[
    ("stages", 0),
    ("task", 1),
    ("config", 2),
    ("plan", 3),
    ("cache", 4),
    ("report", 4),
    ("exec", 5),
    ("cli", 6),
    ("fuzzing", 7),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn rank(ranks: Ranks, module: &str) -> Option<u8> {
    ranks.iter().find(|row| row.0 == module).map(|row| row.1)
}

/// Modules named after `crate::` in a source, tests left out.
fn used(ranks: Ranks, text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or(text);
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let text = code.as_str();
    let mut used = Vec::new();
    for part in text.split("crate::").skip(1) {
        let list = match part.strip_prefix('{') {
            Some(inner) => {
                let mut depth = 1;
                let end = inner.find(|c| {
                    depth += match c {
                        '{' => 1,
                        '}' => -1,
                        _ => 0,
                    };
                    depth == 0
                });
                inner[..end.unwrap_or(inner.len())].split(',').collect()
            }
            None => vec![part],
        };
        let word = |item: &str| -> String {
            item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        used.extend(list.into_iter().map(word).filter(|word| rank(ranks, word).is_some()));
    }
    used
}

fn check(root: &Path, ranks: Ranks) {
    let mut files = Vec::new();
    sources(root, &mut files);
    assert!(files.len() > 50);
    let mut edges = 0;
    for file in files {
        let inside = file.strip_prefix(root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if inside.iter().any(|part| part == "tests.rs" || part == "tests") {
            continue;
        }
        let Some(own) = rank(ranks, module) else {
            assert!(["lib", "main"].contains(&module), "{module} has no rank: give it one above");
            continue;
        };
        for other in used(ranks, &std::fs::read_to_string(&file).unwrap()) {
            edges += 1;
            let allowed = other == module || rank(ranks, &other).unwrap() < own;
            assert!(allowed, "{}: `{module}` must not use `{other}`", inside.display());
        }
    }
    assert!(edges > 100, "{edges} imports seen");
}

#[test]
fn imports_of_the_worker_go_downwards() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), WORKER);
}

/// cli → exec → cache → plan → config → stages; the report is made by a stage that the runner does itself.
#[test]
fn imports_of_the_runner_go_downwards() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), RUNNER);
}
