//! Roundings learned for a residual block at once.

use qpipe::stages::calibrate::Method;
use qpipe::stages::formats::{WeightType, Weights};
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::model_source::ZooModel;
use qpipe_worker::data::Dataset;
use qpipe_worker::graph::{DType, Model};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::ladder::{Adaround, Options, Reconstructed, Unit, reconstruct};
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::zoo;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::ladder::{LEARN, options, unequal, values};
use crate::quant::{dataset, ranges};

const LAYERS: Adaround = Adaround { iterations: 300, lr: 0.05, regularization: 0.001, ..LEARN };
const BLOCKS: Adaround = Adaround { unit: Unit::Block, ..LAYERS };

/// A residual network with weights of 4 bits and a scale for each channel, and itself without pairs.
fn quantized(target: Target, dataset: &Dataset) -> (Model, Model) {
    let config = json!({
        "arch": "resnet", "blocks": [1, 1], "channels": [8, 16], "stem": "small-stride2",
        "in_channels": 1, "classes": 10, "image_size": 28,
    });
    let config: ZooModel = serde_json::from_value(config).unwrap();
    let mut model = zoo::build(&config, None, 3).unwrap();
    unequal(&mut model);
    prepare(&mut model).unwrap();
    let weights = Weights { dtype: WeightType::Int4, ..Weights::default() };
    let request = Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::of(Some(weights), None, true),
    };
    let plan = plan(&model.graph, &ranges(&model, dataset), &request).unwrap();
    let mut quantized = model.clone();
    insert(&mut quantized, &plan).unwrap();
    (model, quantized)
}

fn learn(model: &Model, dataset: &Dataset, adaround: Adaround) -> (Model, Vec<Reconstructed>) {
    let options = Options { bias_correction: false, ..options(Some(adaround)) };
    reconstruct(model.clone(), dataset, &options, &|_, _, _| ()).unwrap()
}

/// What residual blocks of the float model give: values behind the Relu behind an Add.
fn exits(float: &Model) -> Vec<String> {
    let producers = float.graph.producers();
    let relus = float.graph.nodes.iter().filter(|node| node.op_type == "Relu");
    relus
        .filter(|relu| float.graph.nodes[producers[relu.inputs[0].as_str()]].op_type == "Add")
        .map(|relu| relu.outputs[0].clone())
        .collect()
}

/// Mean squared error of each of those, relative to the float values.
fn errors(float: &Model, quantized: &Model, dataset: &Dataset) -> Vec<f64> {
    let watch = exits(float);
    let (expected, found) = (values(float, &watch, dataset), values(quantized, &watch, dataset));
    let square = |value: Tensor| value.square().mean(Kind::Double).double_value(&[]);
    expected.iter().zip(&found).map(|(x, q)| square(x - q) / square(x.shallow_clone())).collect()
}

/// An element of a weight: its float value, its scale and the integer that is exported.
type Element = (f32, f32, f32);

/// The elements of each weight, by name of the float weight.
fn integers(model: &Model) -> Vec<(String, Vec<Element>)> {
    let mut exported = model.clone();
    finalize(&mut exported, None).unwrap();
    let quantizes = model.graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    let weights = quantizes.filter_map(|node| {
        let data = model.graph.initializers.get(&node.inputs[0])?;
        let scales = model.graph.initializers[&node.inputs[1]].to_f32().unwrap();
        let stored = &exported.graph.initializers[&node.outputs[0]];
        assert_eq!(stored.dtype, DType::I4);
        let nibbles = stored.bytes.iter().flat_map(|&byte| [byte << 4, byte & 0xF0]);
        let axis = node.int("axis", 1).unwrap() as usize;
        let inner: usize = data.shape[axis + 1..].iter().product::<i64>() as usize;
        let values = data.to_f32().unwrap().into_iter().zip(nibbles).enumerate();
        let each = values.map(|(element, (value, high))| {
            (value, scales[element / inner % scales.len()], f32::from((high as i8) >> 4))
        });
        Some((node.inputs[0].clone(), each.collect()))
    });
    weights.collect()
}

