//! What only a GPU shows: `cargo test -p qpipe-worker --test it gpu:: -- --ignored --test-threads 1`.

use std::path::Path;

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe::stages::finetune::{Distillation, ScaleEma};
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::training::Optimizer;
use qpipe_worker::data::Dataset;
use qpipe_worker::graph::{Attribute, Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program, Scales};
use qpipe_worker::quant::calibrate;
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::torch::{self, Half, LearnedScale};
use qpipe_worker::train::{Classifier, Epoch, Fit, Teacher, Watch};
use tch::{Device, Kind, Tensor};

use crate::engines::{logits, network};
use crate::finetuning::{bytes, fit, quantized, quantized_values};
use crate::quant::{dataset, options, small_resnet, small_resnet_of};

/// The last of the GPUs: where there are several, all of it works on another one than CUDA's current one, which is the first.
fn open() -> Device {
    torch::open_cuda();
    let last = torch::gpus().checked_sub(1).expect("these tests need a GPU");
    assert_ne!(torch::gpu_name(last), None);
    torch::open_device(&format!("cuda:{last}")).unwrap()
}

struct Lines(Vec<String>);

impl Watch for Lines {
    fn progress(&mut self, _: u64, _: u64, _: &str) {}

    fn log(&mut self, message: String) {
        self.0.push(message);
    }
}

struct Trained {
    history: Vec<Epoch>,
    constants: Vec<(String, Vec<u8>)>,
    log: Vec<String>,
}

fn train(fit: &Fit, model: &Model, options: &Options, teacher: Option<&Model>) -> Trained {
    let mut classifier = Classifier::with(model.clone(), fit.train, options).unwrap();
    let mut teacher = teacher.map(|teacher| {
        let own = Classifier::with(teacher.clone(), fit.train, &Options::default()).unwrap();
        let settings = Distillation {
            labels: 0.5,
            logits: 1.0,
            features: 0.0,
            temperature: 2.0,
            layers: Vec::new(),
        };
        Teacher { settings, program: own.program, layers: Vec::new() }
    });
    let mut log = Lines(Vec::new());
    let fitted = fit.run(&mut classifier, teacher.as_mut(), &mut log).unwrap();
    classifier.program.write_back(&mut classifier.model).unwrap();
    let constants = bytes(&classifier.model);
    Trained { history: fitted.history, constants, log: log.0 }
}

/// 256 images in batches of 60: the last of an epoch is a smaller one, which no graph was recorded for.
fn settings<'a>(dataset: &'a Dataset, checkpoints: &'a Path) -> Fit<'a> {
    Fit { batch_size: 60, epochs: 2, epoch_zero: false, ..fit(dataset, checkpoints) }
}

/// The same bits as kernels that are launched one by one give, whatever takes part. What waits for the GPU is not recorded: libtorch
/// asks zero points of channels that are not 0 for their range.
#[test]
#[ignore = "needs a GPU"]
fn recorded_passes_train_as_those_launched_kernel_by_kernel() {
    open();
    torch::deterministic(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let (float, model) = quantized(&dataset, Target::Tensorrt);
    let unfolded = small_resnet();
    let shifted = with_zero_points(model.clone());
    let learned = Options { scales: Scales::Learned, ..Options::default() };
    let followed =
        Options { scales: Scales::Followed, watch: quantized_values(&model), ..Options::default() };
    let plain = Options::default;
    type Case<'a> = (&'a str, &'a Model, Options, Option<&'a Model>, Option<Half>, usize);
    let cases: [Case; 9] = [
        ("batch normalization", &unfolded, plain(), None, None, 1),
        ("frozen scales", &model, plain(), None, None, 1),
        ("fp16", &model, plain(), None, Some(Half::Float16), 1),
        ("bf16, accumulated", &model, plain(), None, Some(Half::Bfloat16), 2),
        ("a teacher", &model, plain(), Some(&float), None, 1),
        ("learned scales", &model, learned.clone(), None, None, 1),
        ("learned scales, fp16", &model, learned, None, Some(Half::Float16), 1),
        ("followed scales", &model, followed, None, None, 1),
        ("zero points of channels", &shifted, plain(), None, None, 1),
    ];
    for (name, model, options, teacher, amp, accumulate) in cases {
        let follows = options.scales == Scales::Followed;
        let run = |cuda_graph: bool| {
            let checkpoints = tempfile::tempdir().unwrap();
            let own = settings(&dataset, checkpoints.path());
            let scale_ema = follows.then_some(ScaleEma { momentum: 0.9, until: 0.6 });
            let watched = &options.watch;
            let fit = Fit { cuda_graph, amp, accumulate, scale_ema, watched, ..own };
            train(&fit, model, &options, teacher)
        };
        let (launched, recorded) = (run(false), run(true));
        let told: Vec<&String> =
            recorded.log.iter().filter(|line| line.contains("CUDA graph")).collect();
        let waits = name == "zero points of channels";
        let expected = if waits { "not as a CUDA graph" } else { "was recorded" };
        assert!(matches!(told[..], [line] if line.contains(expected)), "{name}: {told:?}");
        assert!(launched.log.iter().all(|line| !line.contains("CUDA graph")), "{name}");
        assert_eq!(launched.history, recorded.history, "{name}");
        assert_eq!(launched.constants, recorded.constants, "{name}");
    }
    torch::deterministic(false).unwrap();
}

