//! Each rule on a small graph that breaks it, and whole networks that break none.

use std::collections::BTreeSet;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::model_source::{Arch, ZooModel};

use super::{Finding, RULES, lint};
use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use crate::quant::finalize::finalize;
use crate::quant::fixture;
use crate::quant::insert::insert;
use crate::quant::placement::{plan, watched};
use crate::quant::prepare::prepare;
use crate::zoo;

mod joined;
mod moved;
mod stacks;

/// A graph of pairs and layers, written as a list.
#[derive(Default)]
struct Draft(Graph);

impl Draft {
    fn new() -> Self {
        let shape = [1, 4, 8, 8].map(Dim::Fixed).to_vec();
        Self(Graph {
            inputs: vec![ValueInfo::f32("x", shape.clone())],
            outputs: vec![ValueInfo::f32("y", shape)],
            ..Graph::default()
        })
    }

    fn constant(&mut self, name: &str, data: TensorData) {
        self.0.initializers.insert(name.to_owned(), data);
    }

    /// A pair on `value`; the value that it gives.
    fn pair(&mut self, value: &str, scales: &[f32], zero: i8, axis: i64) -> String {
        let count = scales.len() as i64;
        let shape: &[i64] = if count == 1 { &[] } else { &[count] };
        let name = |what: &str| format!("{value}_{what}");
        self.constant(&name("scale"), TensorData::f32(shape, scales));
        self.constant(&name("zero"), TensorData::i8(shape, &vec![zero; scales.len()]));
        let (q, dq) = (name("q"), name("dq"));
        for (op, from, to) in [("QuantizeLinear", value, &q), ("DequantizeLinear", &q, &dq)] {
            let node = Node::new(to, op, &[from, &name("scale"), &name("zero")], &[to]);
            self.0.nodes.push(node.with("axis", Attribute::Int(axis)));
        }
        dq
    }

    /// A convolution of 4 channels to 4, quantized where asked.
    fn conv(&mut self, name: &str, input: &str, scales: &[f32], axis: i64) -> String {
        let weight = format!("{name}_w");
        self.constant(&weight, TensorData::f32(&[4, 4, 1, 1], &[0.5; 16]));
        let read = if scales.is_empty() { weight } else { self.pair(&weight, scales, 0, axis) };
        self.node("Conv", name, &[input, &read])
    }

    fn node(&mut self, op: &str, name: &str, inputs: &[&str]) -> String {
        self.0.nodes.push(Node::new(name, op, inputs, &[name]));
        name.to_owned()
    }

    fn cast(&mut self, name: &str, input: &str, to: DType) -> String {
        let node = Node::new(name, "Cast", &[input], &[name]);
        self.0.nodes.push(node.with("to", Attribute::Int(to.onnx().into())));
        name.to_owned()
    }

    /// A Split of a quantized value, its two parts with pairs of these scales or none, and their sum.
    fn split(&mut self, scales: [Option<f32>; 2]) -> String {
        let x = self.pair("x", &[0.1], 0, 0);
        self.0.nodes.push(Node::new("split", "Split", &[&x], &["one", "other"]));
        let parts = ["one", "other"].into_iter().zip(scales);
        let parts: Vec<String> = parts
            .map(|(part, scale)| match scale {
                Some(scale) => self.pair(part, &[scale], 0, 0),
                None => part.to_owned(),
            })
            .collect();
        self.node("Sub", "sub", &[&parts[0], &parts[1]])
    }

    fn found(mut self, last: &str, target: Target) -> Vec<Finding> {
        // ONNX Runtime's convolutions write integers only.
        let is_conv = self.0.nodes.last().is_some_and(|node| node.op_type == "Conv");
        let last = match target {
            Target::Onnxruntime if is_conv => self.pair(last, &[0.1], 0, 0),
            _ => last.to_owned(),
        };
        self.0.nodes.push(Node::new("end", "Identity", &[&last], &["y"]));
        lint(&self.0, Some(target))
    }
}

/// A number of 16 bits.
fn wide(dtype: DType, bytes: [u8; 2]) -> TensorData {
    TensorData { dtype, shape: Vec::new(), bytes: bytes.to_vec().into() }
}

