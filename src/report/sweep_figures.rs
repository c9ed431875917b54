//! The figures of a stage that points of a sweep are compared by.

use serde::Serialize;
use serde_json::Value;

use super::figures::Figures;
use super::number;
use crate::stages::contract::Metrics;

/// Which values of a figure are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// High ones, as of accuracy.
    Higher,
    /// Low ones, as of latency.
    Lower,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Six significant digits.
    Plain,
    /// 0…1, as per cent.
    Percent,
    Milliseconds,
    /// A second.
    Rate,
}

/// A figure by name.
pub(super) struct Figure {
    pub name: String,
    pub value: f64,
    pub better: Option<Better>,
    pub form: Form,
}

/// The figures of a stage: of an evaluation its loss and accuracy, of a benchmark median latency and
/// throughput of each batch size, of others all numbers, nested ones with dots in their names.
pub(super) fn figures(metrics: &Metrics) -> Vec<Figure> {
    let mut found = Vec::new();
    match Figures::read(metrics) {
        Ok(Figures::Benchmark(benchmark)) => {
            for timed in &benchmark.batches {
                let latency = (timed.latency_ms.median, Better::Lower, Form::Milliseconds);
                let rate = (timed.throughput, Better::Higher, Form::Rate);
                for (what, (value, better, form)) in [("median ms", latency), ("img/s", rate)] {
                    let name = format!("batch {} {what}", timed.batch);
                    found.push(Figure { name, value, better: Some(better), form });
                }
            }
        }
        Ok(Figures::Evaluation(evaluation)) => {
            let accuracy = evaluation.accuracy;
            for (name, value, form) in [
                ("loss", accuracy.loss, Form::Plain),
                ("top1", Some(accuracy.top1), Form::Percent),
                ("top5", Some(accuracy.top5), Form::Percent),
            ] {
                let (Some(value), better) = (value, better(name)) else { continue };
                found.push(Figure { name: name.to_owned(), value, better, form });
            }
        }
        Ok(Figures::Detection(detection)) => {
            let boxes = detection.boxes;
            for (name, value) in [("f1", boxes.f1), ("map50", boxes.map50), ("map", boxes.map)] {
                let better = better(name);
                found.push(Figure { name: name.to_owned(), value, better, form: Form::Percent });
            }
        }
        // Figures that are not complete are told of by reports.
        Ok(Figures::Other(_)) | Err(_) => {
            for (name, value) in metrics {
                flatten(name, value, &mut found);
            }
        }
    }
    found
}

fn flatten(name: &str, value: &Value, found: &mut Vec<Figure>) {
    if let Some(object) = value.as_object() {
        for (key, value) in object {
            flatten(&format!("{name}.{key}"), value, found);
        }
    } else if let Some(value) = value.as_f64() {
        let name = name.to_owned();
        let better = better(&name);
        found.push(Figure { name, value, better, form: Form::Plain });
    }
}

/// Words of names by which it is known which values are better.
const WORDS: [(Better, &[&str]); 2] = [
    (
        Better::Higher,
        &[
            "top1",
            "top5",
            "accuracy",
            "acc",
            "throughput",
            "sqnr",
            "psnr",
            "snr",
            "f1",
            "precision",
            "recall",
            "auc",
            "map",
            "map50",
            "iou",
            "miou",
            "dice",
            "bleu",
            "speedup",
        ],
    ),
    (
        Better::Lower,
        &[
            "loss",
            "latency",
            "error",
            "err",
            "seconds",
            "ms",
            "bytes",
            "mse",
            "rmse",
            "mae",
            "perplexity",
            "kl",
            "duration",
        ],
    ),
];

/// Words that say how a figure was taken, not what it is.
const NEUTRAL: &[&str] = &[
    "mean", "median", "avg", "average", "total", "p50", "p90", "p95", "p99", "db", "percent",
    "train", "valid", "val", "test",
];

/// Which values of a figure are better, where its name tells: the last word of its last part counts,
/// or else that of the part before, as in `top1.int8`. So `accuracy_loss` is a loss, and
/// `loss_weight` is not. Of a rate (`images_per_ms`) its unit says nothing.
fn better(name: &str) -> Option<Better> {
    let name = name.to_lowercase().replace("top-", "top").replace("top_", "top");
    name.rsplit('.').find_map(|part| {
        let mut words = part.rsplit(['_', '-', ' ', '/']);
        let word = words.find(|word| !NEUTRAL.contains(word))?;
        if words.next() == Some("per") {
            return None;
        }
        let of = |(better, words): &(Better, &[&str])| words.contains(&word).then_some(*better);
        WORDS.iter().find_map(of)
    })
}

impl Form {
    /// The figure as text.
    pub fn write(self, value: f64) -> String {
        match self {
            Self::Plain => plain(value),
            Self::Percent => number::percent(value),
            Self::Milliseconds => number::milliseconds(value),
            Self::Rate => number::rate(value),
        }
    }
}

/// Six significant digits, without zeros at the end; whole numbers are written out.
fn plain(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        return format!("{value:.0}");
    }
    if !(1e-5..1e15).contains(&size) {
        return format!("{value:.5e}");
    }
    // Below 1e15 it fits, and negative ones are wanted as 0.
    #[expect(clippy::cast_possible_truncation, reason = "between -5 and 15")]
    let places = usize::try_from(5 - size.log10().floor() as i32).unwrap_or(0);
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_which_values_are_better() {
        for name in ["top1", "eval.top-1", "val_accuracy", "sqnr_db.median", "top1.int8", "map50"] {
            assert_eq!(better(name), Some(Better::Higher), "{name}");
        }
        for name in ["loss", "accuracy_loss", "latency_ms.median", "size.bytes", "top1_error"] {
            assert_eq!(better(name), Some(Better::Lower), "{name}");
        }
        for name in
            ["steps", "samples", "loss_weight", "glossary", "n", "images_per_ms", "bytes/per/ms"]
        {
            assert_eq!(better(name), None, "{name}");
        }
    }

    #[test]
    fn plain_numbers_have_six_digits() {
        let texts = [0.1 + 0.2, 1_234_567.8, 1200.0, -0.000_123_456_78, 1.5e-7, 2.5e20, 0.0];
        assert_eq!(
            texts.map(plain),
            ["0.3", "1234568", "1200", "-0.000123457", "1.50000e-7", "2.50000e20", "0"]
        );
    }
}
