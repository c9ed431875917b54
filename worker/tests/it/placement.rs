//! Networks that the zoo has none of: what is placed in them computes the same in the interpreter and in ONNX Runtime, and ONNX
//! Runtime makes integer kernels of it.

use std::collections::BTreeMap;

use qpipe::stages::insert_qdq::Target;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::passes::set_batch;
use qpipe_worker::quant::finalize::{finalize, keep_products};
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Selection, plan, plan_for};
use qpipe_worker::quant::prepare::prepare;

use crate::quant::{Batch, IMAGES, agreement, agrees, dataset, ranges, request};

const SIDE: usize = 8;

/// A network in the making: input `input` [n, 1, 8, 8], a value is called as the node that makes it.
struct Draft {
    graph: Graph,
    state: u32,
}

impl Draft {
    fn new() -> Self {
        let image = [Dim::Named("n".to_owned()), Dim::Fixed(1), Dim::Fixed(8), Dim::Fixed(8)];
        let inputs = vec![ValueInfo::f32("input", image.to_vec())];
        let name = "drafted".to_owned();
        Self { graph: Graph { name, inputs, ..Graph::default() }, state: 7 }
    }

    /// A constant of random numbers with a variance of one over `fan`.
    fn random(&mut self, name: &str, shape: &[i64], fan: i64) {
        let mut next = || {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let factor = (12.0 / fan as f32).sqrt();
        let values: Vec<f32> =
            (0..shape.iter().product::<i64>()).map(|_| next() * factor).collect();
        self.graph.initializers.insert(name.to_owned(), TensorData::f32(shape, &values));
    }

    fn node(&mut self, name: &str, operator: &str, inputs: &[&str]) -> &mut Node {
        self.graph.nodes.push(Node::new(name, operator, inputs, &[name]));
        self.graph.nodes.last_mut().expect("it was just added")
    }

    fn with(&mut self, name: &str, operator: &str, inputs: &[&str], key: &str, value: Attribute) {
        self.node(name, operator, inputs).attributes.insert(key.to_owned(), value);
    }

    /// A convolution of 3×3 or, transposed, 2×2 with stride 2, and a Relu, which gives `name`.
    fn conv(&mut self, name: &str, input: &str, channels: [i64; 2], transposed: bool) {
        let ([from, to], part) = (channels, |part: &str| format!("{name}_{part}"));
        let (weight, bias, conv) = (part("w"), part("b"), part("conv"));
        self.random(&bias, &[to], 16);
        if transposed {
            self.random(&weight, &[from, to, 2, 2], from);
            let strides = Attribute::Ints(vec![2, 2]);
            self.with(&conv, "ConvTranspose", &[input, &weight, &bias], "strides", strides);
        } else {
            self.random(&weight, &[to, from, 3, 3], from * 9);
            let pads = Attribute::Ints(vec![1; 4]);
            self.with(&conv, "Conv", &[input, &weight, &bias], "pads", pads);
        }
        self.node(name, "Relu", &[&conv]);
    }

    fn linear(&mut self, name: &str, input: &str, [from, to]: [i64; 2]) {
        let part = |part: &str| format!("{name}_{part}");
        self.random(&part("w"), &[from, to], from);
        self.random(&part("b"), &[to], 16);
        self.node(&part("product"), "MatMul", &[input, &part("w")]);
        self.node(name, "Add", &[&part("product"), &part("b")]);
    }

    fn end(mut self, last: &str) -> Model {
        let shape = vec![Dim::Named("n".to_owned()), Dim::Fixed(10)];
        self.graph.outputs = vec![ValueInfo::f32(last, shape)];
        Model::new(self.graph, 17)
    }

    /// Means of each channel, and ten classes of them.
    fn classes(mut self, input: &str, channels: i64) -> Model {
        self.node("pooled", "GlobalAveragePool", &[input]);
        self.node("flat", "Flatten", &["pooled"]);
        self.random("fc_w", &[channels, 10], channels);
        self.random("fc_b", &[10], 16);
        self.node("classes", "Gemm", &["flat", "fc_w", "fc_b"]);
        self.end("classes")
    }
}

/// Eight tokens of eight values: attention with a residual addition, and a gated layer behind it.
fn attention() -> Model {
    let mut draft = Draft::new();
    let shapes = [("tokens_shape", vec![0, 8, 8]), ("flat_shape", vec![0, 64])];
    for (name, shape) in shapes {
        let data = TensorData::i64(&[shape.len() as i64], &shape);
        draft.graph.initializers.insert(name.to_owned(), data);
    }
    draft.graph.initializers.insert("root".to_owned(), TensorData::f32(&[], &[8.0_f32.sqrt()]));
    draft.graph.initializers.insert("ones".to_owned(), TensorData::f32(&[8], &[1.0; 8]));
    // [n, 1, 8, 8] to [n, 8, 8].
    draft.node("tokens", "Reshape", &["input", "tokens_shape"]);
    for name in ["q", "k", "v"] {
        draft.linear(name, "tokens", [8, 8]);
    }
    let turned = Attribute::Ints(vec![0, 2, 1]);
    draft.with("turned", "Transpose", &["k"], "perm", turned);
    draft.node("scores", "MatMul", &["q", "turned"]);
    draft.node("scaled", "Div", &["scores", "root"]);
    draft.with("probabilities", "Softmax", &["scaled"], "axis", Attribute::Int(-1));
    draft.node("mixed", "MatMul", &["probabilities", "v"]);
    draft.linear("projected", "mixed", [8, 8]);
    draft.node("sum", "Add", &["tokens", "projected"]);
    draft.with("norm", "LayerNormalization", &["sum", "ones"], "axis", Attribute::Int(-1));
    draft.linear("up", "norm", [8, 16]);
    draft.node("gate", "Sigmoid", &["up"]);
    draft.node("silu", "Mul", &["up", "gate"]);
    draft.linear("down", "silu", [16, 8]);
    draft.node("flat", "Reshape", &["down", "flat_shape"]);
    draft.random("fc_w", &[64, 10], 64);
    draft.random("fc_b", &[10], 16);
    draft.node("classes", "Gemm", &["flat", "fc_w", "fc_b"]);
    draft.end("classes")
}

/// SiLU, squeeze-and-excite behind it with a Sigmoid, and behind a Relu with a HardSigmoid.
fn gates() -> Model {
    let mut draft = Draft::new();
    draft.conv("stem", "input", [1, 8], false);
    for (name, from, gate) in [("first", "stem", "HardSigmoid"), ("second", "silu", "Sigmoid")] {
        let part = |part: &str| format!("{name}_{part}");
        if name == "second" {
            draft.conv("body", "first", [8, 8], false);
            draft.node("share", "Sigmoid", &["body"]);
            draft.node("silu", "Mul", &["body", "share"]);
        }
        draft.node(&part("squeezed"), "GlobalAveragePool", &[from]);
        draft.conv(&part("excited"), &part("squeezed"), [8, 8], false);
        draft.node(&part("gate"), gate, &[&part("excited")]);
        draft.node(name, "Mul", &[from, &part("gate")]);
    }
    draft.conv("last", "second", [8, 16], false);
    draft.classes("last", 16)
}

/// Two blocks of Darknet: a residual, and a LeakyRelu behind each convolution.
fn darknet() -> Model {
    let mut draft = Draft::new();
    let leaky = |draft: &mut Draft, name: &str, input: &str, channels| {
        draft.conv(name, input, channels, false);
        let relu = draft.graph.nodes.last_mut().expect("it was just added");
        relu.op_type = "LeakyRelu".to_owned();
    };
    leaky(&mut draft, "stem", "input", [1, 8]);
    let mut before = "stem";
    for (block, conv) in [("first", "one"), ("second", "two")] {
        leaky(&mut draft, conv, before, [8, 8]);
        draft.node(block, "Add", &[before, conv]);
        before = block;
    }
    draft.conv("last", before, [8, 16], false);
    draft.classes("last", 16)
}

/// Two branches joined, one of them twice, behind a pooling.
fn concat() -> Model {
    let mut draft = Draft::new();
    draft.conv("stem", "input", [1, 8], false);
    draft.conv("left", "stem", [8, 8], false);
    draft.conv("right", "left", [8, 8], false);
    draft.with("inner", "Concat", &["left", "right"], "axis", Attribute::Int(1));
    draft.with("outer", "Concat", &["stem", "inner"], "axis", Attribute::Int(1));
    let window = Attribute::Ints(vec![2, 2]);
    draft.with("pool", "MaxPool", &["outer"], "kernel_shape", window);
    draft.conv("last", "pool", [24, 16], false);
    draft.classes("last", 16)
}

/// Blocks whose input is divided: one as in YOLOv8 and a GLU; a Slice, a Resize, and means as PyTorch's newer exporter writes them.
fn parts() -> Model {
    let mut draft = Draft::new();
    let split = |draft: &mut Draft, name: &str, parts: [&str; 2]| {
        draft.with(&format!("{name}_split"), "Split", &[name], "axis", Attribute::Int(1));
        let node = draft.graph.nodes.last_mut().expect("it was just added");
        node.outputs = parts.map(str::to_owned).to_vec();
    };
    draft.conv("stem", "input", [1, 8], false);
    split(&mut draft, "stem", ["kept", "part"]);
    draft.conv("body", "part", [4, 4], false);
    draft.node("sum", "Add", &["part", "body"]);
    draft.with("joined", "Concat", &["kept", "part", "sum"], "axis", Attribute::Int(1));
    draft
        .graph
        .initializers
        .insert("twice".to_owned(), TensorData::f32(&[4], &[1.0, 1.0, 2.0, 2.0]));
    draft.node("resized", "Resize", &["joined", "", "twice"]);
    draft.conv("wide", "resized", [12, 16], false);
    split(&mut draft, "wide", ["value", "open"]);
    draft.node("gate", "Sigmoid", &["open"]);
    draft.node("glu", "Mul", &["value", "gate"]);
    for (name, value) in [("begin", 0_i64), ("end", 6), ("channels", 1)] {
        draft.graph.initializers.insert(name.to_owned(), TensorData::i64(&[1], &[value]));
    }
    draft.node("sliced", "Slice", &["glu", "begin", "end", "channels"]);
    draft.conv("last", "sliced", [6, 16], false);
    draft.with("squeezed", "ReduceMean", &["last"], "axes", Attribute::Ints(vec![2, 3]));
    draft.conv("excited", "squeezed", [16, 16], false);
    draft.node("share", "Sigmoid", &["excited"]);
    draft.node("weighed", "Mul", &["last", "share"]);
    draft.with("mean", "ReduceMean", &["weighed"], "axes", Attribute::Ints(vec![-1, -2]));
    let node = draft.graph.nodes.last_mut().expect("it was just added");
    node.attributes.insert("keepdims".to_owned(), Attribute::Int(0));
    draft.random("fc_w", &[16, 10], 16);
    draft.random("fc_b", &[10], 16);
    draft.node("classes", "Gemm", &["mean", "fc_w", "fc_b"]);
    draft.end("classes")
}

/// Down by a pooling and up by a ConvTranspose with as many output channels as inputs and with more.
fn transposed() -> Model {
    let mut draft = Draft::new();
    draft.conv("stem", "input", [1, 8], false);
    let window = Attribute::Ints(vec![2, 2]);
    draft.with("pool", "MaxPool", &["stem"], "kernel_shape", window);
    draft.conv("up", "pool", [8, 12], true);
    draft.conv("last", "up", [12, 16], false);
    draft.classes("last", 16)
}

/// As other exporters than PyTorch's write it: Caffe's Scale behind a convolution, a bias behind one and behind a product, factors of a Gemm.
fn unfused() -> Model {
    let mut draft = Draft::new();
    for (name, from, channels) in [("first", "input", [1, 8]), ("second", "first", [8, 8])] {
        let part = |part: &str| format!("{name}_{part}");
        draft.random(&part("w"), &[channels[1], channels[0], 3, 3], channels[0] * 9);
        let pads = Attribute::Ints(vec![1; 4]);
        draft.with(&part("conv"), "Conv", &[from, &part("w")], "pads", pads);
        draft.random(&part("scale"), &[channels[1], 1, 1], 1);
        draft.random(&part("shift"), &[1, channels[1], 1, 1], 16);
        draft.node(&part("scaled"), "Mul", &[&part("conv"), &part("scale")]);
        draft.node(&part("shifted"), "Add", &[&part("scaled"), &part("shift")]);
        draft.node(name, "Relu", &[&part("shifted")]);
    }
    draft.node("pooled", "GlobalAveragePool", &["second"]);
    draft.node("flat", "Flatten", &["pooled"]);
    draft.linear("dense", "flat", [8, 16]);
    draft.node("dense_relu", "Relu", &["dense"]);
    draft.random("fc_w", &[16, 10], 1);
    draft.random("fc_b", &[1, 10], 256);
    let alpha = Attribute::Float(0.5);
    draft.with("classes", "Gemm", &["dense_relu", "fc_w", "fc_b"], "alpha", alpha);
    let beta = Attribute::Float(2.0);
    draft
        .graph
        .nodes
        .last_mut()
        .expect("it was just added")
        .attributes
        .insert("beta".to_owned(), beta);
    draft.end("classes")
}

/// Products of a stack of one matrix, and of two computed matrices in a Gemm.
fn products() -> Model {
    let mut draft = Draft::new();
    for (name, shape) in [("tokens_shape", vec![0, 8, 8]), ("rows_shape", vec![-1, 64])] {
        let data = TensorData::i64(&[shape.len() as i64], &shape);
        draft.graph.initializers.insert(name.to_owned(), data);
    }
    draft.node("tokens", "Reshape", &["input", "tokens_shape"]);
    draft.random("stack", &[1, 8, 8], 8);
    draft.node("mixed", "MatMul", &["tokens", "stack"]);
    draft.node("rows", "Reshape", &["mixed", "rows_shape"]);
    draft.random("left_w", &[64, 10], 64);
    draft.random("right_w", &[64, 10], 64);
    draft.node("left", "Gemm", &["rows", "left_w"]);
    draft.node("right", "Gemm", &["rows", "right_w"]);
    draft.with("scores", "Gemm", &["left", "right"], "transB", Attribute::Int(1));
    draft.node("classes", "Gemm", &["scores", "left"]);
    draft.end("classes")
}

/// Products with constant stacks of four matrices, as heads or experts have them: one that another reads, and one that a Sigmoid reads.
fn stacks() -> Model {
    let mut draft = Draft::new();
    draft.random("first_w", &[4, 8, 16], 8);
    draft.random("second_w", &[4, 16, 8], 16);
    draft.node("first", "MatMul", &["input", "first_w"]);
    draft.node("second", "MatMul", &["first", "second_w"]);
    draft.node("gated", "Sigmoid", &["second"]);
    draft.node("flat", "Flatten", &["gated"]);
    draft.random("fc_w", &[256, 10], 256);
    draft.node("classes", "Gemm", &["flat", "fc_w"]);
    draft.end("classes")
}

/// ONNX Runtime's kernel takes one scale for all matrices: with one for each column it fails at its first run.
#[test]
fn stacks_of_matrices_have_integer_kernels() {
    let (found, same) = kernels(stacks());
    let count = |name: &str| found.get(name).copied().unwrap_or(0);
    let integers = ["QLinearMatMul", "MatMulIntegerToFloat", "QGemm"].map(count);
    assert_eq!((integers, count("MatMul")), ([1, 1, 1], 0), "{found:?}");
    let least = if qpipe_worker::engine::saturates() { 0.9 } else { 0.97 };
    assert!(same >= least, "{same}");
    agrees("stacks", stacks(), SIDE);
}

#[test]
fn attention_concatenations_and_transposed_convolutions_run_alike_everywhere() {
    agrees("attention", attention(), SIDE);
    agrees("gates", gates(), SIDE);
    agrees("darknet", darknet(), SIDE);
    agrees("concat", concat(), SIDE);
    agrees("transposed", transposed(), SIDE);
    agrees("parts", parts(), SIDE);
}

/// With the scales of TensorRT 8.5 to 10.1, which are along the input channels.
#[test]
fn scales_along_the_input_channels_run_alike_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), SIDE);
    let mut model = transposed();
    prepare(&mut model).expect("prepares");
    let (all, ranges) = (Selection::all(&model.graph), ranges(&model, &dataset));
    let version = TensorrtVersion::OLDEST;
    let plan = plan_for(&model.graph, &ranges, &request(Target::Tensorrt), &all, version);
    let plan = plan.expect("plans");
    let up = plan.weights.iter().find(|weight| weight.layer == "up_conv").expect("quantized");
    assert_eq!((up.axis, up.channels), (Some(0), 8));
    insert(&mut model, &plan).expect("inserts");
    let batch = Batch::all(&dataset);
    let simulated = batch.simulate(&model);
    finalize(&mut model, None).expect("finalizes");
    let (outputs, _) = batch.onnxruntime(folder.path(), &model, "off");
    let (same, decibels) = agreement(&simulated, &outputs);
    assert!(same >= 0.99 && decibels >= 45.0, "{same}, {decibels} dB");
}

