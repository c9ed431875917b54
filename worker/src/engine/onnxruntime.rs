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
use super::{
    Build, Built, Engine, Note, Products, Threads, Told, library, shared_weights, space_to_depth,
};
use crate::graph::{DType, Graph, TensorData};
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

/// With "1" weights of integer layers become uint8: the same values, and on x86 kernels that add in 32 bits without VNNI too. It is for processors
/// without VNNI (`onnxruntime_session_options_config_keys.h`), but those that have it lose it by this: 1.30 asks whether its kernels for uint8 and
/// for int8 weights are of one table (`MlasPlatformU8S8Overflow`), which they are not there either.
const X64_QUANT_PRECISION: &str = "session.x64quantprecision";

/// Optimizes the model and saves it.
pub fn build(request: &Build) -> Result<Built> {
    build_for(Products::here(), request)
}

/// Builds it for a processor of such products, whatever this one is.
fn build_for(products: Products, request: &Build) -> Result<Built> {
    let runtime = library::onnxruntime_version(&library::onnxruntime()?)?;
    let has_integer_blocks = version(&runtime) >= INTEGER_BLOCKS;
    let mut note = Note::of(request.model, "onnxruntime", runtime, FILE)?;
    note.processor = Some(processor());
    let path = request.folder.join(FILE);
    let builder = session(&Threads::Free(request.threads), GraphOptimizationLevel::All)?;
    let option = |error: ort::Error<SessionBuilder>| refused("refuses an option", error);
    let whole_sums = products == Products::Saturating
        && !request.saturate
        && has_wide_weights(&request.model.graph);
    let builder = match whole_sums {
        false => builder,
        true => builder.with_config_entry(X64_QUANT_PRECISION, "1").map_err(option)?,
    };
    let mut builder = builder.with_optimized_model_path(&path).map_err(option)?;
    // Blocks pay where products are fast.
    let rewritten = match products {
        Products::Fast if has_integer_blocks => space_to_depth::in_blocks(request.model),
        _ if whole_sums => shared_weights::apart(request.model),
        _ => None,
    };
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

/// First version with a kernel of SpaceToDepth for uint8 (microsoft/onnxruntime#29154); 1.24 to 1.27 refuse the model.
const INTEGER_BLOCKS: (u32, u32) = (1, 28);

/// Major and minor; 0 for what is not a number.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// What decides how weights are laid out and which kernels are chosen on this processor (`MLAS_PLATFORM`: blocks of 8 channels, of 16 with AVX-512).
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let wide = std::is_x86_feature_detected!("avx512f").then_some("AVX-512");
    #[cfg(not(target_arch = "x86_64"))]
    let wide = None;
    let vnni = (Products::here() == Products::Fast).then_some("VNNI");
    let parts = [Some(std::env::consts::ARCH), wide, vnni];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Loads a saved model as it stands.
pub fn load(folder: &Path, note: &Note, threads: &Threads) -> Result<Box<dyn Engine>> {
    let here = processor();
    if let Some(there) = note.processor.as_ref().filter(|there| **there != here) {
        return Err(Error::machine(format!(
            "the engine was built for a processor of another kind ({there}; this one: {here}): ONNX Runtime lays out its weights for one kind, and would \
             compute something else"
        ))
        .help("build it where it runs; of several machines use those of one kind (Slurm: `--constraint` in `options`)"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::space_to_depth::tests::network;
    use crate::graph::{Dim, Model};

    /// The optimized graph that is built of `model` for a processor of such products.
    fn built(model: &Model, products: Products, saturate: bool) -> Graph {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exported.onnx");
        onnx::write_one_file(model, &path).unwrap();
        let request = Build {
            path: &path,
            model,
            folder: folder.path(),
            batch: 1,
            compute_capability: None,
            threads: 1,
            precision: None,
            saturate,
            tensorrt: Default::default(),
            tell: &|_| (),
        };
        build_for(products, &request).unwrap();
        onnx::read(&folder.path().join(FILE)).unwrap().graph
    }

    /// With VNNI weights stay int8, as its kernels want them, and a first convolution is in blocks, on every machine that the test runs on.
    /// Weights in blocks of 16 channels read as blocks of 8 would be garbage, without an error of ONNX Runtime.
    #[test]
    fn an_engine_of_another_kind_of_processor_is_refused() {
        let mut model = network(3, 16, [5, 5], [2; 4]);
        model.graph.outputs[0].shape = Some([1, 5, 8, 8].map(Dim::Fixed).to_vec());
        let folder = tempfile::tempdir().unwrap();
        let mut note = Note::of(&model, "onnxruntime", "1.32.0".to_owned(), FILE).unwrap();
        onnx::write_one_file(&model, &folder.path().join(FILE)).unwrap();
        let load = |note: &Note| load(folder.path(), note, &Threads::Free(1)).map(drop);
        load(&note).unwrap();
        note.processor = Some(processor());
        load(&note).unwrap();
        note.processor = Some("x86_64, of another width".to_owned());
        let error = load(&note).unwrap_err();
        assert!(error.message.contains("x86_64, of another width; this one: "), "{error}");
    }

    #[test]
    fn versions_are_of_two_numbers() {
        assert_eq!(version("1.32.0"), (1, 32));
        assert!(version("1.27.1") < INTEGER_BLOCKS && version("2.0.0") > INTEGER_BLOCKS);
        assert_eq!(version("unknown"), (0, 0));
    }

    #[test]
    fn each_processor_has_the_form_that_suits_it() {
        let mut model = network(3, 16, [5, 5], [2; 4]);
        model.graph.outputs[0].shape = Some([1, 5, 8, 8].map(Dim::Fixed).to_vec());
        let wide: Vec<i8> = (0..5 * 3 * 25).map(|i| (i * 37 % 255 - 127) as i8).collect();
        let wide = TensorData::i8(&[5, 3, 5, 5], &wide);
        model.graph.initializers.insert("w".to_owned(), wide);
        for (products, saturate, is_uint8, in_blocks) in [
            (Products::Saturating, false, cfg!(target_arch = "x86_64"), false),
            (Products::Saturating, true, false, false),
            (Products::Fast, false, false, true),
            (Products::Other, false, false, false),
        ] {
            let graph = built(&model, products, saturate);
            let conv = graph.nodes.iter().find(|node| node.op_type == "QLinearConv").unwrap();
            let weight = graph.initializers[&conv.inputs[3]].dtype;
            assert_eq!(weight == DType::U8, is_uint8, "{products:?}, saturate = {saturate}");
            let blocks = graph.nodes.iter().any(|node| node.op_type == "SpaceToDepth");
            assert_eq!(blocks, in_blocks, "{products:?}");
        }
    }
}
