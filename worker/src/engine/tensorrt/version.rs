//! Versions of TensorRT.

use std::fmt;

/// A version of TensorRT, such as 8.5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 8, 10, 11.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl Version {
    /// The oldest that is driven: `--exportLayerInfo` and Q/DQ graphs work as described here.
    pub const OLDEST: Self = Self::new(8, 5, 0);

    /// A version from its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The version in the banner that trtexec prints first: `&&&& RUNNING TensorRT.trtexec [TensorRT v8503] # trtexec …`,
    /// `[TensorRT v101300] [b24]` since 10. `None`: no such banner, as before 8.0.
    pub fn of_banner(text: &str) -> Option<Self> {
        let line = text.lines().find(|line| line.starts_with("&&&& RUNNING TensorRT.trtexec"))?;
        let rest = line.split_once("[TensorRT v")?.1;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok().map(Self::of_number)
    }

    /// `NV_TENSORRT_VERSION`: thousands up to version 9, ten thousands since 10 (`NvInferRuntimeBase.h`).
    fn of_number(number: u32) -> Self {
        if number < 10_000 {
            Self::new(number / 1000, number / 100 % 10, number % 100)
        } else {
            Self::new(number / 10_000, number / 100 % 100, number % 100)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banners_of_all_majors() {
        let banner =
            |tag: &str| format!("loading\n&&&& RUNNING TensorRT.trtexec {tag} # trtexec --help\n");
        for (tag, version) in [
            ("[TensorRT v8503]", Version::new(8, 5, 3)),
            ("[TensorRT v8601]", Version::new(8, 6, 1)),
            ("[TensorRT v100300]", Version::new(10, 3, 0)),
            ("[TensorRT v101303] [b9]", Version::new(10, 13, 3)),
            ("[TensorRT v110100] [b2]", Version::new(11, 1, 0)),
        ] {
            assert_eq!(Version::of_banner(&banner(tag)), Some(version), "{tag}");
        }
        assert_eq!(Version::of_banner("&&&& RUNNING TensorRT.trtexec # trtexec --help"), None);
        assert!(
            Version::new(8, 4, 3) < Version::OLDEST && Version::OLDEST < Version::new(10, 0, 1)
        );
        assert_eq!(Version::new(10, 13, 3).to_string(), "10.13.3");
    }
}
