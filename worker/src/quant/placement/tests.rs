//! Placement on networks of the zoo and files of PyTorch's exporters; by rules, on small graphs, in the files below.

mod draft;
mod onnxruntime;
mod patterns;
mod tensorrt;

use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::model_source::{Arch, ZooModel};

use super::{LayerPlan, Plan, Request, TensorPlan, plan};
use crate::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use crate::quant::fixture::{self, rising};
use crate::quant::formats::Formats;
use crate::quant::insert::insert;
use crate::quant::prepare::prepare;
use crate::{onnx, zoo};

fn resnet18() -> Model {
    let config = ZooModel {
        arch: Arch::Resnet18,
        in_channels: 3,
        classes: 10,
        image_size: 64,
        blocks: None,
        channels: None,
        stem: None,
        weights: None,
    };
    let mut model = zoo::build(&config, None, 1).expect("builds");
    prepare(&mut model).expect("prepares");
    model
}

fn fixture(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut model = onnx::read(&folder.join(name)).expect("reads");
    prepare(&mut model).expect("prepares");
    model
}

fn request(target: Target) -> Request<'static> {
    fixture::request(target, Method::Max)
}

fn planned(model: &Model, request: &Request) -> Plan {
    plan(&model.graph, &rising(&model.graph), request).expect("plans")
}

fn tensor<'a>(plan: &'a Plan, reader: &str) -> Vec<&'a TensorPlan> {
    plan.tensors.iter().filter(|t| t.readers.iter().any(|name| name == reader)).collect()
}

fn layer<'a>(plan: &'a Plan, name: &str) -> &'a LayerPlan {
    plan.layers.iter().find(|layer| layer.node == name).expect("a layer of that name")
}

fn count(model: &Model, op: &str) -> usize {
    model.graph.nodes.iter().filter(|node| node.op_type == op).count()
}

#[test]
fn tensorrt_quantizes_inputs_weights_and_identity_branches() {
    let model = resnet18();
    let plan = planned(&model, &request(Target::Tensorrt));
    assert_eq!(plan.weights.len(), 21, "20 convolutions and a Gemm");
    assert!(plan.weights.iter().all(|weight| weight.axis == Some(0)));
    // 17 values are read by convolutions (3 of them by two), fc's input, 3 down-sampling outputs,
    // and the last block's, for the pooling. The other identity branches are among the first.
    assert_eq!(plan.tensors.len(), 17 + 1 + 3 + 1);
    assert!(plan.tensors.iter().all(|t| (t.dtype, t.zero_point) == ("int8", 0)));

    let [identity] = tensor(&plan, "layer1.0.add")[..] else { panic!("one input") };
    assert_eq!(identity.readers, ["layer1.0.conv1", "layer1.0.add"], "one pair, shared");
    let add = model.graph.nodes.iter().find(|node| node.name == "layer2.0.add").expect("there");
    let [identity] = tensor(&plan, "layer2.0.add")[..] else { panic!("one input") };
    let shortcut = model.graph.nodes.iter().find(|n| n.name == "layer2.0.downsample.0");
    assert_eq!(identity.tensor, shortcut.expect("there").outputs[0]);
    assert_eq!(identity.tensor, add.inputs[1]);
    assert_eq!(tensor(&plan, "fc").len(), 1);
    let relu = layer(&plan, "layer1.0.relu1");
    assert!(!relu.quantized);
    let reason = "it is part of \"layer1.0.conv1\"'s kernel: the pair stands behind it";
    assert_eq!((relu.rule, relu.reason.as_deref()), (Some("fused-activation"), Some(reason)));
    let conv = layer(&plan, "layer1.0.conv1");
    assert_eq!((conv.rule, conv.reason.as_deref()), (Some("weighted-layer"), None));
}

#[test]
fn the_identity_branch_is_found_whichever_input_it_is() {
    let mut model = resnet18();
    for node in model.graph.nodes.iter_mut().filter(|node| node.op_type == "Add") {
        node.inputs.swap(0, 1);
    }
    let plan = planned(&model, &request(Target::Tensorrt));
    for name in ["layer1.0", "layer2.0", "layer2.1"] {
        let conv2 = format!("{name}.conv2");
        let conv2 = model.graph.nodes.iter().find(|node| node.name == conv2).expect("there");
        let [identity] = tensor(&plan, &format!("{name}.add"))[..] else { panic!("one input") };
        assert_ne!(identity.tensor, conv2.outputs[0], "{name}");
    }
}

#[test]
fn onnxruntime_quantizes_between_all_layers() {
    let model = resnet18();
    let plan = planned(&model, &request(Target::Onnxruntime));
    assert_eq!(plan.weights.len(), 21);
    // The input; 17 convolutions and Adds with a Relu and 3 + 8 without; pooled, pooled globally, flattened.
    assert_eq!(plan.tensors.len(), 1 + 9 + 11 + 8 + 1 + 2);
    for t in &plan.tensors {
        let relu =
            model.graph.nodes.iter().any(|n| n.op_type == "Relu" && n.outputs[0] == t.tensor);
        let expected = if relu { 0 } else { t.zero_point };
        assert_eq!((t.dtype, t.zero_point), ("uint8", expected), "{}", t.tensor);
        let levels = if t.zero_point == 0 { 255.0 } else { 127.0 };
        assert_eq!(t.scale, t.amax / levels);
    }
    assert_eq!(tensor(&plan, "conv1")[0].zero_point, 128, "images may be negative");
    assert_eq!(tensor(&plan, "layer1.0.add").len(), 2, "both inputs");
    let [pooled] = tensor(&plan, "layer1.0.conv1")[..] else { panic!("one input") };
    let [unpooled] = tensor(&plan, "maxpool")[..] else { panic!("one input") };
    assert_eq!(pooled.range_of.as_ref(), Some(&unpooled.tensor));
    assert_eq!(pooled.scale, unpooled.scale, "a pooling keeps the scale");
    let outputs: Vec<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    assert!(plan.tensors.iter().all(|t| !outputs.contains(&t.tensor.as_str())));
}

