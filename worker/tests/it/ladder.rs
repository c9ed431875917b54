//! The PTQ ladder: what must stay equal does, and what must get better gets.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::model_source::ZooModel;
use qpipe_worker::analysis::Fidelity;
use qpipe_worker::data::{Dataset, Loader, Order, permutation};
use qpipe_worker::graph::{Model, TensorData};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::ladder::{
    Activation6, Adaround, Equalized, Options as Reconstruct, Unit, equalize, reconstruct,
};
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::zoo;
use serde_json::json;
use tch::Tensor;

use crate::quant::{dataset, fixture, ranges, small_resnet};

fn mobilenet() -> Model {
    let config =
        json!({ "arch": "mobilenetv2", "in_channels": 1, "classes": 10, "image_size": 32 });
    let config: ZooModel = serde_json::from_value(config).unwrap();
    zoo::build(&config, None, 3).unwrap()
}

/// Weights as training leaves them: channels of very different ranges, biases that are not 0. Layers have a gain of about 1, so that
/// deep networks are not chaotic.
pub fn unequal(model: &mut Model) {
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
    let found = equalize(model, bounded, None).unwrap();
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
    let all = equalize(&mut model.clone(), Activation6::Keep, None).unwrap().pairs;
    let first = all[0].first.clone();
    let node = model.graph.nodes.iter().find(|node| node.label() == first).unwrap();
    let (output, weight) = (node.outputs[0].clone(), node.inputs[1].clone());
    let firsts = |model: &Model| {
        let pairs = equalize(&mut model.clone(), Activation6::Keep, None).unwrap().pairs;
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

/// A model of unequal channels, quantized with one scale for a whole weight, which loses much; and itself without pairs.
fn quantized(target: Target, dataset: &Dataset) -> (Model, Model) {
    let mut model = small_resnet();
    unequal(&mut model);
    prepare(&mut model).unwrap();
    let request = Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::of(None, None, false),
    };
    let plan = plan(&model.graph, &ranges(&model, dataset), &request).unwrap();
    let mut quantized = model.clone();
    insert(&mut quantized, &plan).unwrap();
    (model, quantized)
}

pub fn options(adaround: Option<Adaround>) -> Reconstruct {
    Reconstruct {
        samples: 128,
        batch_size: 48,
        bias_correction: true,
        adaround,
        seed: 4,
        threads: 1,
    }
}

pub const LEARN: Adaround = Adaround {
    unit: Unit::Layer,
    drop: 0.0,
    iterations: 40,
    lr: 0.08,
    batch_size: 32,
    regularization: 0.01,
    beta: [20.0, 2.0],
    warm_up: 0.2,
};

/// Watched values over the images that `options` choose, `[N, C, …]`.
pub fn values(model: &Model, watch: &[String], dataset: &Dataset) -> Vec<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let mut chosen = permutation(dataset.len(), 4, 0);
    chosen.truncate(128);
    let batch = Loader::new(dataset, 128, Order::Subset(chosen), false, 1).next().unwrap().unwrap();
    let options = Options { watch: watch.to_vec(), ..Options::default() };
    let mut program = Program::compile(model, &options).unwrap();
    let mut seen: Vec<Option<Tensor>> = watch.iter().map(|_| None).collect();
    program
        .forward(&[batch.images], Mode::Eval, &mut |index, value| {
            seen[index] = Some(value.copy());
            Ok(())
        })
        .unwrap();
    seen.into_iter().map(Option::unwrap).collect()
}

/// Outputs of the layers with a weight.
fn layer_outputs(model: &Model) -> Vec<String> {
    let layers =
        model.graph.nodes.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op_type.as_str()));
    layers.map(|node| node.outputs[0].clone()).collect()
}

/// Largest shift of a channel's mean over all layers, by the standard deviation of the layer.
fn shift(float: &Model, quantized: &Model, dataset: &Dataset) -> f64 {
    let watch = layer_outputs(float);
    let (expected, found) = (values(float, &watch, dataset), values(quantized, &watch, dataset));
    let means =
        |value: &Tensor| value.transpose(0, 1).flatten(1, -1).mean_dim(1, false, tch::Kind::Float);
    let each = expected
        .iter()
        .zip(&found)
        .map(|(x, q)| ((means(x) - means(q)).abs().max() / x.std(false)).double_value(&[]));
    each.fold(0.0, f64::max)
}

