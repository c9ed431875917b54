//! SmoothQuant: the float model computes the same, the quantized one gets nearer to it.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::analysis::Fidelity;
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::{DType, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::ladder::{Smoothed, Smoothing, smooth};
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use tch::Tensor;

use crate::quant::{IMAGES, dataset, ranges, small_resnet};
use crate::transformer::{Form, transformer, with_outliers};

const OPTIONS: Smoothing =
    Smoothing { alpha: 0.5, samples: 128, batch_size: 48, seed: 5, threads: 1 };

fn images(dataset: &Dataset) -> Tensor {
    Loader::new(dataset, IMAGES, Order::Sequential, false, 1).next().unwrap().unwrap().images
}

fn outputs(model: &Model, images: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let mut program = Program::compile(model, &Options::default()).unwrap();
    program.forward(&[images.shallow_clone()], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
}

/// Largest difference, relative to the largest value.
fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    let worst = (expected - found).abs().max().double_value(&[]);
    worst / expected.abs().max().double_value(&[])
}

/// What rounding alone does to the outputs: how far they move where each weight takes the float next to it, which is what a factor may do to it.
fn rounding(model: &Model, images: &Tensor) -> f64 {
    let mut shaken = model.clone();
    for (index, data) in shaken.graph.initializers.values_mut().enumerate() {
        // One number alone is a constant: an exponent, a range.
        if data.dtype != DType::F32 || data.shape.iter().product::<i64>() < 2 {
            continue;
        }
        let mut values = data.to_f32().unwrap();
        for (place, value) in values.iter_mut().enumerate() {
            let up = (place * 7 + index * 3) % 5 < 2;
            *value = if up { value.next_up() } else { value.next_down() };
        }
        *data = TensorData::f32(&data.shape, &values);
    }
    difference(&outputs(model, images), &outputs(&shaken, images))
}

fn sqnr(expected: &Tensor, found: &Tensor) -> f64 {
    let mut fidelity = Fidelity::default();
    fidelity.add(expected, found).unwrap();
    fidelity.figures().sqnr_db.unwrap_or(f64::INFINITY)
}

fn quantized(model: &Model, dataset: &Dataset, target: Target, per_channel: bool) -> Model {
    let request = Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::of(None, None, per_channel),
    };
    let plan = plan(&model.graph, &ranges(model, dataset), &request).unwrap();
    let mut quantized = model.clone();
    insert(&mut quantized, &plan).unwrap();
    quantized
}

fn smoothed(model: &Model, dataset: &Dataset, options: &Smoothing) -> (Model, Smoothed) {
    let mut model = model.clone();
    let found = smooth(&mut model, dataset, options, &|_, _| ()).unwrap();
    (model, found)
}

fn all_forms() -> Model {
    let mut model = transformer(&[Form::Operators, Form::WrittenOut, Form::Rms]);
    prepare(&mut model).unwrap();
    model
}

/// Source and layers of each group.
fn groups(found: &Smoothed) -> Vec<(&str, Vec<&str>)> {
    let each = found.groups.iter();
    each.map(|group| (group.source.as_str(), group.layers.iter().map(String::as_str).collect()))
        .collect()
}

/// Why a layer was left.
fn why<'a>(found: &'a Smoothed, layer: &str) -> &'a str {
    let left = found.left.iter().find(|left| left.layer == layer);
    left.map_or("it was not left", |left| left.why.as_str())
}

