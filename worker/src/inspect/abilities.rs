//! What can be done with a model, and why not where not.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::Error;
use crate::graph::{Model, Node};
use crate::interp::{
    Stored, Trainable, check_executable, check_image_inputs, refusals, take_apart,
};
use crate::onnx::check_numbers;
use crate::ops::Shapes;
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
    let fed = check_numbers(model).and_then(|()| check_image_inputs(model));
    let reason = fed.err().map(|error| error.message);
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
    let weightless = trainable.weightless();
    let trains = weightless.is_none();
    let mut nodes: Vec<Refused> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for blocked in trainable.blocked {
        let place = *places.entry(blocked.node).or_insert_with(|| {
            nodes.push(refused(model, &model.graph.nodes[blocked.node], blocked.reason));
            nodes.len() - 1
        });
        nodes[place].parameters.push(blocked.parameter);
    }
    let reason = if let Some(weightless) = weightless {
        // Operators on integers are no layers here.
        let integers = weightless.node.is_none() && quantized::first(&model.graph).is_some();
        let stored = "its weights are stored as integers: training starts from float";
        Some(if integers { stored.to_owned() } else { weightless.reason })
    } else if blocked == 0 && (!refusals(model).is_empty() || check_numbers(model).is_err()) {
        Some("it cannot be executed".to_owned())
    } else if let Err(error) = check_image_inputs(model) {
        Some(error.message)
    } else {
        None
    };
    if trains {
        let stays = |stored: &Stored| {
            let what = format!("its weight is stored as {}, and stays so", stored.dtype.name());
            refused(model, &model.graph.nodes[stored.node], what)
        };
        nodes.extend(trainable.stored.iter().map(stays));
    }
    let can = blocked == 0 && reason.is_none();
    Ability { can, count: of - blocked, of, reason, refused: nodes }
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
    let fed = check_inputs(&prepared).and_then(|()| check_image_inputs(&prepared));
    let ranges = fed.err().map(|error| {
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
