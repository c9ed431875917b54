//! TensorRT-RTX: real TensorRT engines from Q/DQ graphs, built without a GPU.
//!
//! <https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/>. It takes int8 with zero point 0 only, no int32 bias and no
//! uint8: the placement `tensorrt`. Building for a compute capability that is not this machine's works;
//! running an engine needs such a GPU and is not done here.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use trtx::logger::{LogHandler, Severity};
use trtx::trtx_sys::nvinfer1::Dims64;
use trtx::{Builder, Logger, OnnxParser};

use qpipe::stages::build_engine::{Precision, compute_capabilities};

use super::tensorrt::typed::{self, Typed};
use super::{Build, Built, Engine, Layer, Note, Threads, Told, library, rtx_types};
use crate::{Error, Result};

const FILE: &str = "model.engine";
/// Beside it: what the builder logs of each layer, with types and shapes of what it reads and writes.
const LAYERS: &str = "layers.log";

/// Compute capability where the pipeline names none: Ada, the RTX 40 series.
const DEFAULT_CAPABILITY: u32 = 89;

/// What the builder said: its errors, and its layers.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    errors: Vec<String>,
    layers: Vec<Layer>,
    /// The lines that say so, as they came.
    details: String,
}

impl LogHandler for Log {
    fn log(&self, severity: Severity, message: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if severity <= Severity::Error {
            lines.errors.push(message.to_owned());
        }
        for line in message.lines() {
            if let Some(layer) = layer(line) {
                lines.layers.push(layer);
                lines.details.extend([line.trim(), "\n"]);
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
    let broken = |path: &Path, error: trtx::Error| {
        Error::machine(format!("{}: {error}", path.display()))
            .help("`make deps-tensorrt-rtx` fetches the libraries that this was built for")
    };
    trtx::dynamically_load_tensorrt(Some(&path)).map_err(|error| broken(&path, error))?;
    trtx::dynamically_load_tensorrt_onnxparser(Some(&parser))
        .map_err(|error| broken(&parser, error))?;
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
    let note = Note::of(request.model, "tensorrt-rtx", runtime, FILE)?;
    let log = Log::default();
    let refused = |what: &str, error: trtx::Error| {
        let lines = log.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The last line is the consequence, the first the cause.
        let cause = lines.errors.first().cloned().unwrap_or_else(|| error.to_string());
        Error::user(format!("TensorRT-RTX {what}: {cause}")).help(
            "it takes Q/DQ pairs placed for TensorRT: insert-qdq with target = \"tensorrt-rtx\"",
        )
    };
    let machine = |error: trtx::Error| Error::machine(format!("TensorRT-RTX: {error}"));
    let logger = Logger::new(log.clone()).map_err(machine)?;
    let mut builder = Builder::new(&logger).map_err(machine)?;
    let network = builder.create_network(0).map_err(machine)?;
    let mut config = builder.create_config().map_err(machine)?;
    config.set_profiling_verbosity(trtx::ProfilingVerbosity::kDETAILED);
    config.set_nb_compute_capabilities(1).map_err(machine)?;
    config.set_compute_capability(capability(wanted)?, 0).map_err(machine)?;
    if note.batch.is_none() {
        let [channels, height, width] = note.input.map(|extent| extent as i64);
        let shape = |batch: u32| Dims64::from_slice(&[i64::from(batch), channels, height, width]);
        let mut profile = builder.creata_optimization_profile().map_err(machine)?;
        use trtx::OptProfileSelector::{kMAX, kMIN, kOPT};
        for (batch, selector) in [(1, kMIN), (request.batch, kOPT), (request.batch, kMAX)] {
            profile.set_dimensions(&note.input_name, selector, &shape(batch)).map_err(machine)?;
        }
        config.add_optimization_profile(&mut profile).map_err(machine)?;
    }
    let mut parser = OnnxParser::new(network, &logger).map_err(machine)?;
    let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, &error))?;
    parser.parse(&bytes).map_err(|error| refused("cannot read the model", error))?;
    let engine = builder
        .build_serialized_network(parser.network_mut(), &mut config)
        .map_err(|error| refused("cannot build the model", error))?;
    let path = request.folder.join(FILE);
    std::fs::write(&path, engine.as_ref()).map_err(|error| Error::io(&path, &error))?;
    let lines = std::mem::take(&mut *log.0.lock().unwrap_or_else(PoisonError::into_inner));
    let path = request.folder.join(LAYERS);
    std::fs::write(&path, lines.details).map_err(|error| Error::io(&path, &error))?;
    Ok(Built { note, layers: lines.layers, metrics: qpipe::stages::contract::Metrics::new() })
}

fn capability(number: u32) -> Result<trtx::ComputeCapability> {
    use trtx::ComputeCapability as C;
    match number {
        75 => Ok(C::kSM75),
        80 => Ok(C::kSM80),
        86 => Ok(C::kSM86),
        89 => Ok(C::kSM89),
        120 => Ok(C::kSM120),
        _ => {
            Err(Error::user(format!("TensorRT-RTX does not build for compute capability {number}"))
                .help(format!("expected {}", compute_capabilities())))
        }
    }
}

/// Refuses: an engine needs a GPU that TensorRT-RTX runs on.
pub fn load(_: &Path, note: &Note, _: &Threads) -> Result<Box<dyn Engine>> {
    Err(Error::machine(format!("engines of {} are built here, not run", note.backend)).help(
        "evaluate and benchmark the onnxruntime engine, or run the file with NVIDIA's tensorrt_rtx program on an RTX GPU",
    ))
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
