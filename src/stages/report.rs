//! `report`: one table, from recorded figures only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Contract, Input, Output, PortType, Ref, Runs};

/// Puts the figures of all `evaluate` and `benchmark` stages side by side: a row a variant.
///
/// A stage belongs to the row that the matrix variable `rows` names; one without that variable is
/// a row of its own. Outputs: `table` (Markdown), `html`, `json`.
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

fn default_rows() -> String {
    "variant".to_owned()
}

impl Contract for Report {
    const NAME: &'static str = "report";
    const VERSION: u32 = 2;
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
