//! Gradients of every operator against finite differences, in double precision.

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::ops;
use tch::{Device, Kind, Tensor};

/// A node with one float input `x` to differentiate by, and its constants.
struct Case {
    node: Node,
    opset: i64,
    shape: Vec<i64>,
    constants: Vec<(&'static str, TensorData)>,
    mode: Mode,
}

fn f64s(shape: &[i64], seed: f64) -> TensorData {
    let count = shape.iter().product::<i64>();
    let bytes = (0..count).flat_map(|i| ((i as f64 * 1.7 + seed).sin() + 1.6).to_le_bytes());
    let bytes: Vec<u8> = bytes.collect();
    TensorData {
        dtype: qpipe_worker::graph::DType::F64,
        shape: shape.to_vec(),
        bytes: bytes.into(),
    }
}

fn node(op: &str, inputs: &[&str]) -> Node {
    Node::new("under test", op, inputs, &["y"])
}

fn case(node: Node, shape: &[i64]) -> Case {
    Case { node, opset: 17, shape: shape.to_vec(), constants: vec![], mode: Mode::Eval }
}

fn cases() -> Vec<Case> {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let mut cases: Vec<Case> = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Erf",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "Dropout",
        "Softmax",
        "LogSoftmax",
        "Flatten",
        "Transpose",
        "Neg",
        "Abs",
        "Sqrt",
        "Exp",
        "Log",
        "Reciprocal",
    ]
    .map(|op| case(node(op, &["x"]), &[2, 3, 4, 4]))
    .into();
    cases.push(Case { opset: 20, ..case(node("Gelu", &["x"]), &[2, 5]) });
    for op in ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"] {
        let constants = vec![("c", f64s(&[3, 1, 1], 0.3))];
        // A power of a negative number has no gradient: x is positive there.
        cases.push(Case { constants, ..case(node(op, &["x", "c"]), &[2, 3, 2, 2]) });
    }
    let clip = vec![("low", f64s(&[], 9.0)), ("high", f64s(&[], 0.2))];
    cases.push(Case { constants: clip, ..case(node("Clip", &["x", "low", "high"]), &[3, 5]) });
    let conv = node("Conv", &["x", "w", "b"])
        .with("strides", ints(&[2, 1]))
        .with("pads", ints(&[1, 0, 0, 1]))
        .with("group", Attribute::Int(2));
    let constants = vec![("w", f64s(&[4, 2, 3, 2], 0.0)), ("b", f64s(&[4], 0.5))];
    cases.push(Case { constants, ..case(conv, &[1, 4, 5, 5]) });
    let gemm = node("Gemm", &["x", "w", "b"])
        .with("transB", Attribute::Int(1))
        .with("alpha", Attribute::Float(0.5))
        .with("beta", Attribute::Float(2.0));
    let constants = vec![("w", f64s(&[4, 3], 0.0)), ("b", f64s(&[4], 0.5))];
    cases.push(Case { constants, ..case(gemm, &[2, 3]) });
    let constants = vec![("w", f64s(&[3, 4], 0.0))];
    cases.push(Case { constants, ..case(node("MatMul", &["x", "w"]), &[2, 3]) });
    for op in ["MaxPool", "AveragePool"] {
        let pool = node(op, &["x"])
            .with("kernel_shape", ints(&[3, 3]))
            .with("strides", ints(&[2, 2]))
            .with("pads", ints(&[1, 1, 1, 1]));
        cases.push(case(pool, &[1, 2, 5, 5]));
    }
    for mode in [Mode::Eval, Mode::Train] {
        let constants = ["g", "b", "m", "v"].map(|name| (name, f64s(&[3], 1.0))).into();
        let norm = node("BatchNormalization", &["x", "g", "b", "m", "v"]);
        cases.push(Case { constants, mode, ..case(norm, &[4, 3, 2, 2]) });
    }
    let numbers = |values: &[i64]| TensorData::i64(&[values.len() as i64], values);
    let constants = vec![
        ("s", numbers(&[3, 0])),
        ("e", numbers(&[-9, 9])),
        ("a", numbers(&[1, 2])),
        ("t", numbers(&[-2, 1])),
    ];
    cases.push(Case { constants, ..case(node("Slice", &["x", "s", "e", "a", "t"]), &[2, 4, 3]) });
    let split =
        Node::new("under test", "Split", &["x", "s"], &["y", "z"]).with("axis", Attribute::Int(1));
    cases.push(Case { constants: vec![("s", numbers(&[3, 1]))], ..case(split, &[2, 4]) });
    let constants = vec![("p", numbers(&[0, 1, -1, 2])), ("v", f64s(&[], 0.3))];
    cases.push(Case { constants, ..case(node("Pad", &["x", "p", "v"]), &[3, 4]) });
    let constants = vec![("g", f64s(&[4], 0.3)), ("b", f64s(&[4], 1.3))];
    cases
        .push(Case { constants, ..case(node("LayerNormalization", &["x", "g", "b"]), &[2, 3, 4]) });
    let axes = || TensorData::i64(&[1], &[1]);
    cases.push(Case {
        constants: vec![("a", axes())],
        ..case(node("Squeeze", &["x", "a"]), &[3, 1, 2])
    });
    cases.push(Case {
        constants: vec![("a", axes())],
        ..case(node("Unsqueeze", &["x", "a"]), &[3, 2])
    });
    let concat = node("Concat", &["x", "c"]).with("axis", Attribute::Int(1));
    cases.push(Case { constants: vec![("c", f64s(&[2, 2], 0.0))], ..case(concat, &[2, 3]) });
    let gather = node("Gather", &["x", "i"]).with("axis", Attribute::Int(1));
    let indices = TensorData::i64(&[2], &[2, 0]);
    cases.push(Case { constants: vec![("i", indices)], ..case(gather, &[2, 3]) });
    for op in ["ReduceMean", "ReduceMax"] {
        let reduce =
            node(op, &["x"]).with("axes", ints(&[-1, 1])).with("keepdims", Attribute::Int(0));
        cases.push(case(reduce, &[2, 3, 2, 2]));
    }
    let constants = vec![("a", TensorData::i64(&[1], &[2]))];
    cases.push(Case { constants, ..case(node("ReduceSum", &["x", "a"]), &[2, 3, 2]) });
    let shape = TensorData::i64(&[2], &[-1, 6]);
    cases.push(Case {
        constants: vec![("s", shape)],
        ..case(node("Reshape", &["x", "s"]), &[2, 3, 2])
    });
    let shape = TensorData::i64(&[3], &[2, 3, 4]);
    cases
        .push(Case { constants: vec![("s", shape)], ..case(node("Expand", &["x", "s"]), &[3, 1]) });
    cases
}

