//! The table of a sweep: a row a point, a column a figure, the best of each marked.

use console::measure_text_width;
use serde::Serialize;
use serde_json::Value;

use super::sweep_figures::{Better, Figure, Form, figures};
use crate::config::Sweep;
use crate::stages::contract::Metrics;

/// All points of a sweep side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepTable {
    /// Version of this layout: 1.
    pub format: u32,
    /// Short names of what was varied.
    pub variables: Vec<String>,
    /// The figures, in the order in which they were found.
    pub figures: Vec<FigureColumn>,
    /// The points, in the sweep's order.
    pub points: Vec<SweepRow>,
}

/// A figure of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FigureColumn {
    /// Its heading: the figure's name, with the stage's before it where several stages have one.
    pub title: String,
    /// The stage's id, without the point.
    pub stage: String,
    /// The figure's name; names of nested figures have dots.
    pub name: String,
    /// Which values are better, where that is known.
    pub better: Option<Better>,
    #[serde(skip)]
    form: Form,
}

/// A point of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepRow {
    /// What stands behind the `@` in the ids of its stages.
    pub point: String,
    /// The values of [`SweepTable::variables`].
    pub values: Vec<Value>,
    /// The figures of [`SweepTable::figures`]; `None` where a stage gave none.
    pub figures: Vec<Option<f64>>,
    /// For each figure whether it is the best of all points. Equal figures are equally good; where
    /// all are equal, none is the best.
    pub best: Vec<bool>,
}

impl SweepTable {
    /// The table of figures: each from a point, given by its position in the sweep, and a stage,
    /// given by its id without the point. `best` says of figures which values are better, by name
    /// or by heading, where the name does not tell.
    pub fn new(
        sweep: &Sweep,
        found: &[(usize, String, Metrics)],
        best: &[(String, Better)],
    ) -> Self {
        let rows = sweep.points.iter().map(|point| SweepRow {
            point: point.label.clone(),
            values: point.values.iter().map(|(_, value)| value.clone()).collect(),
            figures: Vec::new(),
            best: Vec::new(),
        });
        let mut table = Self {
            format: 1,
            variables: sweep.variables.iter().map(|variable| variable.name.clone()).collect(),
            figures: Vec::new(),
            points: rows.collect(),
        };
        for (point, stage, metrics) in found {
            for Figure { name, value, better, form } in figures(metrics) {
                let same = |column: &FigureColumn| column.stage == *stage && column.name == name;
                let index = table.figures.iter().position(same).unwrap_or_else(|| {
                    let (title, stage) = (name.clone(), stage.clone());
                    table.figures.push(FigureColumn { title, stage, name, better, form });
                    table.figures.len() - 1
                });
                let Some(row) = table.points.get_mut(*point) else { continue };
                if row.figures.len() <= index {
                    row.figures.resize(index + 1, None);
                }
                row.figures[index] = Some(value);
            }
        }
        table.name_columns();
        for column in &mut table.figures {
            let given = best.iter().find(|(name, _)| *name == column.title || *name == column.name);
            column.better = given.map(|(_, better)| *better).or(column.better);
        }
        table.mark();
        table
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }

    /// Puts the stage before the names that several stages have.
    fn name_columns(&mut self) {
        let names: Vec<String> = self.figures.iter().map(|column| column.name.clone()).collect();
        for column in &mut self.figures {
            if names.iter().filter(|name| **name == column.name).count() > 1 {
                column.title = format!("{}.{}", column.stage, column.name);
            }
        }
    }

