mod layers;

use tch::{Kind, Tensor};

use super::*;
use crate::graph::Model;
use crate::graph::{Attribute, Dim, Graph, Node, TensorData, ValueInfo};
use crate::interp::{Mode, Options, Program};

fn run(model: &Model, input: &Tensor) -> Tensor {
    let mut program = Program::compile(model, &Options::default()).unwrap();
    tch::no_grad(|| program.forward(&[input.shallow_clone()], Mode::Eval, &mut |_, _| Ok(())))
        .unwrap()
        .remove(0)
}

fn image(channels: i64) -> Tensor {
    tch::manual_seed(3);
    Tensor::randn([2, channels, 8, 8], (Kind::Float, tch::Device::Cpu))
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn graph(nodes: Vec<Node>, initializers: Vec<(&str, TensorData)>) -> Model {
    let shape = || vec![Dim::Fixed(2), Dim::Fixed(2), Dim::Fixed(8), Dim::Fixed(8)];
    let graph = Graph {
        nodes,
        inputs: vec![ValueInfo::f32("x", shape())],
        outputs: vec![ValueInfo::f32("y", vec![Dim::Fixed(2), Dim::Unknown])],
        initializers: initializers.into_iter().map(|(n, d)| (n.to_owned(), d)).collect(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

fn numbers(shape: &[i64], start: f32) -> TensorData {
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|i| start + (i as f32 * 0.7).sin()).collect();
    TensorData::f32(shape, &values)
}

fn norm(name: &str, input: &str, output: &str) -> Node {
    Node::new(name, "BatchNormalization", &[input, "g", "b", "m", "v"], &[output])
}

fn statistics(channels: i64) -> Vec<(&'static str, TensorData)> {
    let shape = [channels];
    vec![
        ("g", numbers(&shape, 1.5)),
        ("b", numbers(&shape, 0.1)),
        ("m", numbers(&shape, -0.4)),
        ("v", numbers(&shape, 2.0)),
    ]
}

#[test]
fn folded_convolutions_compute_the_same() {
    let mut constants = statistics(3);
    constants.push(("w", numbers(&[3, 2, 3, 3], 0.0)));
    // The weights are shared: the second convolution must keep its own.
    let nodes = vec![
        Node::new("c1", "Conv", &["x", "w"], &["a"]),
        norm("n1", "a", "p"),
        Node::new("c2", "Conv", &["x", "w"], &["q"]),
        Node::new("add", "Add", &["p", "q"], &["y"]),
    ];
    let mut model = graph(nodes, constants);
    let before = run(&model, &image(2));
    assert_eq!(fold_batch_norm(&mut model).unwrap(), 1);
    assert!(model.graph.nodes.iter().all(|node| node.op_type != "BatchNormalization"));
    assert_eq!(model.graph.nodes[0].outputs[0], "p");
    assert!(!model.graph.initializers.contains_key("m"));
    assert!(worst(&before, &run(&model, &image(2))) < 1e-5);
}

#[test]
fn a_normalization_of_a_value_that_others_read_stays() {
    let mut constants = statistics(3);
    constants.push(("w", numbers(&[3, 2, 3, 3], 0.0)));
    let nodes = vec![
        Node::new("c1", "Conv", &["x", "w"], &["a"]),
        norm("n1", "a", "p"),
        Node::new("add", "Add", &["p", "a"], &["y"]),
    ];
    let mut model = graph(nodes, constants);
    assert_eq!(fold_batch_norm(&mut model).unwrap(), 0);
}

#[test]
fn statistics_that_do_not_fit_are_an_error_with_the_node() {
    let mut constants = statistics(4);
    constants.push(("w", numbers(&[3, 2, 3, 3], 0.0)));
    let nodes = vec![Node::new("c1", "Conv", &["x", "w"], &["a"]), norm("n1", "a", "y")];
    let error = fold_batch_norm(&mut graph(nodes, constants)).unwrap_err();
    assert!(error.message.starts_with("node \"n1\" (BatchNormalization): "), "{error}");
    assert!(error.message.contains("3 channels"), "{error}");
}

#[test]
fn a_zoo_network_folds_whole() {
    let config = serde_json::json!({
        "arch": "resnet18", "in_channels": 3, "classes": 5, "image_size": 32
    });
    let config = serde_json::from_value(config).unwrap();
    let mut model = crate::zoo::build(&config, None, 1).unwrap();
    tch::manual_seed(1);
    let input = Tensor::randn([2, 3, 32, 32], (Kind::Float, tch::Device::Cpu));
    let before = run(&model, &input);
    assert_eq!(fold_batch_norm(&mut model).unwrap(), 20);
    simplify(&mut model).unwrap();
    assert!(worst(&before, &run(&model, &input)) < 1e-4);
}

#[test]
fn identities_go_and_the_output_keeps_its_name() {
    let nodes = vec![
        Node::new("i1", "Identity", &["x"], &["a"]),
        Node::new("r", "Relu", &["a"], &["b"]),
        Node::new("d", "Dropout", &["b"], &["c"]),
        Node::new("i2", "Identity", &["c"], &["y"]),
        Node::new("unread", "Relu", &["b"], &["z"]),
    ];
    let mut model = graph(nodes, vec![("unused", numbers(&[2], 0.0))]);
    let before = run(&model, &image(2));
    simplify(&mut model).unwrap();
    let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["r"]);
    assert_eq!(model.graph.nodes[0].outputs, ["y"]);
    assert!(model.graph.initializers.is_empty());
    assert_eq!(worst(&before, &run(&model, &image(2))), 0.0);
}

#[test]
fn values_stay_that_a_graph_within_a_node_may_read() {
    let branch = Attribute::Opaque(vec![0]);
    let nodes = vec![
        Node::new("i", "Identity", &["x"], &["a"]),
        Node::new("r", "Relu", &["x"], &["b"]),
        Node::new("if", "If", &["condition"], &["y"]).with("then_branch", branch),
        Node::new("behind", "Relu", &["y"], &["z"]),
    ];
    let mut model = graph(nodes, vec![("unused", numbers(&[2], 0.0))]);
    simplify(&mut model).unwrap();
    let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["i", "r", "if"]);
    assert!(model.graph.initializers.contains_key("unused"));
}

#[test]
fn an_identity_between_input_and_output_stays() {
    let mut model = graph(vec![Node::new("i", "Identity", &["x"], &["y"])], vec![]);
    assert_eq!(simplify(&mut model).unwrap(), 0);
    assert_eq!(model.graph.nodes.len(), 1);
}

#[test]
fn constants_fold_but_quantized_weights_keep_their_pair() {
    let nodes = vec![
        Node::new("k", "Constant", &[], &["two"]).with("value_float", Attribute::Float(2.0)),
        Node::new("m", "Mul", &["two", "two"], &["four"]),
        Node::new("q", "QuantizeLinear", &["four", "s", "z"], &["fq"]),
        Node::new("dq", "DequantizeLinear", &["fq", "s", "z"], &["fd"]),
        Node::new("a", "Add", &["x", "fd"], &["y"]),
    ];
    let constants = vec![("s", TensorData::f32(&[], &[0.5])), ("z", TensorData::i8(&[], &[0]))];
    let mut model = graph(nodes, constants);
    let before = run(&model, &image(2));
    simplify(&mut model).unwrap();
    let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["q", "dq", "a"]);
    assert_eq!(model.graph.initializers["four"].to_f32().unwrap(), [4.0]);
    assert_eq!(worst(&before, &run(&model, &image(2))), 0.0);
}