const SCALES: [f32; 4] = [0.1, 0.2, 0.3, 0.4];

fn broken() -> Vec<(&'static str, &'static str, Vec<Finding>)> {
    let mut cases = Vec::new();
    let mut case = |rule, node, target, make: &dyn Fn(&mut Draft) -> String| {
        let mut draft = Draft::new();
        let last = make(&mut draft);
        cases.push((rule, node, draft.found(&last, target)));
    };
    case("integer-operator", "m", Target::Tensorrt, &|draft| {
        draft.node("MatMulInteger", "m", &["x", "w"])
    });
    case("packed-weight", "m", Target::Tensorrt, &|draft| {
        let m = draft.node("MatMulNBits", "m", &["x", "w"]);
        draft.0.nodes[0].domain = "com.microsoft".to_owned();
        m
    });
    case("tensorrt-operator", "q", Target::Onnxruntime, &|draft| {
        draft.constant("s", TensorData::f32(&[], &[0.1]));
        let q = draft.node("TRT_FP8QuantizeLinear", "q", &["x", "s"]);
        draft.0.nodes[0].domain = "trt".to_owned();
        q
    });
    case("stack-scales", "m", Target::Onnxruntime, &|draft| {
        draft.constant("w", TensorData::f32(&[4, 8, 2], &[0.5; 64]));
        let (x, w) = (draft.pair("x", &[0.1], 0, 0), draft.pair("w", &[0.1, 0.2], 0, 2));
        draft.node("MatMul", "m", &[&x, &w])
    });
    case("wide-integers", "s", Target::Onnxruntime, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.constant("x_zero", wide(DType::U16, [0, 0]));
        draft.node("Sigmoid", "s", &[&x])
    });
    case("float16-pair", "s", Target::Onnxruntime, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.constant("x_scale", wide(DType::F16, [0x66, 0x2e]));
        draft.node("Sigmoid", "s", &[&x])
    });
    case("cast-behind-pair", "cast", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let cast = draft.cast("cast", &x, DType::F16);
        draft.constant("c_w", TensorData::f32(&[4, 4, 1, 1], &[0.5; 16]));
        let w = draft.pair("c_w", &SCALES, 0, 0);
        let w = draft.cast("w", &w, DType::F16);
        draft.node("Conv", "c", &[&cast, &w])
    });
    case("double-pair", "x_dq_q", Target::Onnxruntime, &|draft| {
        let once = draft.pair("x", &[0.1], 0, 0);
        draft.pair(&once, &[0.2], 0, 0)
    });
    case("zero-point", "x_q", Target::Tensorrt, &|draft| draft.pair("x", &[0.1], 3, 0));
    case("per-tensor-weight", "c", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.conv("c", &x, &[0.1], 0)
    });
    case("weight-axis", "c", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.conv("c", &x, &SCALES, 1)
    });
    case("half-quantized", "c", Target::Onnxruntime, &|draft| {
        let c = draft.conv("c", "x", &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.conv("d", &c, &SCALES, 0)
    });
    // The integers are those of `a`: what is odd is the float layer between two.
    case("unquantized-output", "c", Target::Onnxruntime, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        draft.node("Sigmoid", "s", &[&c])
    });
    case("float-island", "c", Target::Onnxruntime, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let a = draft.conv("a", &x, &SCALES, 0);
        let a = draft.pair(&a, &[0.1], 0, 0);
        let c = draft.conv("c", &a, &[], 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.conv("d", &c, &SCALES, 0)
    });
    // TensorRT's would write floats.
    case("half-quantized", "c", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let a = draft.conv("a", &x, &SCALES, 0);
        let a = draft.pair(&a, &[0.1], 0, 0);
        draft.conv("c", &a, &[], 0)
    });
    case("float-island", "c", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let a = draft.conv("a", &x, &SCALES, 0);
        let c = draft.conv("c", &a, &[], 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.conv("d", &c, &SCALES, 0)
    });
    case("blocked-fusion", "r", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.node("Relu", "r", &[&c])
    });
    case("blocked-fusion", "silu", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        let gate = draft.node("Sigmoid", "gate", &[&c]);
        draft.node("Mul", "silu", &[&c, &gate])
    });
    case("blocked-fusion", "silu", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        let gate = draft.node("HardSigmoid", "gate", &[&c]);
        let gate = draft.pair(&gate, &[0.01], 0, 0);
        draft.node("Mul", "silu", &[&gate, &c])
    });
    case("blocked-fusion", "h", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.node("HardSwish", "h", &[&c])
    });
    case("blocked-fusion", "biased", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.constant("bias", TensorData::f32(&[4, 1, 1], &[1.0; 4]));
        draft.node("Add", "biased", &[&c, "bias"])
    });
    for op in ["AveragePool", "GlobalAveragePool"] {
        case("float-island", "p", Target::Tensorrt, &|draft| {
            let x = draft.pair("x", &[0.1], 0, 0);
            let c = draft.conv("c", &x, &SCALES, 0);
            let r = draft.node("Relu", "r", &[&c]);
            let p = draft.node(op, "p", &[&r]);
            let p = draft.pair(&p, &[0.1], 0, 0);
            draft.conv("d", &p, &SCALES, 0)
        });
    }
    case("half-quantized", "product", Target::Tensorrt, &|draft| {
        let other = draft.node("Relu", "r", &["x"]);
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.node("MatMul", "product", &[&other, &x])
    });
    for (name, scale) in [("x_dq", 0.0), ("x_dq", f32::NAN), ("x_dq", f32::INFINITY)] {
        case("scale", name, Target::Onnxruntime, &|draft| draft.pair("x", &[scale], 0, 0));
    }
    case("scale", "x_dq", Target::Tensorrt, &|draft| draft.pair("x", &[-0.1], 0, 0));
    case("idle-pair", "x_dq", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.node("Softmax", "soft", &[&x])
    });
    case("idle-pair", "x_dq", Target::TensorrtRtx, &|draft| {
        draft.0.outputs.push(ValueInfo::f32("x_dq", Vec::new()));
        draft.pair("x", &[0.1], 0, 0);
        "x".to_owned()
    });
    case("fused-branch", "add", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.node("Add", "add", &[&c, &x])
    });
    case("fused-branch", "sum", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.node("Sum", "sum", &[&c, &x])
    });
    case("unquantized-identity", "add", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        draft.node("Add", "add", &[&c, "x"])
    });
    case("concat-scales", "cat", Target::Tensorrt, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let r = draft.node("Relu", "r", &["x"]);
        let r = draft.pair(&r, &[0.2], 0, 0);
        draft.node("Concat", "cat", &[&x, &r])
    });
    case("concat-half", "cat", Target::Onnxruntime, &|draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let r = draft.node("Relu", "r", &["x"]);
        let cat = draft.node("Concat", "cat", &[&x, &r]);
        draft.pair(&cat, &[0.2], 0, 0)
    });
    case("moving-scale", "split", Target::Onnxruntime, &|draft| {
        draft.split([Some(0.1), Some(0.2)])
    });
    case("moving-scale", "split", Target::Onnxruntime, &|draft| draft.split([Some(0.1), None]));
    cases
}

