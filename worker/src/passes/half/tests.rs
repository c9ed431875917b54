use super::*;
use crate::graph::{Dim, ValueInfo};
use crate::interp::{Mode, Options, Program};

fn graph(nodes: &[Node], constants: &[(&str, TensorData)]) -> Model {
    let value = |name| ValueInfo::f32(name, vec![Dim::Fixed(1), Dim::Fixed(2)]);
    let constants = constants.iter().map(|(name, data)| ((*name).to_owned(), data.clone()));
    let graph = Graph {
        nodes: nodes.to_vec(),
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        initializers: constants.collect(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

fn run(model: &Model, x: &[f32]) -> tch::Tensor {
    let mut program = Program::compile(model, &Options::default()).unwrap();
    let x = tch::Tensor::from_slice(x).view([1, 2]);
    program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
}

#[test]
fn inputs_and_outputs_stay_float32() {
    let nodes = [
        Node::new("a", "Add", &["x", "c"], &["s"]),
        Node::new("r", "Relu", &["s"], &["y"]),
        Node::new("z", "Add", &["y", "x"], &["unread"]),
    ];
    let mut model = graph(&nodes, &[("c", TensorData::f32(&[1], &[1e9]))]);
    assert_eq!(to_half(&mut model).unwrap(), 3);
    assert_eq!(model.graph.initializers["c"].dtype, DType::F16);
    let kinds: Vec<&str> = model.graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(kinds, ["Cast", "Add", "Relu", "Add", "Cast"], "one cast of `x` for both");
    let made = run(&model, &[1.0, -65504.0]);
    assert_eq!(made, tch::Tensor::from_slice(&[65504.0_f32, 0.0]).view([1, 2]), "c is 65504");
    assert_eq!(made.kind(), tch::Kind::Float);
}

/// The weight's integers are those of float32; the activation's scale is too small for float16.
#[test]
fn scales_that_float16_does_not_hold_stay_float32() {
    let pair = |value: &str, scale: &str| {
        [
            Node::new(
                &format!("{value}_q"),
                "QuantizeLinear",
                &[value, scale, "zero"],
                &[&format!("{value}_i")],
            ),
            Node::new(
                &format!("{value}_d"),
                "DequantizeLinear",
                &[&format!("{value}_i"), scale, "zero"],
                &[&format!("{value}_f")],
            ),
        ]
    };
    let mut nodes = pair("x", "small").to_vec();
    nodes.extend(pair("w", "usual"));
    nodes.push(Node::new("m", "Mul", &["x_f", "w_f"], &["y"]));
    let constants = [
        ("small", TensorData::f32(&[], &[1e-6])),
        ("usual", TensorData::f32(&[], &[0.01])),
        ("w", TensorData::f32(&[2], &[0.5, -0.25])),
        ("zero", TensorData { dtype: DType::I8, shape: vec![], bytes: vec![0].into() }),
    ];
    let mut model = graph(&nodes, &constants);
    let before = run(&model, &[5e-5, 1e-4]);
    to_half(&mut model).unwrap();
    assert_eq!(model.opset(), 19);
    let node = |name: &str| model.graph.nodes.iter().find(|node| node.name == name).unwrap();
    let dtype = |node: &Node| model.graph.initializers[&node.inputs[1]].dtype;
    assert_eq!([dtype(node("x_q")), dtype(node("x_d"))], [DType::F32; 2]);
    assert_eq!([dtype(node("w_q")), dtype(node("w_d"))], [DType::F32, DType::F16]);
    assert_eq!(node("m").inputs, ["x_f", "w_f"]);
    let after = run(&model, &[5e-5, 1e-4]);
    let error = (&after - &before).abs().max().double_value(&[]);
    assert!(error < 2e-3 * before.abs().max().double_value(&[]), "{before} and {after}");
}

#[test]
fn numbers_that_the_standard_has_as_float32_stay() {
    let nodes = [
        Node::new("e", "Unsqueeze", &["x", "axes"], &["u"]),
        Node::new("r", "Resize", &["u", "", "scales"], &["v"]),
        Node::new("s", "Squeeze", &["v", "axes"], &["y"]),
    ];
    let constants = [
        ("axes", TensorData::i64(&[2], &[0, 1])),
        ("scales", TensorData::f32(&[4], &[1.0, 1.0, 1.0, 1.0])),
    ];
    let mut model = graph(&nodes, &constants);
    to_half(&mut model).unwrap();
    let resize = model.graph.nodes.iter().find(|node| node.op_type == "Resize").unwrap();
    assert_eq!(model.graph.initializers[&resize.inputs[2]].dtype, DType::F32);
    assert_eq!(run(&model, &[0.5, 2.0]), tch::Tensor::from_slice(&[0.5_f32, 2.0]).view([1, 2]));
}
