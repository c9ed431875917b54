//! The simulation, the exported file and ONNX Runtime agree.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use qpipe::stages::calibrate::{Histogram, Method};
use qpipe::stages::data::DataSpec;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::model_source::ZooModel;
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::calibrate::{self, calibrate};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::quant::ranges::Ranges;
use qpipe_worker::{onnx, zoo};
use serde_json::json;

use crate::python;

/// Images of the data set.
pub const IMAGES: usize = 256;

/// Gray blobs of several sizes and places, as IDX files of `side` pixels in `folder`.
pub fn dataset(folder: &Path, side: usize) -> Dataset {
    let header = |kind: u8, extents: &[usize]| {
        let mut bytes = vec![0, 0, 8, kind];
        extents.iter().for_each(|&n| bytes.extend((n as u32).to_be_bytes()));
        bytes
    };
    let mut images = header(3, &[IMAGES, side, side]);
    let mut labels = header(1, &[IMAGES]);
    let mut state = 11_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    for _ in 0..IMAGES {
        let (row, column, radius) = (next(side) as f32, next(side) as f32, 2 + next(side / 2));
        for y in 0..side {
            for x in 0..side {
                let far = ((y as f32 - row).powi(2) + (x as f32 - column).powi(2)).sqrt();
                let value = 255.0 * (-far / radius as f32).exp() - next(20) as f32;
                images.push(value.clamp(0.0, 255.0) as u8);
            }
        }
        labels.push((radius % 3) as u8);
    }
    let paths = ["path", "labels"].map(|port| (port.to_owned(), folder.join(port)));
    for ((_, path), bytes) in paths.iter().zip([images, labels]) {
        std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes)).expect("writes");
    }
    let spec = json!({
        "format": "idx", "path": "images-idx3", "classes": ["a", "b", "c"],
        "transform": [{ "normalize": { "mean": [0.3], "std": [0.35] } }],
    });
    let spec: DataSpec = serde_json::from_value(spec).expect("a data set");
    Dataset::open(&spec, &BTreeMap::from(paths)).expect("opens")
}

pub fn small_resnet() -> Model {
    small_resnet_of(28)
}

/// The same for images of so many pixels a side.
pub fn small_resnet_of(side: usize) -> Model {
    let config = json!({
        "arch": "resnet", "blocks": [1, 1, 2], "channels": [16, 32, 64], "stem": "small-stride2",
        "in_channels": 1, "classes": 10, "image_size": side,
    });
    let config: ZooModel = serde_json::from_value(config).expect("a network");
    zoo::build(&config, None, 3).expect("builds")
}

pub fn fixture(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    onnx::read(&folder.join(name)).expect("reads")
}

pub fn options(batch_size: usize, threads: usize) -> calibrate::Options {
    calibrate::Options {
        samples: 128,
        batch_size,
        methods: Method::ALL.to_vec(),
        best_samples: 32,
        bins: 2048,
        percentile: 99.99,
        histogram: Histogram::Exact,
        seed: 5,
        threads,
        on_device: false,
    }
}

pub fn ranges(model: &Model, dataset: &Dataset) -> Ranges {
    calibrate(model, dataset, &options(64, 2), &|_, _| ()).expect("calibrates").ranges
}

pub fn request(target: Target) -> Request<'static> {
    Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::default(),
    }
}

pub struct Batch {
    pub images: tch::Tensor,
}

impl Batch {
    pub fn all(dataset: &Dataset) -> Self {
        let mut loader = Loader::new(dataset, IMAGES, Order::Sequential, false, 1);
        Self { images: loader.next().expect("a batch").expect("loads").images }
    }

