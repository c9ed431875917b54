//! Every type and granularity: simulated, exported and run by the ONNX standard's evaluator and by ONNX Runtime alike, and trained.

use std::collections::BTreeMap;
use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::formats::{Activations, Weights};
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program, Scales};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Plan, Request, plan, watched};
use qpipe_worker::quant::ranges::{Range, Ranges, VERSION};
use qpipe_worker::{onnx, passes};
use tch::{Kind, Tensor};

use crate::python;

/// Target, and the keys of `weights` and `activations`.
pub type Case = (Target, &'static str, &'static str);

const ORT: Target = Target::Onnxruntime;
const TRT: Target = Target::Tensorrt;
const FLOAT8: &str = "'type': 'float8e4m3fn'";

/// What the runtimes take, each type and granularity at least once.
const CASES: &[Case] = &[
    (ORT, "", ""),
    (ORT, "", "'symmetric': false"),
    (ORT, "", "'type': 'int8'"),
    (ORT, "", "'type': 'int8', 'symmetric': false"),
    (ORT, "", "'type': 'float'"),
    (ORT, "'granularity': 'per-tensor'", ""),
    (ORT, "'granularity': 'per-tensor', 'symmetric': false", "'symmetric': false"),
    (ORT, "'granularity': 'per-block', 'block_size': 16", "'type': 'float'"),
    (ORT, "'symmetric': false", ""),
    (ORT, "'symmetric': false", "'type': 'float'"),
    (ORT, "'reduce_range': true", ""),
    (ORT, "'reduce_range': true, 'granularity': 'per-tensor'", ""),
    (ORT, "'reduce_range': true, 'symmetric': false", "'type': 'float'"),
    (
        ORT,
        "'reduce_range': true, 'granularity': 'per-tensor', 'symmetric': false",
        "'symmetric': false",
    ),
    (ORT, "'type': 'int4'", ""),
    (ORT, "'type': 'int4', 'symmetric': false", "'symmetric': false"),
    (ORT, "'type': 'int4', 'granularity': 'per-tensor'", "'type': 'float'"),
    (ORT, "'type': 'int4', 'granularity': 'per-block'", ""),
    (
        ORT,
        "'type': 'int4', 'granularity': 'per-block', 'block_size': 16, 'symmetric': false",
        "'type': 'float'",
    ),
    (ORT, FLOAT8, FLOAT8),
    (ORT, FLOAT8, "'type': 'float'"),
    (ORT, "'type': 'float8e4m3fn', 'granularity': 'per-tensor'", ""),
    (
        ORT,
        "'type': 'float8e4m3fn', 'granularity': 'per-block', 'block_size': 16",
        "'type': 'float'",
    ),
    (TRT, "", ""),
    (TRT, "", "'type': 'float'"),
    (TRT, FLOAT8, FLOAT8),
    (TRT, "'type': 'float8e4m3fn', 'granularity': 'per-tensor'", FLOAT8),
    (TRT, FLOAT8, "'type': 'float'"),
    (TRT, "'type': 'int4', 'granularity': 'per-block', 'block_size': 64", "'type': 'float'"),
];

/// Normally distributed numbers, about 0 but for a shift.
fn random(count: i64, seed: i64, shift: f64) -> Vec<f32> {
    tch::manual_seed(seed);
    let values = Tensor::randn([count], (Kind::Float, tch::Device::Cpu)) * 0.2 + shift;
    Vec::try_from(values).unwrap()
}

fn fixed(name: &str, shape: &[i64]) -> ValueInfo {
    ValueInfo::f32(name, shape.iter().copied().map(Dim::Fixed).collect())
}

