//! Quantization-aware training: scales, teachers, accumulation, averages, and going on after a stop.

use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::finetune::{Distillation, ScaleEma};
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::training::{EarlyStop, Optimizer, Schedule, WeightAverage};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program, Role, Scales};
use qpipe_worker::onnx;
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::train::{Classifier, Epoch, Fit, Fitted, Teacher, Watch};
use tch::Tensor;

use crate::quant::{dataset, ranges, small_resnet};

pub fn quantized(dataset: &Dataset, target: Target) -> (Model, Model) {
    let mut float = small_resnet();
    prepare(&mut float).unwrap();
    let ranges = ranges(&float, dataset);
    let request = Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::default(),
    };
    let plan = plan(&float.graph, &ranges, &request).unwrap();
    let mut model = float.clone();
    insert(&mut model, &plan).unwrap();
    (float, model)
}

struct Silent(Vec<String>);

impl Watch for Silent {
    fn progress(&mut self, _: u64, _: u64, _: &str) {}

    fn log(&mut self, message: String) {
        self.0.push(message);
    }
}

/// Three epochs of four steps of 64 images, at a learning rate that changes something.
pub fn fit<'a>(dataset: &'a Dataset, checkpoints: &'a Path) -> Fit<'a> {
    Fit {
        train: dataset,
        valid: dataset,
        epochs: 3,
        batch_size: 64,
        accumulate: 1,
        optimizer: Optimizer::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 1e-4, nesterov: false },
        schedule: Schedule::Constant {},
        label_smoothing: 0.0,
        class_weights: &[],
        average: None,
        best_by: Default::default(),
        early_stop: None,
        clip_norm: None,
        amp: None,
        cuda_graph: true,
        cudnn_benchmark: None,
        scale_ema: None,
        watched: &[],
        max_steps: None,
        epoch_zero: true,
        seed: 7,
        threads: 1,
        checkpoints,
    }
}

pub fn classifier(
    model: &Model,
    dataset: &Dataset,
    scales: Scales,
    watch: &[String],
) -> Classifier {
    let options = Options { scales, watch: watch.to_vec(), ..Options::default() };
    Classifier::with(model.clone(), dataset, &options).unwrap()
}

/// Trains; the history, and the trained model.
pub fn trained(
    fit: &Fit,
    mut classifier: Classifier,
    teacher: Option<&mut Teacher>,
) -> (Fitted, Model) {
    let fitted = fit.run(&mut classifier, teacher, &mut Silent(Vec::new())).unwrap();
    classifier.program.write_back(&mut classifier.model).unwrap();
    (fitted, classifier.model)
}

/// Initializers that are scales of activations (of no shape) and of weights.
fn scales(model: &Model) -> Vec<(String, Vec<f32>)> {
    let nodes = model.graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    let names = nodes.map(|node| node.input(1).unwrap().to_owned());
    names.map(|name| (name.clone(), model.graph.initializers[&name].to_f32().unwrap())).collect()
}

pub fn bytes(model: &Model) -> Vec<(String, Vec<u8>)> {
    let constants = model.graph.initializers.iter();
    constants.map(|(name, data)| (name.clone(), data.bytes.to_vec())).collect()
}

/// Values that are computed and quantized, as the stage watches them.
pub fn quantized_values(model: &Model) -> Vec<String> {
    let nodes = model.graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    let names = nodes.map(|node| node.input(0).unwrap().to_owned());
    names.filter(|name| !model.graph.initializers.contains_key(name)).collect()
}

