//! From the figures of stages to the table.

use serde::{Deserialize, Serialize};

use super::figures::{self, Benchmark, Detection, Evaluation, Figures, Subject};
use super::number;
use super::rows::{self, Identity};
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
        axes: Vec::new(),
        baseline: 0,
        engines: Vec::new(),
        timings: Vec::new(),
        others: Vec::new(),
        rows: Vec::new(),
        failures: Vec::new(),
        notes: Vec::new(),
    };
    let mut read = Vec::new();
    for (source, metrics) in sources {
        let figures = Figures::read(metrics).map_err(|error| {
            let help = "a metrics file with the key `batches` or `subject` is read as figures of a benchmark or of an evaluation: where they are others, give the key another name";
            (format!("stage `{}`: {error}", source.id), help.to_owned())
        })?;
        read.push((source, figures));
    }
    report.axes = rows::axes(config, &read);
    let mut conditions = Vec::new();
    let mut advice: Vec<(String, Vec<usize>)> = Vec::new();
    let mut identities = Vec::new();
    for ((source, figures), (_, metrics)) in read.into_iter().zip(sources) {
        let identity = Identity::of(config, &report.axes, source);
        let row = report.row(config, &mut identities, identity);
        report.rows[row].stages.push(source.id.clone());
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
                report.add_benchmark(row, source, &benchmark);
            }
            Figures::Other(values) => report.add_others(row, source, values),
        }
    }
    report.square();
    if let Some(baseline) = &config.baseline {
        let rows: Vec<&str> = report.rows.iter().map(|row| row.key.as_str()).collect();
        let whole = rows.iter().position(|key| key == baseline);
        let named = || identities.iter().position(|identity| identity.name() == baseline);
        report.baseline = whole.or_else(named).ok_or_else(|| {
            (format!("baseline \"{baseline}\" is no row"), format!("rows: {}", rows.join(", ")))
        })?;
    }
    report.compare(&identities);
    report.notes.extend(conditions);
    for (line, rows) in advice {
        let titles: Vec<&str> = rows.iter().map(|&row| report.rows[row].title.as_str()).collect();
        report.notes.push(format!("{}: {line}", titles.join(", ")));
    }
    Ok(report)
}

impl Report {
    /// The row of that identity, made where it is the first of it.
    fn row(&mut self, config: &Config, known: &mut Vec<Identity>, identity: Identity) -> usize {
        known.iter().position(|other| *other == identity).unwrap_or_else(|| {
            self.rows.push(Row {
                title: identity.title(config),
                key: identity.key(),
                against: None,
                simulation: None,
                engines: Vec::new(),
                boxes: None,
                engine_boxes: Vec::new(),
                delta_points: None,
                timings: Vec::new(),
                others: Vec::new(),
                stages: Vec::new(),
            });
            known.push(identity);
            known.len() - 1
        })
    }