/// The operators that ONNX Runtime runs of a network with its own placement, and the share of images of the simulated class.
fn kernels(model: Model) -> (BTreeMap<String, usize>, f64) {
    kernels_of(model, None)
}

/// The same of a file of a fixed batch.
fn kernels_of(mut model: Model, fixed: Option<u32>) -> (BTreeMap<String, usize>, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), SIDE);
    prepare(&mut model).expect("prepares");
    let plan = plan(&model.graph, &ranges(&model, &dataset), &request(Target::Onnxruntime));
    insert(&mut model, &plan.expect("plans")).expect("inserts");
    let batch = Batch::all(&dataset);
    let simulated = batch.simulate(&model);
    finalize(&mut model, None).expect("finalizes");
    if fixed.is_some() {
        set_batch(&mut model, fixed).expect("fixes");
        keep_products(&mut model).expect("keeps");
        let (same, decibels) = agreement(&simulated, &batch.simulate(&model));
        assert!(same >= 0.99 && decibels >= 45.0, "{same}, {decibels} dB");
    }
    let (outputs, kernels) = batch.onnxruntime(folder.path(), &model, "on");
    let (same, decibels) = agreement(&simulated, &outputs);
    println!("{kernels:?}: {same} alike, {decibels:.1} dB");
    (kernels, same)
}