#[test]
fn learned_scales_are_parameters_and_end_up_in_the_exported_model() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let (_, model) = quantized(&dataset, target);
        let own = classifier(&model, &dataset, Scales::Learned, &[]);
        let learned = own.program.parameters().iter().filter(|p| p.role == Role::Scale).count();
        let mut names: Vec<String> = scales(&model).into_iter().map(|(name, _)| name).collect();
        let pairs = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(learned, names.len());
        // The pooling before the classifier has its input's scale where the runtime demands it.
        assert_eq!(names.len() < pairs, target == Target::Onnxruntime);
        let checkpoints = tempfile::tempdir().unwrap();
        let fit = Fit { epoch_zero: false, ..fit(&dataset, checkpoints.path()) };
        let (fitted, after) = trained(&fit, own, None);
        let (first, last) = (&fitted.history[0], fitted.history.last().unwrap());
        assert!(last.train_loss < first.train_loss, "{:?}", fitted.history);
        for ((name, before), (_, after)) in scales(&model).iter().zip(scales(&after)) {
            assert!(after.iter().all(|scale| *scale > 0.0), "{name}");
            assert!(before != &after, "{target:?}: {name} was learned");
        }
        // What is exported computes the same.
        let mut exported = after.clone();
        finalize(&mut exported, None).unwrap();
        onnx::check(&exported).unwrap();
        let images =
            Loader::new(&dataset, 64, Order::Sequential, false, 1).next().unwrap().unwrap();
        let run = |model: &Model| {
            let mut program = Program::compile(model, &Options::default()).unwrap();
            let images = [images.images.shallow_clone()];
            let _no_grad = tch::no_grad_guard();
            program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
        };
        let (simulated, exported) = (run(&after), run(&exported));
        let error = (&simulated - &exported).norm().double_value(&[]);
        assert!(error < 0.05 * simulated.norm().double_value(&[]), "{target:?}: {error}");
    }
}

#[test]
fn frozen_scales_stay_and_weights_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, model) = quantized(&dataset, Target::Tensorrt);
    let own = classifier(&model, &dataset, Scales::Frozen, &[]);
    let fit = Fit { epochs: 1, epoch_zero: false, ..fit(&dataset, folder.path()) };
    let (_, after) = trained(&fit, own, None);
    assert_eq!(scales(&model), scales(&after));
    assert!(bytes(&model) != bytes(&after));
}

#[test]
fn followed_scales_are_running_magnitudes_until_they_are_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, model) = quantized(&dataset, Target::Onnxruntime);
    let watched = quantized_values(&model);
    let run = |momentum, until, epochs, batch_size, accumulate| {
        let checkpoints = tempfile::tempdir().unwrap();
        let own = classifier(&model, &dataset, Scales::Followed, &watched);
        // Weights stay, so that the magnitudes are those of the model as it came.
        let optimizer =
            Optimizer::Sgd { lr: 1e-30, momentum: 0.0, weight_decay: 0.0, nesterov: false };
        let scale_ema = Some(ScaleEma { momentum, until });
        let fit = Fit {
            optimizer,
            scale_ema,
            watched: &watched,
            epochs,
            batch_size,
            accumulate,
            epoch_zero: false,
            ..fit(&dataset, checkpoints.path())
        };
        // The last epoch's, not the best's.
        let mut own = own;
        let fitted = fit.run(&mut own, None, &mut Silent(Vec::new())).unwrap();
        assert_eq!(fitted.history.len() as u32, epochs);
        own.program.write_back(&mut own.model).unwrap();
        scales(&own.model)
    };
    let before = scales(&model);
    let input = |scales: &[(String, Vec<f32>)]| {
        scales.iter().find(|(name, _)| name.starts_with("input")).unwrap().1[0]
    };
    // One step over all images: of the input, whose values do not depend on scales, the magnitude is known.
    let images = Loader::new(&dataset, 256, Order::Sequential, false, 1).next().unwrap().unwrap();
    let amax = images.images.abs().max().double_value(&[]);
    for (momentum, batch_size, accumulate) in [(0.0, 256, 1), (0.75, 256, 1), (0.75, 64, 4)] {
        let found = input(&run(momentum, 1.0, 1, batch_size, accumulate));
        let expected = momentum * f64::from(input(&before)) + (1.0 - momentum) * amax / 127.0;
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found}, expected {expected}");
    }
    let weights: Vec<&String> = model
        .graph
        .nodes
        .iter()
        .filter(|node| node.op_type == "QuantizeLinear")
        .filter(|node| model.graph.initializers.contains_key(node.input(0).unwrap()))
        .map(|node| &node.inputs[1])
        .collect();
    let moved = run(0.5, 1.0, 1, 32, 1);
    for ((name, before), (_, after)) in before.iter().zip(&moved) {
        assert_eq!(before == after, weights.contains(&name), "{name}");
    }
    assert_eq!(run(0.5, 0.0, 1, 32, 1), before, "frozen from the start");
    let half = run(0.5, 0.5, 1, 32, 1);
    assert!(half != before && half != moved);
}

