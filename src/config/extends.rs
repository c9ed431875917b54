//! `extends = "base.toml"`: a file that is put over others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::merge::merge;
use super::mistakes::{Mistake, Sources};
use super::parse;
use super::tree::{Node, Place, Table, Value};

/// The key of a file's first level.
pub(super) const KEY: &str = "extends";

/// Longer files are not read, bytes: a device has no end.
const LONGEST: u64 = 64 << 20;

/// The text of a file. Lines end as here: a command of several lines, in a file that was saved on Windows, has no carriage return at the end of
/// each (TOML leaves it to the reader).
///
/// # Errors
///
/// Why it cannot be read.
pub(super) fn text(path: &Path, name: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {name}: {error}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{name} has more than {} MiB: it is no pipeline file", LONGEST >> 20));
    }
    let text = String::from_utf8(bytes);
    text.map(|text| if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }).map_err(
        |error| {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
            format!("{name} is not UTF-8 text (line {line}, byte {good}): save it as UTF-8")
        },
    )
}

/// The tree of the file whose text is source 0, put over those that it extends.
///
/// # Errors
///
/// Mistakes of syntax in any of the files, files that are missing or extend themselves.
pub(super) fn document(
    file: &Path,
    text: &str,
    sources: &mut Sources,
) -> Result<Table, Vec<Mistake>> {
    let mut reader =
        Reader { sources, open: Vec::new(), read: BTreeMap::new(), mistakes: Vec::new() };
    let root = reader.file(identity(file), 0, text);
    if reader.mistakes.is_empty() { Ok(root) } else { Err(reader.mistakes) }
}

/// The path by which a file is known again.
fn identity(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

struct Reader<'s> {
    sources: &'s mut Sources,
    /// The files that are being read, each extending the next, with their sources.
    open: Vec<(PathBuf, usize)>,
    /// Files that were read.
    read: BTreeMap<PathBuf, Table>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn file(&mut self, identity: PathBuf, source: usize, text: &str) -> Table {
        let mut own = match parse::document(text, source) {
            Ok(table) => table,
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                return Table::default();
            }
        };
        let at = own.entries.iter().position(|entry| entry.key == KEY);
        let Some(node) = at.map(|at| own.entries.remove(at).node) else { return own };
        self.open.push((identity, source));
        let mut merged = Table::default();
        for (path, place) in self.paths(&node) {
            merge(&mut merged, self.base(&path, place).unwrap_or_default());
        }
        self.open.pop();
        merge(&mut merged, own);
        merged
    }

    /// The paths that stand behind `extends`.
    fn paths(&mut self, node: &Node) -> Vec<(String, Place)> {
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut paths = Vec::new();
        for node in nodes {
            match &node.value {
                Value::Text(path) if path.contains("${") => {
                    let message = "the path of a file that is extended is not interpolated";
                    let label = "`${…}` is not possible here";
                    self.mistakes.push(
                        Mistake::new("interpolation", node.place, message, label)
                            .help("parameters may come from that file: write the path out"),
                    );
                }
                Value::Text(path) => paths.push((path.clone(), node.place)),
                _ => {
                    let message = format!("`{KEY}` is {}", node.kind());
                    let label = "expected a path or an array of paths";
                    self.mistakes.push(
                        Mistake::new("wrong-type", node.place, message, label)
                            .help("write extends = \"base.toml\""),
                    );
                }
            }
        }
        paths
    }

    /// The tree of a file that is named at `place`.
    fn base(&mut self, path: &str, place: Place) -> Option<Table> {
        let file = self.sources.folder(place.source).join(path);
        let identity = identity(&file);
        if let Some(at) = self.open.iter().position(|(open, _)| *open == identity) {
            let chain = self.open[at..].iter().map(|(_, source)| *source);
            let chain = chain.chain([self.open[at].1]).map(|source| self.sources.name(source));
            let chain: Vec<String> = chain.map(|name| format!("`{name}`")).collect();
            let message = format!("files extend each other: {}", chain.join(" → "));
            self.mistakes.push(
                Mistake::new("cycle", place, message, "this file is being read already")
                    .help("a file can only extend one that does not need it: break the circle"),
            );
            return None;
        }
        if let Some(table) = self.read.get(&identity) {
            return Some(table.clone());
        }
        let beside = Path::new(self.sources.name(place.source)).parent().unwrap_or(Path::new(""));
        let name = beside.join(path).display().to_string();
        match text(&file, &name) {
            Ok(text) => {
                let source = self.sources.add(&name, &text, Some(&file));
                let table = self.file(identity.clone(), source, &text);
                self.read.insert(identity, table.clone());
                Some(table)
            }
            Err(message) => {
                let help = format!("looked for {}", file.display());
                self.mistakes.push(
                    Mistake::new("missing-file", place, message, "the file to extend").help(help),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_given_up() {
        let error = text(Path::new("/dev/zero"), "base.toml").unwrap_err();
        assert_eq!(error, "base.toml has more than 64 MiB: it is no pipeline file");
    }
}
