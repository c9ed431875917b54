//! `[profiles.NAME]`: tables that are put over the file's where `--profile NAME` asks for them.

use super::extends;
use super::merge::merge;
use super::mistakes::{Mistake, Sources};
use super::suggest::{did_you_mean, list};
use super::tree::{Place, Table, Value};

/// The key of a file's first level.
pub(super) const KEY: &str = "profiles";

/// Takes the profiles out of the tree, and puts those that were chosen over it, in order. What the
/// others hold is not looked at: the file may not fit them now.
pub(super) fn apply(
    root: &mut Table,
    chosen: &[String],
    sources: &mut Sources,
    mistakes: &mut Vec<Mistake>,
) {
    let at = root.entries.iter().position(|entry| entry.key == KEY);
    let profiles = match at.map(|at| root.entries.remove(at).node) {
        None => Table::default(),
        Some(node) => match node.value {
            Value::Table(table) => table,
            _ => {
                let message = format!("`{KEY}` is {}", node.kind());
                let mistake = Mistake::new("wrong-type", node.place, message, "expected a table");
                mistakes.push(mistake.help("write tables such as [profiles.ci.params]"));
                return;
            }
        },
    };
    for entry in &profiles.entries {
        super::stage::is_name("profile", &entry.key, entry.place, mistakes);
        let Some(profile) = entry.node.table() else {
            let message = format!("profile `{}` is {}", entry.key, entry.node.kind());
            mistakes.push(
                Mistake::new("wrong-type", entry.node.place, message, "expected a table")
                    .help(format!("write tables such as [profiles.{}.params]", entry.key)),
            );
            continue;
        };
        for key in [KEY, extends::KEY] {
            if let Some(inner) = profile.get(key) {
                let message = format!("a profile cannot have `{key}`");
                mistakes.push(
                    Mistake::new("unknown-key", inner.place, message, "not possible here")
                        .help("a profile holds tables of the file, such as `params` and `stages`"),
                );
            }
        }
    }
    for name in chosen {
        if let Some(entry) = profiles.get(name) {
            if let Some(profile) = entry.node.table() {
                let known = |key: &str| key != KEY && key != extends::KEY;
                let entries = profile.entries.iter().filter(|entry| known(&entry.key));
                merge(root, Table { entries: entries.cloned().collect() });
            }
            continue;
        }
        let source = sources.add("--profile", name, None);
        let place = Place { source, start: 0, end: name.len() };
        let label = did_you_mean(name, profiles.keys(), "not in the file");
        let help = match profiles.entries.len() {
            0 => format!("the file has none: write tables such as [profiles.{name}.params]"),
            _ => format!("the profiles are {}", list(profiles.keys(), "and")),
        };
        let message = format!("unknown profile `{name}`");
        mistakes.push(Mistake::new("unknown-profile", place, message, label).help(help));
    }
}