    pub fn simulate(&self, model: &Model) -> Vec<f32> {
        let mut program = Program::compile(model, &Options::default()).expect("compiles");
        let images = [self.images.shallow_clone()];
        let outputs = program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).expect("runs");
        Vec::try_from(outputs[0].contiguous().view(-1)).expect("floats")
    }

    /// Outputs of Python's onnxruntime and the operators that it ran.
    pub fn onnxruntime(
        &self,
        folder: &Path,
        model: &Model,
        optimizations: &str,
    ) -> (Vec<f32>, BTreeMap<String, usize>) {
        let [path, inputs, outputs] = ["model.onnx", "inputs", "outputs"].map(|n| folder.join(n));
        onnx::check(model).expect("the standard's rules");
        onnx::write(model, &path).expect("writes");
        let images: Vec<f32> = Vec::try_from(self.images.contiguous().view(-1)).expect("floats");
        let bytes: Vec<u8> = images.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&inputs, bytes).expect("writes");
        let shape: Vec<String> = self.images.size().iter().map(i64::to_string).collect();
        let shape = shape.join(",");
        let arguments = [&path, &inputs, Path::new(&shape), &outputs, Path::new(optimizations)];
        let printed = python::run(include_str!("run_onnx.py"), &arguments);
        let outputs = std::fs::read(outputs).expect("reads");
        let outputs = outputs.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (outputs.collect(), serde_json::from_str(&printed).expect("counts"))
    }
}

/// Share of images of the same predicted class, and the median over images of signal over noise of
/// the logits, decibels.
pub fn agreement(ours: &[f32], theirs: &[f32]) -> (f64, f64) {
    assert_eq!(ours.len(), theirs.len());
    let classes = ours.len() / IMAGES;
    let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let rows = || ours.chunks_exact(classes).zip(theirs.chunks_exact(classes));
    let same = rows().filter(|(a, b)| best(a) == best(b)).count();
    let mut ratios: Vec<f64> = rows()
        .map(|(a, b)| {
            let signal: f64 = b.iter().map(|&b| f64::from(b).powi(2)).sum();
            let noise: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
            10.0 * (signal / noise.max(1e-30)).log10()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    (same as f64 / IMAGES as f64, ratios[IMAGES / 2])
}

#[test]
fn the_simulation_is_what_onnxruntime_computes() {
    let networks = [
        ("small resnet", small_resnet(), 28),
        ("dynamo", fixture("tiny_resnet_dynamo.onnx"), 32),
        ("torchscript", fixture("tiny_resnet_torchscript.onnx"), 32),
        ("mobilenet", fixture("tiny_mobilenet_torchscript.onnx"), 32),
    ];
    for (name, model, side) in networks {
        agrees(name, model, side);
    }
}

/// For each target: the simulation, the exported form in the interpreter, and ONNX Runtime compute the same.
pub fn agrees(name: &str, mut model: Model, side: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), side);
    prepare(&mut model).expect("prepares");
    let ranges = ranges(&model, &dataset);
    let batch = Batch::all(&dataset);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let mut quantized = model.clone();
        let plan = plan(&model.graph, &ranges, &request(target)).expect("plans");
        insert(&mut quantized, &plan).expect("inserts");
        let simulated = batch.simulate(&quantized);
        let (_, against_float) = agreement(&simulated, &batch.simulate(&model));
        assert!((8.0..60.0).contains(&against_float), "{name} {target:?}: {against_float} dB");
        finalize(&mut quantized, None).expect("finalizes");
        // What is exported computes in the interpreter what it did before.
        let (_, form) = agreement(&batch.simulate(&quantized), &simulated);
        assert!(form > 45.0, "{name} {target:?}: the exported form differs: {form} dB");
        let (outputs, _) = batch.onnxruntime(folder.path(), &quantized, "off");
        let (same, decibels) = agreement(&simulated, &outputs);
        println!(
            "{name} {target:?}: {same} alike, {decibels:.1} dB; {against_float:.1} dB to float"
        );
        assert!(same >= 0.99 && decibels >= 45.0, "{name} {target:?}: {same}, {decibels} dB");
    }
}

