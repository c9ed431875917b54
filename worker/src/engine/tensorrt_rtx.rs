//! TensorRT-RTX: real TensorRT engines from Q/DQ graphs, built without a GPU, and run where there is one that it supports.
//!
//! <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/>. It takes int8 with zero point 0 only, no int32 bias and no
//! uint8: the placement `tensorrt`. Building for a compute capability that is not this machine's works.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qpipe::stages::build_engine::{Precision, compute_capabilities};
use qpipe::stages::contract::Metrics;
use qpipe_tensorrt::options::{Options, Shape};
use qpipe_tensorrt::{ComputeCapability, Listener, Plan, Protocol, Session, Severity};

use super::tensorrt::typed::{self, Typed};
use super::tensorrt::{self, Times};
use super::{Build, Built, Engine, Layer, Note, Threads, Timing, Told, library, rtx_types};
use crate::bench::{self, Latency};
use crate::{Error, Result};

const NAME: &str = "tensorrt-rtx";
const FILE: &str = "model.engine";
/// Beside it: what the builder logs of each layer, with types and shapes of what it reads and writes.
const LAYERS: &str = "layers.log";

/// Compute capability where the pipeline names none: Ada, the RTX 40 series.
const DEFAULT_CAPABILITY: u32 = 89;

/// The layers that the builder told.
#[derive(Default)]
struct Lines {
    layers: Vec<Layer>,
    /// The lines that say so, as they came.
    details: String,
}

impl Lines {
    fn add(&mut self, message: &str) {
        for line in message.lines() {
            if let Some(layer) = layer(line) {
                self.layers.push(layer);
                self.details.extend([line.trim(), "\n"]);
            }
        }
    }
}

/// A line of the layer information that the builder logs at detailed verbosity:
/// `Name: conv1, LayerType: correlation, Inputs: [ { Name: …, Datatype: Int8, … }], …`. A layer computes in the type of
/// its first input; waits and signals compute nothing.
fn layer(line: &str) -> Option<Layer> {
    let (name, rest) = line.trim().strip_prefix("Name: ")?.split_once(", LayerType: ")?;
    let (kind, rest) = rest.split_once(", Inputs: ")?;
    if ["wait", "signal"].contains(&kind) {
        return None;
    }
    let word = rest.split_once("Datatype: ").and_then(|(_, rest)| rest.split([',', ' ']).next());
    let precision = match word {
        Some("Int8") => "int8",
        Some("Half") => "float16",
        Some("Float") | None => "float32",
        Some(other) => other,
    };
    Some(Layer {
        name: name.to_owned(),
        kind: kind.to_owned(),
        precision: precision.to_lowercase(),
    })
}

/// Loads the two libraries, once in this process.
fn load_libraries() -> Result<String> {
    let path = library::tensorrt_rtx()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name.split(".so.").nth(1).unwrap_or_default().to_owned();
    let parser = path.with_file_name(name.replace("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"));
    let opened = qpipe_tensorrt::open(&path).and_then(|()| qpipe_tensorrt::open_parser(&parser));
    opened.map_err(|error| {
        Error::machine(error.to_string())
            .help("`make deps-tensorrt-rtx` fetches the libraries that this was built for")
    })?;
    Ok(version)
}

/// One build at a time: the library has one list of GPUs to build for, and a build beside one for another GPU fails ("Target SM 80 is not found in the
/// accelerator list") or has the other one's layers.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds a serialized engine.
pub fn build(request: &Build) -> Result<Built> {
    let _alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = request.compute_capability.unwrap_or(DEFAULT_CAPABILITY);
    for unmet in rtx_types::unmet(&request.model.graph, wanted) {
        (request.tell)(Told::Warning(unmet));
    }
    let runtime = load_libraries()?;
    // It is strongly typed: what shall be FP16 is so in the file.
    let typed = match request.precision {
        Some(Precision::Int8 | Precision::Fp16) => Some(typed::cast(request)?),
        _ => None,
    };
    let path = typed.as_ref().map_or_else(|| request.path.to_owned(), Typed::path);
    let note = Note::of(request.model, NAME, runtime, FILE)?;
    let free = note.batch.is_none();
    let profile = [1, request.batch, request.batch].map(|batch| {
        let shape = || shape(&note, batch as usize);
        free.then(shape).into_iter().collect()
    });
    let options = Options { detailed: true, ..Options::default() };
    let capability = Some(capability(wanted)?);
    let plan = Plan { onnx: &path, profile, options: &options, compute_capability: capability };
    let lines = Arc::new(Mutex::new(Lines::default()));
    let listener: Listener = {
        let lines = Arc::clone(&lines);
        Arc::new(move |_, message| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).add(message);
        })
    };
    let engine = qpipe_tensorrt::build(&plan, listener).map_err(|error| {
        told(&error).help(
            "it takes Q/DQ pairs placed for TensorRT: insert-qdq with target = \"tensorrt-rtx\"",
        )
    })?;
    let path = request.folder.join(FILE);
    std::fs::write(&path, &engine).map_err(|error| Error::io(&path, &error))?;
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    let path = request.folder.join(LAYERS);
    std::fs::write(&path, lines.details).map_err(|error| Error::io(&path, &error))?;
    Ok(Built { note, layers: lines.layers, metrics: Metrics::new() })
}

/// An error of the library: the model or the engine is at fault where it refuses one, else the machine.
fn told(error: &qpipe_tensorrt::Error) -> Error {
    match error {
        qpipe_tensorrt::Error::Refused { .. } => Error::user(format!("TensorRT-RTX {error}")),
        qpipe_tensorrt::Error::Input(_) => Error::user(format!("TensorRT-RTX: {error}")),
        _ => Error::machine(format!("TensorRT-RTX: {error}")),
    }
}