#[test]
fn a_smoothed_transformer_computes_the_same_in_all_forms_of_export() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = all_forms();
    with_outliers(&mut model, 40.0, false);
    let (after, found) = smoothed(&model, &dataset, &OPTIONS);
    assert_eq!(
        groups(&found),
        [
            (
                "block0.norm1",
                vec!["block0.attention.q", "block0.attention.k", "block0.attention.v"]
            ),
            ("block0.attention.v", vec!["block0.attention.proj"]),
            ("block0.norm2", vec!["block0.fc1"]),
            ("block1.norm1", vec!["block1.attention.qkv"]),
            ("block1.norm2", vec!["block1.fc1"]),
            ("block2.norm1", vec!["block2.attention.qkv"]),
            ("block2.norm2", vec!["block2.fc1", "block2.gate"]),
            ("block2.fc1", vec!["block2.fc2"]),
            ("norm", vec!["head"]),
        ]
    );
    let left: Vec<&str> = found.left.iter().map(|left| left.layer.as_str()).collect();
    assert_eq!(
        left,
        ["patches", "block0.fc2", "block1.attention.proj", "block1.fc2", "block2.attention.proj"]
    );
    assert_eq!(why(&found, "patches"), "\"images\" is an input of the model");
    assert_eq!(
        why(&found, "block0.fc2"),
        "node \"block0.gelu\" (Gelu) makes it, which scaling does not pass"
    );
    // One layer makes queries, keys and values: the products of the first two would have to take factors in.
    assert_eq!(
        why(&found, "block1.attention.proj"),
        "node \"block1.attention.qkv\" (MatMul) makes it, which stays: node \"block1.attention.scores\" (MatMul) reads it twice"
    );
    let images = images(&dataset);
    let far = difference(&outputs(&model, &images), &outputs(&after, &images));
    let noise = rounding(&model, &images);
    assert!(far < 2.0 * noise && noise < 1e-4, "{far:e}, of rounding {noise:e}");
    for group in &found.groups {
        assert!(group.factors[0] > 0.0 && group.factors[1] > group.factors[0], "{group:?}");
    }
    let group = &found.groups[0];
    let outliers = |[most, median]: [f64; 2]| most / median;
    let [before, now] =
        [0, 1].map(|at| outliers([group.activation_max[at], group.activation_median[at]]));
    assert!(before > 20.0 && now < before / 4.0, "{before} became {now}");
    assert_eq!(smoothed(&model, &dataset, &OPTIONS).0, after, "the same seed, the same model");
}

#[test]
fn factors_are_those_of_the_paper() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = transformer(&[Form::Operators]);
    prepare(&mut model).unwrap();
    with_outliers(&mut model, 10.0, false);
    let options = Smoothing { samples: IMAGES, alpha: 0.7, ..OPTIONS };
    let (after, _) = smoothed(&model, &dataset, &options);
    let read = "block0.norm1.out".to_owned();
    let watch = Options { watch: vec![read], ..Options::default() };
    let mut most = Vec::new();
    tch::no_grad(|| {
        let mut program = Program::compile(&model, &watch).unwrap();
        program.forward(&[images(&dataset)], Mode::Eval, &mut |_, value| {
            let rows = value.abs().flatten(0, 1).amax([0], false);
            most = Vec::<f32>::try_from(rows).unwrap();
            Ok(())
        })
    })
    .unwrap();
    let values = |model: &Model, name: &str| model.graph.initializers[name].to_f32().unwrap();
    let weights = ["q", "k", "v"].map(|p| values(&model, &format!("block0.attention.{p}.weight")));
    let [before, now] = [&model, &after].map(|model| values(model, "block0.norm1.weight"));
    for (channel, most) in most.iter().enumerate() {
        let row = |weight: &Vec<f32>| weight[channel * 32..(channel + 1) * 32].to_vec();
        let weight = weights.iter().flat_map(row).fold(0.0, |most: f32, w| most.max(w.abs()));
        let factor = most.powf(0.7) / weight.powf(0.3);
        let found = before[channel] / now[channel];
        assert!((found / factor - 1.0).abs() < 1e-4, "channel {channel}: {found}, not {factor}");
    }
}

/// SQNR in dB of the quantized model before and after smoothing.
fn gain(model: &Model, dataset: &Dataset, images: &Tensor, alpha: f64) -> [f64; 2] {
    let expected = outputs(model, images);
    let (after, _) = smoothed(model, dataset, &Smoothing { alpha, ..OPTIONS });
    [model, &after].map(|model| {
        let quantized = quantized(model, dataset, Target::Tensorrt, true);
        sqnr(&expected, &outputs(&quantized, images))
    })
}

