//! libtorch as an engine: the exported model, step by step or as a CUDA graph. What a user of PyTorch has without a compiler.

mod timing;

use std::path::Path;

use qpipe::stages::build_engine::Precision;
use qpipe::stages::contract::Metrics;
use tch::{Device, Kind, Tensor};

use super::table::layers_of_onnx;
use super::{Build, Built, Clock, Engine, Note, Threads};
use crate::graph::Model;
use crate::interp::{Mode, Options, Program};
use crate::torch::KernelSearch;
use crate::{Error, Result, onnx, passes, torch};

/// Its name in `engine.json`.
pub const NAME: &str = "torch";
const FILE: &str = "model.onnx";

/// Keeps the model's file, once it ran.
pub fn build(request: &Build) -> Result<Built> {
    let precision = request.precision.unwrap_or(Precision::Fp32);
    let mut note = Note::of(request.model, NAME, torch::loaded()?.1, FILE)?;
    note.precision = Some(precision);
    let mut network = Network::new(request.model, &note)?;
    let [channels, height, width] = note.input.map(|extent| extent as i64);
    let batch = note.batch.map_or(i64::from(request.batch), |batch| batch as i64);
    let images = Tensor::f_zeros([batch, channels, height, width], (Kind::Float, Device::Cpu))?;
    let _ = network.run(&network.place(&images)?)?;
    let path = request.folder.join(FILE);
    onnx::write(request.model, &path)?;
    let mut layers = layers_of_onnx(&path)?;
    for layer in &mut layers {
        layer.precision = match precision {
            Precision::Fp16 => "float16",
            Precision::Tf32 => "tf32",
            _ => "float32",
        }
        .to_owned();
    }
    Ok(Built { note, layers, metrics: Metrics::new() })
}

/// Keeps a model with more outputs, in the precision of another engine, which the request has.
pub fn show(request: &Build, _: &Note) -> Result<Note> {
    Ok(build(request)?.note)
}

/// Loads the model; its kernels run on the threads given, wherever the system puts them.
pub fn load(folder: &Path, note: &Note, threads: &Threads) -> Result<Box<dyn Engine>> {
    tch::set_num_threads(i32::try_from(threads.count()).unwrap_or(1));
    let mut network = Network::open(folder, note)?;
    // Threads of the pool start here: they would inherit the one processor that the caller pins itself to later.
    let rows = note.batch.unwrap_or(1);
    network.run_images(&vec![0.0; rows * note.input.iter().product::<usize>()], rows)?;
    Ok(Box::new(network))
}

/// On a GPU, copies and kernels are timed apart.
pub fn clock() -> Option<Clock> {
    (torch::device() != Device::Cpu).then_some(timing::time as Clock)
}

/// A model that runs where the process computes.
struct Network {
    program: Program,
    input: [i64; 3],
}

impl Network {
    fn open(folder: &Path, note: &Note) -> Result<Self> {
        Self::new(&onnx::read(&folder.join(&note.file))?, note)
    }

    fn new(model: &Model, note: &Note) -> Result<Self> {
        let precision = note.precision.unwrap_or(Precision::Fp32);
        torch::allow_tf32(precision == Precision::Tf32)?;
        // The fastest convolutions that cuDNN has.
        torch::deterministic(false)?;
        torch::search_kernels(KernelSearch::Tried)?;
        let input = note.input.map(|extent| extent as i64);
        let options = Options::default();
        if precision != Precision::Fp16 {
            return Ok(Self { program: Program::compile(model, &options)?, input });
        }
        if torch::device() == Device::Cpu {
            return Err(Error::machine("libtorch computes on the CPU here, where float16 is no faster")
                .help("run it where there is a GPU (`qpipe doctor` says what is missing), or use \"fp32\"")
                .key("precision"));
        }
        if let Some(node) = model.graph.nodes.iter().find(|node| node.op_type == "QuantizeLinear") {
            return Err(Error::user("precision = \"fp16\" of a model with Q/DQ pairs, which libtorch simulates in float32")
                .help("build the float model in fp16, or leave `precision` out")
                .key("precision")
                .at(node.place()));
        }
        let mut half = model.clone();
        passes::to_half(&mut half)?;
        Ok(Self { program: Program::compile(&half, &options)?, input })
    }

    /// Images where the network runs.
    fn place(&self, images: &Tensor) -> Result<Tensor> {
        torch::channels_last(&images.f_to_device(self.program.device())?)
    }

    /// The outputs of images that were placed, where it runs.
    fn run(&mut self, images: &Tensor) -> Result<Vec<Tensor>> {
        let _no_grad = tch::no_grad_guard();
        self.program.forward(&[images.shallow_clone()], Mode::Eval, &mut |_, _| Ok(()))
    }

    fn run_images(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>> {
        let [channels, height, width] = self.input;
        let images =
            Tensor::f_from_slice(images)?.f_view([batch as i64, channels, height, width])?;
        let made = self.run(&self.place(&images)?)?;
        let floats = made.iter().map(|output| {
            let output = output.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
            Ok(Vec::try_from(output.f_view([-1])?)?)
        });
        floats.collect()
    }
}

impl Engine for Network {
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>> {
        self.run_images(images, batch)
    }
}