    /// Finds the best of each figure.
    fn mark(&mut self) {
        let count = self.figures.len();
        for row in &mut self.points {
            row.figures.resize(count, None);
            row.best = vec![false; count];
        }
        for (index, column) in self.figures.iter().enumerate() {
            let values = || self.points.iter().filter_map(|row| row.figures[index]);
            let (least, most) = values()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
                    (least.min(value), most.max(value))
                });
            let best = match column.better {
                Some(Better::Higher) => most,
                Some(Better::Lower) => least,
                None => continue,
            };
            if least < most {
                for row in &mut self.points {
                    row.best[index] = row.figures[index] == Some(best);
                }
            }
        }
    }

    /// The table as aligned text; what is the best has a `*`. Figures that do not fit into
    /// `columns` go into a block below, the variables named again.
    pub fn text(&self, columns: usize) -> String {
        let cell = |row: &SweepRow, index: usize| {
            let mark = if row.best[index] { "*" } else { " " };
            row.figures[index]
                .map_or(String::new(), |value| self.figures[index].form.write(value) + mark)
        };
        let column = |title: &str, cell: &dyn Fn(&SweepRow) -> String| {
            let cells: Vec<String> = self.points.iter().map(cell).collect();
            let width = |text: &String| measure_text_width(text);
            let width = cells.iter().map(width).max().unwrap_or(0).max(measure_text_width(title));
            (width, [vec![title.to_owned()], cells].concat())
        };
        let names = self.variables.iter().enumerate().map(|(index, name)| {
            column(name, &|row| row.values.get(index).map(plain).unwrap_or_default())
        });
        let names: Vec<_> = names.collect();
        let figures = self.figures.iter().enumerate().map(|(index, figure)| {
            // The mark's place is beside the number, below no letter of the heading.
            column(&format!("{} ", figure.title), &|row| cell(row, index))
        });
        let names_width: usize = names.iter().map(|(width, _)| width + 2).sum();
        let mut blocks: Vec<(usize, Vec<_>)> = Vec::new();
        for figure in figures {
            let needed = figure.0 + 2;
            match blocks.last_mut() {
                Some((used, block)) if *used + needed <= columns => {
                    *used += needed;
                    block.push(figure);
                }
                _ => blocks.push((names_width + needed, vec![figure])),
            }
        }
        let mut text = String::new();
        for (number, (width, block)) in blocks.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            for line in 0..=self.points.len() {
                let mut row = String::new();
                for (width, cells) in &names {
                    row.push_str(&pad(&cells[line], *width, Side::Right));
                    row.push_str("  ");
                }
                for (width, cells) in block {
                    row.push_str(&pad(&cells[line], *width, Side::Left));
                    row.push_str("  ");
                }
                text.push_str(row.trim_end());
                text.push('\n');
                if line == 0 {
                    text.push_str(&"─".repeat(width.saturating_sub(3)));
                    text.push('\n');
                }
            }
        }
        text
    }

    /// One table in Markdown (GitHub's dialect); what is the best is bold.
    pub fn markdown(&self) -> String {
        use super::markdown::escape;
        let titles = self.figures.iter().map(|column| &column.title);
        let headings: Vec<String> =
            self.variables.iter().chain(titles).map(|title| escape(title)).collect();
        let mut text = format!("| {} |\n|", headings.join(" | "));
        text.push_str(&" :--- |".repeat(self.variables.len()));
        text.push_str(&" ---: |".repeat(self.figures.len()));
        text.push('\n');
        for row in &self.points {
            let figures = self.figures.iter().enumerate().map(|(index, column)| {
                match row.figures[index].map(|value| column.form.write(value)) {
                    Some(value) if row.best[index] => format!("**{value}**"),
                    value => value.unwrap_or_default(),
                }
            });
            let values = row.values.iter().map(|value| escape(&plain(value)));
            let cells: Vec<String> = values.chain(figures).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }
}