#[test]
fn onnxruntime_fuses_every_layer_to_an_integer_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let plan = plan(&model.graph, &ranges(&model, &dataset), &request(Target::Onnxruntime));
    let batch = Batch::all(&dataset);
    insert(&mut model, &plan.expect("plans")).expect("inserts");
    let simulated = batch.simulate(&model);
    finalize(&mut model, None).expect("finalizes");
    let (outputs, ops) = batch.onnxruntime(folder.path(), &model, "on");
    let expected = [
        ("Flatten", 1),
        ("QGemm", 1),
        ("QLinearAdd", 4),
        ("QLinearConv", 11),
        ("QLinearGlobalAveragePool", 1),
        ("QuantizeLinear", 1),
    ];
    let mut left = ops.clone();
    // Between layouts, once each way.
    left.remove("Transpose");
    let expected = expected.map(|(op, count)| (op.to_owned(), count));
    assert_eq!(left, BTreeMap::from(expected));
    let (same, decibels) = agreement(&simulated, &outputs);
    println!("optimized: {same} alike, {decibels:.1} dB");
    let least = if qpipe_worker::engine::saturates() { 0.9 } else { 0.97 };
    assert!(same >= least, "{same}, {decibels} dB");
}

#[test]
fn pairs_for_tensorrt_run_on_onnxruntime_with_the_same_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let plan = plan(&model.graph, &ranges(&model, &dataset), &request(Target::Tensorrt));
    insert(&mut model, &plan.expect("plans")).expect("inserts");
    let batch = Batch::all(&dataset);
    let simulated = batch.simulate(&model);
    finalize(&mut model, Some(Target::Onnxruntime)).expect("finalizes");
    let (outputs, _) = batch.onnxruntime(folder.path(), &model, "off");
    let (same, decibels) = agreement(&simulated, &outputs);
    assert!(same >= 0.99 && decibels >= 45.0, "{same}, {decibels} dB");
}

#[test]
fn calibration_does_not_depend_on_threads_or_batch_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let of = |options: calibrate::Options| {
        let found = calibrate(&model, &dataset, &options, &|_, _| ()).expect("calibrates");
        println!("{} tensors: {}", found.ranges.tensors.len(), found.times.line());
        found.ranges.to_bytes()
    };
    let bytes = |batch_size, threads| of(options(batch_size, threads));
    let first = bytes(64, 2);
    assert_eq!(bytes(64, 1), first);
    assert_eq!(bytes(64, 3), first);
    assert_eq!(bytes(16, 2), first);
    // By libtorch's operators, as on a GPU; so many batches that it is asked in between whether all is finite.
    let on_device = |batch_size| calibrate::Options { on_device: true, ..options(batch_size, 2) };
    assert_eq!(of(on_device(64)), first);
    assert_eq!(of(on_device(5)), first);
}

#[test]
fn fewer_images_than_asked_for_and_images_that_are_not_finite() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let all = calibrate::Options { samples: 10_000, ..options(64, 2) };
    let found = calibrate(&model, &dataset, &all, &|_, _| ()).expect("runs");
    assert_eq!(found.ranges.calibration.expect("measured").samples, IMAGES);
    assert!(!found.images_alike);

    let weight = model.graph.initializers.get_mut("layer2.0.conv1.weight").expect("there");
    let mut values = weight.to_f32().expect("floats");
    values[5] = f32::NAN;
    *weight = qpipe_worker::graph::TensorData::f32(&weight.shape.clone(), &values);
    let error = calibrate(&model, &dataset, &options(64, 2), &|_, _| ()).expect_err("refused");
    // The Relu hands the NaN on: its output is the first that is watched.
    assert!(error.message.contains("node \"layer2.0.relu1\" (Relu)"), "{error}");
    assert!(error.message.contains("has a NaN (one of 64 images, "), "{error}");
    // Found only at the end of a pass (2 batches), or in between (128 batches).
    for (batch_size, images) in [(64, "one of 64 images, "), (1, "has a NaN (")] {
        let on_device = calibrate::Options { on_device: true, ..options(batch_size, 2) };
        let found = calibrate(&model, &dataset, &on_device, &|_, _| ()).expect_err("refused");
        let expected = calibrate(&model, &dataset, &options(batch_size, 2), &|_, _| ());
        assert_eq!(found.message, expected.expect_err("refused").message);
        assert!(found.message.contains(images) && found.help == error.help, "{found}");
    }
}

