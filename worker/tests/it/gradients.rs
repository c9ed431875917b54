//! Gradients of every operator against finite differences, in double precision.

use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::ops;
use tch::{Device, Kind, Tensor};

use crate::gradient_cases;

/// A node with one float input `x` to differentiate by, and its constants.
pub struct Case {
    /// It reads `x` and the constants, and makes `y`.
    pub node: Node,
    /// Of the model.
    pub opset: i64,
    /// Of `x`.
    pub shape: Vec<i64>,
    /// By name.
    pub constants: Vec<(&'static str, TensorData)>,
    /// Of the forward pass.
    pub mode: Mode,
}

/// Positive numbers, none like another.
pub fn f64s(shape: &[i64], seed: f64) -> TensorData {
    let count = shape.iter().product::<i64>();
    let bytes = (0..count).flat_map(|i| ((i as f64 * 1.7 + seed).sin() + 1.6).to_le_bytes());
    let bytes: Vec<u8> = bytes.collect();
    TensorData {
        dtype: qpipe_worker::graph::DType::F64,
        shape: shape.to_vec(),
        bytes: bytes.into(),
    }
}

/// A node that makes `y`.
pub fn node(op: &str, inputs: &[&str]) -> Node {
    Node::new("under test", op, inputs, &["y"])
}

/// A node of opset 17 and `x` of `shape`.
pub fn case(node: Node, shape: &[i64]) -> Case {
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
    cases.extend(picking());
    cases.extend(windows());
    cases.extend(resizing());
    let shape = TensorData::i64(&[3], &[2, 3, 4]);
    cases
        .push(Case { constants: vec![("s", shape)], ..case(node("Expand", &["x", "s"]), &[3, 1]) });
    cases.extend(gradient_cases::cases());
    cases
}

/// Operators that pick, place and move elements.
fn picking() -> Vec<Case> {
    let numbers = |shape: &[i64], values: &[i64]| TensorData::i64(shape, values);
    let text = |value: &str| Attribute::String(value.as_bytes().to_vec());
    let indices = |shape: &[i64], values: &[i64]| vec![("i", numbers(shape, values))];
    let mut cases = vec![
        Case {
            constants: indices(&[2, 2], &[1, 0, -1, 0]),
            ..case(node("GatherElements", &["x", "i"]), &[3, 2])
        },
        Case {
            constants: indices(&[2, 1, 1], &[1, -3]),
            ..case(node("GatherND", &["x", "i"]).with("batch_dims", Attribute::Int(1)), &[2, 3, 2])
        },
        Case {
            constants: vec![("k", numbers(&[1], &[2]))],
            ..case(node("TopK", &["x", "k"]), &[3, 4])
        },
        Case {
            constants: vec![("t", numbers(&[2], &[2, 3]))],
            ..case(node("Tile", &["x", "t"]), &[2, 2])
        },
        Case {
            constants: vec![("i", numbers(&[3], &[1, -1, 9])), ("d", numbers(&[], &[4]))],
            ..case(node("OneHot", &["i", "d", "x"]), &[2])
        },
        case(
            node("DepthToSpace", &["x"])
                .with("blocksize", Attribute::Int(2))
                .with("mode", text("CRD")),
            &[1, 8, 2, 1],
        ),
        case(node("SpaceToDepth", &["x"]).with("blocksize", Attribute::Int(2)), &[1, 2, 2, 4]),
        Case {
            opset: 20,
            constants: vec![("g", {
                let places = [0.1, -0.3, 0.7, 0.4, -0.9, 0.2, 1.4, -0.2_f64];
                let bytes: Vec<u8> = places.iter().flat_map(|v| v.to_le_bytes()).collect();
                TensorData {
                    dtype: qpipe_worker::graph::DType::F64,
                    shape: vec![1, 2, 2, 2],
                    bytes: bytes.into(),
                }
            })],
            ..case(node("GridSample", &["x", "g"]).with("mode", text("cubic")), &[1, 2, 3, 3])
        },
    ];
    for reduction in ["none", "add", "mul", "max"] {
        let constants = vec![("i", numbers(&[2, 1], &[2, 0])), ("u", f64s(&[2, 2], 0.4))];
        let scatter = node("ScatterND", &["x", "i", "u"]).with("reduction", text(reduction));
        cases.push(Case { opset: 18, constants, ..case(scatter, &[3, 2]) });
        let constants = vec![("i", numbers(&[2, 2], &[2, 0, 1, -2])), ("u", f64s(&[2, 2], 0.4))];
        let scatter = node("ScatterElements", &["x", "i", "u"]).with("reduction", text(reduction));
        cases.push(Case { opset: 18, constants, ..case(scatter, &[3, 2]) });
    }
    let constants = vec![("i", numbers(&[1, 2], &[2, 0])), ("u", f64s(&[1, 2], 0.4))];
    let scatter = node("Scatter", &["x", "i", "u"]);
    cases.push(Case { opset: 10, constants, ..case(scatter, &[3, 2]) });
    cases
}

/// Pooling and padding beyond what libtorch does by itself.
fn windows() -> Vec<Case> {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let mut cases = vec![case(node("GlobalLpPool", &["x"]), &[1, 2, 3, 2])];
    for op in ["MaxPool", "AveragePool", "LpPool"] {
        let pool = node(op, &["x"])
            .with("kernel_shape", ints(&[3, 2]))
            .with("strides", ints(&[2, 2]))
            .with("pads", ints(&[0, 1, 1, 0]))
            .with("dilations", ints(&[1, 2]))
            .with("ceil_mode", Attribute::Int(1));
        cases.push(Case { opset: 22, ..case(pool, &[1, 2, 6, 6]) });
    }
    for mode in ["edge", "reflect", "wrap"] {
        let constants = vec![("p", TensorData::i64(&[4], &[1, 3, 2, -1]))];
        let pad = node("Pad", &["x", "p"]).with("mode", Attribute::String(mode.into()));
        cases.push(Case { opset: 19, constants, ..case(pad, &[3, 4]) });
    }
    // libtorch's own kernel.
    let constants = vec![("p", TensorData::i64(&[8], &[0, 0, 1, 2, 0, 0, 2, 0]))];
    let pad = node("Pad", &["x", "p"]).with("mode", Attribute::String("reflect".into()));
    cases.push(Case { constants, ..case(pad, &[1, 2, 3, 3]) });
    cases
}

/// Operators that make images larger and smaller.
fn resizing() -> Vec<Case> {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let text = |value: &str| Attribute::String(value.as_bytes().to_vec());
    let weight = || vec![("w", f64s(&[4, 2, 3, 2], 0.0)), ("b", f64s(&[4], 0.5))];
    let transposed = || node("ConvTranspose", &["x", "w", "b"]).with("group", Attribute::Int(2));
    let mut cases = vec![
        Case {
            constants: weight(),
            ..case(
                transposed()
                    .with("strides", ints(&[2, 1]))
                    .with("pads", ints(&[1, 0, 1, 0]))
                    .with("output_padding", ints(&[1, 0])),
                &[1, 4, 3, 2],
            )
        },
        // Longer than what the input reaches, and cut at one end only.
        Case {
            constants: weight(),
            ..case(transposed().with("output_shape", ints(&[7, 2])), &[1, 4, 3, 2])
        },
    ];
    for (mode, coordinates, antialias) in [
        ("nearest", "half_pixel", 0),
        ("nearest", "align_corners", 0),
        ("linear", "half_pixel", 0),
        ("linear", "align_corners", 0),
        ("linear", "asymmetric", 0),
        ("linear", "half_pixel", 1),
        ("cubic", "half_pixel", 0),
        ("cubic", "asymmetric", 1),
        ("cubic", "tf_crop_and_resize", 0),
    ] {
        let resize = node("Resize", &["x", "r", "", "s"])
            .with("mode", text(mode))
            .with("coordinate_transformation_mode", text(coordinates))
            .with("antialias", Attribute::Int(antialias))
            .with("axes", ints(&[2, 3]));
        let constants = vec![
            ("r", TensorData::f32(&[4], &[0.1, -0.2, 0.8, 0.9])),
            ("s", TensorData::i64(&[2], &[5, 2])),
        ];
        cases.push(Case { opset: 18, constants, ..case(resize, &[1, 2, 3, 4]) });
    }
    let constants = vec![("s", TensorData::f32(&[4], &[1.0, 1.0, 1.5, 2.0]))];
    let upsample = node("Upsample", &["x", "s"]).with("mode", text("linear"));
    cases.push(Case { opset: 9, constants, ..case(upsample, &[1, 2, 3, 2]) });
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
        if ["Pow", "Sqrt", "Log", "Reciprocal", "ReduceLogSum"]
            .contains(&case.node.op_type.as_str())
        {
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