    /// Notes that a row has another figure than the one that is shown.
    fn another(&mut self, row: usize, figure: &str, first: &str, source: &Source, second: &str) {
        self.notes.push(format!(
            "{}: the first {figure} is shown, {first}; `{}` has {second}.",
            self.rows[row].title, source.id
        ));
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
                self.another(row, "top-1", &first, source, &second);
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
                self.another(row, "mAP@0.5", &first, source, &second);
            }
            Some(_) => {}
        }
    }

    fn add_benchmark(&mut self, row: usize, source: &Source, benchmark: &Benchmark) {
        for timed in &benchmark.batches {
            let wanted = TimingColumn {
                backend: benchmark.backend.clone(),
                batch: timed.batch,
                threads: benchmark.threads,
            };
            let column = column(&mut self.timings, &wanted);
            let place = slot(&mut self.rows[row].timings, column);
            let own = Timing {
                iterations: timed.iterations,
                latency_ms: timed.latency_ms,
                throughput: timed.throughput,
                speedup: None,
                quantized: benchmark.quantized,
            };
            match *place {
                None => *place = Some(own),
                Some(first) => {
                    let ms = |timing: Timing| {
                        format!("{} ms", number::milliseconds(timing.latency_ms.median))
                    };
                    let figure = format!("median of batch {}", timed.batch);
                    self.another(row, &figure, &ms(first), source, &ms(own));
                }
            }
        }
    }

    fn add_others(
        &mut self,
        row: usize,
        source: &Source,
        values: Vec<(String, serde_json::Value)>,
    ) {
        for (name, value) in values {
            let column = column(&mut self.others, &name);
            let place = slot(&mut self.rows[row].others, column);
            match place {
                None => *place = Some(value),
                Some(first) if *first != value => {
                    let (first, second) = (first.to_string(), value.to_string());
                    self.another(row, &name, &first, source, &second);
                }
                Some(_) => {}
            }
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

    /// Two networks in float and INT8: each is compared with its own float row, and none is hidden behind another.
    #[test]
    fn rows_are_told_apart_by_other_variables_where_figures_would_hide_each_other() {
        let mut sources = Vec::new();
        for (net, variant, median) in
            [("r", "fp32", 2.0), ("r", "int8", 1.0), ("m", "fp32", 4.0), ("m", "int8", 8.0)]
        {
            let cell = [("net", json!(net)), ("variant", json!(variant)), ("batch", json!(1))];
            let mut figures = benchmark(1, median);
            figures["quantized"] = json!(variant == "int8");
            sources.push(source(&format!("bench[{net},{variant}]"), "bench", &cell, &figures));
        }
        let toml = "labels = { fp32 = \"FP32\", m = \"MobileNet\" }\nbaseline = \"fp32\"";
        let report = build(&config(toml), "p", &sources).expect("a report");
        assert_eq!(report.axes, ["net"]);
        let titles: Vec<&str> = report.rows.iter().map(|row| row.title.as_str()).collect();
        assert_eq!(titles, ["FP32, r", "int8, r", "FP32, MobileNet", "int8, MobileNet"]);
        let speedups = report.rows.iter().map(|row| row.timings[0].and_then(|it| it.speedup));
        assert_eq!(speedups.collect::<Vec<_>>(), [1.0, 2.0, 1.0, 0.5].map(Some));
        let failed = "int8, MobileNet is slower than FP32, MobileNet at batch 1: 0.50×. Quantization does not pay there.";
        assert_eq!(report.failures, [failed]);
        let text = report.text(100);
        assert!(text.contains("\nvariant, net "), "{text}");
        // One network alone is a table as ever.
        let report = build(&config(toml), "p", &sources[..2]).expect("a report");
        assert!(report.axes.is_empty());
        assert_eq!(report.rows[1].key, "int8");
    }

    #[test]
    fn a_second_figure_of_one_place_is_noted() {
        let int8 = [("variant", json!("int8"))];
        let sources = [
            source("one[int8]", "one", &int8, &benchmark(1, 0.5)),
            source("two[int8]", "two", &int8, &benchmark(1, 0.25)),
            source("a[int8]", "a", &int8, &json!({"sqnr_db": 20.5})),
            source("b[int8]", "b", &int8, &json!({"sqnr_db": 10.0})),
        ];
        let report = build(&config(""), "p", &sources).expect("a report");
        let noted = [
            "int8: the first median of batch 1 is shown, 0.500 ms; `two[int8]` has 0.250 ms.",
            "int8: the first sqnr_db is shown, 20.5; `b[int8]` has 10.0.",
        ];
        assert_eq!(report.notes[..2], noted);
        // A stage of the name of a variant is a row of its own.
        let sources = [
            source("eng[int8]", "eng", &int8, &evaluation("engine", 0.5)),
            source("int8", "int8", &[], &evaluation("engine", 0.9)),
        ];
        let report = build(&config(""), "p", &sources).expect("a report");
        assert_eq!(report.rows.len(), 2);
    }

    #[test]
    fn without_a_float_engine_a_slower_one_is_no_failure() {
        let timed = |variant: &str, median: f64| {
            let mut figures = benchmark(1, median);
            figures["quantized"] = json!(true);
            source(variant, "bench", &[("variant", json!(variant))], &figures)
        };
        let report =
            build(&config(""), "p", &[timed("ptq", 1.0), timed("qat", 1.1)]).expect("a report");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(report.notes[0], "qat is slower than ptq at batch 1: 0.91×.");
    }

    #[test]
    fn accuracies_of_other_images_have_no_difference() {
        let of = |variant: &str, subject: &str, top1: f64, samples: u64| {
            let mut figures = evaluation(subject, top1);
            figures["samples"] = json!(samples);
            source(variant, subject, &[("variant", json!(variant))], &figures)
        };
        let sources = [
            of("fp32", "engine", 0.9, 100),
            of("fp32", "simulation", 0.92, 1000),
            of("ptq", "engine", 0.95, 20),
            of("ptq", "simulation", 0.91, 1000),
            of("qat", "engine", 0.95, 20),
        ];
        let report = build(&config(""), "p", &sources).expect("a report");
        let delta = |row: usize| report.rows[row].delta_points.map(|it| (it * 100.0).round());
        assert_eq!((delta(1), delta(2)), (Some(-100.0), None));
        assert_eq!(
            report.notes[0],
            "qat has no Δ: its top-1 is of 20 images, that of fp32 of 100."
        );
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
