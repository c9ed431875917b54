//! What is in a model.

use std::collections::BTreeMap;
use std::path::Path;

use indexmap::IndexMap;
use serde::Serialize;

use super::abilities::Abilities;
use super::cost::Cost;
use crate::graph::{Dim, Model, ValueInfo};
use crate::interp::Trainable;
use crate::ops::Shapes;
use crate::quant::quantized::Quantized;
use crate::shapes::Extent;
use crate::{Error, Result, onnx, passes};

/// What is in a model, and what can be done with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The file.
    pub file: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// What wrote it, and its version.
    pub producer: String,
    /// Versions of the operator sets by their domains; that of the standard is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// Inputs that a caller feeds.
    pub inputs: Vec<Value>,
    /// Outputs.
    pub outputs: Vec<Value>,
    /// Count of nodes.
    pub nodes: usize,
    /// Operators, most frequent first.
    pub operators: Vec<Operator>,
    /// Constants.
    pub constants: Constants,
    /// In which forms it is quantized already, and by which operators; empty: nothing in it is.
    pub quantized: Vec<Quantized>,
    /// How much it computes.
    pub cost: Cost,
    /// What can be done with it.
    #[serde(flatten)]
    pub abilities: Abilities,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Element type as ONNX names it; `None`: not a tensor, or of a type that is not known here.
    pub dtype: Option<String>,
    /// Extents: numbers, names, `?`; `None`: the rank is not known.
    pub shape: Option<Vec<String>>,
}

/// An operator and how often it stands in the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its name, with its domain where that is not the standard's.
    pub operator: String,
    /// Count of its nodes.
    pub count: usize,
}

/// Initializers in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Constants {
    /// Count of initializers.
    pub tensors: usize,
    /// Count of their elements.
    pub elements: usize,
    /// Their size, bytes.
    pub bytes: usize,
    /// Count of elements of those that a layer trains: weights, biases, scales and shifts.
    pub parameters: usize,
}

impl Summary {
    /// Reads a file and looks at it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let mut model = onnx::read(path)?;
        let mut summary = Self::of(&model);
        summary.file = path.display().to_string();
        // As the stages take it: what is left from training must not count against it.
        if passes::inference_form(&mut model).is_ok() {
            summary.abilities = Abilities::of(&model);
        }
        Ok(summary)
    }

    /// Looks at a model as it is.
    pub fn of(model: &Model) -> Self {
        let (graph, shapes) = (&model.graph, Shapes::declared(model));
        let mut operators: IndexMap<String, usize> = IndexMap::new();
        for node in &graph.nodes {
            *operators.entry(node.operator()).or_default() += 1;
        }
        let mut operators: Vec<Operator> =
            operators.into_iter().map(|(operator, count)| Operator { operator, count }).collect();
        operators.sort_by(|a, b| b.count.cmp(&a.count).then(a.operator.cmp(&b.operator)));
        Self {
            file: String::new(),
            ir_version: model.ir_version,
            producer: format!("{} {}", model.producer_name, model.producer_version)
                .trim()
                .to_owned(),
            opsets: opsets(model),
            metadata: model.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            inputs: graph.inputs.iter().map(Value::of).collect(),
            outputs: graph.outputs.iter().map(|output| Value::inferred(output, &shapes)).collect(),
            nodes: graph.nodes.len(),
            operators,
            constants: constants(model),
            quantized: Quantized::of(graph),
            cost: Cost::of(model, &shapes),
            abilities: Abilities::of(model),
        }
    }

    /// As JSON, indented.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::bug(error.to_string()))
    }
}

impl Value {
    /// As the file declares it.
    pub fn of(info: &ValueInfo) -> Self {
        Self {
            name: info.name.clone(),
            dtype: match info.dtype {
                Some(dtype) => Some(dtype.name().to_owned()),
                None if onnx::foreign(info) == Some(onnx::STRINGS) => Some("string".to_owned()),
                None => None,
            },
            shape: info.shape.as_ref().map(|shape| shape.iter().map(extent).collect()),
        }
    }

    /// As the file declares it, or where it says no shape, as it follows from the inputs.
    fn inferred(info: &ValueInfo, shapes: &Shapes) -> Self {
        let mut value = Self::of(info);
        let follows =
            shapes.shape(&info.name).filter(|shape| shape.iter().all(Extent::is_of_inputs));
        let stated =
            value.shape.as_ref().is_some_and(|shape| shape.iter().all(|extent| extent != "?"));
        if let (Some(follows), false) = (follows, stated) {
            value.shape = Some(follows.iter().map(Extent::to_string).collect());
        }
        value
    }

    /// `float [batch, 3, 224, 224]`.
    pub fn kind(&self) -> String {
        let dtype = self.dtype.as_deref().unwrap_or("of another type");
        match &self.shape {
            Some(shape) => format!("{dtype} [{}]", shape.join(", ")),
            None => format!("{dtype}, rank unknown"),
        }
    }
}

fn extent(dim: &Dim) -> String {
    match dim {
        Dim::Fixed(extent) => extent.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    }
}

/// Versions by domain; the standard's own domain has two names.
pub(super) fn opsets(model: &Model) -> BTreeMap<String, i64> {
    let name =
        |domain: &str| if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
    model.opsets.iter().map(|set| (name(&set.domain), set.version)).collect()
}

fn constants(model: &Model) -> Constants {
    let initializers = &model.graph.initializers;
    let trained = Trainable::of(model).parameters;
    let elements = |name: &String| initializers.get(name).map_or(0, crate::graph::TensorData::len);
    Constants {
        tensors: initializers.len(),
        elements: initializers.values().map(crate::graph::TensorData::len).sum(),
        bytes: initializers.values().map(|data| data.bytes.len()).sum(),
        parameters: trained.iter().map(|(name, _)| elements(name)).sum(),
    }
}