impl Case {
    fn program(&self) -> Program {
        let dims = self.shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
        let info = |name: &str, shape| ValueInfo { dtype: None, ..ValueInfo::f32(name, shape) };
        let graph = Graph {
            nodes: vec![self.node.clone()],
            inputs: vec![info("x", dims)],
            outputs: vec![info("y", vec![])],
            initializers: self
                .constants
                .iter()
                .map(|(n, d)| ((*n).to_owned(), d.clone()))
                .collect(),
            ..Graph::default()
        };
        Program::compile(&Model::new(graph, self.opset), &Options::default())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Σ w y with fixed weights w, so that every element of y counts differently.
    fn objective(&self, x: &Tensor) -> Tensor {
        let y = self
            .program()
            .forward(&[x.shallow_clone()], self.mode, &mut |_, _| Ok(()))
            .unwrap_or_else(|error| panic!("{error}"))
            .remove(0);
        let weights = (Tensor::arange(y.numel() as i64, (Kind::Double, Device::Cpu)) * 0.7).cos();
        (y.flatten(0, -1) * weights).sum(Kind::Double)
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-6;
    for case in cases() {
        let count = case.shape.iter().product::<i64>();
        // Apart from each other and from 0, where ReLU and the maxima have no gradient.
        let base = Tensor::arange(count, (Kind::Double, Device::Cpu));
        let mut x = ((base * 2.3 + 0.4).sin() * 1.3 + 0.05).reshape(&case.shape[..]);
        if ["Pow", "Sqrt", "Log", "Reciprocal"].contains(&case.node.op_type.as_str()) {
            x = x.abs() + 0.3;
        }
        let leaf = x.detach().copy().set_requires_grad(true);
        case.objective(&leaf).backward();
        let gradient = leaf.grad().flatten(0, -1);
        for index in 0..count {
            let moved = |by: f64| {
                let moved = x.flatten(0, -1).copy();
                let _ = moved.get(index).g_add_scalar_(by);
                tch::no_grad(|| case.objective(&moved.reshape(&case.shape[..])).double_value(&[]))
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let found = gradient.double_value(&[index]);
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{} (opset {}), element {index}: {found}, finite differences {expected}",
                case.node.op_type,
                case.opset
            );
        }
    }
}

#[test]
fn every_operator_with_a_gradient_has_a_case() {
    // A staircase, whose gradient the quantization tests look at.
    let without = ["QuantizeLinear", "DequantizeLinear"];
    let flows = |op: &&ops::Op| op.gradient == ops::Gradient::Flows && !without.contains(&op.name);
    let cases = cases();
    for op in ops::all().filter(flows) {
        assert!(cases.iter().any(|case| case.node.op_type == op.name), "{} has no case", op.name);
    }
}