#[test]
fn the_batch_is_freed_and_fixed_also_in_reshapes() {
    let shape = TensorData::i64(&[2], &[2, 128]);
    let mut model =
        graph(vec![Node::new("r", "Reshape", &["x", "shape"], &["y"])], vec![("shape", shape)]);
    set_batch(&mut model, None).unwrap();
    let dims = model.graph.inputs[0].shape.clone().unwrap();
    assert_eq!(dims[0], Dim::Named("batch".to_owned()));
    let five = Tensor::zeros([5, 2, 8, 8], (Kind::Float, tch::Device::Cpu));
    assert_eq!(run(&model, &five).size(), [5, 128]);
    set_batch(&mut model, Some(7)).unwrap();
    // As PyTorch's dynamo exporter writes a `view`: zeros are allowed, and there are none.
    let view = |extents: [i64; 2]| {
        let node =
            Node::new("view", "Reshape", &["x", "s"], &["y"]).with("allowzero", Attribute::Int(1));
        let shape = TensorData::i64(&[2], &extents);
        let mut model = graph(vec![node], vec![("s", shape)]);
        model.graph.inputs[0].shape.as_mut().unwrap()[0] = Dim::Fixed(1);
        set_batch(&mut model, None).unwrap();
        let node = &model.graph.nodes[0];
        let shape = model.graph.initializers[node.inputs[1].as_str()].to_i64().unwrap();
        (shape, node.int("allowzero", 0).unwrap())
    };
    assert_eq!(view([1, 16]), (vec![0, 16], 0));
    assert_eq!(view([1, 0]), (vec![1, 0], 1));
    assert_eq!(model.graph.outputs[0].shape.as_ref().unwrap()[0], Dim::Fixed(7));
}

