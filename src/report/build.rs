//! From the figures of stages to the table.

use serde::{Deserialize, Serialize};

use super::figures::{self, Benchmark, Detection, Evaluation, Figures, Subject};
use super::number;
use super::table::{Report, Row, Timing, TimingColumn};
use crate::stages::contract::Metrics;
use crate::stages::report::Report as Config;

/// A stage whose figures are shown. The table shows these names, so they belong to its cache key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `bench[fp32]`.
    pub id: String,
    /// `bench`.
    pub name: String,
    /// Its matrix variables.
    pub cell: Vec<(String, serde_json::Value)>,
}

/// The table of `sources`, in their order.
///
/// # Errors
///
/// No figures at all, incomplete figures, or a `baseline` that is no row: the message says which, and what to do. A label of no row is
/// none: rows come and go with profiles.
pub fn build(
    config: &Config,
    pipeline: &str,
    sources: &[(Source, Metrics)],
) -> Result<Report, (String, String)> {
    if sources.is_empty() {
        return Err((
            "nothing to report: no stage with figures".to_owned(),
            "add an `evaluate` or a `benchmark` stage, or name stages in `from`".to_owned(),
        ));
    }
    let mut report = Report {
        format: 1,
        title: config.title.clone().unwrap_or_else(|| pipeline.to_owned()),
        rows_by: config.rows.clone(),
        baseline: 0,
        engines: Vec::new(),
        timings: Vec::new(),
        others: Vec::new(),
        rows: Vec::new(),
        failures: Vec::new(),
        notes: Vec::new(),
    };
    let mut conditions = Vec::new();
    let mut advice: Vec<(String, Vec<usize>)> = Vec::new();
    for (source, metrics) in sources {
        let figures = Figures::read(metrics).map_err(|error| {
            let help = "a metrics file with the key `batches` or `subject` is read as figures of a benchmark or of an evaluation: where they are others, give the key another name";
            (format!("stage `{}`: {error}", source.id), help.to_owned())
        })?;
        let row = report.row(config, source);
        for line in figures::advice(metrics) {
            match advice.iter_mut().find(|(known, _)| *known == line) {
                Some((_, rows)) if rows.contains(&row) => {}
                Some((_, rows)) => rows.push(row),
                None => advice.push((line, vec![row])),
            }
        }
        match figures {
            Figures::Evaluation(evaluation) => report.add_evaluation(row, source, &evaluation),
            Figures::Detection(detection) => report.add_detection(row, source, &detection),
            Figures::Benchmark(benchmark) => {
                let condition = condition(&benchmark);
                if !conditions.contains(&condition) {
                    conditions.push(condition);
                }
                report.add_benchmark(row, &benchmark);
            }
            Figures::Other(values) => report.add_others(row, values),
        }
    }
    report.square();
    let rows: Vec<&str> = report.rows.iter().map(|row| row.key.as_str()).collect();
    if let Some(baseline) = &config.baseline {
        report.baseline = rows.iter().position(|key| key == baseline).ok_or_else(|| {
            (format!("baseline \"{baseline}\" is no row"), format!("rows: {}", rows.join(", ")))
        })?;
    }
    report.compare();
    report.notes.extend(conditions);
    for (line, rows) in advice {
        let titles: Vec<&str> = rows.iter().map(|&row| report.rows[row].title.as_str()).collect();
        report.notes.push(format!("{}: {line}", titles.join(", ")));
    }
    Ok(report)
}

