//! What is where in a remote.

use object_store::path::Path;

use crate::cache::Digest;

/// First part of all paths; raised with any change of the layout.
const VERSION: &str = "v1";

/// How an object's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// One frame of Zstandard.
    Zstd,
}

/// Smaller objects are stored as they are: a frame saves less than a second name to look for costs.
pub(super) const SMALL: u64 = 512;

impl Encoding {
    /// The encodings that an object of that size may have, the likelier first.
    pub(super) fn possible(bytes: u64) -> &'static [Self] {
        if bytes < SMALL { &[Self::Plain] } else { &[Self::Zstd, Self::Plain] }
    }

    /// End of the object's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Zstd => ".zst",
        }
    }

    /// Most bytes that the stored form of `bytes` may have.
    pub(super) fn most(self, bytes: u64) -> u64 {
        match self {
            Self::Plain => bytes,
            // ZSTD_COMPRESSBOUND is below this for all sizes.
            Self::Zstd => bytes.saturating_add(bytes / 128).saturating_add(1024),
        }
    }
}

/// Where the record of a key is, below the remote's prefix.
pub(super) fn record(prefix: &Path, key: &Digest) -> Path {
    let name = format!("{key}.json");
    [VERSION, "actions", &name].iter().fold(prefix.clone(), |path, part| path.join(*part))
}

/// Where an object is, below the remote's prefix.
pub(super) fn object(prefix: &Path, digest: &Digest, encoding: Encoding) -> Path {
    let hex = digest.hex();
    let name = format!("{hex}{}", encoding.suffix());
    [VERSION, "objects", &hex[..2], &name]
        .iter()
        .fold(prefix.clone(), |path, part| path.join(*part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, remotes of other versions are no longer read: raise [`VERSION`].
    #[test]
    fn the_layout_is_pinned() {
        let prefix = Path::from("team/cache");
        let digest = Digest::of(b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(record(&prefix, &digest).as_ref(), format!("team/cache/v1/actions/{hex}.json"));
        assert_eq!(
            object(&prefix, &digest, Encoding::Zstd).as_ref(),
            format!("team/cache/v1/objects/e3/{hex}.zst")
        );
        assert_eq!(
            object(&Path::default(), &digest, Encoding::Plain).as_ref(),
            format!("v1/objects/e3/{hex}")
        );
    }
}
