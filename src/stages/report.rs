//! `report`: one table, from recorded figures only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Input, Output, PortType, Ref, Runs};

/// Puts the figures of all `evaluate` and `benchmark` stages side by side: a row a variant.
///
/// A stage belongs to the row that the matrix variable `rows` names; one without that variable is
/// a row of its own. Where two stages of a row have a figure for the same place and differ in another variable of their matrix, there is a row for each of its
/// values (`int8, mobilenet`), compared with the baseline of the same value. Of stages that do not differ so the first figure is shown, and a note tells the
/// other. Δ compares accuracies of equally many images. Outputs: `table` (Markdown), `html`, `json`.
///
/// A quantized engine that is slower than the fastest float one of the same runtime, threads and batch is told as a failure of the experiment
/// (`FAILED: …`, `failures` in `json`). The run succeeds all the same; `[guards.NAME]` with `baseline` makes it fail.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Stages to show. Default: all `evaluate` and `benchmark` stages of the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub from: Option<Vec<Ref>>,
    /// Matrix variable whose values are the rows.
    #[serde(default = "default_rows")]
    pub rows: String,
    /// Row that the others are compared with. Default: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Titles of rows: value of the matrix variable → title.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Heading of the table. Default: the pipeline's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Report {
    /// The row of a stage with these matrix variables, as text; `None`: it is a row of its own, of its name.
    pub fn row(&self, cell: &[(String, serde_json::Value)]) -> Option<String> {
        value_of(cell, &self.rows)
    }
}

/// Value of a matrix variable as text.
pub fn value_of(cell: &[(String, serde_json::Value)], variable: &str) -> Option<String> {
    let (_, value) = cell.iter().find(|(name, _)| name == variable)?;
    Some(match value {
        serde_json::Value::String(text) => text.clone(),
        value => value.to_string(),
    })
}

fn default_rows() -> String {
    "variant".to_owned()
}

impl Contract for Report {
    const NAME: &'static str = "report";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "one table of all variants";
    const RUNS: Runs = Runs::Runner;

    /// Inputs from `from`; the planner adds one for each `evaluate` and `benchmark` stage where
    /// `from` is not given.
    fn inputs(&self) -> Vec<Input> {
        let refs = self.from.as_deref().unwrap_or_default();
        let input = |(index, reference): (usize, &Ref)| Input {
            port: format!("from.{index}"),
            field: vec!["from".to_owned(), index.to_string()],
            ..Input::reference("from", reference, &[PortType::Metrics])
        };
        refs.iter().enumerate().map(input).collect()
    }

    fn outputs(&self) -> Vec<Output> {
        vec![
            Output::new("table", PortType::File, "report.md"),
            Output::new("html", PortType::File, "report.html"),
            Output::new("json", PortType::File, "report.json"),
        ]
    }
}
