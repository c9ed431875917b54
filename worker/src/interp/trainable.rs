//! Whether a loss behind a model says anything about its parameters, told before anything runs.

use std::collections::{HashMap, HashSet};

use super::fuse;
use super::parameters::{Role, origin, roles};
use super::prepare::{check_executable, refusals};
use crate::graph::{DType, Graph, Model, Node, TensorData};
use crate::ops::{self, Gradient, WEIGHTED};
use crate::{Error, Result};

/// What of a model can be trained.
#[derive(Debug)]
pub struct Trainable {
    /// Constants that a layer trains, with what they are to it, in the order of the file.
    pub parameters: Vec<(String, Role)>,
    /// Those of them that no gradient reaches.
    pub blocked: Vec<Blocked>,
    /// Layers whose weight is no parameter, since it is stored in another type than float.
    pub stored: Vec<Stored>,
}

/// A layer whose weight is stored in a type that is not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Index of its node.
    pub node: usize,
    /// The type: an integer's, or float16.
    pub dtype: DType,
}

/// Why nothing of a model is trained, or biases and scales alone would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weightless {
    /// Index of the first layer whose weight is of another type, where that is why.
    pub node: Option<usize>,
    /// The reason.
    pub reason: String,
}

/// A parameter that no gradient reaches: every way from it to an output ends at a node that lets none through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Name of the initializer.
    pub parameter: String,
    /// Index of the first such node.
    pub node: usize,
    /// Why it lets none through.
    pub reason: String,
}

impl Trainable {
    /// Looks at a model. Parameters that no output depends on are no matter.
    pub fn of(model: &Model) -> Self {
        let graph = &model.graph;
        let written: Vec<(&str, TensorData)> = graph
            .nodes
            .iter()
            .filter(|node| node.is_constant())
            .filter_map(|node| Some((node.outputs.first()?.as_str(), node.constant().ok()?)))
            .collect();
        let mut constants: HashMap<&str, &TensorData> =
            written.iter().map(|(name, data)| (*name, data)).collect();
        constants.extend(graph.initializers.iter().map(|(n, data)| (n.as_str(), data)));
        let floats = constants.iter().filter(|(_, data)| is_float(data)).map(|(name, _)| *name);
        let roles = roles(graph, &floats.collect());
        let walls = walls(model, &constants);
        let open = behind(graph, |node| !walls.contains_key(&node));
        let used = behind(graph, |_| true);
        let initializers = graph.initializers.keys().map(String::as_str);
        let names = initializers.chain(written.iter().map(|(name, _)| *name));
        let parameters: Vec<(String, Role)> =
            names.filter_map(|name| Some((name.to_owned(), *roles.get(name)?))).collect();
        let mut blocked = Vec::new();
        for (name, _) in &parameters {
            let name = name.as_str();
            if open.contains(name) || !used.contains(name) {
                continue;
            }
            if let Some(node) = first_wall(graph, name, &walls, &used) {
                let (parameter, reason) = (name.to_owned(), walls[&node].clone());
                blocked.push(Blocked { parameter, node, reason });
            }
        }
        Self { parameters, blocked, stored: stored(graph, &constants) }
    }

    /// Whether there is no weight to train: what `finetune` refuses, and `inspect` tells.
    pub fn weightless(&self) -> Option<Weightless> {
        let has = |wanted: fn(Role) -> bool| self.parameters.iter().any(|(_, role)| wanted(*role));
        if has(|role| role == Role::Weight) {
            return None;
        }
        if let Some(first) = self.stored.first() {
            let reason = format!("its weights are {}: training starts from float", self.types());
            return Some(Weightless { node: Some(first.node), reason });
        }
        let trains = has(|role| !matches!(role, Role::Bias | Role::Scale));
        let reason = "no layer reads a constant weight";
        (!trains).then(|| Weightless { node: None, reason: reason.to_owned() })
    }

    /// The types of the weights that are not trained, each once: `int8 and int4`.
    pub fn types(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for stored in &self.stored {
            if !names.contains(&stored.dtype.name()) {
                names.push(stored.dtype.name());
            }
        }
        names.join(" and ")
    }
}

