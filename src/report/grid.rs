//! The report as text cells in groups of columns, from which each format is drawn.

use super::number;
use super::table::{Accuracy, Boxes, Report, Timing};

/// Columns under one heading, such as `batch 32`.
pub(super) struct Group {
    /// The heading; may be empty.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A column; its cells stand in the order of the rows and may be empty.
pub(super) struct Column {
    /// Its heading.
    pub title: String,
    /// A text for each row.
    pub cells: Vec<String>,
}

impl Report {
    /// All groups that have any figure.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups = vec![self.accuracy()];
        groups.extend(self.boxes());
        groups.extend((0..self.timings.len()).map(|index| self.timing(index)));
        groups.push(self.other_figures());
        groups.retain(|group| !group.columns.is_empty());
        groups
    }

    /// Whether a row is compared with another one.
    fn is_compared(&self, row: usize) -> bool {
        self.rows[row].against.is_some_and(|against| against != row)
    }

    /// What rows are: `variant`, `variant, net`.
    pub(super) fn heading(&self) -> String {
        let names: Vec<&str> =
            std::iter::once(&self.rows_by).chain(&self.axes).map(String::as_str).collect();
        names.join(", ")
    }

    fn column(&self, title: &str, cell: impl Fn(usize) -> Option<String>) -> Column {
        let cells = (0..self.rows.len()).map(|row| cell(row).unwrap_or_default()).collect();
        Column { title: title.to_owned(), cells }
    }

    fn accuracy(&self) -> Group {
        let top1 = |accuracy: &Option<Accuracy>| accuracy.map(|it| number::percent(it.top1));
        let mut columns = Vec::new();
        if self.rows.iter().any(|row| row.simulation.is_some()) {
            columns.push(self.column("simulation", |row| top1(&self.rows[row].simulation)));
        }
        for (index, backend) in self.engines.iter().enumerate() {
            let title = if self.engines.len() == 1 { "engine" } else { backend };
            if self.rows.iter().any(|row| row.engines[index].is_some()) {
                columns.push(self.column(title, |row| top1(&self.rows[row].engines[index])));
            }
        }
        if self.rows.iter().any(|row| row.delta_points.is_some()) {
            columns.push(self.column("Δ", |row| self.rows[row].delta_points.map(number::points)));
        }
        Group { title: "top-1".to_owned(), columns }
    }

    /// Agreement of boxes with the float model's: a group for the simulation, and for each runtime.
    fn boxes(&self) -> Vec<Group> {
        let simulation = self.box_group("simulation", &|row| self.rows[row].boxes);
        let engines = self.engines.iter().enumerate().filter_map(|(index, backend)| {
            let title = if self.engines.len() == 1 { "engine" } else { backend };
            self.box_group(title, &|row| self.rows[row].engine_boxes.get(index).copied().flatten())
        });
        simulation.into_iter().chain(engines).collect()
    }

    fn box_group(&self, title: &str, of: &dyn Fn(usize) -> Option<Boxes>) -> Option<Group> {
        (0..self.rows.len()).find_map(of)?;
        let figure = |title: &str, figure: fn(Boxes) -> f64| {
            self.column(title, |row| of(row).map(|boxes| number::percent(figure(boxes))))
        };
        let columns = vec![
            figure("precision", |boxes| boxes.precision),
            figure("recall", |boxes| boxes.recall),
            figure("F1", |boxes| boxes.f1),
            figure("mAP50", |boxes| boxes.map50),
            figure("mAP50-95", |boxes| boxes.map),
        ];
        Some(Group { title: format!("boxes, {title}"), columns })
    }

    fn timing(&self, index: usize) -> Group {
        let timed = &self.timings[index];
        let mut title = format!("batch {}", timed.batch);
        if self.timings.iter().any(|other| other.backend != timed.backend) {
            title.push_str(&format!(", {}", timed.backend));
        }
        if self.timings.iter().any(|other| other.threads != timed.threads) {
            title.push_str(&format!(", {} threads", timed.threads));
        }
        let figure = |row: usize, text: &dyn Fn(&Timing) -> String| {
            self.rows[row].timings[index].as_ref().map(text)
        };
        let ms = number::milliseconds;
        let mut columns = vec![
            self.column("median ms", |row| figure(row, &|it| ms(it.latency_ms.median))),
            self.column("p99 ms", |row| figure(row, &|it| ms(it.latency_ms.p99))),
            self.column("img/s", |row| figure(row, &|it| number::rate(it.throughput))),
        ];
        let others = (0..self.rows.len()).filter(|&row| self.is_compared(row));
        let mut speedups = others.filter_map(|row| self.rows[row].timings[index]?.speedup);
        if speedups.next().is_some() {
            let speedup = |row: usize| self.rows[row].timings[index]?.speedup;
            columns.push(self.column("speed-up", |row| speedup(row).map(number::times)));
            let other = |row: usize| self.is_compared(row).then_some(row);
            let gain = |row: usize| other(row).and_then(speedup).map(number::gain);
            columns.push(self.column("gain", gain));
        }
        Group { title, columns }
    }

    fn other_figures(&self) -> Group {
        let columns = self.others.iter().enumerate().map(|(index, name)| {
            self.column(name, |row| {
                self.rows[row].others[index].as_ref().map(|value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    value => value.to_string(),
                })
            })
        });
        Group { title: String::new(), columns: columns.collect() }
    }
}