fn network(nodes: Vec<Node>, input: &[i64], output: &[i64], weights: &[(&str, &[i64])]) -> Model {
    let constant = |(index, (name, shape)): (usize, &(&str, &[i64]))| {
        // Weights that are not symmetric around 0: an affine range differs from a symmetric one.
        let values = random(shape.iter().product(), 40 + index as i64, 0.05);
        ((*name).to_owned(), TensorData::f32(shape, &values))
    };
    let graph = Graph {
        name: "net".to_owned(),
        nodes,
        inputs: vec![fixed("x", input)],
        outputs: vec![fixed("y", output)],
        initializers: weights.iter().enumerate().map(constant).collect(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

/// One layer each, whose quantized input no other layer makes: no value lies near to a tie by the order of a sum.
fn layers() -> Vec<(&'static str, Model)> {
    let pads = || Attribute::Ints(vec![1; 4]);
    let conv = Node::new("conv", "Conv", &["x", "w", "b"], &["y"]).with("pads", pads());
    let depthwise = Node::new("depthwise", "Conv", &["x", "w", "b"], &["y"])
        .with("pads", pads())
        .with("group", Attribute::Int(40));
    let gemm =
        Node::new("gemm", "Gemm", &["x", "w", "b"], &["y"]).with("transB", Attribute::Int(1));
    let matmul = Node::new("matmul", "MatMul", &["x", "w"], &["y"]);
    let image = [2, 40, 5, 5];
    vec![
        ("conv", network(vec![conv], &image, &[2, 8, 5, 5], &[("w", &[8, 40, 3, 3]), ("b", &[8])])),
        (
            "depthwise",
            network(vec![depthwise], &image, &image, &[("w", &[40, 1, 3, 3]), ("b", &[40])]),
        ),
        ("gemm", network(vec![gemm], &[3, 128], &[3, 7], &[("w", &[7, 128]), ("b", &[7])])),
        // Blocks of 32 and of 64 do not divide it.
        ("matmul", network(vec![matmul], &[3, 72], &[3, 9], &[("w", &[72, 9])])),
    ]
}

/// A network of convolutions, a residual addition, a pooling and matrix products.
fn small_network() -> Model {
    let pads = || Attribute::Ints(vec![1; 4]);
    let nodes = vec![
        Node::new("conv1", "Conv", &["x", "w1", "b1"], &["c1"]).with("pads", pads()),
        Node::new("relu1", "Relu", &["c1"], &["r1"]),
        Node::new("depthwise", "Conv", &["r1", "w2", "b2"], &["c2"])
            .with("pads", pads())
            .with("group", Attribute::Int(64)),
        Node::new("add", "Add", &["c2", "r1"], &["a"]),
        Node::new("relu2", "Relu", &["a"], &["r2"]),
        Node::new("pool", "GlobalAveragePool", &["r2"], &["p"]),
        Node::new("flatten", "Flatten", &["p"], &["f"]),
        Node::new("hidden", "MatMul", &["f", "w3"], &["h"]),
        Node::new("head", "Gemm", &["h", "w4", "b4"], &["y"]).with("transB", Attribute::Int(1)),
    ];
    let weights: [(&str, &[i64]); 7] = [
        ("w1", &[64, 40, 3, 3]),
        ("b1", &[64]),
        ("w2", &[64, 1, 3, 3]),
        ("b2", &[64]),
        ("w3", &[64, 128]),
        ("w4", &[10, 128]),
        ("b4", &[10]),
    ];
    network(nodes, &[2, 40, 5, 5], &[2, 10], &weights)
}

/// An input of that model.
fn input(model: &Model) -> Tensor {
    let extents = model.graph.inputs[0].shape.iter().flatten().map(|dim| match dim {
        Dim::Fixed(extent) => *extent,
        _ => unreachable!("all extents are fixed"),
    });
    let extents: Vec<i64> = extents.collect();
    Tensor::from_slice(&random(extents.iter().product(), 7, 0.1)).reshape(&extents)
}

/// What each tensor's values are on that input.
fn ranges(model: &Model, x: &Tensor) -> Ranges {
    let watch = watched(&model.graph);
    let mut tensors = Vec::new();
    let options = Options { watch: watch.clone(), ..Options::default() };
    let mut program = Program::compile(model, &options).unwrap();
    let mut observe = |index: usize, value: &Tensor| {
        let (min, max) =
            (value.min().double_value(&[]) as f32, value.max().double_value(&[]) as f32);
        let amax = BTreeMap::from([(Method::Max, min.abs().max(max.abs()))]);
        let (min, max) = (Some(min), Some(max));
        tensors.push((index, Range { tensor: watch[index].clone(), min, max, amax, error: None }));
        Ok(())
    };
    program.forward(&[x.shallow_clone()], Mode::Eval, &mut observe).unwrap();
    tensors.sort_by_key(|(index, _)| *index);
    let tensors = tensors.into_iter().map(|(_, range)| range).collect();
    Ranges { version: VERSION, calibration: None, tensors }
}

pub fn formats((_, weights, activations): Case) -> Formats {
    let table = |keys: &str| format!("{{{}}}", keys.replace('\'', "\""));
    let weights: Weights = serde_json::from_str(&table(weights)).unwrap();
    let activations: Activations = serde_json::from_str(&table(activations)).unwrap();
    Formats::of(Some(weights), Some(activations), true)
}

fn quantized(model: &Model, x: &Tensor, case: Case) -> (Model, Plan) {
    let formats = formats(case);
    let request =
        Request { target: case.0, method: Method::Max, include: None, exclude: &[], formats };
    let plan = plan(&model.graph, &ranges(model, x), &request).unwrap();
    let mut model = model.clone();
    insert(&mut model, &plan).unwrap();
    onnx::check(&model).unwrap();
    (model, plan)
}

fn exported(model: &Model) -> Model {
    let mut exported = model.clone();
    finalize(&mut exported, None).unwrap();
    onnx::check(&exported).unwrap();
    exported
}

fn simulate(model: &Model, x: &Tensor) -> Vec<f32> {
    let mut program = Program::compile(model, &Options::default()).unwrap();
    let outputs = program.forward(&[x.shallow_clone()], Mode::Eval, &mut |_, _| Ok(())).unwrap();
    Vec::try_from(outputs[0].contiguous().view(-1)).unwrap()
}

/// A tensor's elements as bytes.
fn bytes(x: &Tensor) -> Vec<u8> {
    let floats: Vec<f32> = Vec::try_from(x.contiguous().view(-1)).unwrap();
    floats.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Its extents, with commas between.
fn extents(x: &Tensor) -> String {
    let extents: Vec<String> = x.size().iter().map(i64::to_string).collect();
    extents.join(",")
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Outputs of ONNX Runtime, and the operators that it ran.
fn onnxruntime(
    folder: &Path,
    model: &Model,
    x: &Tensor,
    optimizations: &str,
) -> (Vec<f32>, String) {
    let [path, inputs, outputs] = ["model.onnx", "inputs", "outputs"].map(|n| folder.join(n));
    onnx::write(model, &path).unwrap();
    std::fs::write(&inputs, bytes(x)).unwrap();
    let extents = extents(x);
    let arguments = [&path, &inputs, Path::new(&extents), &outputs, Path::new(optimizations)];
    let printed = python::run(include_str!("run_onnx.py"), &arguments);
    (floats(&outputs), printed)
}

/// Largest difference, by the largest magnitude.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / most
}

fn sqnr(found: &[f32], expected: &[f32]) -> f64 {
    let signal: f64 = expected.iter().map(|&v| f64::from(v).powi(2)).sum();
    let noise: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

#[test]
fn each_layer_is_exported_as_it_is_simulated_and_the_references_agree() {
    for (name, model) in layers() {
        let folder = tempfile::tempdir().unwrap();
        let x = input(&model);
        let float = simulate(&model, &x);
        let mut alone = Vec::new();
        for (index, &case) in CASES.iter().enumerate() {
            let what = format!("{name}, {case:?}");
            let (quantized, _) = quantized(&model, &x, case);
            let simulated = simulate(&quantized, &x);
            let decibels = sqnr(&simulated, &float);
            assert!(decibels > 15.0, "{what}: {decibels} dB");
            let exported = exported(&quantized);
            let own = simulate(&exported, &x);
            // An integer bias of ONNX Runtime's form is rounded to steps of the product of both scales.
            assert!(difference(&own, &simulated) < 2e-4, "{what}: the exported form");
            onnx::write(&exported, &folder.path().join(format!("{index}.onnx"))).unwrap();
            // The standard's evaluator knows these operators from opset 19 on.
            let mut later = exported;
            passes::raise_opset(&mut later, 19).unwrap();
            onnx::write(&later, &folder.path().join(format!("{index}.standard.onnx"))).unwrap();
            alone.push((what, own));
        }
        let inputs = folder.path().join("inputs");
        std::fs::write(&inputs, bytes(&x)).unwrap();
        let extents = extents(&x);
        let arguments = [folder.path(), &inputs, Path::new(&extents)];
        let printed = python::run(include_str!("references.py"), &arguments);
        let operators: BTreeMap<String, Vec<String>> = serde_json::from_str(&printed).unwrap();
        for (index, (what, own)) in alone.iter().enumerate() {
            let fused =
                |name: &str| operators[&index.to_string()].iter().any(|op| op.starts_with(name));
            // An integer kernel may saturate its sums on a processor without VNNI, but with a reduced range only rounds what it gives;
            // MatMulNBits rounds its input to int8 by itself.
            let on = if ["QGemm", "QLinear", "MatMulInteger"].into_iter().any(fused) {
                if what.contains("reduce_range") { 1e-2 } else { 0.3 }
            } else if fused("MatMulNBits") {
                2e-2
            } else {
                1e-5
            };
            for (form, bound) in [("standard", 1e-5), ("off", 1e-5), ("on", on)] {
                let found = floats(&folder.path().join(format!("{index}.{form}")));
                let off = difference(&found, own);
                assert!(off <= bound, "{what}, {form}: {off}, {operators:?}");
            }
        }
    }
}

#[test]
fn a_network_in_each_format_runs_fused_as_it_is_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_network();
    let x = input(&model);
    for &case in CASES {
        let (quantized, plan) = quantized(&model, &x, case);
        let simulated = simulate(&quantized, &x);
        let exported = exported(&quantized);
        let float = sqnr(&simulated, &simulate(&model, &x));
        // Values near to a tie fall to either side by the order of a sum; integer kernels, and MatMulNBits, sum and round in ways of their own.
        for (optimizations, least) in [("off", 80.0), ("on", 20.0)] {
            let (found, ops) = onnxruntime(folder.path(), &exported, &x, optimizations);
            let decibels = sqnr(&found, &simulated);
            println!(
                "{case:?}, {optimizations}: {decibels:.1} dB to the simulation, {float:.1} dB to float; {ops}"
            );
            assert!(decibels > least, "{case:?}, {optimizations}: {decibels} dB");
        }
        // What the plan says is what stands in the model.
        let weights = case.1;
        for weight in &plan.weights {
            let named =
                [("int4", "int4"), ("float8e4m3fn", "float8e4m3fn"), ("reduce_range", "int7")];
            let named = named.into_iter().find(|(key, _)| weights.contains(key));
            assert_eq!(weight.dtype, named.map_or("int8", |(_, name)| name));
            let zero = quantized
                .graph
                .initializers
                .iter()
                .find(|(name, _)| **name == format!("{}_zero_point", weight.weight));
            assert_eq!(zero.unwrap().1.dtype.name(), weight.dtype);
        }
        let opset = match (weights, case.2) {
            (weights, _) if weights.contains("int4") || weights.contains("block") => 21,
            (weights, activations)
                if [weights, activations].iter().any(|t| t.contains("float8")) =>
            {
                19
            }
            _ => 17,
        };
        assert_eq!(quantized.opset(), opset, "{case:?}");
        let stored = |dtype| {
            exported
                .graph
                .initializers
                .values()
                .any(|data| data.dtype == dtype && data.shape.len() > 1)
        };
        assert!(!exported.graph.initializers.values().any(|data| data.dtype == DType::I7));
        let int4 = weights.contains("int4");
        assert_eq!(stored(DType::I4), int4, "{case:?}");
        assert_eq!(
            stored(DType::F8E4M3FN),
            case.0 == ORT && weights.contains("float8"),
            "{case:?}"
        );
    }
}

/// ONNX Runtime takes each QuantizeLinear for one of integers: it drops a Relu in front of float8, and stops at a Clip.
#[test]
fn activations_in_front_of_float8_stay_with_onnxruntimes_optimizations() {
    let folder = tempfile::tempdir().unwrap();
    let pads = || Attribute::Ints(vec![1; 4]);
    let bounds: &[(&str, &[i64])] = &[("w1", &[16, 8, 3, 3]), ("w2", &[8, 16, 3, 3])];
    for (activation, inputs) in [
        ("Relu", &["c"][..]),
        ("Clip", &["c", "low", "high"]),
        ("Clip", &["c", "low"]),
        ("Clip", &["c", "", "high"]),
    ] {
        let nodes = vec![
            Node::new("conv1", "Conv", &["x", "w1"], &["c"]).with("pads", pads()),
            Node::new("activation", activation, inputs, &["r"]),
            Node::new("conv2", "Conv", &["r", "w2"], &["y"]).with("pads", pads()),
        ];
        let mut model = network(nodes, &[2, 8, 5, 5], &[2, 8, 5, 5], bounds);
        for (name, value) in [("low", 0.0), ("high", 0.5)] {
            if inputs.contains(&name) {
                let data = TensorData::f32(&[], &[value]);
                model.graph.initializers.insert(name.to_owned(), data);
            }
        }
        let x = input(&model);
        let (quantized, _) = quantized(&model, &x, (ORT, FLOAT8, FLOAT8));
        let (simulated, exported) = (simulate(&quantized, &x), exported(&quantized));
        assert!(sqnr(&simulate(&exported, &x), &simulated) > 100.0, "{inputs:?}");
        for optimizations in ["off", "on"] {
            let (found, ops) = onnxruntime(folder.path(), &exported, &x, optimizations);
            let decibels = sqnr(&found, &simulated);
            assert!(decibels > 60.0, "{inputs:?}, {optimizations}: {decibels} dB; {ops}");
        }
    }
}

#[test]
fn gradients_flow_through_every_format() {
    let model = small_network();
    let x = input(&model);
    for &case in CASES {
        let (quantized, plan) = quantized(&model, &x, case);
        for scales in [Scales::Frozen, Scales::Learned] {
            let options = Options { scales, ..Options::default() };
            let mut program = Program::compile(&quantized, &options).unwrap();
            program.train(true);
            let outputs =
                program.forward(&[x.shallow_clone()], Mode::Train, &mut |_, _| Ok(())).unwrap();
            outputs[0].square().sum(Kind::Float).backward();
            let gradient = |name: &str| {
                let parameter =
                    program.parameters().iter().find(|parameter| parameter.name == name);
                let gradient =
                    parameter.unwrap_or_else(|| panic!("{case:?}: no {name}")).tensor.grad();
                gradient.abs().sum(Kind::Float).double_value(&[])
            };
            let mut names: Vec<String> = ["w1", "w2", "w3", "w4"].map(str::to_owned).to_vec();
            if scales == Scales::Learned {
                names.extend(plan.weights.iter().map(|weight| format!("{}_scale", weight.weight)));
                names.extend(
                    plan.tensors
                        .iter()
                        .filter(|t| t.range_of.is_none())
                        .map(|t| format!("{}_scale", t.tensor)),
                );
            }
            for name in names {
                let sum = gradient(&name);
                assert!(sum.is_finite() && sum > 0.0, "{case:?}, {scales:?}: {name} has {sum}");
            }
        }
    }
}