/// `cargo test … smooth -- --nocapture` prints the figures of docs/ptq.md.
#[test]
fn outliers_cost_less_once_they_are_smoothed() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let images = images(&dataset);
    // Weights that make up for the outliers or not, their factor, what must be gained at least.
    let cases = [
        (true, 1.0, -1.0),
        (true, 10.0, 6.0),
        (true, 40.0, 15.0),
        (false, 10.0, 1.5),
        (false, 40.0, 0.5),
    ];
    for (compensated, factor, least) in cases {
        let mut model = all_forms();
        with_outliers(&mut model, factor, compensated);
        let [before, after] = gain(&model, &dataset, &images, 0.5);
        println!(
            "outliers × {factor}, weights divided: {compensated}: {before:.1} dB, smoothed {after:.1} dB"
        );
        assert!(after > before + least, "× {factor}, {compensated}: {before} dB became {after} dB");
    }
}

#[test]
fn what_others_read_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = transformer(&[Form::Operators, Form::WrittenOut]);
    prepare(&mut model).unwrap();
    let sources = |found: &Smoothed| -> Vec<String> {
        found.groups.iter().map(|group| group.source.clone()).collect()
    };

    let mut post_norm = model.clone();
    let add = post_norm.graph.nodes.iter_mut().find(|node| node.name == "block0.add1").unwrap();
    add.inputs[0] = "block0.norm1.out".to_owned();
    let (_, found) = smoothed(&post_norm, &dataset, &OPTIONS);
    let reason = "node \"block0.norm1\" (LayerNormalization) makes it, which stays: node \"block0.add1\" (Add) adds it to something else, as a residual does";
    assert_eq!(why(&found, "block0.attention.q"), reason);
    assert!(sources(&found).contains(&"block0.attention.v".to_owned()));

    let mut shown = model.clone();
    let output = ValueInfo {
        name: "block1.norm2.add.out".to_owned(),
        dtype: None,
        shape: None,
        opaque: None,
    };
    shown.graph.outputs.push(output);
    let (_, found) = smoothed(&shown, &dataset, &OPTIONS);
    assert!(why(&found, "block1.fc1").ends_with("it goes to an output of the model"));

    let mut tied = model.clone();
    let node = Node::new("again", "Abs", &["block1.fc1.weight"], &["again"]);
    tied.graph.nodes.push(node);
    let (_, found) = smoothed(&tied, &dataset, &OPTIONS);
    assert!(why(&found, "block1.fc1").ends_with("reads it with a weight that others read too"));

    // A constant that two normalizations share is divided for one of them only.
    let mut shared = model;
    let scale = shared.graph.initializers["block0.norm1.weight"].clone();
    for node in &mut shared.graph.nodes {
        if node.name == "norm" {
            node.inputs[1] = "block0.norm1.weight".to_owned();
        }
    }
    let (after, found) = smoothed(&shared, &dataset, &OPTIONS);
    let sources = sources(&found);
    assert!(["norm", "block0.norm1"].iter().all(|name| sources.iter().any(|s| s == name)));
    assert_ne!(after.graph.initializers["block0.norm1.weight"], scale);
    let images = images(&dataset);
    assert!(difference(&outputs(&shared, &images), &outputs(&after, &images)) < 1e-5);
}

#[test]
fn convolutions_are_smoothed_across_relu_and_pooling() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).unwrap();
    let (after, found) = smoothed(&model, &dataset, &OPTIONS);
    let groups = groups(&found);
    assert!(groups.contains(&("layer1.0.conv1", vec!["layer1.0.conv2"])), "{groups:?}");
    assert!(why(&found, "fc").contains("(Add)"), "{}", why(&found, "fc"));
    let images = images(&dataset);
    let far = difference(&outputs(&model, &images), &outputs(&after, &images));
    assert!(far < 1e-5, "{far:e}");
}
