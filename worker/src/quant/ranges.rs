//! `ranges.json`: `amax` of each tensor by each method.
//!
//! Tensors stand in the order of the graph after [`super::prepare::prepare`]; numbers are written with the
//! fewest digits that give them back, so the same calibration gives the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use qpipe::stages::calibrate::{Histogram, Method};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Raised when an older reader would misread the file.
pub const VERSION: u32 = 1;

/// Ranges of a model's tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// [`VERSION`].
    pub version: u32,
    /// Images that were run.
    pub samples: usize,
    /// How histograms were collected.
    pub histogram: Histogram,
    /// Bins of a histogram; of the first batch in mode `pytorch-quantization`.
    pub bins: u32,
    /// What method `percentile` kept, in per cent.
    pub percentile: f64,
    /// Tensors in the order of the graph.
    pub tensors: Vec<Range>,
}

/// Range of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Name of the value in the graph.
    pub tensor: String,
    /// Largest magnitude that was seen.
    pub abs_max: f32,
    /// Where each method clips magnitudes; 0 where nothing but zeros was seen (or, for a percentile, next to nothing).
    pub amax: BTreeMap<Method, f32>,
}

impl Ranges {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that is none; of another version; with a number that is no magnitude.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        let ranges: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::user(format!("{}: not a file of ranges: {error}", path.display()))
                .help("`calibrate` writes one")
        })?;
        if ranges.version != VERSION {
            return Err(Error::user(format!(
                "{}: ranges of version {}, expected {VERSION}",
                path.display(),
                ranges.version
            ))
            .help("calibrate again with this version of qpipe"));
        }
        for range in &ranges.tensors {
            for amax in range.amax.values().chain([&range.abs_max]) {
                if !(amax.is_finite() && *amax >= 0.0) {
                    return Err(Error::user(format!(
                        "{}: tensor \"{}\": {amax} is no magnitude",
                        path.display(),
                        range.tensor
                    )));
                }
            }
        }
        Ok(ranges)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("ranges serialise to JSON");
        bytes.push(b'\n');
        bytes
    }

    /// `amax` by `method` and the largest magnitude of a tensor.
    ///
    /// # Errors
    /// A tensor without a range, a method that was not calibrated.
    pub fn find(&self, tensor: &str, method: Method) -> Result<(f32, f32)> {
        let range = self.tensors.iter().find(|range| range.tensor == tensor).ok_or_else(|| {
            Error::user(format!("the ranges have none of tensor \"{tensor}\""))
                .help("they belong to another model: calibrate the one that is quantized")
        })?;
        let amax = range.amax.get(&method).ok_or_else(|| {
            let known: Vec<&str> = range.amax.keys().map(|method| method.name()).collect();
            Error::user(format!(
                "the ranges have no \"{}\" of tensor \"{tensor}\", only {}",
                method.name(),
                known.join(", ")
            ))
            .help("add it to `methods` of the calibrate stage")
        })?;
        Ok((*amax, range.abs_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        Ranges {
            version: VERSION,
            samples: 3,
            histogram: Histogram::Exact,
            bins: 2048,
            percentile: 99.99,
            tensors: vec![Range {
                tensor: "input".to_owned(),
                abs_max: 0.1 + 0.2,
                amax: BTreeMap::from([(Method::Max, 0.1 + 0.2), (Method::Entropy, 0.25)]),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ranges().to_bytes()).unwrap();
        assert_eq!(Ranges::read(file.path()).unwrap(), ranges());
        let text = String::from_utf8(ranges().to_bytes()).unwrap();
        std::fs::write(file.path(), text.replace("0.25", "-1")).unwrap();
        let error = Ranges::read(file.path()).unwrap_err();
        assert!(error.message.ends_with("tensor \"input\": -1 is no magnitude"), "{error}");
        std::fs::write(file.path(), text.replace("\"version\": 1", "\"version\": 9")).unwrap();
        assert!(Ranges::read(file.path()).unwrap_err().message.contains("version 9, expected 1"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |tensor, method| ranges().find(tensor, method).unwrap_err().message;
        assert_eq!(missing("x", Method::Max), "the ranges have none of tensor \"x\"");
        assert_eq!(
            missing("input", Method::Mse),
            "the ranges have no \"mse\" of tensor \"input\", only max, entropy"
        );
        assert_eq!(ranges().find("input", Method::Entropy).unwrap(), (0.25, 0.1 + 0.2));
    }
}