impl Report {
    /// The row that a stage belongs to.
    fn row(&mut self, config: &Config, source: &Source) -> usize {
        let value = source.cell.iter().find(|(name, _)| *name == config.rows);
        let key = match value {
            Some((_, serde_json::Value::String(text))) => text.clone(),
            Some((_, value)) => value.to_string(),
            None => source.name.clone(),
        };
        let found = self.rows.iter().position(|row| row.key == key);
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row {
                title: config.labels.get(&key).unwrap_or(&key).clone(),
                key,
                simulation: None,
                engines: Vec::new(),
                boxes: None,
                engine_boxes: Vec::new(),
                delta_points: None,
                timings: Vec::new(),
                others: Vec::new(),
                stages: Vec::new(),
            });
            self.rows.len() - 1
        });
        self.rows[index].stages.push(source.id.clone());
        index
    }

    fn add_evaluation(&mut self, row: usize, source: &Source, evaluation: &Evaluation) {
        let accuracy = evaluation.accuracy;
        let place = match evaluation.subject {
            Subject::Simulation => &mut self.rows[row].simulation,
            Subject::Engine => {
                let column = column(&mut self.engines, &evaluation.backend);
                slot(&mut self.rows[row].engines, column)
            }
        };
        match place {
            None => *place = Some(accuracy),
            Some(first) if (first.top1 - accuracy.top1).abs() >= 5e-5 => {
                let (first, second) = (number::percent(first.top1), number::percent(accuracy.top1));
                let note = format!(
                    "{}: the first top-1 is shown, {first}; `{}` has {second}.",
                    self.rows[row].title, source.id
                );
                self.notes.push(note);
            }
            Some(_) => {}
        }
    }

    fn add_detection(&mut self, row: usize, source: &Source, detection: &Detection) {
        let boxes = detection.boxes;
        let place = match detection.subject {
            Subject::Simulation => &mut self.rows[row].boxes,
            Subject::Engine => {
                let column = column(&mut self.engines, &detection.backend);
                slot(&mut self.rows[row].engine_boxes, column)
            }
        };
        match place {
            None => *place = Some(boxes),
            Some(first) if (first.map50 - boxes.map50).abs() >= 5e-5 => {
                let (first, second) = (number::percent(first.map50), number::percent(boxes.map50));
                self.notes.push(format!(
                    "{}: the first mAP@0.5 is shown, {first}; `{}` has {second}.",
                    self.rows[row].title, source.id
                ));
            }
            Some(_) => {}
        }
    }

    fn add_benchmark(&mut self, row: usize, benchmark: &Benchmark) {
        for timed in &benchmark.batches {
            let wanted = TimingColumn {
                backend: benchmark.backend.clone(),
                batch: timed.batch,
                threads: benchmark.threads,
            };
            let column = column(&mut self.timings, &wanted);
            let place = slot(&mut self.rows[row].timings, column);
            place.get_or_insert(Timing {
                iterations: timed.iterations,
                latency_ms: timed.latency_ms,
                throughput: timed.throughput,
                speedup: None,
                quantized: benchmark.quantized,
            });
        }
    }

    fn add_others(&mut self, row: usize, values: Vec<(String, serde_json::Value)>) {
        for (name, value) in values {
            let column = column(&mut self.others, &name);
            slot(&mut self.rows[row].others, column).get_or_insert(value);
        }
    }

    /// Gives each row a place for each column; timings are ordered by runtime, then batch.
    fn square(&mut self) {
        let mut order: Vec<usize> = (0..self.timings.len()).collect();
        let backend = |column: &TimingColumn| {
            self.timings.iter().position(|other| other.backend == column.backend)
        };
        order.sort_by_key(|&index| {
            let column = &self.timings[index];
            (backend(column), column.threads, column.batch)
        });
        let boxes = self.rows.iter().any(|row| !row.engine_boxes.is_empty());
        for row in &mut self.rows {
            row.engines.resize(self.engines.len(), None);
            if boxes {
                row.engine_boxes.resize(self.engines.len(), None);
            }
            row.timings.resize(self.timings.len(), None);
            row.others.resize(self.others.len(), None);
            row.timings = order.iter().map(|&index| row.timings[index]).collect();
        }
        self.timings = order.iter().map(|&index| self.timings[index].clone()).collect();
    }
}

/// Position of a column, added if it is new.
fn column<T: PartialEq + Clone>(columns: &mut Vec<T>, wanted: &T) -> usize {
    columns.iter().position(|column| column == wanted).unwrap_or_else(|| {
        columns.push(wanted.clone());
        columns.len() - 1
    })
}

/// The place at `index` of a row that grows as columns are found.
fn slot<T: Clone>(places: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if places.len() <= index {
        places.resize(index + 1, None);
    }
    &mut places[index]
}

