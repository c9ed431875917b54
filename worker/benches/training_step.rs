//! The training loop on synthetic images: float training, and fine-tuning, of a network with 3×224×224 inputs and 1000
//! classes. `cargo bench -p qpipe-worker --bench training_step -- resnet50 64 fp16` (network; batch; `fp32`, `fp16` or `bf16`; `frozen` scales
//! or `learned` ones; `tried`: cuDNN tries its algorithms), and beside it `benches/training_step.py` with the first three words.
//!
//! What is timed is the loop of `train` and `finetune` itself, loader included: the difference of a run of many steps and one of few, so
//! that start, validation and checkpoint fall out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use qpipe::stages::calibrate::{Histogram, Method};
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::training::{Optimizer, Schedule};
use qpipe_worker::data::Dataset;
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Options, Scales};
use qpipe_worker::quant::calibrate::{self, calibrate};
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::torch::Half;
use qpipe_worker::train::{Classifier, Fit, Watch};
use qpipe_worker::zoo;

const SIDE: u32 = 224;
const CLASSES: usize = 1000;
/// Steps of the short and the long run on a GPU, and on a CPU.
const STEPS: [(u64, u64); 2] = [(20, 140), (2, 6)];
const ROUNDS: usize = 3;

struct Silent;

impl Watch for Silent {
    fn progress(&mut self, _: u64, _: u64, _: &str) {}

    fn log(&mut self, _: String) {}
}

/// `count` images of noise in the MNIST format, read as RGB.
fn dataset(folder: &Path, count: usize) -> Dataset {
    let header = |kind: u8, extents: &[u32]| {
        let mut bytes = vec![0, 0, 8, kind];
        extents.iter().for_each(|extent| bytes.extend(extent.to_be_bytes()));
        bytes
    };
    let mut images = header(3, &[count as u32, SIDE, SIDE]);
    let mut state = 1_u32;
    images.extend((0..count * (SIDE * SIDE) as usize).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    let mut labels = header(1, &[count as u32]);
    labels.extend((0..count).map(|index| (index * 7 % 256) as u8));
    let paths = ["path", "labels"].map(|port| (port.to_owned(), folder.join(port)));
    for ((_, path), bytes) in paths.iter().zip([images, labels]) {
        std::fs::write(path, bytes).expect("writes");
    }
    let spec = serde_json::json!({
        "format": "idx", "path": "@input", "labels": "@input", "color": "rgb",
        "transform": [{ "normalize": { "mean": [0.5], "std": [0.25] } }],
    });
    let spec = serde_json::from_value(spec).expect("a data set");
    Dataset::open(&spec, &BTreeMap::from(paths)).expect("opens")
}

fn quantized(mut model: Model, dataset: &Dataset) -> Model {
    prepare(&mut model).expect("prepares");
    let options = calibrate::Options {
        samples: 64,
        batch_size: 32,
        methods: vec![Method::Max],
        best_samples: 1,
        bins: 2048,
        percentile: 99.99,
        histogram: Histogram::Exact,
        seed: 1,
        threads: 2,
        on_device: qpipe_worker::torch::device() != tch::Device::Cpu,
    };
    let ranges = calibrate(&model, dataset, &options, &|_, _| ()).expect("calibrates").ranges;
    let request = Request {
        target: Target::Tensorrt,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::default(),
    };
    let plan = plan(&model.graph, &ranges, &request).expect("plans");
    insert(&mut model, &plan).expect("inserts");
    model
}

/// Seconds of a training of so many steps.
fn seconds(
    (model, cuda_graph, cudnn_benchmark, options): (&Model, bool, Option<bool>, &Options),
    data: &[Dataset; 2],
    batch: usize,
    amp: Option<Half>,
    steps: u64,
) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let [train, valid] = data;
    let mut classifier = Classifier::with(model.clone(), train, options).expect("compiles");
    let fit = Fit {
        train,
        valid,
        epochs: 1,
        batch_size: batch,
        accumulate: 1,
        optimizer: Optimizer::Sgd { lr: 1e-4, momentum: 0.9, weight_decay: 1e-4, nesterov: false },
        schedule: Schedule::Constant {},
        label_smoothing: 0.0,
        class_weights: &[],
        average: None,
        best_by: Default::default(),
        early_stop: None,
        clip_norm: None,
        amp,
        cuda_graph,
        cudnn_benchmark,
        scale_ema: None,
        watched: &[],
        max_steps: Some(steps),
        epoch_zero: false,
        seed: 1,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        checkpoints: folder.path(),
    };
    let start = Instant::now();
    fit.run(&mut classifier, None, &mut Silent).expect("trains");
    start.elapsed().as_secs_f64()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let word =
        |index: usize, default: &str| words.get(index).map_or(default, String::as_str).to_owned();
    let (network, batch) = (word(0, "resnet50"), word(1, "64").parse().expect("a batch size"));
    let amp = match word(2, "fp16").as_str() {
        "fp32" => None,
        "fp16" => Some(Half::Float16),
        "bf16" => Some(Half::Bfloat16),
        other => panic!("`{other}`: expected fp32, fp16 or bf16"),
    };
    let cudnn_benchmark = match word(4, "auto").as_str() {
        "auto" => None,
        "tried" => Some(true),
        other => panic!("`{other}`: expected auto or tried"),
    };
    let scales = match word(3, "frozen").as_str() {
        "frozen" => Scales::Frozen,
        "learned" => Scales::Learned,
        other => panic!("`{other}`: expected frozen or learned"),
    };
    qpipe_worker::torch::open_cuda();
    let device = qpipe_worker::torch::open_device("auto").expect("a device");
    let (few, many) = STEPS[usize::from(device == tch::Device::Cpu)];
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let counts = [batch * many as usize, batch];
    let data = [0, 1].map(|index| dataset(folders[index].path(), counts[index]));
    let config = serde_json::json!({ "arch": network, "classes": CLASSES, "image_size": SIDE });
    let config = serde_json::from_value(config).expect("a network of the zoo");
    let float = zoo::build(&config, None, 1).expect("builds");
    let quantized = quantized(float.clone(), &data[1]);
    let options = [Scales::Frozen, scales].map(|scales| Options { scales, ..Options::default() });
    let kinds = [&float, &quantized].into_iter().zip(&options);
    // As the stages train, and on a GPU also without CUDA graphs.
    let modes: &[bool] = if device == tch::Device::Cpu { &[true] } else { &[true, false] };
    let mut rates = vec![[Vec::new(), Vec::new()]; modes.len()];
    for _ in 0..ROUNDS {
        for (&cuda_graph, rates) in modes.iter().zip(&mut rates) {
            for ((model, options), rates) in kinds.clone().zip(rates) {
                let what = (model, cuda_graph, cudnn_benchmark, options);
                let [short, long] =
                    [few, many].map(|steps| seconds(what, &data, batch, amp, steps));
                rates.push(batch as f64 * (many - few) as f64 / (long - short));
            }
        }
    }
    println!(
        "{network}, batch {batch}, {}, {} scales, {device:?}: images a second",
        word(2, "fp16"),
        word(3, "frozen")
    );
    for (&cuda_graph, rates) in modes.iter().zip(rates) {
        let [float, quantized] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[ROUNDS / 2]
        });
        let how = if cuda_graph { "" } else { "   kernels launched one by one" };
        let ratio = quantized / float;
        println!("float training {float:.1}   fine-tuning {quantized:.1}   ratio {ratio:.2}{how}");
    }
}
