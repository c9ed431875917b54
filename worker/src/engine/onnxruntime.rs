//! ONNX Runtime on the CPU: the engine is the optimized model that it saves.
//!
//! <https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html>, "offline mode": at level
//! `all` the saved model is laid out for this processor's vector width, so it belongs to this machine.

use std::path::Path;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use qpipe::stages::contract::Metrics;
use serde_json::json;

use super::table::layers_of_onnx;
use super::{Build, Built, Engine, Note, Threads, Told, library, shared_weights, space_to_depth};
use crate::graph::{DType, Graph, Model, TensorData};
use crate::{Error, Result, onnx};

const FILE: &str = "model.onnx";

/// The one environment of this process, made by the first who needs it.
fn environment() -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let path = library::onnxruntime()?;
    let made = ENVIRONMENT.get_or_init(|| {
        let built = ort::init_from(&path).map_err(|error| error.to_string())?;
        built.build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|reason| {
        Error::machine(format!("{}: {reason}", path.display()))
            .help("`qpipe doctor` shows which library was found; 1.24 or later is needed")
    })
}

/// ONNX Runtime's text; the model is at fault unless the library could not be loaded at all.
pub(super) fn refused<T>(what: &str, error: ort::Error<T>) -> Error {
    Error::user(format!("ONNX Runtime {what}: {error}"))
}

pub(super) fn session(threads: &Threads, level: GraphOptimizationLevel) -> Result<SessionBuilder> {
    let option = |error: ort::Error<SessionBuilder>| refused("refuses an option", error);
    let builder = Session::builder(environment()?);
    let builder = builder.map_err(|error| refused("has no session", error))?;
    let builder = builder.with_intra_threads(threads.count()).map_err(option)?;
    let builder = match affinities(threads) {
        Some(places) => builder.with_config_entry(AFFINITIES, places).map_err(option)?,
        None => builder,
    };
    let builder = builder.with_inter_threads(1).map_err(option)?;
    // Warnings of the optimizer would be taken for the stage's.
    let builder = builder.with_log_level(LogLevel::Error).map_err(option)?;
    builder.with_optimization_level(level).map_err(option)
}

/// Processors of the threads of its pool, numbered from 1 (`onnxruntime_session_options_config_keys.h`).
const AFFINITIES: &str = "session.intra_op_thread_affinities";

/// The value of [`AFFINITIES`]: the calling thread is not of the pool.
fn affinities(threads: &Threads) -> Option<String> {
    let Threads::Pinned(cpus) = threads else { return None };
    let places: Vec<String> = cpus.iter().skip(1).map(|cpu| (cpu + 1).to_string()).collect();
    (!places.is_empty()).then(|| places.join(";"))
}

/// With "1" weights of integer layers become uint8 where products of uint8 and int8 saturate, on x86 processors without VNNI: the same
/// values, and kernels that add in 32 bits. Elsewhere it changes nothing (`onnxruntime_session_options_config_keys.h`).
const X64_QUANT_PRECISION: &str = "session.x64quantprecision";

/// Optimizes the model and saves it.
pub fn build(request: &Build) -> Result<Built> {
    let runtime = library::onnxruntime_version(&library::onnxruntime()?)?;
    let note = Note::of(request.model, "onnxruntime", runtime, FILE)?;
    let path = request.folder.join(FILE);
    let builder = session(&Threads::Free(request.threads), GraphOptimizationLevel::All)?;
    let option = |error: ort::Error<SessionBuilder>| refused("refuses an option", error);
    let whole_sums = !request.saturate && has_wide_weights(&request.model.graph);
    let builder = match whole_sums {
        false => builder,
        true => builder.with_config_entry(X64_QUANT_PRECISION, "1").map_err(option)?,
    };
    let mut builder = builder.with_optimized_model_path(&path).map_err(option)?;
    let rewritten = rewritten(request.model, whole_sums, super::has_vnni());
    let own = request.folder.join("rewritten");
    let source = match &rewritten {
        Some(model) => {
            std::fs::create_dir(&own).map_err(|error| Error::io(&own, &error))?;
            onnx::write(model, &own.join(FILE))?;
            &own.join(FILE)
        }
        None => request.path,
    };
    let built = builder.commit_from_file(source);
    if rewritten.is_some() {
        std::fs::remove_dir_all(&own).map_err(|error| Error::io(&own, &error))?;
    }
    built.map_err(|error| refused("cannot build the model", error))?;
    let mut metrics = Metrics::new();
    if let Some(advice) = advice(request.folder, &note)? {
        metrics.insert("advice".to_owned(), json!([advice]));
        (request.tell)(Told::Log(&format!("advice: {advice}")));
    }
    Ok(Built { layers: layers_of_onnx(&path)?, note, metrics })
}

