//! `chosen.toml`: the layers to leave in float, for people, for git and for `insert-qdq`.
//!
//! It is a pipeline file of one parameter, so that other files can extend it. Of figures it has only the error, rounded, which is the same
//! wherever the layers and the kind of processor are: a search that finds the same layers again writes the same bytes, and nothing that uses
//! them runs again.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::drawing::sqnr;
use super::{Candidate, Pareto};
use crate::analysis::Outcome;
use crate::graph::Graph;
use crate::quant::placement::matches;
use crate::{Error, Result};

/// Layers to leave in float.
#[derive(Clone, Debug, Deserialize)]
pub struct Chosen {
    params: Params,
}

#[derive(Clone, Debug, Deserialize)]
struct Params {
    float_layers: Vec<String>,
}

/// The file of a candidate.
pub fn fragment(pareto: &Pareto, candidate: &Candidate) -> String {
    let setting = &pareto.setting;
    let what = match (candidate.float_layers.len(), pareto.layers.len()) {
        (0, _) => "All layers are quantized.".to_owned(),
        (some, all) if some == all => "All layers stay in float.".to_owned(),
        (some, all) => format!("{some} of {all} layers stay in float."),
    };
    let error = |outcome: &Outcome| {
        let agreement = 100.0 * outcome.fidelity.agreement;
        format!("SQNR {} dB, agreement {agreement:.1} %", sqnr(outcome))
    };
    let mut errors = format!("in simulation {}", error(&candidate.outcome));
    if let Some(engine) = &candidate.engine {
        let _ = write!(errors, "; of the engine {}", error(&engine.outcome));
    }
    let mut text = format!(
        "# Chosen by a `search` stage of qpipe: target {}, method {}, batch {}. {what}\n\
         # Against the float model, {errors}.\n\
         # SQNR: power of the model's outputs over that of their error, all layers together, in decibels; more is better, 20 dB are an error of a tenth.\n\
         # Agreement: share of the images whose highest output is the float model's.\n\
         #\n\
         # exclude_from = {{ file = \"THIS FILE\" }} of an `insert-qdq` stage takes it. Or a pipeline file extends it, extends = \"THIS FILE\",\n\
         # and that stage has exclude = \"${{params.float_layers}}\".\n\
         [params]\n\
         float_layers = [\n",
        setting.target.name(),
        setting.method.name(),
        setting.batch,
    );
    for layer in &candidate.float_layers {
        let _ = writeln!(text, "    {},", toml::Value::String(layer.clone()));
    }
    text.push_str("]\n");
    text
}

impl Chosen {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            Error::user(format!("{}: no layers to leave in float: {}", path.display(), error.message()))
                .help("expected `float_layers`, an array of names, in a table [params], as the output `chosen` of a `search` stage has it")
                .key("exclude_from")
        })
    }

    /// For each node of a graph whether it is one of the layers. What is no node's name is taken for a
    /// [pattern](crate::quant::placement::matches), since people edit the file.
    ///
    /// # Errors
    /// A name of no node.
    pub fn nodes(&self, graph: &Graph) -> Result<Vec<bool>> {
        let mut found = vec![false; graph.nodes.len()];
        for name in &self.params.float_layers {
            let own = graph.nodes.iter().map(|node| node.label() == name);
            let mut own: Vec<bool> = own.collect();
            if !own.contains(&true) {
                own = matches(graph, name).map_err(|error| {
                    let error = error.at("`exclude_from`").key("exclude_from");
                    match error.help {
                        Some(_) => error,
                        None => error.help("the layers are another model's: search this one"),
                    }
                })?;
            }
            found.iter_mut().zip(own).for_each(|(found, own)| *found |= own);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::search::fixture;

    fn read(text: &str) -> Result<Chosen> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chosen.toml");
        std::fs::write(&path, text).unwrap();
        Chosen::read(&path)
    }

    #[test]
    fn what_is_written_is_read_again_whatever_nodes_are_called() {
        let names = ["/layer1/conv \"a\"", "b\\*", "conv"];
        let nodes = ["/layer1/conv \"a\"", "b\\*", "b\\c", "conv", "conv2"];
        let graph = Graph {
            nodes: nodes.iter().map(|name| Node::new(name, "Conv", &["x"], &[name])).collect(),
            ..Graph::default()
        };
        let (pareto, mut candidate) = fixture::pareto();
        candidate.float_layers = names.map(str::to_owned).to_vec();
        let chosen = read(&fragment(&pareto, &candidate)).unwrap();
        assert_eq!(chosen.nodes(&graph).unwrap(), [true, true, false, true, false]);
        candidate.float_layers.clear();
        let text = fragment(&pareto, &candidate);
        assert!(text.contains("All layers are quantized."), "{text}");
        let errors = "in simulation SQNR 25.0 dB, agreement 99.7 %; of the engine SQNR 24.9 dB, agreement 99.7 %.";
        assert!(text.contains(errors), "{text}");
        assert_eq!(read(&text).unwrap().nodes(&graph).unwrap(), [false; 5]);
    }

    /// The file of docs/mixed-precision.md, from the figures in the table there.
    #[test]
    fn the_committed_file_is_what_is_written_now() {
        let (mut pareto, mut candidate) = fixture::pareto();
        pareto.layers = vec![pareto.layers[0].clone(); 15];
        candidate.float_layers = vec!["conv1".to_owned()];
        let mut outcome = fixture::outcome(Some(37.0));
        outcome.fidelity.agreement = 1.0;
        candidate.outcome = outcome;
        candidate.engine.as_mut().unwrap().outcome = outcome;
        let committed = include_str!("../../../pipelines/mixed_precision.layers.toml");
        assert_eq!(fragment(&pareto, &candidate), committed);
    }

    #[test]
    fn patterns_are_taken_and_names_of_another_model_are_not() {
        let graph =
            Graph { nodes: vec![Node::new("conv1", "Conv", &["x"], &["y"])], ..Graph::default() };
        let nodes =
            |list: &str| read(&format!("[params]\nfloat_layers = {list}")).unwrap().nodes(&graph);
        assert_eq!(nodes("[\"op:Conv\"]").unwrap(), [true]);
        let error = nodes("[\"conv2\"]").unwrap_err();
        assert!(error.message.contains("`exclude_from`: no node of the model"), "{error}");
        assert_eq!(error.key, Some("exclude_from"));
        let error = read("layers = 3").unwrap_err();
        assert!(error.message.contains("no layers to leave in float"), "{error}");
        assert!(read("[params]\nfloat_layers = 3").is_err());
    }
}
