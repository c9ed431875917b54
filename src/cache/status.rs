//! How much is in a cache.

use super::error::Result;
use super::{Cache, Digest, files};

/// Bytes of the longest name of a file, with room for an ending.
const LONGEST: usize = 200;

/// How much is in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// Records of actions.
    pub actions: usize,
    /// Objects.
    pub objects: usize,
    /// Bytes of all objects.
    pub object_bytes: u64,
    /// Checkpoints of trainings that were killed.
    pub checkpoints: usize,
    /// Bytes of checkpoints, logs, records of runs and scratch folders.
    pub other_bytes: u64,
    /// Pipelines that ran with it.
    pub pipelines: usize,
}

impl Cache {
    /// Counts what is in the cache.
    pub fn status(&self) -> Result<Status> {
        self.journal().refresh()?;
        let count = |name: &str| files::list(&self.place(name)).map(|found| found.len());
        let mut status = Status {
            actions: self.journal().len(),
            checkpoints: count("checkpoints")?,
            pipelines: count("pipelines")?,
            ..Status::default()
        };
        for folder in files::list(&self.place("objects"))? {
            for object in files::list(&folder)? {
                status.objects += 1;
                status.object_bytes += files::size(&object);
            }
        }
        let others = ["checkpoints", "logs", "runs", "scratch"];
        status.other_bytes = others.iter().map(|name| files::size(&self.place(name))).sum();
        Ok(status)
    }
}

/// A name as one part of a path: what would leave the folder is replaced, what would be too long for a
/// file system is cut, and a digest then tells it from other names.
pub fn plain_name(name: &str) -> String {
    let mut plain: String =
        name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    if matches!(name, "" | "." | "..") {
        plain.insert(0, '_');
    }
    if plain == name && plain.len() <= LONGEST {
        return plain;
    }
    // Its digest has 12 digits, and a `~` before them.
    let most = plain.len().min(LONGEST - 13);
    let fits = (0..=most).rev().find(|end| plain.is_char_boundary(*end));
    plain.truncate(fits.unwrap_or(0));
    format!("{plain}~{}", Digest::of(name.as_bytes()).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_not_too_long() {
        assert_eq!(plain_name("a[1,ä]"), "a[1,ä]");
        assert_eq!(plain_name("a[1,../x]"), "a[1,.._x]~17349dfb3d9a");
        assert_eq!(plain_name(".."), "_..~5ec1f7e700f3");
        assert_ne!(plain_name("a[c/d]"), plain_name("a[c_d]"));
        let long = |end: &str| plain_name(&format!("{}{end}", "ä".repeat(150)));
        assert!(long("a").len() <= LONGEST && long("a") != long("b"), "{}", long("a"));
    }
}
