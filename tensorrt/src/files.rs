//! The JSON files of trtexec: times of queries and values of outputs.

use std::fmt::Write as _;

use serde::Serialize;

/// Times of a query, milliseconds, as `--exportTimes` writes them. Instants count from the first query's begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// When the copies of inputs to the GPU began.
    #[serde(rename = "startH2dMs")]
    pub start: f64,
    /// How long they took.
    pub h2d_ms: f64,
    /// How long the engine's kernels took.
    pub compute_ms: f64,
    /// How long the copies of outputs from the GPU took.
    pub d2h_ms: f64,
    /// All three.
    pub latency_ms: f64,
}

/// The file of `--exportTimes`.
pub fn times(queries: &[Query]) -> String {
    serde_json::to_string_pretty(queries).expect("numbers alone")
}

/// An output of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub values: Vec<f32>,
}

/// The file of `--exportOutput`. What is no number stands there as C++ prints it: `nan`, `inf`, `-inf`.
pub fn outputs(outputs: &[Output]) -> String {
    let mut text = String::from("[\n");
    for (index, output) in outputs.iter().enumerate() {
        let extents: Vec<String> = output.shape.iter().map(usize::to_string).collect();
        let name = serde_json::to_string(&output.name).expect("a string");
        let first = if index == 0 { " " } else { "," };
        let _ = write!(
            text,
            " {first}{{ \"name\" : {name}\n  , \"dimensions\" : \"{}\"\n  , \"values\" : [ ",
            extents.join("x")
        );
        for (index, value) in output.values.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Shortest digits that give the same float again.
            let _ = match value {
                value if value.is_nan() => write!(text, "{comma}nan"),
                value => write!(text, "{comma}{value:?}"),
            };
        }
        text.push_str(" ]\n  }\n");
    }
    text.push_str("]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_names_of_trtexec() {
        let query =
            Query { start: 0.0, h2d_ms: 0.25, compute_ms: 1.5, d2h_ms: 0.5, latency_ms: 2.25 };
        let read: serde_json::Value = serde_json::from_str(&times(&[query])).unwrap();
        let expected = serde_json::json!([{ "startH2dMs": 0.0, "h2dMs": 0.25, "computeMs": 1.5, "d2hMs": 0.5, "latencyMs": 2.25 }]);
        assert_eq!(read, expected);
    }

    #[test]
    fn outputs_are_written_as_trtexec_does() {
        let output = |name: &str, values: &[f32]| Output {
            name: name.to_owned(),
            shape: vec![1, values.len()],
            values: values.to_vec(),
        };
        let all = [
            output("y", &[0.5, -1.0, 2e-5]),
            output("z\"", &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ];
        assert_eq!(
            outputs(&all),
            "[\n  { \"name\" : \"y\"\n  , \"dimensions\" : \"1x3\"\n  , \"values\" : [ 0.5, -1.0, 2e-5 ]\n  }\n \
             ,{ \"name\" : \"z\\\"\"\n  , \"dimensions\" : \"1x3\"\n  , \"values\" : [ nan, inf, -inf ]\n  }\n]\n"
        );
    }
}