#[test]
fn onnxruntime_makes_integer_kernels_of_them() {
    let count =
        |kernels: &BTreeMap<String, usize>, name: &str| kernels.get(name).copied().unwrap_or(0);
    // How far they agree depends on the processor: without VNNI products of uint8 and int8 saturate.
    let (found, _) = kernels(attention());
    // Six products with weights, two of computed matrices.
    let products = count(&found, "MatMulIntegerToFloat") + count(&found, "QLinearMatMul");
    assert_eq!((products, count(&found, "MatMul")), (8, 0), "{found:?}");
    assert_eq!(count(&found, "QGemm"), 1, "{found:?}");
    let (found, same_concat) = kernels(concat());
    let integers = ["QLinearConv", "QLinearConcat", "QGemm"].map(|name| count(&found, name));
    assert_eq!((integers, count(&found, "Conv")), ([4, 2, 1], 0), "{found:?}");
    let (found, same_transposed) = kernels(transposed());
    let layers = ["QLinearConv", "ConvTranspose", "QGemm"].map(|name| count(&found, name));
    assert_eq!((layers, count(&found, "Conv")), ([2, 1, 1], 0), "{found:?}");
    let (found, _) = kernels(gates());
    let integers = ["QLinearConv", "QLinearMul", "QLinearSigmoid"].map(|name| count(&found, name));
    assert_eq!((integers, count(&found, "Mul")), ([5, 3, 2], 0), "{found:?}");
    let (found, _) = kernels(darknet());
    let integers = ["QLinearConv", "QLinearLeakyRelu", "QLinearAdd"];
    let integers = integers.map(|name| count(&found, name));
    assert_eq!((integers, count(&found, "LeakyRelu")), ([4, 3, 2], 0), "{found:?}");
    let (found, _) = kernels(parts());
    let operators =
        ["QLinearConv", "Split", "Resize", "Slice", "QLinearGlobalAveragePool", "QuantizeLinear"];
    let operators = operators.map(|name| count(&found, name));
    assert_eq!(
        (operators, count(&found, "DequantizeLinear")),
        ([5, 2, 1, 1, 2, 1], 0),
        "{found:?}"
    );
    println!("alike: {same_concat}, {same_transposed}");
}