/// A variable's value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Where blanks are added.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn pad(text: &str, to: usize, side: Side) -> String {
    let blanks = " ".repeat(to.saturating_sub(measure_text_width(text)));
    match side {
        Side::Left => blanks + text,
        Side::Right => text.to_owned() + &blanks,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::config::{Point, SweepVariable};

    fn sweep(variables: &[&str], points: &[&[Value]]) -> Sweep {
        let variable =
            |name: &&str| SweepVariable { name: (*name).to_owned(), key: format!("params.{name}") };
        let point = |values: &&[Value]| {
            let names = variables.iter().map(|name| (*name).to_owned());
            let values: Vec<(String, Value)> = names.zip(values.iter().cloned()).collect();
            let label: Vec<String> =
                values.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            Arc::new(Point { label: label.join(","), values })
        };
        Sweep {
            variables: variables.iter().map(variable).collect(),
            points: points.iter().map(point).collect(),
        }
    }

    fn found(figures: &[(usize, &str, Value)]) -> Vec<(usize, String, Metrics)> {
        let metrics = |value: &Value| serde_json::from_value(value.clone()).expect("an object");
        figures
            .iter()
            .map(|(at, stage, value)| (*at, (*stage).to_owned(), metrics(value)))
            .collect()
    }

    fn study() -> SweepTable {
        let points: [&[Value]; 3] = [
            &[json!(0.1), json!("mse")],
            &[json!(0.01), json!("a|b")],
            &[json!(0.001), json!("c")],
        ];
        let figures = found(&[
            (0, "fit", json!({"loss": 0.5, "steps": 100, "note": "x"})),
            (0, "eval[qat]", json!({"top1": 0.9, "weights": {"bytes": 1200, "sqnr": 30.25}})),
            (1, "fit", json!({"loss": 0.123_456_789, "steps": 100})),
            (1, "eval[qat]", json!({"top1": 0.9, "weights": {"bytes": 800, "sqnr": 28}})),
            (1, "eval[ptq]", json!({"top1": 0.7})),
            (2, "fit", json!({"loss": 2, "steps": 120})),
        ]);
        SweepTable::new(&sweep(&["lr", "method"], &points), &figures, &[])
    }

    #[test]
    fn the_table_on_a_terminal() {
        let expected = "\
lr     method      loss   steps   eval[qat].top1   weights.bytes   weights.sqnr   eval[ptq].top1
────────────────────────────────────────────────────────────────────────────────────────────────
0.1    mse          0.5     100              0.9            1200          30.25*
0.01   a|b     0.123457*    100              0.9             800*            28              0.7
0.001  c              2     120
";
        assert_eq!(study().text(100), expected);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let points: [&[Value]; 2] = [&[json!("量化")], &[json!("ab")]];
        let figures = found(&[(0, "e", json!({"n": 1})), (1, "e", json!({"n": 2}))]);
        let expected = "\
名    n
───────
量化  1
ab    2
";
        assert_eq!(SweepTable::new(&sweep(&["名"], &points), &figures, &[]).text(100), expected);
    }

    #[test]
    fn the_table_in_markdown() {
        let expected = "\
| lr | method | loss | steps | eval\\[qat\\].top1 | weights.bytes | weights.sqnr | eval\\[ptq\\].top1 |
| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |
| 0.1 | mse | 0.5 | 100 | 0.9 | 1200 | **30.25** |  |
| 0.01 | a\\|b | **0.123457** | 100 | 0.9 | **800** | 28 | 0.7 |
| 0.001 | c | 2 | 120 |  |  |  |  |
";
        assert_eq!(study().markdown(), expected);
    }

    #[test]
    fn the_json_holds_all() {
        let points: [&[Value]; 2] = [&[json!(1)], &[json!(2)]];
        let figures =
            found(&[(0, "e", json!({"top1": 0.25})), (1, "e", json!({"top1": 0.5, "n": 3}))]);
        let table = SweepTable::new(&sweep(&["a"], &points), &figures, &[]);
        let expected = json!({
            "format": 1,
            "variables": ["a"],
            "figures": [
                {"title": "top1", "stage": "e", "name": "top1", "better": "higher"},
                {"title": "n", "stage": "e", "name": "n", "better": null},
            ],
            "points": [
                {"point": "a=1", "values": [1], "figures": [0.25, null], "best": [false, false]},
                {"point": "a=2", "values": [2], "figures": [0.5, 3.0], "best": [true, false]},
            ],
        });
        assert_eq!(serde_json::to_value(&table).expect("serialises"), expected);
    }

    #[test]
    fn evaluations_and_benchmarks_are_cut_to_what_is_compared() {
        let latency = |median: f64| json!({"min": 0.1, "mean": 0.3, "median": median, "p90": 2, "p95": 3, "p99": 12.5});
        let bench = |one: f64| {
            json!({"backend": "x", "threads": 2, "cpus": [0, 1], "batches": [
                {"batch": 1, "iterations": 50, "latency_ms": latency(one), "throughput": 1000.0 / one},
                {"batch": 32, "iterations": 50, "latency_ms": latency(12.0), "throughput": 2666.7}]})
        };
        let evaluated = |top1: f64| json!({"subject": "engine", "backend": "x", "samples": 100, "loss": 0.2, "top1": top1, "top5": 0.99});
        let points: [&[Value]; 2] = [&[json!("a")], &[json!("b")]];
        let figures = found(&[
            (0, "eval", evaluated(0.917)),
            (0, "bench", bench(0.5)),
            (1, "eval", evaluated(0.905)),
            (1, "bench", bench(0.25)),
        ]);
        let table = SweepTable::new(&sweep(&["m"], &points), &figures, &[]);
        let expected = "\
m  loss      top1      top5   batch 1 median ms   batch 1 img/s   batch 32 median ms
────────────────────────────────────────────────────────────────────────────────────
a   0.2   91.70 %*  99.00 %               0.500           2,000                12.00
b   0.2   90.50 %   99.00 %               0.250*          4,000*               12.00

m  batch 32 img/s
─────────────────
a           2,667
b           2,667
";
        assert_eq!(table.text(100), expected);
    }

    #[test]
    fn what_is_better_can_be_said() {
        let points: [&[Value]; 2] = [&[json!(1)], &[json!(2)]];
        let figures =
            found(&[(0, "e", json!({"n": 1, "top1": 1})), (1, "e", json!({"n": 2, "top1": 2}))]);
        let best = [("n".to_owned(), Better::Lower), ("top1".to_owned(), Better::Lower)];
        let table = SweepTable::new(&sweep(&["a"], &points), &figures, &best);
        assert_eq!(table.points[0].best, [true, true]);
        assert!(SweepTable::new(&sweep(&["a"], &points), &[], &[]).is_empty());
    }
}
