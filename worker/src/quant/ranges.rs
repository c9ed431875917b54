//! `ranges.json`: `amax` of each tensor by each method.
//!
//! `calibrate` writes it; one that another program made (of [`Method::Custom`], say) is as good: only `version`, and
//! `tensor` and `amax` of each tensor, must be there. `docs/ranges.md` describes the form.
//!
//! Tensors stand in the order of the graph after [`super::prepare::prepare`]; numbers are written with the
//! fewest digits that give them back, so the same calibration gives the same bytes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use qpipe::stages::calibrate::{Histogram, Method};
use serde::{Deserialize, Serialize};

use super::scheme::Seen;
use crate::{Error, Result};

/// Raised when an older reader would misread the file.
pub const VERSION: u32 = 2;

/// Ranges of a model's tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// [`VERSION`].
    pub version: u32,
    /// How they were measured; not there in a file of the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Tensors in the order of the graph.
    pub tensors: Vec<Range>,
}

/// How ranges were measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Images that were run.
    pub samples: usize,
    /// How histograms were collected.
    pub histogram: Histogram,
    /// Bins of a histogram; of the first batch in mode `pytorch-quantization`.
    pub bins: u32,
    /// What method `percentile` kept, in per cent.
    pub percentile: f64,
}

/// Range of a tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Name of the value in the graph.
    pub tensor: String,
    /// Least value that was seen, with its sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f32>,
    /// Greatest value that was seen, with its sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f32>,
    /// Where each method clips magnitudes; 0 where nothing but zeros was seen (or, for a percentile, next to nothing).
    pub amax: BTreeMap<Method, f32>,
    /// With method `best`: the error that each method makes at the tensor's readers ([`super::best`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<BTreeMap<Method, f64>>,
}

impl Range {
    /// The largest magnitude that was seen, or that a method clips at where the file does not say what was seen.
    pub fn abs_max(&self) -> f32 {
        let seen = [self.min, self.max].into_iter().flatten().map(f32::abs).reduce(f32::max);
        seen.unwrap_or_else(|| self.amax.values().copied().fold(0.0, f32::max))
    }

    /// Whether each image gave the same value everywhere.
    pub fn is_constant(&self) -> bool {
        self.min.is_some() && self.min == self.max
    }

    /// How many times as far the farthest-reaching method reaches as the least; 1 where there is only one, or where one is 0.
    pub fn disagreement(&self) -> f32 {
        let amax = self.amax.values().copied();
        let (least, most) = amax.fold((f32::INFINITY, 0.0_f32), |(a, b), v| (a.min(v), b.max(v)));
        if least > 0.0 && most.is_finite() { (most / least).max(1.0) } else { 1.0 }
    }

    fn check(&self) -> Result<()> {
        for amax in self.amax.values() {
            if !(amax.is_finite() && *amax >= 0.0) {
                return Err(Error::user(format!("{amax} is no magnitude")));
            }
        }
        if let Some(bad) = [self.min, self.max].into_iter().flatten().find(|v| !v.is_finite()) {
            return Err(Error::user(format!("{bad} is no finite number")));
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(Error::user(format!("`min` {min} is above `max` {max}")));
        }
        Ok(())
    }
}

impl Ranges {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that is none; of another version; with a number that is no magnitude; with a tensor twice.
    pub fn read(path: &Path) -> Result<Self> {
        /// What all versions have.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let help = "`calibrate` writes one; docs/ranges.md describes it";
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        let bad = |error: serde_json::Error| {
            let near = tensor_before(&bytes, &error)
                .map_or(String::new(), |tensor| format!(", behind \"tensor\": {tensor:?}"));
            let message = format!("{}: not a file of ranges: {error}{near}", path.display());
            Error::user(message).help(help)
        };
        let found: Versioned = serde_json::from_slice(&bytes).map_err(bad)?;
        if found.version != VERSION {
            return Err(Error::user(format!(
                "{}: ranges of version {}, expected {VERSION}",
                path.display(),
                found.version
            ))
            .help(
                "calibrate again with this version of qpipe; docs/ranges.md describes the form",
            ));
        }
        let ranges: Self = serde_json::from_slice(&bytes).map_err(bad)?;
        let mut seen = HashSet::new();
        for range in &ranges.tensors {
            let known = !seen.insert(range.tensor.as_str());
            let checked =
                if known { Err(Error::user("it stands there twice")) } else { range.check() };
            checked.map_err(|error| {
                error.at(format!("{}: tensor \"{}\"", path.display(), range.tensor))
            })?;
        }
        Ok(ranges)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("ranges serialise to JSON");
        bytes.push(b'\n');
        bytes
    }

