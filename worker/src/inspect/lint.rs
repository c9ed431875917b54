//! `qpipe model lint`: findings for people and programs.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::graph::Graph;
use crate::quant::insert::TARGET_KEY;
use crate::quant::lint::{Finding, lint_as_written};
use crate::quant::placement::POLICIES;
use crate::quant::quantized::{Form, Quantized};
use crate::{Error, Result, onnx, passes};

/// What is found in a file.
#[derive(Clone, Debug, Serialize)]
pub struct Lint {
    /// The file.
    pub file: String,
    /// The runtime for which it was looked at; `null`: for all of them.
    pub target: Option<String>,
    /// Count of Q/DQ pairs' DequantizeLinear nodes.
    pub dequantize_linear: usize,
    /// In which forms it is quantized, and by which operators; empty: nothing in it is.
    pub quantized: Vec<Quantized>,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Lint {
    /// Looks at a file; for `target`, or the runtime that its metadata names, or all.
    ///
    /// # Errors
    /// What cannot be read; a target that is not known.
    pub fn read(path: &Path, target: Option<&str>) -> Result<Self> {
        let mut model = onnx::read(path)?;
        let named = target.or_else(|| model.metadata.get(TARGET_KEY).map(String::as_str));
        let policy = named.map(|name| {
            POLICIES.iter().find(|policy| policy.name == name).ok_or_else(|| {
                let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
                Error::user(format!("no runtime \"{name}\""))
                    .help(format!("known are {}", names.join(", ")))
            })
        });
        let policy = policy.transpose()?;
        let quantized = Quantized::of(&model.graph);
        let nodes = model.graph.nodes.clone();
        let written = Graph { nodes, ..Graph::default() };
        passes::to_standard_pairs(&mut model);
        passes::fold_constants(&mut model)?;
        let pairs = model.graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear");
        Ok(Self {
            file: path.display().to_string(),
            target: policy.map(|policy| policy.name.to_owned()),
            dequantize_linear: pairs.count(),
            quantized,
            findings: lint_as_written(&model.graph, &written, policy.map(|policy| policy.target)),
        })
    }

    /// As JSON.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::bug(error.to_string()))
    }

    /// As text: each rule once, with what it costs and what to do, and its places.
    pub fn text(&self) -> String {
        let target =
            self.target.as_ref().map_or_else(String::new, |target| format!(" for {target}"));
        if self.quantized.is_empty() {
            return format!("{}: no Q/DQ pairs: nothing in it is quantized\n", self.file);
        }
        let mut text = match self.findings.len() {
            0 => format!("{}: nothing found{target}\n", self.file),
            1 => format!("{}: 1 finding{target}\n", self.file),
            some => format!("{}: {some} findings{target}\n", self.file),
        };
        let others = self.quantized.iter().filter(|quantized| quantized.form != Form::Pairs);
        for quantized in others {
            let (about, counts) = (quantized.form.about(), quantized.counts());
            let _ = writeln!(text, "  {about}: {counts}; rules about pairs do not apply to them");
        }
        let mut last = "";
        for finding in &self.findings {
            if finding.rule != last {
                last = finding.rule;
                let _ =
                    writeln!(text, "\n{last}\n  cost: {}\n  do: {}", finding.cost, finding.remedy);
            }
            let _ =
                writeln!(text, "    {} \"{}\": {}", finding.operator, finding.node, finding.what);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData, ValueInfo};

    /// As NVIDIA ModelOpt's exporter writes them: a zero point of floats and a Cast.
    #[test]
    fn zero_points_that_the_file_computes_are_known() {
        let cast = Node::new("zero", "Cast", &["floats"], &["zero"]);
        let pair = ["QuantizeLinear", "DequantizeLinear"].into_iter().zip([("x", "q"), ("q", "y")]);
        let pair = pair.map(|(op, (from, to))| Node::new(to, op, &[from, "scale", "zero"], &[to]));
        let number = Attribute::Int(DType::I8.onnx().into());
        let graph = Graph {
            nodes: std::iter::once(cast.with("to", number)).chain(pair).collect(),
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            initializers: [("floats", 0.0), ("scale", 0.1)]
                .map(|(name, value)| (name.to_owned(), TensorData::f32(&[], &[value])))
                .into(),
            ..Graph::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        onnx::write_one_file(&Model::new(graph, 17), &path).unwrap();
        let lint = Lint::read(&path, Some("tensorrt")).unwrap();
        let rules: Vec<&str> = lint.findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, ["idle-pair"]);
    }
}
