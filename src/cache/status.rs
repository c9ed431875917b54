//! How much is in a cache.

use super::error::Result;
use super::{Cache, files};

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

/// A name as one part of a path: what would leave the folder is replaced.
pub fn plain_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    match plain.as_str() {
        "" | "." | ".." => format!("_{plain}"),
        _ => plain,
    }
}