/// Name and extents of the input at a batch size.
fn shape(note: &Note, batch: usize) -> Shape {
    let extents = [batch, note.input[0], note.input[1], note.input[2]];
    (note.input_name.clone(), extents.map(|extent| extent as i64).to_vec())
}

fn capability(number: u32) -> Result<ComputeCapability> {
    qpipe_tensorrt::capability(number).ok_or_else(|| {
        Error::user(format!("TensorRT-RTX does not build for compute capability {number}"))
            .help(format!("expected {}", compute_capabilities()))
    })
}

/// An engine in this process, on the first visible GPU.
struct InProcess {
    session: Session,
    note: Note,
    /// Batch whose shapes are set.
    batch: Option<usize>,
}

impl InProcess {
    fn open(folder: &Path, note: &Note) -> Result<Self> {
        load_libraries()?;
        // Its errors come back with what fails.
        let listener: Listener = Arc::new(|_: Severity, _: &str| ());
        let session = Session::open(&folder.join(&note.file), listener).map_err(|error| {
            told(&error).help(format!(
                "an engine of {NAME} runs on a GPU of the compute capability that it was built for ({}); evaluate and benchmark the onnxruntime engine of the same model elsewhere",
                compute_capabilities()
            ))
        })?;
        Ok(Self { session, note: note.clone(), batch: None })
    }

    fn set(&mut self, images: &[f32], batch: usize) -> Result<()> {
        if self.batch != Some(batch) {
            self.batch = None;
            let fixed = self.note.batch.is_some();
            let shapes: Vec<Shape> =
                if fixed { Vec::new() } else { vec![shape(&self.note, batch)] };
            self.session.set_shapes(&shapes).map_err(|error| told(&error))?;
            self.batch = Some(batch);
        }
        self.session.set_values(&self.note.input_name, images).map_err(|error| told(&error))
    }
}

impl Engine for InProcess {
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>> {
        self.set(images, batch)?;
        let mut outputs = self.session.run().map_err(|error| told(&error))?;
        let values = self.note.outputs().into_iter().map(|(name, _)| {
            let found = outputs.iter_mut().find(|output| output.name == name);
            let found =
                found.ok_or_else(|| Error::bug(format!("the engine has no output `{name}`")))?;
            Ok(std::mem::take(&mut found.values))
        });
        values.collect()
    }
}

/// Loads an engine, to be run.
pub fn load(folder: &Path, note: &Note, _: &Threads) -> Result<Box<dyn Engine>> {
    Ok(Box::new(InProcess::open(folder, note)?))
}

/// Times an engine on its GPU, in the parts that TensorRT's own program tells.
pub fn time(timing: &Timing) -> Result<Metrics> {
    let mut engine = InProcess::open(timing.folder, timing.note)?;
    let device = tensorrt::used()?;
    let before = tensorrt::state(&device);
    let protocol = Protocol {
        warm_up: Duration::from_millis(u64::from(timing.warmup_ms)),
        iterations: timing.protocol.iterations,
        duration: Duration::from_secs_f64(timing.protocol.seconds),
        cuda_graph: timing.cuda_graph,
        transfers: true,
    };
    let (mut batches, advice) = (Vec::new(), Mutex::new(Vec::new()));
    for (index, &batch) in timing.batches.iter().enumerate() {
        timing.begin(index);
        let images = bench::noise(batch * timing.note.input.iter().product::<usize>());
        engine.set(&images, batch)?;
        let warn = |words: &str| {
            let mut advice = advice.lock().unwrap_or_else(PoisonError::into_inner);
            advice.push(format!("batch {batch}: {words}"));
        };
        let queries = engine.session.time(&protocol, &warn).map_err(|error| told(&error))?;
        let of = |part: fn(&qpipe_tensorrt::files::Query) -> f64| {
            Latency::of(&queries.iter().map(part).collect::<Vec<f64>>())
        };
        let times = Times {
            iterations: queries.len(),
            latency_ms: of(|query| query.latency_ms),
            h2d_ms: of(|query| query.h2d_ms),
            compute_ms: of(|query| query.compute_ms),
            d2h_ms: of(|query| query.d2h_ms),
        };
        let throughput = batch as f64 / times.compute_ms.median * 1e3;
        batches.push(tensorrt::Timed { batch, times, throughput, trtexec_throughput: None });
    }
    let advice = advice.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(tensorrt::figures(timing, &timing.note.runtime, &device, before, &batches, &advice))
}

#[cfg(test)]
mod tests {
    use qpipe::stages::build_engine::COMPUTE_CAPABILITIES;

    use super::*;

    #[test]
    fn the_library_has_a_word_for_each_compute_capability_that_is_offered() {
        for number in COMPUTE_CAPABILITIES {
            assert!(capability(number).is_ok(), "{number}");
        }
        let error = capability(90).unwrap_err();
        assert_eq!(error.help.as_deref(), Some("expected 75, 80, 86, 89 or 120"));
    }

    /// As TensorRT-RTX 1.7 logs it, shortened.
    #[test]
    fn layers_are_read_from_the_log() {
        let conv = "Name: layer2.0.conv2_myl0_10, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [8,64,7,7], \
                    StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) }], Constants: [ { Name: b, Datatype: Float }]";
        let expected = Layer {
            name: "layer2.0.conv2_myl0_10".to_owned(),
            kind: "correlation".to_owned(),
            precision: "int8".to_owned(),
        };
        assert_eq!(layer(conv), Some(expected));
        assert_eq!(layer("Name: w, LayerType: wait, Inputs: [], Constants: []"), None);
        assert_eq!(layer(" Name: input, IOMode: Input, DataType: Float"), None);
    }
}
