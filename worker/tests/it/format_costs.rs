//! What each type and granularity costs a small network that was trained: the table of `docs/formats.md`.
//!
//! `cargo test -p qpipe-worker --test it -- --ignored --nocapture format_costs`

use std::collections::BTreeMap;
use std::path::Path;

use qpipe::stages::calibrate::{Histogram, Method};
use qpipe::stages::data::DataSpec;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::training::{Optimizer, Schedule};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::calibrate::{self, calibrate};
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::ladder::{Adaround, Options as Ladder, Unit, reconstruct};
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::quant::ranges::Ranges;
use qpipe_worker::train::{Classifier, Fit, Watch};
use serde_json::json;
use tch::{Kind, Tensor};

use crate::formats::formats;
use crate::python::project;
use crate::quant::small_resnet;

/// Images of the comparison.
const IMAGES: usize = 2000;

/// Keys of `weights` and `activations`.
const ROWS: &[(&str, &str)] = &[
    ("", ""),
    ("", "'symmetric': false"),
    ("", "'type': 'float8e4m3fn'"),
    ("'granularity': 'per-tensor'", ""),
    ("'symmetric': false", ""),
    ("'type': 'int4'", ""),
    ("'type': 'int4', 'granularity': 'per-block', 'block_size': 16", ""),
    ("'type': 'float8e4m3fn'", "'type': 'float8e4m3fn'"),
    ("", "'type': 'float'"),
    ("'symmetric': false", "'type': 'float'"),
    ("'granularity': 'per-tensor'", "'type': 'float'"),
    ("'granularity': 'per-block', 'block_size': 16", "'type': 'float'"),
    ("'type': 'int4', 'granularity': 'per-tensor'", "'type': 'float'"),
    ("'type': 'int4'", "'type': 'float'"),
    ("'type': 'int4', 'symmetric': false", "'type': 'float'"),
    ("'type': 'int4', 'granularity': 'per-block', 'block_size': 32", "'type': 'float'"),
    ("'type': 'int4', 'granularity': 'per-block', 'block_size': 16", "'type': 'float'"),
    (
        "'type': 'int4', 'granularity': 'per-block', 'block_size': 16, 'symmetric': false",
        "'type': 'float'",
    ),
    ("'type': 'float8e4m3fn', 'granularity': 'per-tensor'", "'type': 'float'"),
    ("'type': 'float8e4m3fn'", "'type': 'float'"),
];

fn fashion_mnist(set: &str, limit: usize) -> Dataset {
    let folder = project().join(".deps/data/fashion-mnist");
    let name = |kind: &str| folder.join(format!("{set}-{kind}-ubyte.gz"));
    let classes: Vec<String> = (0..10).map(|class| class.to_string()).collect();
    let spec = json!({
        "format": "idx", "path": name("images-idx3"), "classes": classes, "limit": limit,
        "transform": [{ "normalize": { "mean": [0.286], "std": [0.353] } }],
    });
    let spec: DataSpec = serde_json::from_value(spec).unwrap();
    let paths = [("path", "images-idx3"), ("labels", "labels-idx1")];
    Dataset::open(&spec, &BTreeMap::from(paths.map(|(port, kind)| (port.to_owned(), name(kind)))))
        .unwrap()
}

struct Silent;

impl Watch for Silent {
    fn progress(&mut self, _: u64, _: u64, _: &str) {}

    fn log(&mut self, _: String) {}
}

fn train(model: &Model, train: &Dataset, valid: &Dataset, epochs: u32, lr: f64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let fit = Fit {
        train,
        valid,
        epochs,
        batch_size: 128,
        accumulate: 1,
        optimizer: Optimizer::Sgd { lr, momentum: 0.9, weight_decay: 5e-4, nesterov: true },
        schedule: Schedule::OneCycle { rise: 0.3 },
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
        epoch_zero: false,
        seed: 1,
        threads: 1,
        checkpoints: folder.path(),
    };
    let mut classifier = Classifier::with(model.clone(), train, &Options::default()).unwrap();
    fit.run(&mut classifier, None, &mut Silent).unwrap();
    classifier.program.write_back(&mut classifier.model).unwrap();
    classifier.model
}

fn logits(model: &Model, images: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let mut program = Program::compile(model, &Options::default()).unwrap();
    program.forward(&[images.shallow_clone()], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
}

/// SQNR of the logits in decibels, the share of images with the float model's class, top-1.
fn figures(found: &Tensor, float: &Tensor, labels: &Tensor) -> [f64; 3] {
    let power = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]);
    let class = |x: &Tensor| x.argmax(1, false);
    let share = |same: Tensor| same.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    [
        10.0 * (power(float) / power(&(found - float))).log10(),
        100.0 * share(class(found).eq_tensor(&class(float))),
        100.0 * share(class(found).eq_tensor(labels)),
    ]
}

fn ranges(model: &Model, dataset: &Dataset) -> Ranges {
    let options = calibrate::Options {
        samples: 512,
        batch_size: 64,
        methods: vec![Method::Mse],
        best_samples: 1,
        bins: 2048,
        percentile: 99.99,
        histogram: Histogram::Exact,
        seed: 1,
        threads: 1,
        on_device: false,
    };
    calibrate(model, dataset, &options, &|_, _| ()).unwrap().ranges
}

#[test]
#[ignore = "trains for minutes; docs/formats.md has its figures"]
fn of_a_small_resnet() {
    assert!(Path::new(&project()).join(".deps/data").is_dir(), "run `make deps-test` first");
    let (train_set, valid) = (fashion_mnist("train", 20_000), fashion_mnist("t10k", IMAGES));
    let mut float = train(&small_resnet(), &train_set, &valid, 2, 0.2);
    prepare(&mut float).unwrap();
    let ranges = ranges(&float, &train_set);
    let batch = Loader::new(&valid, IMAGES, Order::Sequential, false, 1).next().unwrap().unwrap();
    let expected = logits(&float, &batch.images);
    let show = |what: &str, model: &Model| {
        let [sqnr, same, top1] = figures(&logits(model, &batch.images), &expected, &batch.labels);
        println!("| {what} | {sqnr:.1} dB | {same:.2} % | {top1:.2} % |");
        sqnr
    };
    println!("FP32: {:.2} %", figures(&expected, &expected, &batch.labels)[2]);
    for &(weights, activations) in ROWS {
        let formats = formats((Target::Onnxruntime, weights, activations));
        let request = Request {
            target: Target::Onnxruntime,
            method: Method::Mse,
            include: None,
            exclude: &[],
            formats,
        };
        let plan = plan(&float.graph, &ranges, &request).unwrap();
        let mut model = float.clone();
        insert(&mut model, &plan).unwrap();
        let what = format!("{weights} | {activations}");
        let before = show(&what, &model);
        if weights != "'type': 'int4'" {
            continue;
        }
        let adaround = Adaround {
            unit: Unit::Layer,
            drop: 0.0,
            iterations: 300,
            lr: 0.05,
            batch_size: 32,
            regularization: 0.01,
            beta: [20.0, 2.0],
            warm_up: 0.2,
        };
        let options = Ladder {
            samples: 256,
            batch_size: 64,
            bias_correction: true,
            adaround: Some(adaround),
            seed: 1,
            threads: 1,
        };
        let (rounded, _) = reconstruct(model.clone(), &train_set, &options, &|_, _, _| ()).unwrap();
        assert!(show(&format!("{what}, AdaRound"), &rounded) > before + 3.0);
        show(&format!("{what}, QAT"), &train(&model, &train_set, &valid, 1, 0.005));
    }
}