#[test]
fn pytorchs_exports_are_placed_alike() {
    for name in ["tiny_resnet_torchscript.onnx", "tiny_resnet_dynamo.onnx"] {
        let model = fixture(name);
        let of = |target| planned(&model, &request(target));
        // 12 convolutions and a Gemm; their inputs, 3 shortcuts and the pooling's input.
        let tensorrt = of(Target::Tensorrt);
        assert_eq!((tensorrt.weights.len(), tensorrt.tensors.len()), (13, 9 + 1 + 3 + 1), "{name}");
        let onnxruntime = of(Target::Onnxruntime);
        assert_eq!(onnxruntime.weights.len(), 13, "{name}");
        let floats = onnxruntime.layers.iter().filter(|layer| !layer.quantized);
        let floats: Vec<&str> = floats.map(|layer| layer.op.as_str()).collect();
        assert!(floats.iter().all(|op| *op == "Relu"), "{name}: {floats:?}");
    }
}

#[test]
fn pairs_are_inserted_once_a_tensor_and_the_graph_stays_whole() {
    for target in Target::ALL {
        let mut model = resnet18();
        let plan = planned(&model, &request(target));
        insert(&mut model, &plan).expect("inserts");
        onnx::check(&model).expect("the standard's rules");
        let pairs = plan.tensors.len() + plan.weights.len();
        assert_eq!(count(&model, "QuantizeLinear"), pairs);
        assert_eq!(count(&model, "DequantizeLinear"), pairs);
        let names = ["input_quantize", "conv1.weight_quantize", "conv1.weight_dequantize"];
        for name in names {
            assert!(model.graph.nodes.iter().any(|node| node.name == name), "{name}");
        }
        let scale = &model.graph.initializers["conv1.weight_scale"];
        assert_eq!(scale.shape, [64]);
    }
}

#[test]
fn a_range_that_is_missing_is_named() {
    let model = resnet18();
    let mut ranges = rising(&model.graph);
    ranges.tensors.retain(|range| range.tensor != "input");
    let error = plan(&model.graph, &ranges, &request(Target::Tensorrt)).expect_err("refused");
    assert_eq!(error.message, "the ranges have none of tensor \"input\"");
    assert_eq!(error.key, Some("ranges"));
}

/// Matrix products in each layout, a ConvTranspose, and a weight that two layers share.
#[test]
fn weights_are_quantized_along_their_output_channels() {
    let weight = |shape: &[i64]| {
        let count = shape.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        TensorData::f32(shape, &values)
    };
    let graph = Graph {
        nodes: vec![
            Node::new("up", "ConvTranspose", &["x", "up.weight"], &["u"]),
            Node::new("flat", "Flatten", &["u"], &["f"]),
            Node::new("gemm", "Gemm", &["f", "gemm.weight"], &["g"]),
            Node::new("turned", "Gemm", &["g", "turned.weight"], &["t"])
                .with("transB", Attribute::Int(1)),
            Node::new("first", "MatMul", &["t", "shared.weight"], &["m"]),
            Node::new("second", "MatMul", &["m", "shared.weight"], &["y"]),
        ],
        inputs: vec![ValueInfo::f32("x", [1, 2, 2, 2].map(Dim::Fixed).to_vec())],
        outputs: vec![ValueInfo::f32("y", vec![])],
        initializers: [
            ("up.weight".to_owned(), weight(&[2, 3, 1, 1])),
            ("gemm.weight".to_owned(), weight(&[12, 5])),
            ("turned.weight".to_owned(), weight(&[4, 5])),
            ("shared.weight".to_owned(), weight(&[4, 4])),
        ]
        .into_iter()
        .collect(),
        ..Graph::default()
    };
    let mut model = Model::new(graph, 17);
    let plan = planned(&model, &request(Target::Tensorrt));
    let axes: Vec<(i64, i64)> =
        plan.weights.iter().map(|w| (w.axis.expect("per channel"), w.channels)).collect();
    assert_eq!(axes, [(1, 3), (1, 5), (0, 4), (1, 4), (1, 4)]);
    insert(&mut model, &plan).expect("inserts");
    onnx::check(&model).expect("the standard's rules");
    assert_eq!(count(&model, "QuantizeLinear"), 5 + 4, "the shared weight has one pair");
    let scale = |name: &str| model.graph.initializers[name].to_f32().expect("float");
    assert_eq!(scale("up.weight_scale"), [3.0, 4.0, 5.0].map(|amax| amax / 127.0));
    assert_eq!(scale("turned.weight_scale"), [4.0, 9.0, 14.0, 19.0].map(|amax| amax / 127.0));
    assert_eq!(scale("shared.weight_scale"), [12.0, 13.0, 14.0, 15.0].map(|amax| amax / 127.0));
}

#[test]
fn one_scale_for_a_weight_if_asked_for() {
    let mut model = resnet18();
    let whole = Request { formats: Formats::of(None, None, false), ..request(Target::Onnxruntime) };
    let plan = planned(&model, &whole);
    insert(&mut model, &plan).expect("inserts");
    let scale = &model.graph.initializers["layer1.0.conv1.weight_scale"];
    let weight = model.graph.initializers["layer1.0.conv1.weight"].to_f32().expect("float");
    let amax = weight.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert_eq!(scale.shape, [0_i64; 0]);
    assert_eq!(scale.to_f32().expect("float"), [amax / 127.0]);
}