/// What looks like a finding and is none: ONNX Runtime's convolutions write integers for whoever reads them, and what others read too is wanted.
#[test]
fn pairs_that_are_wanted_are_no_finding() {
    let found = |target, make: &dyn Fn(&mut Draft) -> String| {
        let mut draft = Draft::new();
        let last = make(&mut draft);
        draft.found(&last, target)
    };
    let conv = |draft: &mut Draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        draft.pair(&c, &[0.1], 0, 0)
    };
    let silu = |draft: &mut Draft| {
        let c = conv(draft);
        let gate = draft.node("Sigmoid", "gate", &[&c]);
        let gate = draft.pair(&gate, &[0.01], 0, 0);
        draft.node("Mul", "silu", &[&c, &gate])
    };
    assert_eq!(found(Target::Onnxruntime, &silu), []);
    let softmax = |draft: &mut Draft| {
        let c = conv(draft);
        draft.node("Softmax", "soft", &[&c])
    };
    assert_eq!(found(Target::Onnxruntime, &softmax), []);
    let read_twice = |draft: &mut Draft| {
        let c = conv(draft);
        let gate = draft.node("Sigmoid", "gate", &[&c]);
        let d = draft.conv("d", &c, &SCALES, 0);
        draft.node("Sub", "both", &[&gate, &d])
    };
    assert_eq!(found(Target::Tensorrt, &read_twice), []);
    // Both factors, or a pooling whose means nobody quantizes.
    let product = |draft: &mut Draft| {
        let r = draft.node("Relu", "r", &["x"]);
        let (r, x) = (draft.pair(&r, &[0.1], 0, 0), draft.pair("x", &[0.1], 0, 0));
        draft.node("MatMul", "product", &[&r, &x])
    };
    assert_eq!(found(Target::Tensorrt, &product), []);
    let pool = |draft: &mut Draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        draft.node("GlobalAveragePool", "p", &[&c])
    };
    assert_eq!(found(Target::Tensorrt, &pool), []);
    assert_eq!(found(Target::Onnxruntime, &|draft| draft.pair("x", &[-0.1], 0, 0)), []);
}