#[test]
fn batches_of_a_step_give_the_step_of_one_that_is_as_large() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, model) = quantized(&dataset, Target::Tensorrt);
    for (model, scales) in [(&float, Scales::Frozen), (&model, Scales::Learned)] {
        let weights = |batch_size, accumulate, max_steps| {
            let checkpoints = tempfile::tempdir().unwrap();
            let own = classifier(model, &dataset, scales, &[]);
            let epochs = 1;
            let epoch_zero = false;
            let fit = Fit {
                batch_size,
                accumulate,
                epochs,
                epoch_zero,
                max_steps,
                ..fit(&dataset, checkpoints.path())
            };
            let (fitted, model) = trained(&fit, own, None);
            (fitted.history[0].train_loss.unwrap(), model)
        };
        // 256 images in batches of 48 are 5 of 48 and one of 16: the last step has one and a third.
        let (loss, whole) = weights(192, 1, Some(1));
        let (parts_loss, parts) = weights(48, 4, Some(1));
        assert!((loss - parts_loss).abs() < 1e-5);
        let mut largest = 0.0_f32;
        for (name, data) in &whole.graph.initializers {
            let Ok(values) = data.to_f32() else { continue };
            let others = parts.graph.initializers[name].to_f32().unwrap();
            let start = model.graph.initializers[name].to_f32().unwrap();
            for ((a, b), start) in values.iter().zip(&others).zip(&start) {
                largest = largest.max((a - start).abs());
                assert!((a - b).abs() < 2e-5 * start.abs().max(1.0), "{scales:?} {name}: {a}, {b}");
            }
        }
        assert!(largest > 1e-3, "a step changes something: {largest}");
        let (loss, _) = weights(192, 1, None);
        let (parts_loss, _) = weights(48, 4, None);
        assert!((loss - parts_loss).abs() < 1e-3, "uneven steps: {loss}, {parts_loss}");
    }
}

fn teacher(float: &Model, dataset: &Dataset, settings: Distillation, layers: &[&str]) -> Teacher {
    let output = |layer: &&str| {
        let node = float.graph.nodes.iter().find(|node| node.label() == *layer).unwrap();
        node.outputs[0].clone()
    };
    let watch = layers.iter().map(output).collect();
    let options = Options { watch, ..Options::default() };
    let own = Classifier::with(float.clone(), dataset, &options).unwrap();
    let layers = layers.iter().map(|layer| (*layer).to_owned()).collect();
    Teacher { settings, program: own.program, layers }
}

#[test]
fn a_student_comes_closer_to_its_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    // The labels say nothing: all that is learned is the teacher's.
    let settings = Distillation { labels: 0.0, temperature: 2.0, ..Distillation::default() };
    let settings = Distillation { features: 100.0, logits: 100.0, ..settings };
    let (float, _) = quantized(&dataset, Target::Tensorrt);
    let layers: Vec<&str> = float
        .graph
        .nodes
        .iter()
        .filter(|node| node.op_type == "Conv")
        .map(|node| node.label())
        .collect();
    let watched: Vec<String> = float
        .graph
        .nodes
        .iter()
        .filter(|node| node.op_type == "Conv")
        .map(|node| node.outputs[0].clone())
        .collect();
    let mut own = teacher(&float, &dataset, settings.clone(), &layers);
    let run = |model: &Model, teacher: &mut Teacher| {
        let checkpoints = tempfile::tempdir().unwrap();
        let student = classifier(model, &dataset, Scales::Frozen, &watched);
        let fit = Fit { watched: &watched, epoch_zero: false, ..fit(&dataset, checkpoints.path()) };
        let losses = trained(&fit, student, Some(teacher)).0.history;
        losses.iter().map(|epoch| epoch.train_loss.unwrap()).collect::<Vec<f64>>()
    };
    // The teacher itself has nothing to learn.
    let none = run(&float, &mut own);
    assert!(none.iter().all(|loss| loss.abs() < 1e-4), "{none:?}");
    // A student of other weights does.
    let mut other = float.clone();
    for (name, data) in &mut other.graph.initializers {
        if name.ends_with("weight") && data.shape.len() == 4 {
            let values: Vec<f32> = data.to_f32().unwrap();
            let values = values.iter().enumerate().map(|(i, v)| v * (1.0 + 0.3 * (i as f32).sin()));
            *data = qpipe_worker::graph::TensorData::f32(
                &data.shape.clone(),
                &values.collect::<Vec<f32>>(),
            );
        }
    }
    let all = run(&other, &mut own);
    assert!(all[2] < 0.7 * all[0], "{all:?}");
    // Features are part of it.
    own.settings.features = 0.0;
    let logits = run(&other, &mut own);
    assert!(logits[0] < all[0], "{logits:?}, with features {all:?}");
}