/// The model in a form that computes the same, where ONNX Runtime builds or runs that better.
fn rewritten(model: &Model, whole_sums: bool, fast_products: bool) -> Option<Model> {
    let apart = whole_sums.then(|| shared_weights::apart(model)).flatten();
    let blocks = || space_to_depth::in_blocks(apart.as_ref().unwrap_or(model));
    fast_products.then(blocks).flatten().or(apart)
}

/// Loads a saved model as it stands.
pub fn load(folder: &Path, note: &Note, threads: &Threads) -> Result<Box<dyn Engine>> {
    let mut builder = session(threads, GraphOptimizationLevel::Disable)?;
    let session = builder
        .commit_from_file(folder.join(&note.file))
        .map_err(|error| refused("cannot load the engine", error))?;
    Ok(Box::new(OnnxRuntime { session, note: note.clone() }))
}

/// Whether an integer kernel of the engine has constant int8 weights whose products with uint8 saturate on an x86 processor without VNNI.
pub(super) fn has_saturating_kernels(folder: &Path, note: &Note) -> Result<bool> {
    has_kernel_weights(folder, note, is_wide)
}

/// How an engine can be made faster on this processor, if that is known: its integer kernels' weights are uint8 for sums that do not saturate.
pub(super) fn advice(folder: &Path, note: &Note) -> Result<Option<&'static str>> {
    let uint8 = |weight: &TensorData| weight.dtype == DType::U8 && weight.shape.len() > 1;
    Ok((super::saturates() && has_kernel_weights(folder, note, uint8)?).then_some(FASTER))
}

/// Whether an integer kernel of the engine has such a constant.
fn has_kernel_weights(folder: &Path, note: &Note, is: fn(&TensorData) -> bool) -> Result<bool> {
    let graph = onnx::read(&folder.join(&note.file))?.graph;
    let weights = |name: &String| graph.initializers.get(name).is_some_and(is);
    let kernels = graph
        .nodes
        .iter()
        .filter(|node| INTEGER_KERNELS.iter().any(|name| node.op_type.contains(name)));
    Ok(kernels.flat_map(|node| &node.inputs).any(weights))
}

/// Whether a graph has int8 weights whose products saturate, or may have: those that are still to be quantized are not known.
fn has_wide_weights(graph: &Graph) -> bool {
    let is_weight = |name: &String| {
        graph.initializers.get(name).is_some_and(|weight: &TensorData| weight.shape.len() > 1)
    };
    let mut quantize = graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear");
    graph.initializers.values().any(is_wide)
        || quantize.any(|node| node.inputs.first().is_some_and(is_weight))
}

/// Whether it is an int8 weight of which two products with uint8 do not fit 16 bits: 2 · 255 · 64 does.
fn is_wide(weight: &TensorData) -> bool {
    let wide = |&byte: &u8| !(-64..=64).contains(&(byte as i8));
    weight.dtype == DType::I8 && weight.shape.len() > 1 && weight.bytes.iter().any(wide)
}

/// What whoever has an engine of slower kernels should know.
const FASTER: &str = "this processor has no VNNI, so that integer kernels are used whose sums do not saturate, and which are slower; \
    weights of a reduced range (weights = { reduce_range = true } in `insert-qdq`) keep the faster ones without loss in their sums";

/// Parts of the names of operators that multiply 8-bit integers.
const INTEGER_KERNELS: &[&str] = &["QLinear", "QGemm", "Integer", "DynamicQuantize"];

struct OnnxRuntime {
    session: Session,
    note: Note,
}

impl Engine for OnnxRuntime {
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<Vec<f32>>> {
        let [channels, height, width] = self.note.input;
        let tensor = TensorRef::from_array_view(([batch, channels, height, width], images))
            .map_err(|error| refused("refuses the images", error))?;
        let inputs = ort::inputs![self.note.input_name.as_str() => tensor];
        let outputs =
            self.session.run(inputs).map_err(|error| refused("cannot run the engine", error))?;
        let values = self.note.outputs().into_iter().map(|(name, _)| {
            let (_, values) = outputs[name]
                .try_extract_tensor::<f32>()
                .map_err(|error| refused("gave no floats", error))?;
            Ok(values.to_vec())
        });
        values.collect()
    }
}
