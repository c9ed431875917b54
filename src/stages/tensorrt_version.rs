//! A version of TensorRT, as far as it changes a graph.

use std::fmt;
use std::str::FromStr;

use super::contract::Problem;
use super::insert_qdq::Target;

/// Major and minor version of TensorRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorrtVersion {
    major: u32,
    minor: u32,
}

impl TensorrtVersion {
    /// The oldest whose rules are known.
    pub const OLDEST: Self = Self::new(8, 5);
    /// Stands for the newest, also for those to come.
    pub const NEWEST: Self = Self::new(11, u32::MAX);

    /// That version.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl FromStr for TensorrtVersion {
    type Err = String;

    /// `10.3`, also with what follows it: `10.3.0.26`.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected major and minor version, such as \"8.5\", \"10.3\" or \"11.0\", from 8.5 to 11"
                .to_owned()
        };
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match parts.as_deref() {
            Ok(&[major, minor, ..]) => {
                let version = Self::new(major, minor);
                let known = (Self::OLDEST..Self::NEWEST).contains(&version);
                known.then_some(version).ok_or_else(expected)
            }
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for TensorrtVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The version that a key `tensorrt_version` names; the newest where it is not given.
///
/// # Errors
/// What was expected.
pub(super) fn of(key: Option<&str>) -> Result<TensorrtVersion, String> {
    key.map_or(Ok(TensorrtVersion::NEWEST), str::parse)
}

/// What is wrong with a key `tensorrt_version` beside that `target`.
pub(super) fn problems(key: Option<&str>, target: Target) -> Option<Problem> {
    let version = key?;
    if target != Target::Tensorrt {
        let message = "only the rules of TensorRT depend on its version";
        return Some(
            Problem::at("tensorrt_version", message)
                .help("take the key away, or place the pairs for it: target = \"tensorrt\""),
        );
    }
    let expected = of(Some(version)).err()?;
    let message = format!("no TensorRT \"{version}\" is known");
    Some(Problem::at("tensorrt_version", message).help(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_numbers_and_those_out_of_range_are_refused() {
        let parse = |text: &str| text.parse::<TensorrtVersion>();
        assert_eq!(parse("8.5"), Ok(TensorrtVersion::OLDEST));
        assert_eq!(parse("10.3.0.26"), Ok(TensorrtVersion::new(10, 3)));
        assert!(parse("8.6").unwrap() < parse("10.1").unwrap());
        assert!(parse("10.2").unwrap() < parse("10.12").unwrap());
        assert!(parse("11.0").unwrap() < TensorrtVersion::NEWEST);
        for text in ["8.4", "12.0", "10", "newest", "", "10.", "10.x", "-8.5"] {
            assert!(parse(text).unwrap_err().contains("such as \"8.5\""), "{text}");
        }
    }
}
