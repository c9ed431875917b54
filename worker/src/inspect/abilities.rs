//! What can be done with a model, and why not where not.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::Error;
use crate::graph::{DType, Model, Node};
use crate::interp::{Role, Trainable, check_executable, refusals, take_apart};
use crate::onnx::check_numbers;
use crate::ops::{Shapes, WEIGHTED};
use crate::quant::calibrate::check_inputs;
use crate::quant::placement::{POLICIES, survey};
use crate::quant::prepare::prepare;
use crate::quant::quantized;

/// What can be done with a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// Whether it can be executed: `evaluate`, `calibrate`.
    pub executable: Ability,
    /// Whether all its parameters can be trained: `train`, `finetune`.
    pub trainable: Ability,
    /// For each runtime, whether it can be calibrated and has layers that can be quantized: `calibrate`, `insert-qdq`. Where ranges alone
    /// must come from elsewhere, it cannot, and `count` is that of the layers.
    pub quantizable: Vec<(String, Ability)>,
}

/// Whether one thing can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// Whether it can.
    pub can: bool,
    /// With how many nodes, or for training parameters.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// Why not at all, where that is no node's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With which nodes it cannot.
    pub refused: Vec<Refused>,
}

/// A node that something cannot be done with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its name, or that of its first output.
    pub node: String,
    /// Its operator, with its domain where that is not the standard's.
    pub operator: String,
    /// The opset that the model imports of the operator's domain.
    pub opset: i64,
    /// Why.
    pub reason: String,
    /// For training: the parameters that no gradient reaches for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

impl Abilities {
    /// Looks at a model in its form for inference.
    pub fn of(model: &Model) -> Self {
        Self {
            executable: executable(model),
            trainable: trainable(model),
            quantizable: quantizable(model),
        }
    }
}

fn refused(model: &Model, node: &Node, reason: String) -> Refused {
    Refused {
        node: node.label().to_owned(),
        operator: node.operator(),
        opset: model.opset_of(node),
        reason,
        parameters: Vec::new(),
    }
}

fn executable(model: &Model) -> Ability {
    let nodes = &model.graph.nodes;
    let mut reasons: BTreeMap<usize, String> = Shapes::declared(model)
        .misfits
        .into_iter()
        .map(|misfit| (misfit.node, misfit.reason))
        .collect();
    reasons.extend(refusals(model).into_iter().map(|refusal| (refusal.node, refusal.reason)));
    let refused: Vec<Refused> =
        reasons.into_iter().map(|(node, reason)| refused(model, &nodes[node], reason)).collect();
    let count = nodes.len() - refused.len();
    let reason = check_numbers(model).err().map(|error| error.message);
    let can = refused.is_empty() && reason.is_none();
    Ability { can, count, of: nodes.len(), reason, refused }
}

fn trainable(model: &Model) -> Ability {
    // As a training finds it.
    let mut apart = model.clone();
    take_apart(&mut apart);
    let model = &apart;
    let trainable = Trainable::of(model);
    let (of, blocked) = (trainable.parameters.len(), trainable.blocked.len());
    let mut nodes: Vec<Refused> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for blocked in trainable.blocked {
        let place = *places.entry(blocked.node).or_insert_with(|| {
            nodes.push(refused(model, &model.graph.nodes[blocked.node], blocked.reason));
            nodes.len() - 1
        });
        nodes[place].parameters.push(blocked.parameter);
    }
    let weight = trainable.parameters.iter().any(|(_, role)| *role == Role::Weight);
    let stored = trainable.stored;
    let reason = if of == 0 || (!weight && !stored.is_empty()) {
        Some(weightless(model))
    } else if blocked == 0 && (!refusals(model).is_empty() || check_numbers(model).is_err()) {
        Some("it cannot be executed".to_owned())
    } else {
        None
    };
    if weight {
        let what = "its weight is stored as integers, in 8 or in 16 bits, and stays as it is";
        let stays = |&node: &usize| refused(model, &model.graph.nodes[node], what.to_owned());
        nodes.extend(stored.iter().map(stays));
    }
    let can = blocked == 0 && reason.is_none();
    Ability { can, count: of - blocked, of, reason, refused: nodes }
}

/// Why a model has no parameter that is trained.
fn weightless(model: &Model) -> String {
    let weights = model.graph.nodes.iter().filter(|node| WEIGHTED.contains(&node.op_type.as_str()));
    let mut weights = weights.filter_map(|node| model.graph.initializers.get(node.input(1)?));
    if let Some(half) = weights.find(|data| matches!(data.dtype, DType::F16 | DType::BF16)) {
        return format!("its weights are {}: training starts from float", half.dtype.name());
    }
    match quantized::first(&model.graph) {
        Some(_) => "its weights are stored as integers: training starts from float".to_owned(),
        None => "no layer reads a constant weight".to_owned(),
    }
}

fn quantizable(model: &Model) -> Vec<(String, Ability)> {
    let mut prepared = model.clone();
    let run = |error: Error| Error {
        message: format!("`calibrate` and `export-onnx` run it: {}", error.message),
        ..error
    };
    let failed = check_numbers(model).err().map(run);
    let failed = failed.or_else(|| prepare(&mut prepared).err());
    let failed = failed.or_else(|| check_executable(&prepared).err().map(run));
    // Layers are covered, but their ranges must come from elsewhere.
    let ranges = check_inputs(&prepared).err().map(|error| {
        format!(
            "`calibrate` refuses it: {}; weights alone, or all with ranges of your own, can be quantized",
            error.message
        )
    });
    let each = POLICIES.iter().map(|policy| {
        let of = prepared.graph.nodes.len();
        if let Some(error) = &failed {
            let reason = Some(error.message.clone());
            return (
                policy.name.to_owned(),
                Ability { can: false, count: 0, of, reason, refused: vec![] },
            );
        }
        let layers = survey(&prepared.graph, policy);
        let refused: Vec<Refused> = layers
            .iter()
            .zip(&prepared.graph.nodes)
            .filter_map(|(layer, node)| Some(refused(&prepared, node, layer.reason.clone()?)))
            .collect();
        let count = layers.iter().filter(|layer| layer.quantized).count();
        let reason = match count {
            0 => Some("no layer is covered by the target's rules".to_owned()),
            _ => ranges.clone(),
        };
        let can = reason.is_none();
        (policy.name.to_owned(), Ability { can, count, of, reason, refused })
    });
    each.collect()
}