/// What stays float because the runtime has no integer kernel of it, or because it leaves the graph.
#[test]
fn what_no_pair_could_help_is_no_finding() {
    let found = |target, make: &dyn Fn(&mut Draft) -> String| {
        let mut draft = Draft::new();
        let last = make(&mut draft);
        draft.found(&last, target)
    };
    let between = |middle: fn(&mut Draft, &str) -> String| {
        move |draft: &mut Draft| {
            let x = draft.pair("x", &[0.1], 0, 0);
            let c = draft.conv("c", &x, &SCALES, 0);
            let c = draft.pair(&c, &[0.1], 0, 0);
            let middle = middle(draft, &c);
            let m = draft.pair(&middle, &[0.2], 0, 0);
            draft.conv("d", &m, &SCALES, 0)
        }
    };
    let transposed = |draft: &mut Draft, paired: bool| {
        let x = draft.pair("x", &[0.1], 0, 0);
        let mut c = draft.conv("c", &x, &SCALES, 0);
        if paired {
            c = draft.pair(&c, &[0.1], 0, 0);
        }
        draft.constant("t_w", TensorData::f32(&[4, 4, 1, 1], &[0.5; 16]));
        let t = draft.node("ConvTranspose", "t", &[&c, "t_w"]);
        let t = draft.pair(&t, &[0.2], 0, 0);
        draft.conv("d", &t, &SCALES, 0)
    };
    assert_eq!(found(Target::TensorrtRtx, &|draft| transposed(draft, false)), []);
    // Its convolutions write integers only.
    assert_eq!(found(Target::Onnxruntime, &|draft| transposed(draft, true)), []);
    let unpaired = found(Target::Tensorrt, &|draft| transposed(draft, false));
    assert_eq!(unpaired[0].rule, "float-island");
    // TensorRT-RTX computes poolings of windows in float whatever pairs there are, and means of whole maps in the kernel before them.
    let pool = |operator: &'static str| {
        move |draft: &mut Draft| {
            let x = draft.pair("x", &[0.1], 0, 0);
            let c = draft.conv("c", &x, &SCALES, 0);
            let p = draft.node(operator, "p", &[&c]);
            let p = draft.pair(&p, &[0.2], 0, 0);
            draft.conv("d", &p, &SCALES, 0)
        }
    };
    assert_eq!(found(Target::TensorrtRtx, &pool("AveragePool")), []);
    for (operator, target) in [
        ("AveragePool", Target::Tensorrt),
        ("GlobalAveragePool", Target::Tensorrt),
        ("GlobalAveragePool", Target::TensorrtRtx),
    ] {
        let findings = found(target, &pool(operator));
        let found: Vec<_> =
            findings.iter().map(|finding| (finding.rule, finding.node.as_str())).collect();
        assert_eq!(found, [("float-island", "p")], "{operator} on {target:?}");
    }
    let output = between(|draft, c| {
        draft.0.outputs.push(ValueInfo::f32("o", Vec::new()));
        draft.conv("o", c, &[], 0)
    });
    assert_eq!(found(Target::Onnxruntime, &output), []);
    let joined = between(|draft, c| {
        draft.0.outputs.push(ValueInfo::f32("cat", Vec::new()));
        draft.node("Concat", "cat", &[c, "x"])
    });
    assert_eq!(found(Target::Onnxruntime, &joined), []);
    let most = between(|draft, c| draft.node("GlobalMaxPool", "m", &[c]));
    assert_eq!(found(Target::Onnxruntime, &most), []);
    let leaky = between(|draft, c| draft.node("LeakyRelu", "l", &[c]));
    assert_eq!(found(Target::Onnxruntime, &leaky), []);
    assert_eq!(found(Target::Tensorrt, &leaky)[0].rule, "blocked-fusion");
    // One part has scale and zero point of its own; nobody reads the other.
    let part = |draft: &mut Draft| {
        let x = draft.pair("x", &[0.1], 0, 0);
        draft.0.nodes.push(Node::new("split", "Split", &[&x], &["one", "other"]));
        draft.pair("one", &[0.2], 0, 0)
    };
    assert_eq!(found(Target::Onnxruntime, &part), []);
}