/// What an operator reads of a constant is read before it runs, so that a network with dropout is recorded; each pass draws what it would without a graph.
#[test]
#[ignore = "needs a GPU"]
fn dropout_is_recorded_and_draws_in_each_pass() {
    open();
    torch::deterministic(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let with_ratio = |ratio: f32| {
        let mut model = small_resnet();
        let graph = &mut model.graph;
        let last = graph.nodes.iter_mut().rev().find(|node| node.op_type == "Gemm").unwrap();
        let features = std::mem::replace(&mut last.inputs[0], "dropped".to_owned());
        graph.initializers.insert("ratio".to_owned(), TensorData::f32(&[], &[ratio]));
        let at = graph.nodes.iter().position(|node| node.op_type == "Gemm").unwrap();
        graph.nodes.insert(at, Node::new("drop", "Dropout", &[&features, "ratio"], &["dropped"]));
        model
    };
    let run = |ratio: f32, cuda_graph: bool| {
        let checkpoints = tempfile::tempdir().unwrap();
        // Weights stay: losses differ by what is dropped.
        let optimizer =
            Optimizer::Sgd { lr: 1e-30, momentum: 0.0, weight_decay: 0.0, nesterov: false };
        let fit = Fit { cuda_graph, optimizer, ..settings(&dataset, checkpoints.path()) };
        train(&fit, &with_ratio(ratio), &Options::default(), None)
    };
    let (recorded, again) = (run(0.5, true), run(0.5, true));
    let log = &recorded.log;
    assert!(log.iter().any(|line| line.contains("was recorded")), "{log:?}");
    assert_eq!(recorded.history, again.history);
    // Recording draws in the first epoch; each begins anew.
    let second = |trained: &Trained| trained.history[1].train_loss.unwrap();
    assert_eq!(second(&recorded), second(&run(0.5, false)));
    assert_ne!(second(&recorded), second(&run(0.0, true)));
    torch::deterministic(false).unwrap();
}

/// The zero points of channels are 1.
fn with_zero_points(mut model: Model) -> Model {
    let nodes = model.graph.nodes.iter();
    let pairs =
        nodes.filter(|node| ["QuantizeLinear", "DequantizeLinear"].contains(&&*node.op_type));
    let names: Vec<String> =
        pairs.filter_map(|node| node.input(2)).map(ToOwned::to_owned).collect();
    for name in names {
        let zero = model.graph.initializers.get_mut(&name).unwrap();
        if zero.len() > 1 {
            zero.bytes = vec![1; zero.len()].into();
        }
    }
    model
}

/// Values and gradients of learned scales in few kernels are those of the long way, for one scale and one for each channel; the gradients of
/// scales but for the order of their sums.
#[test]
#[ignore = "needs a GPU"]
fn learned_scales_are_the_same_in_few_kernels() {
    open();
    tch::manual_seed(5);
    let device = torch::device();
    let channels = vec![0.0371_f32, 0.02, 0.3, 0.1, 0.07];
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
        for (scales, axis) in [(vec![0.0371_f32], None), (channels.clone(), Some(1))] {
            for (zero, low, high) in [(0, -128, 127), (128, 0, 255)] {
                let x = Tensor::randn([2, 5, 7, 9], (Kind::Float, device)) * 3.0;
                let x = torch::channels_last(&x.to_kind(kind)).unwrap();
                let towards = x.randn_like();
                let run = |fused: bool| {
                    let x = x.detach().set_requires_grad(true);
                    let scale = Tensor::from_slice(&scales).to_device(device);
                    let scale = scale.set_requires_grad(true);
                    let zeros = scale.zeros_like().to_kind(Kind::Int) + zero;
                    let learned = LearnedScale {
                        scale: &scale,
                        zero_point: &zeros,
                        axis,
                        range: (low, high),
                        factor: 0.01,
                    };
                    let made = if fused && axis.is_none() {
                        torch::fused_learned_fake_quantize(&x, zero, &learned).unwrap()
                    } else if fused {
                        let x = x.to_kind(Kind::Float);
                        torch::fused_learned_fake_quantize(&x, zero, &learned)
                            .unwrap()
                            .to_kind(kind)
                    } else {
                        let x = x.to_kind(Kind::Float);
                        torch::learned_fake_quantize(&x, &learned).unwrap().to_kind(kind)
                    };
                    (&made * &towards).sum(Kind::Float).backward();
                    assert_eq!(made.kind(), kind);
                    ([made.detach(), x.grad()], scale.grad())
                };
                let (found, expected) = (run(true), run(false));
                assert_eq!(found.0, expected.0, "{kind:?}, {axis:?}, {zero}");
                // Each element of the gradient is rounded before they are added up: the errors add up as the elements' squares do, and not as
                // their sum, in which elements of both signs cancel.
                let unit = match kind {
                    Kind::Half => 2_f64.powi(-11),
                    Kind::BFloat16 => 2_f64.powi(-8),
                    _ => 2_f64.powi(-18),
                };
                let scale = match axis {
                    None => Tensor::from_slice(&scales),
                    Some(_) => Tensor::from_slice(&scales).view([1, -1, 1, 1]),
                };
                let exact = x.to_kind(Kind::Double) / scale.to_device(device).to_kind(Kind::Double);
                let rounded = exact.round().clamp(low - zero, high - zero);
                let inside = exact.round().eq_tensor(&rounded);
                let slope = &rounded - exact * inside.to_kind(Kind::Double);
                let squares = (slope * &towards * 0.01).square();
                let norm = match axis {
                    None => squares.sum(Kind::Double).sqrt().view([1]),
                    Some(_) => squares
                        .sum_dim_intlist([0_i64, 2, 3].as_slice(), false, Kind::Double)
                        .sqrt(),
                };
                let off = ((&found.1 - &expected.1).abs() / norm).max().double_value(&[]);
                assert!(
                    off < 4.0 * unit,
                    "{kind:?}, {axis:?}, {zero}: off by {off} of the elements' norm"
                );
            }
        }
    }
}

