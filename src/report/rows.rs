//! Which row the figures of a stage belong to.

use std::collections::HashMap;

use super::build::Source;
use super::figures::{Figures, Subject};
use crate::stages::report::{Report as Config, value_of};

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// Value of the matrix variable `rows`, or name of the stage.
    name: String,
    /// The stage has no such variable, and is a row of its own.
    alone: bool,
    /// Values of the other variables that tell rows apart, where the stage has them.
    others: Vec<Option<String>>,
}

impl Identity {
    pub(super) fn of(config: &Config, axes: &[String], source: &Source) -> Self {
        let value = config.row(&source.cell);
        Self {
            alone: value.is_none(),
            name: value.unwrap_or_else(|| source.name.clone()),
            others: axes.iter().map(|axis| value_of(&source.cell, axis)).collect(),
        }
    }

    /// Value of the matrix variable, or name of the stage.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All that tells it apart: `ptq, mobilenet`.
    pub(super) fn key(&self) -> String {
        self.text(str::to_owned)
    }

    /// The same with the labels of `config`.
    pub(super) fn title(&self, config: &Config) -> String {
        let label = |text: &str| config.labels.get(text).cloned();
        label(&self.key())
            .unwrap_or_else(|| self.text(|part| label(part).unwrap_or_else(|| part.to_owned())))
    }

    fn text(&self, of: impl Fn(&str) -> String) -> String {
        let others = self.others.iter().flatten().map(String::as_str);
        let parts: Vec<String> =
            std::iter::once(self.name.as_str()).chain(others).map(of).collect();
        parts.join(", ")
    }

    /// Whether both are of the same values of the other variables; a row without one is compared with all of its values.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.others.iter().zip(&other.others).all(|pair| match pair {
            (Some(own), Some(other)) => own == other,
            _ => true,
        })
    }
}

/// A place of the table that holds one figure of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Simulation,
    Engine(String),
    Timing { backend: String, batch: u64, threads: u32 },
    Other(String),
}

fn places(figures: &Figures) -> Vec<Place> {
    let evaluated = |subject: Subject, backend: &str| match subject {
        Subject::Simulation => vec![Place::Simulation],
        Subject::Engine => vec![Place::Engine(backend.to_owned())],
    };
    match figures {
        Figures::Evaluation(it) => evaluated(it.subject, &it.backend),
        Figures::Detection(it) => evaluated(it.subject, &it.backend),
        Figures::Benchmark(it) => {
            let place =
                |batch| Place::Timing { backend: it.backend.clone(), batch, threads: it.threads };
            it.batches.iter().map(|timed| place(timed.batch)).collect()
        }
        Figures::Other(values) => {
            values.iter().map(|(name, _)| Place::Other(name.clone())).collect()
        }
    }
}

/// Matrix variables besides `rows` that rows must be told apart by, so that no figure hides another: those in which two stages differ that have a figure for
/// the same place. The batch of a benchmark is a column already.
pub(super) fn axes(config: &Config, sources: &[(&Source, Figures)]) -> Vec<String> {
    let is_column = |variable: &str| {
        let mut timed = sources.iter().filter_map(|(source, figures)| match figures {
            Figures::Benchmark(benchmark) => Some((value_of(&source.cell, variable)?, benchmark)),
            _ => None,
        });
        let mut any = false;
        timed.all(|(value, benchmark)| {
            any = true;
            benchmark.batches.iter().all(|timed| timed.batch.to_string() == value)
        }) && any
    };
    let mut axes: Vec<String> = Vec::new();
    while let Some(axis) = hidden_by(config, &axes, sources, &is_column) {
        axes.push(axis);
    }
    axes
}

/// A variable in which two stages differ that have a figure for the same place of the same row.
fn hidden_by(
    config: &Config,
    axes: &[String],
    sources: &[(&Source, Figures)],
    is_column: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let mut first: HashMap<(Identity, Place), &Source> = HashMap::new();
    for (source, figures) in sources {
        let identity = Identity::of(config, axes, source);
        for place in places(figures) {
            let known = *first.entry((identity.clone(), place)).or_insert(source);
            let differs = |variable: &String| match (
                value_of(&known.cell, variable),
                value_of(&source.cell, variable),
            ) {
                (Some(one), Some(other)) => one != other,
                _ => false,
            };
            let mut variables = source.cell.iter().map(|(variable, _)| variable);
            let found = variables.find(|variable| {
                **variable != config.rows && differs(variable) && !is_column(variable)
            });
            if found.is_some() {
                return found.cloned();
            }
        }
    }
    None
}