/// What PyTorch's older exporter writes of `x.view(x.shape[0], -1, 2, x.shape[3])` and of `expand`, with a free batch and height.
#[test]
fn shapes_that_do_not_depend_on_the_batch_are_written_down() {
    let nodes = vec![
        Node::new("s", "Shape", &["x"], &["size"]),
        Node::new("g0", "Gather", &["size", "zero"], &["n"]).with("axis", Attribute::Int(0)),
        Node::new("g3", "Gather", &["size", "three"], &["w"]),
        Node::new("half", "Div", &["w", "two"], &["h"]),
        Node::new("u0", "Unsqueeze", &["n", "zeros"], &["n1"]),
        Node::new("u3", "Unsqueeze", &["h", "zeros"], &["h1"]),
        Node::new("c", "Concat", &["n1", "minus", "twos", "h1"], &["to"])
            .with("axis", Attribute::Int(0)),
        Node::new("r", "Reshape", &["x", "to"], &["a"]),
        Node::new("ce", "Concat", &["n1", "one", "twos", "h1"], &["wide"])
            .with("axis", Attribute::Int(0)),
        Node::new("e", "Expand", &["a", "wide"], &["b"]),
        Node::new("cast", "Cast", &["w"], &["f"]).with("to", Attribute::Int(1)),
        Node::new("d", "Div", &["b", "f"], &["y"]),
    ];
    let scalar = |value| TensorData::i64(&[], &[value]);
    let vector = |value| TensorData::i64(&[1], &[value]);
    let constants = vec![
        ("zero", scalar(0)),
        ("three", scalar(3)),
        ("two", scalar(2)),
        ("zeros", vector(0)),
        ("minus", vector(-1)),
        ("twos", vector(2)),
        ("one", vector(1)),
    ];
    let mut model = graph(nodes, constants);
    model.graph.inputs[0].shape.as_mut().unwrap()[2] = Dim::Named("height".to_owned());
    let images = [image(2), image(2).repeat([2, 1, 1, 1]).slice(2, 0, 6, 1).contiguous()];
    let before = images.each_ref().map(|image| run(&model, image));
    simplify(&mut model).unwrap();
    let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["r", "e", "d"]);
    let shape = |index: usize| {
        model.graph.initializers[&model.graph.nodes[index].inputs[1]].to_i64().unwrap()
    };
    assert_eq!((shape(0), shape(1)), (vec![0, -1, 2, 4], vec![1, 1, 2, 4]));
    for (before, image) in before.iter().zip(&images) {
        assert_eq!(worst(before, &run(&model, image)), 0.0);
    }
    // With the width free too it stays a computation.
    let mut free = graph(
        vec![
            Node::new("s", "Shape", &["x"], &["size"]),
            Node::new("f", "Slice", &["size", "starts", "ends"], &["rest"]),
            Node::new("c", "Concat", &["minus", "rest"], &["to"]).with("axis", Attribute::Int(0)),
            Node::new("r", "Reshape", &["x", "to"], &["y"]),
        ],
        vec![("starts", vector(2)), ("ends", vector(4)), ("minus", vector(-1))],
    );
    for axis in [2, 3] {
        free.graph.inputs[0].shape.as_mut().unwrap()[axis] = Dim::Named(format!("d{axis}"));
    }
    simplify(&mut free).unwrap();
    assert_eq!(free.graph.nodes.len(), 4);
}