/// Counts and all that is computed of them, bit by bit: made by the GPU, and by the CPU of the same values.
#[test]
#[ignore = "needs a GPU"]
fn the_gpu_counts_as_the_cpu_does() {
    open();
    torch::deterministic(true).unwrap();
    torch::allow_tf32(false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).unwrap();
    let of = |on_device: bool| {
        let options = calibrate::Options { on_device, ..options(64, 2) };
        calibrate::calibrate(&model, &dataset, &options, &|_, _| ()).unwrap().ranges.to_bytes()
    };
    let counted = of(true);
    assert_eq!(counted, of(false));
    assert_eq!(counted, of(true));
    torch::deterministic(false).unwrap();
}

/// libtorch's engine on a GPU, of ONNX Runtime's logits on the CPU: FP32 to rounding, FP16 to its own.
#[test]
#[ignore = "needs a GPU"]
fn libtorchs_engine_on_a_gpu_gives_onnxruntimes_logits() {
    open();
    let folder = tempfile::tempdir().unwrap();
    let model = network();
    let logits = |backend, precision| logits(&model, folder.path(), backend, precision);
    let expected = logits(Backend::Onnxruntime, None);
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let precisions = [(Precision::Fp32, 1e-4), (Precision::Tf32, 1e-2), (Precision::Fp16, 1e-2)];
    for (precision, most) in precisions {
        let found = logits(Backend::Torch, Some(precision));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let off = (found - expected).abs() / largest;
            assert!(off < most, "{precision:?}: {found} and {expected}");
        }
    }
}