/// How a benchmark was run: `onnxruntime, 2 threads on CPUs 0, 1`.
fn condition(benchmark: &Benchmark) -> String {
    if let Some(gpu) = &benchmark.gpu {
        let runtime = benchmark.runtime.as_deref().unwrap_or_default();
        let graph = if benchmark.cuda_graph { ", as a CUDA graph" } else { "" };
        return format!(
            "Timed: {} {runtime} on {}{graph}; latency of a whole batch with its copies to and from the GPU, throughput from the median of \
             GPU compute time.",
            benchmark.backend, gpu.name
        );
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let threads = benchmark.threads;
    let mut text =
        format!("Timed: {}, {threads} thread{}", benchmark.backend, plural(threads as usize));
    if !benchmark.cpus.is_empty() {
        let cpus: Vec<String> = benchmark.cpus.iter().map(u32::to_string).collect();
        text.push_str(&format!(" pinned to CPU{} {}", plural(cpus.len()), cpus.join(", ")));
    }
    text.push_str("; latency of a whole batch, throughput from its median.");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(id: &str, name: &str, cell: &[(&str, Value)], metrics: &Value) -> (Source, Metrics) {
        let cell = cell.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let metrics = serde_json::from_value(metrics.clone()).expect("an object");
        (Source { id: id.to_owned(), name: name.to_owned(), cell }, metrics)
    }

    fn evaluation(subject: &str, top1: f64) -> Value {
        json!({"subject": subject, "backend": "x", "samples": 100, "loss": 0.2, "top1": top1, "top5": 0.99})
    }

    fn benchmark(batch: u64, median: f64) -> Value {
        let latency =
            json!({"min": 0.1, "mean": 0.3, "median": median, "p90": 2.0, "p95": 3.0, "p99": 12.5});
        let throughput = batch as f64 / median * 1000.0;
        json!({"backend": "onnxruntime", "threads": 2, "cpus": [0, 1], "batches": [
            {"batch": batch, "iterations": 50, "latency_ms": latency, "throughput": throughput}]})
    }

    fn config(toml: &str) -> Config {
        toml::from_str(toml).expect("a valid report stage")
    }

    fn report() -> Report {
        let mut sources = Vec::new();
        for (variant, top1, one, many) in
            [("fp32", 0.917, 0.5, 12.0), ("ptq[max]", 0.9051, 0.61, 6.0), ("qat", 0.9171, 0.4, 6.1)]
        {
            let cell = [("variant", json!(variant))];
            let id = |name: &str| format!("{name}[{variant}]");
            sources.push(source(&id("sim"), "sim", &cell, &evaluation("simulation", top1)));
            sources.push(source(&id("eng"), "eng", &cell, &evaluation("engine", top1 - 0.001)));
            for (batch, median) in [(1, one), (32, many)] {
                let cell = [("variant", json!(variant)), ("batch", json!(batch))];
                let mut figures = benchmark(batch, median);
                figures["quantized"] = json!(variant != "fp32");
                sources.push(source(&id("bench"), "bench", &cell, &figures));
            }
        }
        let config = config("title = \"A <b> title\"\nlabels = { fp32 = \"FP32\" }");
        build(&config, "p", &sources).expect("a report")
    }

    #[test]
    fn the_table_on_a_terminal() {
        let expected = "\
A <b> title

           top-1                        batch 1
variant    simulation   engine      Δ   median ms  p99 ms  img/s  speed-up   gain
─────────────────────────────────────────────────────────────────────────────────
FP32          91.70 %  91.60 %              0.500   12.50  2,000     1.00×
ptq[max]      90.51 %  90.41 %  -1.19       0.610   12.50  1,639     0.82×  -18 %
qat           91.71 %  91.61 %  +0.01       0.400   12.50  2,500     1.25×  +25 %

           batch 32
variant    median ms  p99 ms  img/s  speed-up    gain
─────────────────────────────────────────────────────
FP32           12.00   12.50  2,667     1.00×
ptq[max]        6.00   12.50  5,333     2.00×  +100 %
qat             6.10   12.50  5,246     1.97×   +97 %

FAILED: ptq[max] is slower than FP32 at batch 1: 0.82×. Quantization does not pay there.
Timed: onnxruntime, 2 threads pinned to CPUs 0, 1; latency of a whole batch, throughput from its median.
";
        assert_eq!(report().text(100), expected);
    }

    #[test]
    fn the_table_on_a_narrow_terminal() {
        let expected = "\
A <b> title

           top-1
variant    simulation   engine      Δ
─────────────────────────────────────
FP32          91.70 %  91.60 %
ptq[max]      90.51 %  90.41 %  -1.19
qat           91.71 %  91.61 %  +0.01

           batch 1
variant    median ms  p99 ms  img/s
───────────────────────────────────
FP32           0.500   12.50  2,000
ptq[max]       0.610   12.50  1,639
qat            0.400   12.50  2,500

           batch 1
variant    speed-up   gain
──────────────────────────
FP32          1.00×
";
        let text = report().text(40);
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains(
                "\nFAILED: ptq[max] is slower than FP32 at\nbatch 1: 0.82×. Quantization does not\npay there.\n"
            ),
            "{text}"
        );
        for columns in 20..100 {
            for line in report().text(columns).lines().skip(1) {
                assert!(console::measure_text_width(line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn markdown_and_html_escape_names() {
        let markdown = report().markdown();
        assert!(
            markdown.starts_with("# A \\<b> title\n\n| variant | top-1 simulation |"),
            "{markdown}"
        );
        assert!(
            markdown.contains("\n| ptq\\[max\\] | 90.51 % | 90.41 % | -1.19 | 0.610 |"),
            "{markdown}"
        );
        assert!(markdown.contains("\n**Failed:** ptq\\[max\\] is slower"), "{markdown}");
        let html = report().html();
        assert!(html.contains("<p class=\"bad\"><b>Failed:</b> ptq[max] is slower"), "{html}");
        assert!(html.contains("<h1>A &lt;b&gt; title</h1>"), "{html}");
        assert!(html.contains("<tr class=\"baseline\"><td>FP32</td>"), "{html}");
        assert!(html.contains("<td class=\"bad\">-1.19</td>"), "{html}");
    }

    #[test]
    fn quantized_engines_are_held_to_the_fastest_float_one() {
        let rows: [(&str, f64, Option<bool>); 6] = [
            ("fp32", 10.0, Some(false)),
            ("fp16", 5.0, Some(false)),
            ("tf32", 12.0, Some(false)),
            ("ptq", 6.0, Some(true)),
            ("qat", 4.0, Some(true)),
            ("theirs", 20.0, None),
        ];
        let sources: Vec<_> = rows
            .iter()
            .map(|(variant, median, quantized)| {
                let mut figures = benchmark(1, *median);
                if let Some(quantized) = quantized {
                    figures["quantized"] = json!(quantized);
                }
                let id = format!("bench[{variant}]");
                source(&id, "bench", &[("variant", json!(variant))], &figures)
            })
            .collect();
        let report = build(&config(""), "p", &sources).expect("a report");
        let failed =
            ["ptq is slower than fp16 at batch 1: 0.83×. Quantization does not pay there."];
        assert_eq!(report.failures, failed);
        let noted = [
            "tf32 is slower than fp32 at batch 1: 0.83×.",
            "theirs is slower than fp32 at batch 1: 0.50×.",
        ];
        assert_eq!(report.notes[..2], noted);
        assert_eq!(report.rows[4].timings[0].expect("timed").speedup, Some(2.5));
    }

    #[test]
    fn the_json_is_the_report() {
        let report = report();
        let text = serde_json::to_string(&report).expect("serialises");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("reads back"), report);
    }

    #[test]
    fn a_stage_without_the_variable_is_a_row_and_other_figures_are_columns() {
        let sources = [
            source("a", "a", &[], &json!({"size_kb": 12, "list": [1]})),
            source("b", "b", &[], &json!({"size_kb": 3})),
        ];
        let report = build(&config("baseline = \"b\""), "p", &sources).expect("a report");
        assert_eq!(
            report.text(100),
            "p\n\n\nvariant   size_kb\n─────────────────\na              12\nb               3\n"
        );
        assert_eq!(report.baseline, 1);
    }

    #[test]
    fn detectors_have_columns_of_their_own() {
        let boxes = |f1: f64| {
            json!({"subject": "engine", "backend": "onnxruntime", "samples": 8, "reference_boxes": 20, "boxes": 21,
                "precision": 0.9, "recall": 0.8, "f1": f1, "map50": 0.7, "map": 0.6, "mean_iou": 0.9, "class_agreement": 1})
        };
        let int8 = [("variant", json!("int8"))];
        let sources = [
            source("bench[fp32]", "bench", &[("variant", json!("fp32"))], &benchmark(1, 0.5)),
            source("eng[int8]", "eng", &int8, &boxes(0.85)),
            source("bench[int8]", "bench", &int8, &benchmark(1, 0.25)),
            source("again[int8]", "again", &int8, &boxes(0.85)),
        ];
        let report = build(&config(""), "p", &sources).expect("a report");
        let text = report.text(120);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].contains("boxes, engine") && lines[2].contains("batch 1"), "{text}");
        assert!(!text.contains("top-1"), "{text}");
        assert!(lines[3].contains("F1    mAP50  mAP50-95"), "{text}");
        assert!(text.contains("90.00 %  80.00 %  85.00 %  70.00 %   60.00 %"), "{text}");
        let json = serde_json::to_string(&report).expect("serialises");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("reads back"), report);
        let broken = [source("e", "e", &int8, &json!({"subject": "engine", "map50": 1}))];
        let (message, _) = build(&config(""), "p", &broken).unwrap_err();
        assert!(message.starts_with("stage `e`: detection figures: missing field"), "{message}");
    }

    #[test]
    fn faults_are_named() {
        let error = |toml: &str, sources: &[_]| build(&config(toml), "p", sources).unwrap_err();
        assert_eq!(error("", &[]).0, "nothing to report: no stage with figures");
        let one = [source("e", "e", &[], &evaluation("engine", 0.5))];
        let (message, help) = error("baseline = \"x\"", &one);
        assert_eq!((message.as_str(), help.as_str()), ("baseline \"x\" is no row", "rows: e"));
        let broken = [source("e", "e", &[], &json!({"subject": "engine"}))];
        assert!(error("", &broken).0.starts_with("stage `e`: evaluation figures: missing field"));
    }
}
