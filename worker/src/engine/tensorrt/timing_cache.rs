//! The timing cache, shared by all builds for one GPU with one version of TensorRT on this machine.
//!
//! A build works on a copy and the copy is published whole, so that one that is killed leaves none that is cut off. Two builds at
//! a time lose what the first measured, no more. A cache that TensorRT refuses, or that a build fails of, is removed and a note left in its
//! place, since the next build would fare alike.

use std::path::{Path, PathBuf};

use super::{Gpu, Version};
use crate::{Error, Result};

/// The shared cache of a GPU and a version.
#[derive(Debug)]
pub struct TimingCache {
    file: PathBuf,
    /// Why it is not used, where that was found out.
    refused: PathBuf,
}

impl TimingCache {
    /// The cache in `$XDG_CACHE_HOME/qpipe/tensorrt`, in `~/.cache` where that is not set; `None` where there is no home either.
    pub fn of(version: Version, gpu: &Gpu) -> Option<Self> {
        let set =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(Self::within(&folder.join("qpipe/tensorrt"), version, gpu))
    }

    fn within(folder: &Path, version: Version, gpu: &Gpu) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = format!("{}-{}", gpu.model(), gpu.branch()).chars().map(plain).collect();
        let file = folder.join(format!("timing-{version}-{name}.cache"));
        Self { refused: file.with_extension("cache-refused"), file }
    }

    /// Why it is not to be used, from an earlier build.
    pub fn refusal(&self) -> Option<String> {
        std::fs::read_to_string(&self.refused).ok().map(|text| text.trim().to_owned())
    }

    /// Where a note of the refusal lies; whoever removes it has the cache tried again.
    pub fn note(&self) -> &Path {
        &self.refused
    }

    /// Whether anything was measured yet.
    pub fn is_there(&self) -> bool {
        self.file.is_file()
    }

    /// Copies it to `place`; whether there was one.
    ///
    /// # Errors
    /// A place that cannot be written.
    pub fn copy_to(&self, place: &Path) -> Result<bool> {
        if !self.is_there() {
            return Ok(false);
        }
        std::fs::copy(&self.file, place).map_err(|error| Error::io(place, &error))?;
        Ok(true)
    }

    /// Publishes what a build left at `place`; that it cannot be written is no build's fault.
    pub fn publish(&self, place: &Path) {
        let publish = || -> Option<()> {
            let folder = self.file.parent()?;
            std::fs::create_dir_all(folder).ok()?;
            let made = tempfile::NamedTempFile::new_in(folder).ok()?;
            std::fs::copy(place, made.path()).ok()?;
            made.persist(&self.file).ok().map(drop)
        };
        let _ = publish();
    }

    /// Removes it and notes why.
    pub fn refuse(&self, reason: &str) {
        let _ = std::fs::remove_file(&self.file);
        if let Some(folder) = self.refused.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = std::fs::write(&self.refused, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_belongs_to_a_card_a_driver_and_a_version() {
        let folder = tempfile::tempdir().unwrap();
        let gpu = |name: &str, driver: &str| Gpu {
            name: name.to_owned(),
            mig: None,
            compute_capability: None,
            driver: driver.to_owned(),
            id: String::new(),
        };
        let of = |version, gpu: &Gpu| TimingCache::within(folder.path(), version, gpu);
        let cache = of(Version::new(8, 5, 3), &gpu("NVIDIA H100", "550.54"));
        let built = folder.path().join("built");
        assert!(!cache.copy_to(&built).unwrap());
        std::fs::write(&built, "times").unwrap();
        cache.publish(&built);
        let place = folder.path().join("place");
        assert!(of(Version::new(8, 5, 3), &gpu("NVIDIA H100", "550.90")).copy_to(&place).unwrap());
        for (version, gpu) in [
            (Version::new(8, 6, 1), gpu("NVIDIA H100", "550.54")),
            (Version::new(8, 5, 3), gpu("NVIDIA A100", "550.54")),
            (Version::new(8, 5, 3), gpu("NVIDIA H100", "535.54")),
            (
                Version::new(8, 5, 3),
                Gpu { mig: Some("3g.40gb".to_owned()), ..gpu("NVIDIA H100", "550.54") },
            ),
        ] {
            assert!(!of(version, &gpu).copy_to(&place).unwrap());
        }
        assert_eq!(cache.refusal(), None);
        cache.refuse("it aborted");
        assert!(!cache.copy_to(&place).unwrap());
        assert_eq!(cache.refusal().as_deref(), Some("it aborted"));
    }
}