/// Depthwise layers with the channels last, whose kernels cuDNN would compile, compute what the CPU does.
#[test]
#[ignore = "needs a GPU"]
fn depthwise_convolutions_compute_what_the_cpu_does() {
    open();
    torch::allow_tf32(false).unwrap();
    let (channels, kernel) = (48, 3);
    let weight = Tensor::randn([channels, 1, kernel, kernel], (Kind::Float, Device::Cpu));
    let values = Vec::<f32>::try_from(weight.reshape([-1])).unwrap();
    let shape = |extents: [i64; 4]| extents.map(Dim::Fixed).to_vec();
    let mut graph = Graph::default();
    let conv = Node::new("conv", "Conv", &["x", "w"], &["y"])
        .with("group", Attribute::Int(channels))
        .with("pads", Attribute::Ints(vec![1; 4]));
    graph.nodes.push(conv);
    graph.initializers.insert("w".to_owned(), TensorData::f32(&weight.size(), &values));
    graph.inputs.push(ValueInfo::f32("x", shape([2, channels, 14, 14])));
    graph.outputs.push(ValueInfo::f32("y", shape([2, channels, 14, 14])));
    let mut program = Program::compile(&Model::new(graph, 17), &Options::default()).unwrap();
    let images = Tensor::randn([2, channels, 14, 14], (Kind::Float, Device::Cpu));
    let _no_grad = tch::no_grad_guard();
    let images_there = torch::channels_last(&images.to_device(torch::device())).unwrap();
    let found = program.forward(&[images_there], Mode::Eval, &mut |_, _| Ok(())).unwrap();
    let expected = images.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], channels);
    let off = (found[0].to_device(Device::Cpu) - &expected).abs().max().double_value(&[]);
    assert!(off < 1e-5 * expected.abs().max().double_value(&[]), "{off}");
}

/// A GPU that is full: the failure says what was wanted and what helps, and nothing of it stays.
#[test]
#[ignore = "needs a GPU"]
fn too_little_memory_is_told_with_sizes_and_a_remedy() {
    open();
    // The larger one needs hundreds of megabytes, more than what other streams keep of an earlier pass.
    let attempt = |side: usize| {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, model) = (dataset(folder.path(), side), small_resnet_of(side));
        let fit = settings(&dataset, folder.path());
        let mut classifier = Classifier::with(model, fit.train, &Options::default())?;
        fit.run(&mut classifier, None, &mut Lines(Vec::new())).map(drop)
    };
    attempt(28).unwrap();
    // What is left is taken in ever smaller pieces, also what libtorch has cached, small blocks apart from large ones.
    let mut taken = Vec::new();
    for bytes in [1 << 30, 1 << 26, 1 << 21, 1 << 19, 1 << 14, 1 << 9] {
        while let Ok(piece) = Tensor::f_empty([bytes], (Kind::Uint8, torch::device())) {
            taken.push(piece);
        }
    }
    let error =
        torch::explain(attempt(224).unwrap_err(), "train", &serde_json::json!({"batch_size": 60}));
    assert!(error.message.contains("has too little memory: "), "{error}");
    assert!(error.message.contains(" more were wanted; of its "), "{error}");
    assert!(error.help.as_ref().is_some_and(|help| help.contains("batch_size")), "{error:?}");
    drop(taken);
    attempt(224).unwrap();
}