#[test]
fn corrected_biases_leave_no_shift_of_means() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let (float, quantized) = quantized(target, &dataset);
        let (corrected, report) =
            reconstruct(quantized.clone(), &dataset, &options(None), &|_, _, _| ()).unwrap();
        assert_eq!(report.len(), layer_outputs(&float).len());
        let before = shift(&float, &quantized, &dataset);
        let after = shift(&float, &corrected, &dataset);
        assert!(before > 0.02 && after < 1e-3, "{target:?}: {before} became {after}");
        // Weights and scales are what they were.
        for (name, data) in &quantized.graph.initializers {
            let bias = name.ends_with("bias");
            assert!(bias || corrected.graph.initializers[name] == *data, "{name}");
        }
        let sqnr = |model| {
            let logits = [float.graph.outputs[0].name.clone()];
            sqnr(&values(&float, &logits, &dataset)[0], &values(model, &logits, &dataset)[0])
        };
        assert!(sqnr(&corrected) > sqnr(&quantized), "{} dB", sqnr(&corrected));
    }
}

#[test]
fn learned_rounding_is_nearer_to_the_float_model_and_survives_quantization() {
    // Steps are small: threads that wait for each other beside other tests cost many times their work.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, quantized) = quantized(Target::Onnxruntime, &dataset);
    let run =
        || reconstruct(quantized.clone(), &dataset, &options(Some(LEARN)), &|_, _, _| ()).unwrap();
    let (learned, report) = run();
    assert_eq!(learned, run().0, "the same seed gives the same model");
    for layer in &report {
        let (nearest, learned) = (layer.nearest_error.unwrap(), layer.learned_error.unwrap());
        assert!(learned <= nearest, "{layer:?}");
    }
    let better = report.iter().filter(|layer| layer.learned_error < layer.nearest_error).count();
    assert!(better * 3 >= report.len() * 2, "{report:?}");
    let logits = [float.graph.outputs[0].name.clone()];
    let expected = values(&float, &logits, &dataset).remove(0);
    let [before, after] = [&quantized, &learned]
        .map(|model| sqnr(&expected, &values(model, &logits, &dataset).remove(0)));
    assert!(after > before + 1.0, "{before} dB became {after} dB");

    // Exactly the chosen integers are exported: one of both neighbours of each float weight, some of them not the nearest.
    let integers = |model: &Model| {
        let mut model = model.clone();
        finalize(&mut model, None).unwrap();
        model
    };
    let (nearest, chosen) = (integers(&quantized), integers(&learned));
    let mut turned = 0;
    for layer in quantized.graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear") {
        let Some(weight) = quantized.graph.initializers.get(&layer.inputs[0]) else { continue };
        let scale = quantized.graph.initializers[&layer.inputs[1]].to_f32().unwrap()[0];
        let own = learned.graph.initializers[&layer.inputs[0]].to_f32().unwrap();
        let [nearest, chosen] =
            [&nearest, &chosen].map(|m| m.graph.initializers[&layer.outputs[0]].to_i8().unwrap());
        for ((float, own), (nearest, chosen)) in
            weight.to_f32().unwrap().into_iter().zip(own).zip(nearest.into_iter().zip(chosen))
        {
            assert!(
                (f32::from(chosen) * scale).to_bits() == own.to_bits() || chosen == 0,
                "{own} is not on the grid"
            );
            let far = f32::from(chosen) - float / scale;
            assert!(far.abs() < 1.0 + 1e-3, "{chosen} for {}", float / scale);
            turned += usize::from(nearest != chosen);
        }
    }
    assert!(turned > 100, "{turned}");
    // What is exported computes what the simulation does.
    let [simulated, exported] =
        [&learned, &chosen].map(|model| values(model, &logits, &dataset).remove(0));
    assert!(sqnr(&simulated, &exported) > 40.0);
}

#[test]
fn a_model_without_pairs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, quantized) = quantized(Target::Onnxruntime, &dataset);
    let mut exported = quantized;
    finalize(&mut exported, None).unwrap();
    for model in [float, exported] {
        let error = reconstruct(model, &dataset, &options(None), &|_, _, _| ()).unwrap_err();
        assert!(error.message.contains("no layer whose float weight has a Q/DQ pair"), "{error}");
        assert!(error.help.unwrap().contains("insert-qdq"));
    }
}