#[test]
fn another_opset_is_named_only_where_nothing_changed() {
    let softmax = || graph(vec![Node::new("s", "Softmax", &["x"], &["y"])], vec![]);
    let mut model = softmax();
    set_opset(&mut model, 13).unwrap();
    set_opset(&mut model, 21).unwrap();
    assert_eq!((model.opset(), model.ir_version), (21, 10));
    let error = set_opset(&mut model, 12).unwrap_err();
    assert!(error.message.starts_with("node \"s\" (Softmax)"), "{error}");
    let mut gelu = graph(vec![Node::new("g", "Gelu", &["x"], &["y"])], vec![]);
    gelu.opsets[0].version = 20;
    assert!(set_opset(&mut gelu, 17).is_err());
    let reshape = |zero| {
        let node = Node::new("r", "Reshape", &["x", "s"], &["y"]);
        graph(vec![node.with("allowzero", Attribute::Int(zero))], vec![])
    };
    assert!(set_opset(&mut reshape(0), 13).is_ok());
    assert!(set_opset(&mut reshape(1), 13).is_err());
    let of = |op_type: &str, opset, inputs: &[&str]| {
        let mut model = graph(vec![Node::new("n", op_type, inputs, &["y"])], vec![]);
        model.opsets[0].version = opset;
        model
    };
    // Axes of reductions are an input from 18 on (ReduceSum: 13), lengths of a Split from 13 on.
    for (op_type, opset) in [("ReduceMean", 18), ("ReduceMax", 20), ("ReduceL2", 18)] {
        assert!(set_opset(&mut of(op_type, opset, &["x", "axes"]), 17).is_err(), "{op_type}");
        assert!(set_opset(&mut of(op_type, opset, &["x"]), 17).is_ok(), "{op_type}");
    }
    assert!(set_opset(&mut of("ReduceSum", 17, &["x", "axes"]), 20).is_ok());
    assert!(set_opset(&mut of("ReduceSum", 17, &["x", "axes"]), 12).is_err());
    assert!(set_opset(&mut of("Split", 17, &["x", "lengths"]), 20).is_ok());
    assert!(set_opset(&mut of("Split", 17, &["x"]), 20).is_err());
}

#[test]
fn equal_nodes_are_computed_once_but_equal_weights_stay_apart() {
    let nodes = vec![
        Node::new("c1", "Conv", &["x", "w"], &["a"]),
        Node::new("c2", "Conv", &["x", "v"], &["b"]),
        Node::new("r1", "Reshape", &["a", "s"], &["c"]),
        Node::new("r2", "Reshape", &["a", "t"], &["d"]),
        Node::new("r3", "Reshape", &["b", "t"], &["e"]),
        Node::new("l1", "LeakyRelu", &["c"], &["f"]).with("alpha", Attribute::Float(0.1)),
        Node::new("l2", "LeakyRelu", &["d"], &["g"]).with("alpha", Attribute::Float(0.2)),
        Node::new("l3", "LeakyRelu", &["d"], &["h"]).with("alpha", Attribute::Float(0.1)),
        Node::new("add1", "Add", &["e", "f"], &["i"]),
        Node::new("add2", "Add", &["g", "h"], &["j"]),
        Node::new("add3", "Add", &["e", "j"], &["y"]),
    ];
    let shape = || TensorData::i64(&[2], &[2, -1]);
    let weight = || numbers(&[3, 2, 3, 3], 0.0);
    let constants = vec![("w", weight()), ("v", weight()), ("s", shape()), ("t", shape())];
    let mut model = graph(nodes, constants);
    let before = run(&model, &image(2));
    let applied = apply(&mut model, LIST).unwrap();
    let changes = |name: &str| applied.iter().find(|a| a.pass == name).unwrap().changes;
    // One constant, one Reshape, one LeakyRelu; the Add that nobody reads is dead.
    assert_eq!(changes("duplicates"), 3);
    let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["c1", "c2", "r1", "r3", "l1", "l2", "add2", "add3"]);
    assert!(
        model.graph.initializers.contains_key("v") && !model.graph.initializers.contains_key("t")
    );
    assert_eq!(worst(&before, &run(&model, &image(2))), 0.0);
}

#[test]
fn passes_have_names_of_their_own_and_an_error_names_its_pass() {
    for (index, pass) in LIST.iter().enumerate() {
        assert!(LIST[..index].iter().all(|other| other.name != pass.name), "{}", pass.name);
        assert!(!pass.about.is_empty());
    }
    let mut constants = statistics(4);
    constants.push(("w", numbers(&[3, 2, 3, 3], 0.0)));
    let nodes = vec![Node::new("c1", "Conv", &["x", "w"], &["a"]), norm("n1", "a", "y")];
    let error = apply(&mut graph(nodes, constants), LIST).unwrap_err();
    assert!(error.message.starts_with("pass `batch-norm`: node \"n1\""), "{error}");
}
