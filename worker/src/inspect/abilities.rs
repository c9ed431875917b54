//! What can be done with a model, and why not where not.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::graph::{Model, Node};
use crate::interp::{Trainable, refusals};
use crate::ops::Shapes;
use crate::quant::placement::{POLICIES, survey};
use crate::quant::prepare::prepare;

/// What can be done with a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// Whether it can be executed: `evaluate`, `calibrate`.
    pub executable: Ability,
    /// Whether all its parameters can be trained: `train`, `finetune`.
    pub trainable: Ability,
    /// For each runtime, whether it has layers that can be quantized: `insert-qdq`.
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

/// An operator with its domain where that is not the standard's: `Relu`, `com.microsoft.Gelu`.
pub(super) fn operator(node: &Node) -> String {
    match node.domain.as_str() {
        "" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

fn refused(model: &Model, node: &Node, reason: String) -> Refused {
    let own = |set: &&crate::graph::OperatorSet| set.domain == node.domain;
    let opset = match node.domain.as_str() {
        "" => model.opset(),
        _ => model.opsets.iter().find(own).map_or(0, |set| set.version),
    };
    Refused {
        node: node.label().to_owned(),
        operator: operator(node),
        opset,
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
    Ability { can: refused.is_empty(), count, of: nodes.len(), reason: None, refused }
}

fn trainable(model: &Model) -> Ability {
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
    let reason = if of == 0 {
        Some("no layer reads a constant weight".to_owned())
    } else if blocked == 0 && !refusals(model).is_empty() {
        Some("it cannot be executed".to_owned())
    } else {
        None
    };
    let can = blocked == 0 && reason.is_none();
    Ability { can, count: of - blocked, of, reason, refused: nodes }
}

fn quantizable(model: &Model) -> Vec<(String, Ability)> {
    let mut prepared = model.clone();
    let failed = prepare(&mut prepared).err();
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
        let reason = (count == 0).then(|| "no layer is covered by the target's rules".to_owned());
        (policy.name.to_owned(), Ability { can: count > 0, count, of, reason, refused })
    });
    each.collect()
}