/// Each of them was a float kernel between conversions, the products one that dequantizes its weights at each run.
#[test]
fn layers_of_other_exporters_have_integer_kernels_too() {
    let count =
        |kernels: &BTreeMap<String, usize>, name: &str| kernels.get(name).copied().unwrap_or(0);
    let floats = |kernels: &BTreeMap<String, usize>| {
        ["Conv", "Gemm", "MatMul", "Add", "Mul", "DequantizeLinear"]
            .map(|name| count(kernels, name))
    };
    let (found, _) = kernels(unfused());
    let integers = ["QLinearConv", "QGemm"].map(|name| count(&found, name));
    assert_eq!((integers, floats(&found)), ([2, 2], [0; 6]), "{found:?}");
    let (found, _) = kernels(products());
    let integers = ["QGemm", "MatMulIntegerToFloat", "QLinearMatMul"].map(|n| count(&found, n));
    assert_eq!((integers[0], integers[1] + integers[2]), (4, 1), "{found:?}");
    assert_eq!(floats(&found)[..3], [0; 3], "{found:?}");
    // With a fixed batch ONNX Runtime knows all extents, and joins products with their biases.
    let (found, _) = kernels_of(attention(), Some(IMAGES as u32));
    let products = ["MatMulIntegerToFloat", "QLinearMatMul", "QGemm"].map(|n| count(&found, n));
    assert_eq!(products.iter().sum::<usize>(), 9, "{found:?}");
    assert_eq!(floats(&found)[..3], [0; 3], "{found:?}");
    agrees("unfused", unfused(), SIDE);
}
