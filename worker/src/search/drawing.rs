//! A search for people: a table and a picture.

use std::fmt::Write as _;

use super::limits::decibels;
use super::{Candidate, Pareto};
use crate::analysis::{Outcome, WORST};

/// Layers that a row names; the rest is counted.
const NAMED: usize = 4;

pub(super) fn sqnr(outcome: &Outcome) -> String {
    let sqnr = decibels(outcome);
    if sqnr.is_infinite() && sqnr > 0.0 { "∞".to_owned() } else { format!("{sqnr:.1}") }
}

fn percent(part: Option<f64>) -> String {
    part.map(|part| format!("{:.2}", 100.0 * part)).unwrap_or_default()
}

/// Cells of an error: SQNR, agreement, top-1, points lost.
fn cells(outcome: &Outcome, lost: f64) -> String {
    let agreement = percent(Some(outcome.fidelity.agreement));
    format!("{} | {agreement} | {} | {lost:.2}", sqnr(outcome), percent(outcome.top1))
}

fn layers(candidate: &Candidate, all: usize) -> String {
    let names = &candidate.float_layers;
    if names.is_empty() || names.len() == all {
        return if names.is_empty() { "none" } else { "all" }.to_owned();
    }
    let mut text = names[..names.len().min(NAMED)].join(", ").replace('|', "\\|");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

/// A table in Markdown, the fastest candidate first; what is on the front and what was chosen is marked. Errors of engines have columns of
/// their own, where they are known.
pub fn markdown(pareto: &Pareto) -> String {
    let setting = &pareto.setting;
    let engines = pareto.engines_known();
    let plural = |count: usize, what: &str| {
        if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
    };
    let mut text = format!(
        "Target {}, method {}: {} on {}, {} {}, {}; errors on {}, {}.\n\n",
        setting.target.name(),
        setting.method.name(),
        plural(setting.batch, "image"),
        plural(setting.threads, "thread"),
        setting.backend,
        setting.runtime,
        plural(pareto.candidates.len(), "engine"),
        plural(setting.samples, "image"),
        if engines { "in simulation and of the engines, which decide" } else { "in simulation" },
    );
    text.push_str("| Candidate | Layers in float | Latency, ms | p10 to p90 | × float | SQNR, dB | Agreement, % | Top-1, % | Lost, points |");
    text.push_str(if engines {
        " Engine: SQNR, dB | Agreement, % | Top-1, % | Lost, points | Front |\n"
    } else {
        " Front |\n"
    });
    let of_engines = if engines { " ---: | ---: | ---: | ---: |" } else { "" };
    let _ = writeln!(
        text,
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |{of_engines} --- |"
    );
    for candidate in &pareto.candidates {
        let chosen = pareto.chosen.as_ref() == Some(&candidate.name);
        let name = candidate.name.replace('|', "\\|");
        let latency = &candidate.latency_ms;
        let mut error = cells(&candidate.outcome, candidate.lost);
        match &candidate.engine {
            Some(engine) => {
                let _ = write!(error, " | {}", cells(&engine.outcome, engine.lost));
            }
            None if engines => error.push_str(" |  |  |  | "),
            None => {}
        }
        let _ = writeln!(
            text,
            "| {} | {} | {:.3} | {:.3} to {:.3} | {:.2} | {error} | {} |",
            if chosen { format!("**{name}**") } else { name },
            layers(candidate, pareto.layers.len()),
            latency.median,
            latency.p10,
            latency.p90,
            candidate.speedup.median,
            match (candidate.on_front, chosen) {
                (true, true) => "on it, chosen",
                (true, false) => "on it",
                (false, true) => "chosen",
                (false, false) => "",
            },
        );
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where the axes stand: left, right, top and bottom.
const FRAME: [f64; 4] = [70.0, 700.0, 40.0, 400.0];
/// Distance from which a simulated error is drawn beside the engine's: beyond the dot.
const SEEN: f64 = 5.0;
/// Marks of an axis.
const MARKS: usize = 5;

/// A linear axis, over some more than its values.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let margin = (0.08 * (most - least)).max(1e-3 * most.abs()).max(1e-6);
        Self { least: least - margin, most: most + margin, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value - self.least) / (self.most - self.least);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let step = (self.most - self.least) / MARKS as f64;
        (0..=MARKS).map(move |mark| self.least + step * mark as f64)
    }
}

/// Latency against SQNR, of engines where it is known: a dot for each candidate, a line along the front, a ring round what was chosen. A dotted
/// line leads up to what the simulation has. The float model, whose SQNR has no end, stands at the upper edge.
pub fn svg(pareto: &Pareto) -> String {
    let [left, right, top, bottom] = FRAME;
    let candidates = &pareto.candidates;
    let latencies = candidates.iter().map(|candidate| candidate.latency_ms.median);
    let errors = candidates.iter().flat_map(|candidate| [&candidate.outcome, candidate.judged()]);
    // What is NaN or infinite stands at the lower edge.
    let finite = errors.map(decibels).filter(|sqnr| sqnr.is_finite() && *sqnr > WORST);
    let x = Axis::of(latencies, left, right);
    let y = Axis::of(finite, bottom, top + 30.0);
    let height = |outcome: &Outcome| {
        let sqnr = decibels(outcome);
        if sqnr == f64::INFINITY { top } else { y.place(sqnr) }
    };
    let place =
        |candidate: &Candidate| (x.place(candidate.latency_ms.median), height(candidate.judged()));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 460\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"760\" height=\"460\" fill=\"#ffffff\"/>\n\
         <text x=\"{left}\" y=\"20\" font-size=\"14\">SQNR in dB against latency in ms, batch {}, {} {}</text>\n\
         <path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#444444\"/>\n",
        pareto.setting.batch,
        escaped(&pareto.setting.backend),
        escaped(&pareto.setting.runtime),
    );
    for mark in x.marks() {
        let at = x.place(mark);
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{mark:.3}</text>",
            bottom + 18.0
        );
    }
    for mark in y.marks() {
        let at = y.place(mark);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{mark:.1}</text>",
            left - 8.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">∞</text>",
        left - 8.0,
        top + 4.0
    );
    let front: Vec<String> = candidates
        .iter()
        .filter(|candidate| candidate.on_front)
        .map(|candidate| {
            let (x, y) = place(candidate);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let _ = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#c0504d\" stroke-width=\"1.5\"/>",
        front.join(" ")
    );
    for candidate in candidates {
        let (at, own) = place(candidate);
        let [low, high] =
            [candidate.latency_ms.p10, candidate.latency_ms.p90].map(|time| x.place(time));
        let color = if candidate.on_front { "#c0504d" } else { "#8aa8c8" };
        let _ = writeln!(
            text,
            "<path d=\"M{low:.1} {own:.1}H{high:.1}\" stroke=\"{color}\"/><circle cx=\"{at:.1}\" cy=\"{own:.1}\" r=\"4\" fill=\"{color}\"><title>{}: {:.3} ms, {} dB{}</title></circle>",
            escaped(&candidate.name),
            candidate.latency_ms.median,
            sqnr(candidate.judged()),
            if candidate.engine.is_some() {
                format!(" of the engine, {} in simulation", sqnr(&candidate.outcome))
            } else {
                String::new()
            },
        );
        let simulated = height(&candidate.outcome);
        if (simulated - own).abs() > SEEN {
            let _ = writeln!(
                text,
                "<path d=\"M{at:.1} {own:.1}V{simulated:.1}\" stroke=\"{color}\" stroke-dasharray=\"1 3\"/>"
            );
        }
        let chosen = pareto.chosen.as_ref() == Some(&candidate.name);
        if chosen {
            let _ = writeln!(
                text,
                "<circle cx=\"{at:.1}\" cy=\"{own:.1}\" r=\"8\" fill=\"none\" stroke=\"#222222\"/>"
            );
        }
        if chosen || candidate.on_front || candidate.name == "quantized" {
            // Towards the middle, so that no name leaves the picture.
            let (shift, anchor) = if at > 520.0 { (-10.0, "end") } else { (10.0, "start") };
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                at + shift,
                own - 6.0,
                escaped(&candidate.name)
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::fixture;

    #[test]
    fn the_table_has_a_row_for_each_candidate_and_marks_the_front() {
        let (pareto, _) = fixture::pareto();
        let table = markdown(&pareto);
        let rows: Vec<&str> = table.lines().skip(4).collect();
        assert_eq!(rows.len(), pareto.candidates.len(), "{table}");
        assert!(rows[0].starts_with("| quantized | none | 1.000 |"), "{table}");
        assert!(rows[1].starts_with("| **first 1** | a\\|b | 1.200 |"), "{table}");
        assert!(rows[1].ends_with("| on it, chosen |"), "{table}");
        assert!(rows[2].ends_with("|  |"), "dominated: {table}");
        assert!(rows[3].contains("| all | 2.000 |") && rows[3].contains("| ∞ |"), "{table}");
        assert!(rows[1].contains("| 25.0 |") && rows[1].contains("| 24.9 |"), "{table}");
    }

    /// With and without errors of engines: as many cells as columns in each row.
    #[test]
    fn each_row_has_a_cell_in_each_column() {
        let (mut pareto, _) = fixture::pareto();
        for columns in [14, 10] {
            let table = markdown(&pareto);
            for row in table.lines().skip(2) {
                // One bar stands in a name, escaped.
                let bars = row.matches('|').count() - row.matches("\\|").count();
                assert_eq!(bars, columns + 1, "{row}");
            }
            assert_eq!(table.contains("of the engines, which decide"), columns == 14, "{table}");
            pareto.candidates.iter_mut().for_each(|candidate| candidate.engine = None);
        }
    }

    #[test]
    fn the_picture_has_a_dot_for_each_candidate_and_a_line_along_the_front() {
        let (pareto, _) = fixture::pareto();
        let picture = svg(&pareto);
        assert_eq!(picture.matches("r=\"4\"").count(), 4);
        assert_eq!(picture.matches("r=\"8\"").count(), 1, "the chosen one");
        let line = picture.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(line.split(' ').count(), 3, "{line}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        assert!(!picture.contains("dasharray"), "engines are as they were simulated");
    }

    #[test]
    fn what_is_not_finite_leaves_the_axis_to_the_others() {
        let (mut pareto, _) = fixture::pareto();
        let bad = fixture::outcome(Some(WORST));
        let candidate = &mut pareto.candidates[0];
        (candidate.outcome, candidate.engine) = (bad, None);
        let picture = svg(&pareto);
        assert!(picture.contains("-999.0 dB"), "{picture}");
        assert!(picture.contains("end\">10.9<") && !picture.contains("end\">-9"), "{picture}");
    }

    #[test]
    fn what_an_engine_loses_against_its_simulation_is_drawn() {
        let (mut pareto, _) = fixture::pareto();
        let engine = pareto.candidates[0].engine.as_mut().unwrap();
        engine.outcome = fixture::outcome(Some(2.0));
        let picture = svg(&pareto);
        assert_eq!(picture.matches("dasharray").count(), 1, "{picture}");
        assert!(picture.contains("2.0 dB of the engine, 10.0 in simulation"), "{picture}");
    }
}