/// Refuses a model of which a parameter cannot be trained; what can be of any other.
///
/// # Errors
/// The first node that lets no gradient through, and the parameters before it.
pub fn check_trainable(model: &Model) -> Result<Trainable> {
    let trainable = Trainable::of(model);
    let Some(first) = trainable.blocked.first() else {
        check_used(model)?;
        check_weights(model, &trainable)?;
        return Ok(trainable);
    };
    let before: Vec<&str> = trainable
        .blocked
        .iter()
        .filter(|blocked| blocked.node == first.node)
        .map(|blocked| blocked.parameter.as_str())
        .collect();
    let more =
        if before.len() > 3 { format!(" and {} more", before.len() - 3) } else { String::new() };
    let place = model.place(&model.graph.nodes[first.node]);
    Err(Error::user(format!(
        "{}: no gradient reaches `{}`{more}, so the model cannot be trained",
        first.reason,
        before[..before.len().min(3)].join("`, `")
    ))
    .help("train the part before it: cut the model there, or export it without that operator; `qpipe model inspect` lists all of them")
    .at(place))
}

/// Refuses a model without any weight that could be trained: of a quantized file that stores integers biases would be trained alone.
fn check_weights(model: &Model, trainable: &Trainable) -> Result<()> {
    let Some(Weightless { node, reason }) = trainable.weightless() else { return Ok(()) };
    let Some(node) = node else {
        return Err(Error::user(format!("the model has no parameter to train: {reason}"))
            .help("`qpipe model inspect` shows what each node is"));
    };
    let half = |stored: &Stored| matches!(stored.dtype, DType::F16 | DType::BF16);
    let help = match trainable.stored.iter().all(half) {
        true => {
            "take the model from before its conversion to half precision; `export-onnx` makes float weights of those that a Cast alone widens"
        }
        false => {
            "train or fine-tune the float model: insert-qdq with ranges of it gives the model of `finetune`"
        }
    };
    let first = &model.graph.nodes[node];
    Err(Error::user(reason).help(help).at(model.place(first)))
}

/// Refuses a model with a node that cannot be executed, if an output depends on it: no gradient needs to pass it, but values do.
fn check_used(model: &Model) -> Result<()> {
    let used = behind(&model.graph, |_| true);
    let is_used = |node: &Node| node.outputs.iter().any(|output| used.contains(output.as_str()));
    match refusals(model).iter().any(|refusal| is_used(&model.graph.nodes[refusal.node])) {
        true => check_executable(model),
        false => Ok(()),
    }
}

/// Layers whose weight comes from a constant that is not float, also where it is clipped or widened first: quantizers write integers of few bits
/// as int8 within bounds.
fn stored(graph: &Graph, constants: &HashMap<&str, &TensorData>) -> Vec<Stored> {
    let producers = graph.producers();
    let kept = |weight: &str| {
        let mut name = origin(graph, &producers, weight);
        while let Some(&index) = producers.get(name) {
            let node = &graph.nodes[index];
            match node.input(0) {
                Some(input) if ["Cast", "Clip"].contains(&node.op_type.as_str()) => {
                    name = origin(graph, &producers, input);
                }
                _ => break,
            }
        }
        constants.get(name).filter(|data| !is_float(data)).map(|data| data.dtype)
    };
    let layers = graph.nodes.iter().enumerate();
    let layers = layers.filter(|(_, node)| WEIGHTED.contains(&node.op_type.as_str()));
    let stored =
        layers.filter_map(|(node, layer)| Some(Stored { node, dtype: kept(layer.input(1)?)? }));
    stored.collect()
}

fn is_float(data: &TensorData) -> bool {
    matches!(data.dtype, DType::F32 | DType::F64)
}

/// Nodes that let no gradient through, and why.
fn walls(model: &Model, constants: &HashMap<&str, &TensorData>) -> HashMap<usize, String> {
    let graph = &model.graph;
    // A quantization that is undone at once is trained straight through.
    let pairs = fuse::pairs(graph, constants, &HashSet::new()).unwrap_or_default();
    let mut walls: HashMap<usize, String> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let op = ops::find(&node.op_type, model.opset()).filter(|_| node.domain.is_empty());
        let stops = op.is_some_and(|op| op.gradient == Gradient::Stops);
        let rounds = node.op_type == "QuantizeLinear" && node.domain.is_empty();
        if rounds && !pairs.contains_key(&index) {
            walls.insert(index, "it rounds, and no DequantizeLinear undoes it".to_owned());
        } else if stops && !rounds {
            walls.insert(index, "this operator has no gradient".to_owned());
        }
    }
    for refusal in refusals(model) {
        walls.insert(refusal.node, refusal.reason);
    }
    walls
}