#[test]
fn the_average_of_the_weights_is_validated_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, model) = quantized(&dataset, Target::Tensorrt);
    let run = |decay: Option<f64>| {
        let checkpoints = tempfile::tempdir().unwrap();
        let own = classifier(&model, &dataset, Scales::Learned, &[]);
        let average = decay.map(|decay| WeightAverage { decay });
        let fit = Fit {
            average,
            batch_size: 256,
            epochs: 1,
            epoch_zero: false,
            ..fit(&dataset, checkpoints.path())
        };
        let (fitted, model) = trained(&fit, own, None);
        (fitted.history[0].valid_loss, model)
    };
    let (plain_loss, plain) = run(None);
    let (loss, averaged) = run(Some(0.1));
    assert!(loss != plain_loss);
    for (name, data) in &averaged.graph.initializers {
        let Ok(found) = data.to_f32() else { continue };
        let [start, end] = [&model, &plain].map(|m| m.graph.initializers[name].to_f32().unwrap());
        for ((found, start), end) in found.iter().zip(start).zip(end) {
            let expected = 0.1 * start + 0.9 * end;
            assert!((found - expected).abs() < 1e-5, "{name}: {found}, expected {expected}");
        }
    }
    // Without steps enough the decay is small: after one step 2/11.
    let (early_loss, _) = run(Some(0.999));
    assert!(early_loss != loss && early_loss != plain_loss);
    // What was validated is what was kept.
    let mut kept = classifier(&averaged, &dataset, Scales::Frozen, &[]);
    let score = kept.score(&dataset, 256, 1, None, &mut |_, _| Ok(())).unwrap();
    assert!((score.figures().loss - loss).abs() < 1e-6);
}

/// A training stopped after each epoch goes on to the same bytes, with all that it keeps beside the weights.
#[test]
fn a_stopped_training_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, model) = quantized(&dataset, Target::Tensorrt);
    let watched = quantized_values(&model);
    let adamw = Optimizer::Adamw { lr: 1e-3, weight_decay: 0.01 };
    let cases = [
        (Scales::Learned, None, false),
        (Scales::Followed, Some(ScaleEma { momentum: 0.9, until: 0.6 }), true),
    ];
    for (scales, scale_ema, teaches) in cases {
        let watched: &[String] = if scale_ema.is_some() { &watched } else { &[] };
        let run = |checkpoints: &Path, stops: &[u32]| {
            let mut log = Silent(Vec::new());
            let mut last = None;
            for &stop in stops {
                let mut own = classifier(&model, &dataset, scales, watched);
                let mut teacher =
                    teaches.then(|| teacher(&float, &dataset, Distillation::default(), &[]));
                let fit = Fit {
                    optimizer: adamw.clone(),
                    schedule: Schedule::Step { epochs: vec![2], factor: 0.5, warmup_epochs: 1.0 },
                    average: Some(WeightAverage { decay: 0.9 }),
                    early_stop: Some(EarlyStop { patience: 3, min_delta: 0.0 }),
                    clip_norm: Some(1.0),
                    accumulate: 2,
                    scale_ema: scale_ema.clone(),
                    batch_size: 32,
                    watched,
                    ..fit(&dataset, checkpoints)
                };
                let mut stopping = Stopping { stop, log: &mut log };
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    fit.run(&mut own, teacher.as_mut(), &mut stopping)
                })) {
                    Ok(fitted) => {
                        own.program.write_back(&mut own.model).unwrap();
                        last = Some((fitted.unwrap().history, bytes(&own.model)));
                    }
                    Err(_) => last = None,
                }
            }
            let went_on = log.0.iter().filter(|line| line.contains("going on after")).count();
            (last.expect("the last run ends"), went_on)
        };
        let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let ((history, expected), _) = run(whole.path(), &[u32::MAX]);
        let ((parts_history, found), went_on) = run(parts.path(), &[1, 2, u32::MAX]);
        assert_eq!(went_on, 2);
        assert_eq!(history, parts_history);
        assert!(expected == found, "{scales:?}: the resumed training differs");
    }
}