#[test]
fn parts_with_the_scale_of_the_whole_are_no_finding() {
    for parts in [[Some(0.1), Some(0.1)], [None, None]] {
        let mut draft = Draft::new();
        let last = draft.split(parts);
        assert_eq!(draft.found(&last, Target::Onnxruntime), []);
    }
    // TensorRT moves the pairs behind it in front.
    let mut draft = Draft::new();
    let last = draft.split([Some(0.1), None]);
    assert_eq!(draft.found(&last, Target::Tensorrt), []);
}

#[test]
fn each_rule_finds_what_breaks_it_and_nothing_else() {
    let cases = broken();
    for (rule, node, found) in &cases {
        let places: Vec<(&str, &str)> = found.iter().map(|f| (f.rule, f.node.as_str())).collect();
        // A zero point stands in both nodes of a pair.
        assert!(
            !places.is_empty() && places.iter().all(|place| place.0 == *rule),
            "{rule}: {places:?}"
        );
        assert_eq!(places[0].1, *node, "{rule}");
    }
    let covered: BTreeSet<&str> = cases.iter().map(|case| case.0).collect();
    assert_eq!(covered, RULES.iter().map(|rule| rule.name).collect());
}

#[test]
fn rules_of_one_runtime_do_not_hold_for_another() {
    let mut draft = Draft::new();
    let x = draft.pair("x", &[0.1], 5, 0);
    // Each input its own scale: QLinearConcat takes them so.
    let r = draft.node("Relu", "r", &["x"]);
    let r = draft.pair(&r, &[0.2], 0, 0);
    let cat = draft.node("Concat", "cat", &[&x, &r]);
    assert_eq!(draft.found(&cat, Target::Onnxruntime), []);
}

#[test]
fn quantized_operators_are_told_to_the_runtimes_that_cannot_read_them() {
    let rules = |op: &str, domain: &str, target| -> Vec<&'static str> {
        let mut draft = Draft::new();
        let made = draft.node(op, "n", &["x"]);
        draft.0.nodes[0].domain = domain.to_owned();
        draft.found(&made, target).into_iter().map(|finding| finding.rule).collect()
    };
    for (domain, op) in
        [("", "QLinearConv"), ("", "DynamicQuantizeLinear"), ("com.microsoft", "QLinearAdd")]
    {
        for target in [Target::Tensorrt, Target::TensorrtRtx] {
            assert_eq!(rules(op, domain, target), ["integer-operator"], "{op}");
        }
        assert!(rules(op, domain, Target::Onnxruntime).is_empty(), "{op}");
    }
    // Its parser has an importer for this one.
    assert!(rules("MatMulNBits", "com.microsoft", Target::TensorrtRtx).is_empty());
    assert_eq!(rules("MatMulBnb4", "com.microsoft", Target::TensorrtRtx), ["packed-weight"]);
    assert!(rules("Gelu", "com.microsoft", Target::Tensorrt).is_empty());
}