/// Values from which some way leads to an output over nodes that `passes` lets pass.
fn behind(graph: &Graph, passes: impl Fn(usize) -> bool) -> HashSet<&str> {
    let mut open: HashSet<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if passes(index) && node.outputs.iter().any(|output| open.contains(output.as_str())) {
            open.extend(node.inputs.iter().map(String::as_str));
        }
    }
    open
}

/// The first wall that a value runs into, on a way to an output.
fn first_wall(
    graph: &Graph,
    name: &str,
    walls: &HashMap<usize, String>,
    used: &HashSet<&str>,
) -> Option<usize> {
    let mut reached = HashSet::from([name]);
    for (index, node) in graph.nodes.iter().enumerate() {
        let reads = node.inputs.iter().any(|input| reached.contains(input.as_str()));
        if !reads || !node.outputs.iter().any(|output| used.contains(output.as_str())) {
            continue;
        }
        if walls.contains_key(&index) {
            return Some(index);
        }
        reached.extend(node.outputs.iter().map(String::as_str));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Dim, OperatorSet, ValueInfo};
    use crate::interp::{Options, Program};

    /// A convolution, then `nodes` from `a` to `y`.
    fn model(nodes: Vec<Node>) -> Model {
        let mut all = vec![Node::new("conv", "Conv", &["x", "w"], &["a"])];
        all.extend(nodes);
        let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 4]);
        let weight = TensorData::f32(&[1, 1, 1, 1], &[1.0]);
        let scale = TensorData::f32(&[], &[0.1]);
        let graph = Graph {
            nodes: all,
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            initializers: [("w".to_owned(), weight), ("s".to_owned(), scale)].into_iter().collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    }

    fn refused(nodes: Vec<Node>) -> String {
        check_trainable(&model(nodes)).map_or_else(|error| error.message, |_| String::new())
    }

    #[test]
    fn an_operator_without_gradient_on_every_way_is_named() {
        let compare = Node::new("cmp", "Shape", &["a"], &["y"]);
        assert_eq!(
            refused(vec![compare.clone()]),
            "node \"cmp\" (Shape), opset 17: this operator has no gradient: no gradient reaches `w`, \
             so the model cannot be trained"
        );
        // Another way lets it through.
        let mut beside = compare;
        beside.outputs = vec!["s2".to_owned()];
        let reshape = Node::new("r", "Reshape", &["a", "s2"], &["y"]);
        assert_eq!(refused(vec![beside, reshape]), "");
    }

    #[test]
    fn operators_that_cannot_be_executed_are_named() {
        let strange = |name: &str| Node::new("odd", name, &["a"], &["y"]);
        assert!(
            refused(vec![strange("NoSuchOp")])
                .contains("node \"odd\" (NoSuchOp), opset 17: this operator cannot")
        );
        let ceil = strange("MaxPool");
        assert!(refused(vec![ceil]).contains("`kernel_shape` is missing"));
        // No gradient passes what stands before the weights, but values do.
        let mut before = model(vec![Node::new("r", "Relu", &["a"], &["y"])]);
        before.graph.nodes[0].inputs[0] = "odd".to_owned();
        before.graph.nodes.insert(0, Node::new("odd", "NoSuchOp", &["x"], &["odd"]));
        let error = check_trainable(&before).unwrap_err();
        assert!(error.message.starts_with("node \"odd\" (NoSuchOp), opset 17: "), "{error}");
        // One that no output depends on is no matter.
        let unread = Node::new("odd", "NoSuchOp", &["a"], &["nobody"]);
        assert_eq!(refused(vec![unread, Node::new("r", "Relu", &["a"], &["y"])]), "");
    }

    /// The opset was the standard's, and a compilation said nothing of what to do.
    #[test]
    fn an_operator_of_another_domain_has_its_domains_opset() {
        let mut node = Node::new("odd", "QLinearAdd", &["a"], &["y"]);
        node.domain = "com.microsoft".to_owned();
        let mut model = model(vec![node]);
        model.opsets.push(OperatorSet { domain: "com.microsoft".to_owned(), version: 1 });
        let checked = check_executable(&model).unwrap_err();
        let compiled = Program::compile(&model, &Options::default()).err().unwrap();
        for error in [checked, compiled] {
            let expected = "node \"odd\" (QLinearAdd), opset 1: operators of the domain `com.microsoft` cannot";
            assert!(error.message.starts_with(expected), "{error}");
            assert!(error.help.unwrap().contains("docs/operators.md"));
        }
    }

    /// `finetune` of a quantizer's file trained biases alone, or ended in an error of libtorch where there was none.
    #[test]
    fn weights_that_are_stored_as_integers_are_not_trained() {
        let of = |bias: bool, second: bool| {
            let mut model = model(vec![Node::new("fc", "MatMul", &["a", "v"], &["y"])]);
            let graph = &mut model.graph;
            graph.nodes.insert(0, Node::new("d", "DequantizeLinear", &["i", "s"], &["w"]));
            graph.initializers.shift_remove("w");
            graph.initializers.insert("i".to_owned(), TensorData::i8(&[1, 1, 1, 1], &[1]));
            if bias {
                graph.nodes[1].inputs.push("b".to_owned());
                graph.initializers.insert("b".to_owned(), TensorData::f32(&[1], &[1.0]));
            }
            if second {
                graph.initializers.insert("v".to_owned(), TensorData::f32(&[1, 1], &[1.0]));
            }
            model
        };
        for bias in [false, true] {
            let error = check_trainable(&of(bias, false)).unwrap_err();
            assert!(
                error.message.starts_with("node \"conv\" (Conv), opset 17: its weights are int8:"),
                "{error}"
            );
            assert!(error.help.unwrap().contains("insert-qdq"));
        }
        // One layer of several may be.
        let model = of(true, true);
        check_trainable(&model).unwrap();
        assert_eq!(Trainable::of(&model).stored, [Stored { node: 1, dtype: DType::I8 }]);
        // Another tool writes integers of few bits as int8 within bounds: they were taken for no weights at all.
        let mut clipped = of(true, true);
        let graph = &mut clipped.graph;
        graph.nodes[0].inputs[0] = "c".to_owned();
        graph.nodes.insert(0, Node::new("clip", "Clip", &["i", "low", "high"], &["c"]));
        for (name, bound) in [("low", -8), ("high", 7)] {
            graph.initializers.insert(name.to_owned(), TensorData::i8(&[], &[bound]));
        }
        assert_eq!(Trainable::of(&clipped).stored, [Stored { node: 2, dtype: DType::I8 }]);
        clipped.graph.initializers.shift_remove("v");
        let error = check_trainable(&clipped).unwrap_err();
        assert!(error.message.contains("its weights are int8"), "{error}");
    }

    /// The message said "stored as integers, in 8 or in 16 bits", of float16 as of integers of 4 bits; behind a Cast, that nothing reads a weight.
    #[test]
    fn the_type_of_weights_that_are_not_trained_is_named() {
        for cast in [false, true] {
            let mut half = model(vec![Node::new("r", "Relu", &["a"], &["y"])]);
            let graph = &mut half.graph;
            let two =
                TensorData { dtype: DType::F16, shape: vec![1; 4], bytes: vec![0, 64].into() };
            graph.initializers.insert("w".to_owned(), two);
            graph.nodes[0].inputs.push("b".to_owned());
            graph.initializers.insert("b".to_owned(), TensorData::f32(&[1], &[1.0]));
            if cast {
                graph.nodes[0].inputs[1] = "wide".to_owned();
                let node = Node::new("c", "Cast", &["w"], &["wide"]).with("to", Attribute::Int(1));
                graph.nodes.insert(0, node);
            }
            let error = check_trainable(&half).unwrap_err();
            assert_eq!(
                error.message,
                "node \"conv\" (Conv), opset 17: its weights are float16: training starts from float"
            );
            assert!(error.help.unwrap().contains("export-onnx"));
        }
    }

    #[test]
    fn quantization_is_trained_through_only_where_it_is_undone() {
        let quantize = Node::new("q", "QuantizeLinear", &["a", "s"], &["q"]);
        let dequantize = Node::new("d", "DequantizeLinear", &["q", "s"], &["y"]);
        assert_eq!(refused(vec![quantize.clone(), dequantize.clone()]), "");
        let cast = Node::new("c", "Identity", &["q"], &["i"]);
        let mut behind = dequantize;
        behind.inputs[0] = "i".to_owned();
        assert!(refused(vec![quantize, cast, behind]).contains("node \"q\" (QuantizeLinear)"));
    }

    #[test]
    fn constants_in_nodes_are_parameters_too() {
        let mut model = model(vec![Node::new("r", "Relu", &["a"], &["y"])]);
        let weight = model.graph.initializers.shift_remove("w").unwrap();
        let node = Node::new("k", "Constant", &[], &["w"]).with("value", Attribute::Tensor(weight));
        model.graph.nodes.insert(0, node);
        let trainable = Trainable::of(&model);
        assert_eq!(trainable.parameters, [("w".to_owned(), Role::Weight)]);
        assert!(trainable.blocked.is_empty());
    }
}