/// Ends a training, as a kill would, at the first step after an epoch.
struct Stopping<'a> {
    stop: u32,
    log: &'a mut Silent,
}

impl Watch for Stopping<'_> {
    fn progress(&mut self, _: u64, _: u64, message: &str) {
        let next = format!("epoch {}/", self.stop.saturating_add(1));
        assert!(!message.starts_with(&next), "stopped, as wanted");
    }

    fn log(&mut self, message: String) {
        self.log.log(message);
    }
}

#[test]
fn no_gain_for_long_enough_ends_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (_, model) = quantized(&dataset, Target::Tensorrt);
    let own = classifier(&model, &dataset, Scales::Frozen, &[]);
    // Nothing changes at such a rate.
    let optimizer = Optimizer::Sgd { lr: 1e-30, momentum: 0.0, weight_decay: 0.0, nesterov: false };
    let early_stop = Some(EarlyStop { patience: 2, min_delta: 0.0 });
    let fit = Fit { optimizer, early_stop, epochs: 5, ..fit(&dataset, folder.path()) };
    let (fitted, _) = trained(&fit, own, None);
    let epochs: Vec<u32> = fitted.history.iter().map(|epoch: &Epoch| epoch.epoch).collect();
    assert_eq!(epochs, [0, 1, 2]);
}

/// One loss of the whole network in double precision would not see the rounding: look at a single pair instead, whose sum is
/// smooth in its scale between two roundings.
#[test]
fn the_gradient_of_a_scale_is_the_difference_quotient_where_all_is_cut() {
    use qpipe_worker::graph::{Dim, Graph, Node, TensorData, ValueInfo};
    let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 2]);
    let graph = Graph {
        nodes: vec![
            Node::new("q", "QuantizeLinear", &["x", "s"], &["q"]),
            Node::new("d", "DequantizeLinear", &["q", "s"], &["y"]),
        ],
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        initializers: [("s".to_owned(), TensorData::f32(&[], &[0.25]))].into_iter().collect(),
        ..Graph::default()
    };
    let model = Model::new(graph, 17);
    let options = Options { scales: Scales::Learned, ..Options::default() };
    let mut program = Program::compile(&model, &options).unwrap();
    program.train(true);
    // Beyond the range of uint8, which the pair has without a zero point.
    let x = Tensor::from_slice2(&[[100.0_f32, 90.0], [-1.0, 300.0]]);
    let sum = |program: &mut Program| {
        let y = program.forward(&[x.shallow_clone()], Mode::Train, &mut |_, _| Ok(())).unwrap();
        y[0].sum(tch::Kind::Float)
    };
    let loss = sum(&mut program);
    let gradient = program.gradients(&loss).unwrap()[0].double_value(&[]);
    let at = |program: &mut Program, scale: f32| {
        let state = vec![("s".to_owned(), Tensor::from(scale))];
        program.load_state(&state).unwrap();
        sum(program).double_value(&[])
    };
    let quotient = (at(&mut program, 0.26) - at(&mut program, 0.24)) / 0.02;
    let factor = 1.0 / (2.0_f64 * 255.0).sqrt();
    assert!((gradient - quotient * factor).abs() < 1e-3, "{gradient}, {quotient} · {factor}");
}
