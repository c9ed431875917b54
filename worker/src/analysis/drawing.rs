//! A report of sensitivities for people: a table and a picture.

use std::fmt::Write as _;

use super::report::{Layer, Outcome, Report};

/// Layers in the picture; more are not told apart.
const DRAWN: usize = 60;

fn decibels(outcome: Option<Outcome>) -> String {
    match outcome.map(|outcome| outcome.fidelity.sqnr_db) {
        None => String::new(),
        Some(None) => "∞".to_owned(),
        Some(Some(sqnr)) => format!("{sqnr:.1}"),
    }
}

fn share(of: Option<f64>) -> String {
    of.map(|share| format!("{:.2}", 100.0 * share)).unwrap_or_default()
}

/// A column: its heading, and a layer's cell.
type Column = (&'static str, fn(&Layer) -> String);

const SQNR_ALONE: Column = ("SQNR alone, dB", |layer| decibels(layer.alone));
const AGREEMENT: Column =
    ("Agreement alone, %", |layer| share(layer.alone.map(|outcome| outcome.fidelity.agreement)));
const TOP1_ALONE: Column =
    ("Top-1 alone, %", |layer| share(layer.alone.and_then(|outcome| outcome.top1)));
const COSINE: Column = ("Cosine alone", |layer| {
    layer.alone.map(|outcome| format!("{:.6}", outcome.fidelity.cosine)).unwrap_or_default()
});
const SQNR_WITHOUT: Column = ("SQNR of all without it, dB", |layer| decibels(layer.without));
const TOP1_WITHOUT: Column =
    ("Top-1 without, %", |layer| share(layer.without.and_then(|outcome| outcome.top1)));

/// A table in Markdown, the most sensitive layer first; without columns of logits or labels where there are none.
pub fn markdown(report: &Report) -> String {
    let (float, quantized) = (report.float, report.quantized);
    let mut text = format!("All layers quantized: SQNR {} dB, ", decibels(Some(quantized)));
    let mut columns = vec![SQNR_ALONE];
    if report.logits {
        let _ = write!(text, "agreement {} %, ", share(Some(quantized.fidelity.agreement)));
        columns.push(AGREEMENT);
    } else {
        let _ = write!(text, "cosine {:.6}, ", quantized.fidelity.cosine);
        columns.push(COSINE);
    }
    if let (Some(float), Some(_)) = (float.top1, quantized.top1) {
        let _ =
            write!(text, "top-1 {} % (float {} %), ", share(quantized.top1), share(Some(float)));
        columns.extend([TOP1_ALONE, SQNR_WITHOUT, TOP1_WITHOUT]);
    } else {
        columns.push(SQNR_WITHOUT);
    }
    let _ = writeln!(text, "{} images.\n", report.samples);
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let _ = writeln!(text, "| Layer | Operator | {} |", headings.join(" | "));
    let _ = writeln!(text, "| --- | --- |{}", " ---: |".repeat(columns.len()));
    for layer in &report.layers {
        let cells: Vec<String> = columns.iter().map(|(_, cell)| cell(layer)).collect();
        let name = layer.node.replace('|', "\\|");
        let _ = writeln!(text, "| {name} | {} | {} |", layer.op, cells.join(" | "));
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A bar for each layer: SQNR alone, or of all without it; a short bar is a sensitive layer.
pub fn svg(report: &Report) -> String {
    let of = |layer: &Layer| layer.alone.or(layer.without)?.fidelity.sqnr_db;
    let alone = report.layers.iter().any(|layer| layer.alone.is_some());
    let layers = &report.layers[..report.layers.len().min(DRAWN)];
    let longest = layers.iter().filter_map(of).fold(10.0, f64::max);
    let (names, bars, row) = (260, 420.0, 18);
    let height = 40 + row * layers.len();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"20\" font-size=\"14\">SQNR in dB, {}</text>\n",
        if alone { "only this layer quantized" } else { "all layers quantized but this one" }
    );
    for (index, layer) in layers.iter().enumerate() {
        let top = 32 + row * index;
        // Without a value nothing was changed.
        let width = bars * of(layer).unwrap_or(longest).max(0.0) / longest;
        let value = of(layer).map_or("∞".to_owned(), |sqnr| format!("{sqnr:.1}"));
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{names}\" y=\"{top}\" width=\"{width:.1}\" height=\"{}\" fill=\"#4878a8\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value}</text>",
            names - 8,
            top + 12,
            escaped(&layer.node),
            row - 4,
            f64::from(names) + width + 6.0,
            top + 12,
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use qpipe::stages::calibrate::Method;
    use qpipe::stages::insert_qdq::Target;

    use super::*;
    use crate::analysis::{Figures, VERSION};

    #[test]
    fn a_bar_has_no_negative_width_and_its_label_is_the_figure() {
        let outcome = |sqnr_db| {
            let fidelity = Figures { sqnr_db, cosine: 1.0, agreement: 1.0, not_finite: 0 };
            Outcome { fidelity, top1: None, loss: None }
        };
        let layer = |sqnr_db| Layer {
            node: "conv".to_owned(),
            op: "Conv".to_owned(),
            alone: Some(outcome(sqnr_db)),
            without: None,
        };
        let report = Report {
            version: VERSION,
            target: Target::Onnxruntime,
            method: Method::Max,
            samples: 1,
            logits: true,
            float: outcome(None),
            quantized: outcome(Some(-13.5)),
            layers: [Some(-999.0), Some(-13.5), Some(40.0), None].map(layer).to_vec(),
            accumulation: Vec::new(),
        };
        let picture = svg(&report);
        for label in [">-999.0<", ">-13.5<", ">40.0<", ">∞<"] {
            assert!(picture.contains(label), "{label}: {picture}");
        }
        assert_eq!(picture.matches("width=\"0.0\"").count(), 2, "{picture}");
        assert_eq!(picture.matches("width=\"420.0\"").count(), 2, "{picture}");
    }
}