#[test]
fn images_that_are_all_the_same_and_images_of_another_shape() {
    let folder = tempfile::tempdir().expect("a folder");
    let side = 28;
    let all = dataset(folder.path(), side);
    // Every image a copy of the first.
    let path = folder.path().join("path");
    let bytes = std::fs::read(&path).expect("reads");
    let image = &bytes[16..16 + side * side];
    let copies: Vec<u8> = bytes[..16]
        .iter()
        .chain(image.iter().cycle().take(IMAGES * side * side))
        .copied()
        .collect();
    drop(all);
    std::fs::write(&path, copies).expect("writes");
    let spec = json!({ "format": "idx", "path": "images-idx3", "classes": ["a", "b", "c"] });
    let spec: DataSpec = serde_json::from_value(spec).expect("a data set");
    let paths = BTreeMap::from(["path", "labels"].map(|p| (p.to_owned(), folder.path().join(p))));
    let alike = Dataset::open(&spec, &paths).expect("opens");
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let found = calibrate(&model, &alike, &options(16, 2), &|_, _| ()).expect("runs");
    assert!(found.images_alike);
    let one = calibrate::Options { samples: 1, ..options(16, 2) };
    assert!(!calibrate(&model, &alike, &one, &|_, _| ()).expect("runs").images_alike);

    let error = calibrate(&fixture_prepared("tiny_resnet_dynamo.onnx"), &alike, &one, &|_, _| ());
    let message = error.expect_err("refused").message;
    assert!(message.starts_with("calibration images of 1×28×28, such as "), "{message}");
    assert!(message.contains("it was given [1, 1, 28, 28]"), "{message}");
}

fn fixture_prepared(name: &str) -> Model {
    let mut model = fixture(name);
    prepare(&mut model).expect("prepares");
    model
}

#[test]
fn the_best_method_is_chosen_in_a_second_pass_over_some_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let told = std::cell::RefCell::new(Vec::new());
    let best = calibrate::Options { methods: vec![Method::Best], ..options(32, 2) };
    let found =
        calibrate(&model, &dataset, &best, &|done, total| told.borrow_mut().push((done, total)));
    let found = found.expect("runs").ranges;
    assert_eq!(told.borrow().last(), Some(&(128 + 32, 128 + 32)));
    let usual = ranges(&model, &dataset);
    for (range, usual) in found.tensors.iter().zip(&usual.tensors) {
        let error = range.error.as_ref().expect("judged");
        let least = error.values().copied().fold(f64::INFINITY, f64::min);
        let chosen = Method::ALL.into_iter().find(|method| error[method] == least).expect("one");
        assert_eq!(range.amax[&Method::Best], range.amax[&chosen], "{}", range.tensor);
        assert!(least > 0.0 && least < 0.05, "{}: {least}", range.tensor);
        let mut amax = range.amax.clone();
        amax.remove(&Method::Best);
        assert_eq!(amax, usual.amax, "the others as without it");
    }
    let request = Request { method: Method::Best, ..request(Target::Tensorrt) };
    assert!(plan(&model.graph, &found, &request).is_ok());
}

#[test]
fn the_examples_program_makes_ranges_that_are_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).expect("prepares");
    let measured = ranges(&model, &dataset);
    let [given, made] = ["given.json", "made.json"].map(|name| folder.path().join(name));
    std::fs::write(&given, measured.to_bytes()).expect("writes");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/custom_ranges.py");
    let ended = std::process::Command::new("python3")
        .arg(script)
        .env("QPIPE_IN_RANGES", &given)
        .env("QPIPE_OUT_RANGES", &made)
        .status();
    assert!(ended.expect("python3 runs").success());
    let made = Ranges::read(&made).expect("of the documented form");
    let request = Request { method: Method::Custom, ..request(Target::Onnxruntime) };
    let plan = plan(&model.graph, &made, &request).expect("plans");
    let input = measured.tensors.iter().find(|range| range.tensor == "input").expect("there");
    let expected = f64::from(input.amax[&Method::Max]) * f64::from(input.amax[&Method::Mse]);
    assert!((f64::from(plan.tensors[0].amax) - expected.sqrt()).abs() < 1e-6);
    // As it was measured, the file has none of that method.
    let error = qpipe_worker::quant::placement::plan(&model.graph, &measured, &request);
    let message = error.expect_err("refused").message;
    assert!(message.contains("no \"custom\" of tensor"), "{message}");
}