#[test]
fn types_that_tensorrt_does_not_quantize_to_are_found_with_and_without_a_zero_point() {
    let found = |zero: Option<TensorData>, dtype: Option<DType>| {
        let mut draft = Draft::new();
        draft.constant("s", TensorData::f32(&[], &[0.1]));
        let inputs: &[&str] = if zero.is_some() { &["x", "s", "z"] } else { &["x", "s"] };
        zero.into_iter().for_each(|zero| draft.constant("z", zero));
        let made = draft.node("QuantizeLinear", "q", inputs);
        if let Some(dtype) = dtype {
            let number = Attribute::Int(dtype.onnx().into());
            draft.0.nodes[0].attributes.insert("output_dtype".to_owned(), number);
        }
        let found = draft.found(&made, Target::Tensorrt);
        found.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    let zero = |dtype: DType, bytes: usize| {
        Some(TensorData { dtype, shape: Vec::new(), bytes: vec![0; bytes].into() })
    };
    assert_eq!(found(zero(DType::I16, 2), None), ["is int16"]);
    assert_eq!(found(zero(DType::U8, 1), None), ["is uint8"]);
    let middle = TensorData::u8(&[], &[128]);
    assert_eq!(found(Some(middle), None), ["is uint8, with zero point 128"]);
    assert_eq!(found(Some(wide(DType::U16, [0, 128])), None), ["is uint16, with zero point 32768"]);
    assert!(found(zero(DType::I8, 1), None).is_empty());
    assert!(found(zero(DType::F8E4M3FN, 1), None).is_empty());
    assert_eq!(found(None, None), ["has no zero point: its type is uint8"]);
    assert_eq!(found(None, Some(DType::U16)), ["has no zero point: its type is uint16"]);
    assert!(found(None, Some(DType::I8)).is_empty());
}

#[test]
fn an_integer_convolution_with_one_scale_for_all_channels_is_found() {
    let rules = |scales: &[f32]| -> Vec<&'static str> {
        let mut draft = Draft::new();
        draft.constant("w", TensorData::i8(&[4, 4, 1, 1], &[1; 16]));
        draft.constant("ws", TensorData::f32(&[scales.len() as i64], scales));
        let made = draft.node("QLinearConv", "c", &["x", "s", "z", "w", "ws", "wz", "s", "z"]);
        draft.found(&made, Target::Onnxruntime).into_iter().map(|finding| finding.rule).collect()
    };
    assert_eq!(rules(&[0.1]), ["per-tensor-weight"]);
    assert!(rules(&SCALES).is_empty());
}

/// Networks that `insert-qdq` quantized, in the form in which they are exported.
#[test]
fn our_own_placement_breaks_no_rule() {
    for arch in [Arch::Resnet18, Arch::Resnet50, Arch::Mobilenetv2] {
        let config = ZooModel {
            arch,
            in_channels: 3,
            classes: 10,
            image_size: 64,
            blocks: None,
            channels: None,
            stem: None,
            weights: None,
        };
        let mut model = zoo::build(&config, None, 1).unwrap();
        prepare(&mut model).unwrap();
        for target in Target::ALL {
            let found = lint(&quantized(&model, target).graph, Some(target));
            assert_eq!(found, [], "{arch:?}, {target:?}");
        }
    }
}

fn quantized(model: &Model, target: Target) -> Model {
    let amax = |(index, tensor): (u16, String)| (tensor, 6.0 / (f32::from(index) + 1.0));
    // No value behind a Clip is above its bound.
    let ranges = fixture::ranges(Method::Max, (0_u16..).zip(watched(&model.graph)).map(amax));
    let request = fixture::request(target, Method::Max);
    let mut quantized = model.clone();
    insert(&mut quantized, &plan(&model.graph, &ranges, &request).unwrap()).unwrap();
    finalize(&mut quantized, None).unwrap();
    quantized
}

#[test]
fn weights_alone_are_no_half() {
    let mut draft = Draft::new();
    let c = draft.conv("c", "x", &SCALES, 0);
    draft.conv("d", &c, &SCALES, 0);
    assert_eq!(lint(&draft.0, None), []);
}