#[test]
fn blocks_are_nearer_to_the_float_model_than_layers_alone() {
    // Steps are small: threads that wait for each other beside other tests cost many times their work.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, nearest) = quantized(Target::Onnxruntime, &dataset);
    let (layers, _) = learn(&nearest, &dataset, LAYERS);
    let (blocks, report) = learn(&nearest, &dataset, BLOCKS);
    let held: Vec<(&str, Option<&str>)> =
        report.iter().map(|layer| (layer.node.as_str(), layer.block.as_deref())).collect();
    let [first, second] = ["layer1.0.relu2", "layer2.0.relu2"].map(Some);
    assert_eq!(
        held,
        [
            ("conv1", None),
            ("layer1.0.conv1", first),
            ("layer1.0.conv2", first),
            ("layer2.0.conv1", second),
            ("layer2.0.conv2", second),
            ("layer2.0.downsample.0", second),
            ("fc", None),
        ]
    );
    let [rounded, alone, together] =
        [&nearest, &layers, &blocks].map(|model| errors(&float, model, &dataset));
    println!("nearest {rounded:?}, layers {alone:?}, blocks {together:?}");
    let last = rounded.len() - 1;
    assert!(together.iter().zip(&rounded).all(|(block, nearest)| *block < 0.6 * nearest));
    assert!(together[last] <= alone[last] && together.iter().sum::<f64>() < alone.iter().sum());
    for layer in &report {
        assert!(layer.learned_error < layer.nearest_error, "{layer:?}");
    }

    // Each weight is exactly one of its two neighbours on the grid, many not the nearest.
    let (before, after) = (integers(&nearest), integers(&blocks));
    let mut turned = 0;
    for ((name, before), (same, after)) in before.iter().zip(&after) {
        assert_eq!(name, same);
        for (&(float, scale, nearest), &(own, same, chosen)) in before.iter().zip(after) {
            assert!(scale.to_bits() == same.to_bits() && (-8.0..=7.0).contains(&chosen));
            assert!((chosen * scale).to_bits() == own.to_bits() || chosen == 0.0, "{name}: {own}");
            assert!((chosen - float / scale).abs() < 1.0 + 1e-3, "{name}: {chosen}");
            turned += usize::from(nearest != chosen);
        }
    }
    assert!(turned > 100, "{turned}");
}

#[test]
fn activations_that_are_left_float_follow_from_the_seed() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, nearest) = quantized(Target::Onnxruntime, &dataset);
    let run =
        |unit, drop| learn(&nearest, &dataset, Adaround { unit, drop, iterations: 25, ..BLOCKS }).0;
    for unit in [Unit::Layer, Unit::Block] {
        let dropped = run(unit, 0.5);
        assert!(dropped == run(unit, 0.5), "{unit:?}: the same seed gives the same model");
        assert!(dropped != run(unit, 0.0), "{unit:?}: dropping has an effect");
    }
}

#[test]
fn biases_of_blocks_are_corrected_layer_by_layer() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, nearest) = quantized(Target::Onnxruntime, &dataset);
    let all = options(Some(Adaround { iterations: 25, ..BLOCKS }));
    let (corrected, report) = reconstruct(nearest, &dataset, &all, &|_, _, _| ()).unwrap();
    assert!(report.iter().all(|layer| layer.mean_shift.is_some() && layer.left.is_none()));
    let watch: Vec<String> =
        ["layer1.0.conv2", "layer2.0.conv2"].map(|name| output(&float, name)).to_vec();
    let (expected, found) =
        (values(&float, &watch, &dataset), values(&corrected, &watch, &dataset));
    for (x, q) in expected.iter().zip(&found) {
        let means = |value: &Tensor| value.mean_dim([0_i64, 2, 3].as_slice(), false, Kind::Double);
        let shift = (means(x) - means(q)).abs().max().double_value(&[]);
        assert!(shift < 1e-3 * x.std(false).double_value(&[]), "{shift}");
    }
}

/// What a layer makes.
fn output(model: &Model, layer: &str) -> String {
    model.graph.nodes.iter().find(|node| node.name == layer).unwrap().outputs[0].clone()
}
