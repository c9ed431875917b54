//! In which files two states of a folder differ.

use serde::{Deserialize, Serialize};

use super::Digest;

/// In which files two states of a folder differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Files with another content.
    pub changed: usize,
    /// Files that are new.
    pub added: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Names of the first of them, each behind `~` (another content), `+` (new) or `-` (gone).
    pub names: Vec<String>,
}

/// How many names are kept.
const NAMES: usize = 10;

impl FileChanges {
    /// Adds the differences of two lists that are sorted by path.
    pub fn compare(&mut self, old: &[(String, Digest)], new: &[(String, Digest)]) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some((before, was)), Some((after, is))) if before == after => {
                    if was != is {
                        self.changed += 1;
                        self.name('~', after);
                    }
                    old.next();
                    new.next();
                }
                (Some((before, _)), after) if after.is_none_or(|(after, _)| before < after) => {
                    self.removed += 1;
                    self.name('-', before);
                    old.next();
                }
                (_, Some((after, _))) => {
                    self.added += 1;
                    self.name('+', after);
                    new.next();
                }
                (Some(_), None) => return,
            }
        }
    }

    /// Adds one file with another content.
    pub fn change(&mut self, name: &str) {
        self.changed += 1;
        self.name('~', name);
    }

    /// Adds those of a folder in this one.
    pub fn extend(&mut self, other: Self) {
        self.changed += other.changed;
        self.added += other.added;
        self.removed += other.removed;
        self.names.extend(other.names);
        self.names.truncate(NAMES);
    }

    fn name(&mut self, mark: char, name: &str) {
        if self.names.len() < NAMES {
            self.names.push(format!("{mark} {name}"));
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        // They may come from a file of others'.
        self.changed.saturating_add(self.added).saturating_add(self.removed)
    }

    /// `2 files changed, 1 added`.
    pub fn counts(&self) -> String {
        let mut text = String::new();
        let parts = [(self.changed, "changed"), (self.added, "added"), (self.removed, "removed")];
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            let noun = match (text.is_empty(), count) {
                (true, 1) => " file",
                (true, _) => " files",
                (false, _) => "",
            };
            let comma = if text.is_empty() { "" } else { ", " };
            text.push_str(&format!("{comma}{count}{noun} {what}"));
        }
        text
    }

    /// The counts and the first names.
    pub fn text(&self) -> String {
        let more = self.count().saturating_sub(self.names.len());
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("{}: {}{more}", self.counts(), self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_walked_to_their_ends() {
        let list = |files: &[(&str, &str)]| -> Vec<(String, Digest)> {
            let digest =
                |(path, text): &(&str, &str)| ((*path).to_owned(), Digest::of(text.as_bytes()));
            files.iter().map(digest).collect()
        };
        let mut changes = FileChanges::default();
        let old = list(&[("a", "1"), ("b", "1"), ("c", "1"), ("z", "1")]);
        let new = list(&[("0", "1"), ("b", "2"), ("c", "1"), ("d", "1")]);
        changes.compare(&old, &new);
        assert_eq!(changes.text(), "1 file changed, 2 added, 2 removed: + 0, - a, ~ b, + d, - z");
        changes.compare(&new, &new);
        assert_eq!(changes.count(), 5);
        let many: Vec<(String, Digest)> =
            (0..12).map(|n| (format!("{n:02}"), Digest::of(b""))).collect();
        let mut changes = FileChanges::default();
        changes.compare(&[], &many);
        assert!(changes.text().starts_with("12 files added: + 00, "));
        assert!(changes.text().ends_with("+ 09, and 2 more"));
        assert_eq!(changes.counts(), "12 files added");
        let json =
            serde_json::json!({ "changed": usize::MAX, "added": 1, "removed": 0, "names": [] });
        let changes: FileChanges = serde_json::from_value(json).unwrap();
        assert!(changes.text().ends_with(" more"));
        let json =
            serde_json::json!({ "changed": 1, "added": 0, "removed": 0, "names": ["~ a", "~ b"] });
        let changes: FileChanges = serde_json::from_value(json).unwrap();
        assert_eq!(changes.text(), "1 file changed: ~ a, ~ b");
    }
}
