//! The PTQ ladder: what must stay equal does, and what must get better gets.

use qpipe::stages::model_source::ZooModel;
use qpipe_worker::analysis::Fidelity;
use qpipe_worker::graph::{Model, TensorData};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::ladder::{Activation6, Equalized, equalize};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::zoo;
use serde_json::json;
use tch::Tensor;

use crate::quant::{fixture, small_resnet};

fn mobilenet() -> Model {
    let config =
        json!({ "arch": "mobilenetv2", "in_channels": 1, "classes": 10, "image_size": 32 });
    let config: ZooModel = serde_json::from_value(config).unwrap();
    zoo::build(&config, None, 3).unwrap()
}

/// Weights as training leaves them: channels of very different ranges, biases that are not 0. Layers have a gain of about 1, so that
/// deep networks are not chaotic.
fn unequal(model: &mut Model) {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    for (name, data) in &mut model.graph.initializers {
        let spread = name.ends_with(".weight") && data.shape.len() == 1;
        let shift = name.ends_with(".bias") && data.shape.len() == 1;
        if spread || shift {
            let values: Vec<f32> = data
                .to_f32()
                .unwrap()
                .iter()
                .map(|_| if spread { (6.0 * next() - 4.5).exp2() } else { 0.4 * next() - 0.2 })
                .collect();
            *data = TensorData::f32(&data.shape.clone(), &values);
        }
    }
}

fn outputs(model: &Model, images: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let mut program = Program::compile(model, &Options::default()).unwrap();
    program.forward(&[images.shallow_clone()], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
}

fn images(model: &Model) -> Tensor {
    use qpipe_worker::graph::Dim;
    tch::manual_seed(5);
    let shape = model.graph.inputs[0].shape.as_ref().unwrap().iter();
    let extents: Vec<i64> =
        shape.map(|dim| if let Dim::Fixed(extent) = dim { *extent } else { 8 }).collect();
    Tensor::randn(extents, (tch::Kind::Float, tch::Device::Cpu))
}

fn sqnr(expected: &Tensor, found: &Tensor) -> f64 {
    let mut fidelity = Fidelity::default();
    fidelity.add(expected, found).unwrap();
    fidelity.figures().sqnr_db.unwrap_or(f64::INFINITY)
}

/// Equalizes and compares with the model before; what was done, and the SQNR of the outputs.
fn equalized(model: &mut Model, bounded: Activation6) -> (Equalized, f64) {
    prepare(model).unwrap();
    let images = images(model);
    let before = outputs(model, &images);
    let found = equalize(model, bounded).unwrap();
    (found, sqnr(&before, &outputs(model, &images)))
}

/// The largest magnitude of each output channel of a Conv's weight.
fn channel_ranges(model: &Model, layer: &str) -> Vec<f32> {
    let node = model.graph.nodes.iter().find(|node| node.name == layer).unwrap();
    let data = &model.graph.initializers[&node.inputs[1]];
    let values = data.to_f32().unwrap();
    let rows = values.chunks(values.len() / data.shape[0] as usize);
    rows.map(|row| row.iter().fold(0.0, |most: f32, value| most.max(value.abs()))).collect()
}

/// The largest range of an output channel by the least.
fn spread(model: &Model, layer: &str) -> f32 {
    let ranges = channel_ranges(model, layer);
    let least = ranges.iter().copied().fold(f32::MAX, f32::min);
    ranges.into_iter().fold(0.0, f32::max) / least
}

#[test]
fn an_equalized_resnet_computes_the_same() {
    let mut model = small_resnet();
    unequal(&mut model);
    let mut before = model.clone();
    prepare(&mut before).unwrap();
    let (found, sqnr) = equalized(&mut model, Activation6::Keep);
    let pairs: Vec<(&str, &str)> =
        found.pairs.iter().map(|pair| (pair.first.as_str(), pair.second.as_str())).collect();
    // Within blocks only: an Add reads what a block makes.
    assert_eq!(
        pairs,
        [
            ("layer1.0.conv1", "layer1.0.conv2"),
            ("layer2.0.conv1", "layer2.0.conv2"),
            ("layer3.0.conv1", "layer3.0.conv2"),
            ("layer3.1.conv1", "layer3.1.conv2"),
        ]
    );
    assert!(sqnr > 80.0, "{sqnr} dB");
    // What one of two layers had, both share now.
    let [before, after] = [&before, &model].map(|model| spread(model, "layer3.1.conv1"));
    assert!(before > 20.0 && after < 1.5 * before.sqrt(), "{before} became {after}");
}

#[test]
fn depthwise_chains_are_equalized_once_relu6_is_gone() {
    let mut model = mobilenet();
    unequal(&mut model);
    let mut kept = model.clone();
    let (found, sqnr) = equalized(&mut kept, Activation6::Keep);
    assert!(found.in_the_way.len() > 30 && found.replaced.is_empty());
    assert!(sqnr > 80.0, "{sqnr} dB");
    // Linear bottlenecks without a residual Add behind them.
    let pairs: Vec<&str> = found.pairs.iter().map(|pair| pair.first.as_str()).collect();
    assert_eq!(pairs, ["features.1.conv.1", "features.17.conv.2"]);

    // Bounds that no value reaches: then a Relu computes the same, and so must the equalized model.
    model.graph.initializers.insert("relu6.max".to_owned(), TensorData::f32(&[], &[1e30]));
    let (found, sqnr) = equalized(&mut model, Activation6::Relu);
    assert_eq!(found.replaced.len(), 35);
    assert!(found.pairs.len() >= 35 && found.in_the_way.is_empty(), "{:?}", found.pairs);
    assert!(!model.graph.nodes.iter().any(|node| node.op_type == "Clip"));
    assert!(sqnr > 80.0, "{sqnr} dB");
    let block = ["features.5.conv.0.0", "features.5.conv.1.0"];
    let [expansion, depthwise] = block.map(|layer| channel_ranges(&model, layer));
    for (a, b) in expansion.iter().zip(&depthwise) {
        assert!((a / b - 1.0).abs() < 0.01, "{a} and {b}: both layers have a channel's range");
    }
}

#[test]
fn weights_that_others_read_and_outputs_of_the_graph_stay() {
    let mut model = fixture("tiny_resnet_torchscript.onnx");
    prepare(&mut model).unwrap();
    let all = equalize(&mut model.clone(), Activation6::Keep).unwrap().pairs;
    let first = all[0].first.clone();
    let node = model.graph.nodes.iter().find(|node| node.label() == first).unwrap();
    let (output, weight) = (node.outputs[0].clone(), node.inputs[1].clone());
    let firsts = |model: &Model| {
        let pairs = equalize(&mut model.clone(), Activation6::Keep).unwrap().pairs;
        pairs.into_iter().map(|pair| pair.first).collect::<Vec<_>>()
    };
    let mut shown = model.clone();
    shown.graph.outputs.push(qpipe_worker::graph::ValueInfo {
        name: output,
        dtype: None,
        shape: None,
        opaque: None,
    });
    assert!(!firsts(&shown).contains(&first));
    let mut shared = model.clone();
    let reader = qpipe_worker::graph::Node::new("again", "Abs", &[&weight], &["again"]);
    shared.graph.nodes.push(reader);
    assert!(!firsts(&shared).contains(&first) && firsts(&model).contains(&first));
}