    /// What is known of a tensor's values: `amax` by `method`, the largest magnitude, the least and the greatest value.
    ///
    /// # Errors
    /// A tensor without a range, a method that was not calibrated.
    pub fn seen(&self, tensor: &str, method: Method) -> Result<Seen> {
        let range = self.tensors.iter().find(|range| range.tensor == tensor).ok_or_else(|| {
            Error::user(format!("the ranges have none of tensor \"{tensor}\""))
                .key("ranges")
                .help("they belong to another model, or their maker left it out: calibrate the model that is quantized")
        })?;
        let amax = range.amax.get(&method).ok_or_else(|| {
            let known: Vec<&str> = range.amax.keys().map(|method| method.name()).collect();
            let known = if known.is_empty() { vec!["none"] } else { known };
            Error::user(format!(
                "the ranges have no \"{}\" of tensor \"{tensor}\", only {}",
                method.name(),
                known.join(", ")
            ))
            .key("method")
            .help(match (method, &self.calibration) {
                (Method::Custom, Some(_)) => "a program of your own computes it from these ranges (docs/ranges.md); or take another `method`",
                (_, Some(_)) => "add it to `methods` of the calibrate stage, or take another `method`",
                (_, None) => "add it to `amax` of that tensor in the file, or take another `method`",
            })
        })?;
        Ok(Seen { amax: *amax, abs_max: range.abs_max(), bounds: range.min.zip(range.max) })
    }
}

/// The tensor that a file names last before the place of an error.
fn tensor_before(bytes: &[u8], error: &serde_json::Error) -> Option<String> {
    const NAME: &str = "\"tensor\"";
    let text = std::str::from_utf8(bytes).ok()?;
    let before: usize =
        text.split_inclusive('\n').take(error.line().checked_sub(1)?).map(str::len).sum();
    let place = text.len().min(before + error.column());
    let name =
        text.as_bytes()[..place].windows(NAME.len()).rposition(|part| part == NAME.as_bytes())?;
    let rest = text[name + NAME.len()..].trim_start().strip_prefix(':')?;
    serde_json::Deserializer::from_str(rest).into_iter().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        Ranges {
            version: VERSION,
            calibration: Some(Calibration {
                samples: 3,
                histogram: Histogram::Exact,
                bins: 2048,
                percentile: 99.99,
            }),
            tensors: vec![Range {
                tensor: "input".to_owned(),
                min: Some(-0.1),
                max: Some(0.1 + 0.2),
                amax: BTreeMap::from([(Method::Max, 0.1 + 0.2), (Method::Entropy, 0.25)]),
                error: None,
            }],
        }
    }

    fn read(text: &str) -> Result<Ranges> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Ranges::read(file.path())
    }

    #[test]
    fn what_is_written_is_read() {
        let text = String::from_utf8(ranges().to_bytes()).unwrap();
        assert_eq!(read(&text).unwrap(), ranges());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_tensor() {
        let text = String::from_utf8(ranges().to_bytes()).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            read(&text.replace(from, to)).unwrap_err().message
        };
        let tensor = |from, to, end: &str| {
            let message = refused(from, to);
            assert!(message.ends_with(&format!("tensor \"input\": {end}")), "{message}");
        };
        tensor("0.25", "-1", "-1 is no magnitude");
        tensor("-0.1", "7", "`min` 7 is above `max` 0.3");
        // JSON has no NaN and no infinity: the line is named.
        for (value, reason) in [("NaN", "expected value"), ("1e39", "number out of range")] {
            let message = refused("0.25", value);
            assert!(message.contains(&format!("{reason} at line ")), "{message}");
            assert!(message.ends_with(", behind \"tensor\": \"input\""), "{message}");
        }
        assert!(refused("\"version\": 2", "\"version\": 9").contains("version 9, expected 2"));
        assert!(refused("entropy", "entropi").contains("unknown variant `entropi`"));
        let double = "{\"version\": 2, \"tensors\": [{\"tensor\": \"a\", \"amax\": {}}, {\"tensor\": \"a\", \"amax\": {}}]}";
        assert!(read(double).unwrap_err().message.ends_with("tensor \"a\": it stands there twice"));
    }

    #[test]
    fn a_file_of_the_users_needs_little() {
        let text =
            "{\"version\": 2, \"tensors\": [{\"tensor\": \"a\", \"amax\": {\"custom\": 2.5}}]}";
        let ranges = read(text).unwrap();
        let seen = Seen { amax: 2.5, abs_max: 2.5, bounds: None };
        assert_eq!(ranges.seen("a", Method::Custom).unwrap(), seen);
        assert!(!ranges.tensors[0].is_constant());
    }

    #[test]
    fn methods_disagree_by_the_factor_between_their_amax() {
        let range = |amax: [f32; 2]| Range {
            amax: Method::ALL.into_iter().zip(amax).collect(),
            ..Range::default()
        };
        assert_eq!(range([4.0, 1.0]).disagreement(), 4.0);
        assert_eq!(range([0.0, 1.0]).disagreement(), 1.0);
        assert_eq!(Range::default().disagreement(), 1.0);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |tensor, method| ranges().seen(tensor, method).unwrap_err().message;
        assert_eq!(missing("x", Method::Max), "the ranges have none of tensor \"x\"");
        assert_eq!(
            missing("input", Method::Mse),
            "the ranges have no \"mse\" of tensor \"input\", only max, entropy"
        );
        let seen = Seen { amax: 0.25, abs_max: 0.1 + 0.2, bounds: Some((-0.1, 0.1 + 0.2)) };
        assert_eq!(ranges().seen("input", Method::Entropy).unwrap(), seen);
    }
}
