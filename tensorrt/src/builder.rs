//! Builds a serialized engine of an ONNX file.

use std::path::Path;

#[cfg(feature = "rtx")]
pub use trtx::ComputeCapability;
use trtx::trtx_sys::nvinfer1::Dims64;
use trtx::{Builder, BuilderFlag, MemoryPoolType, OnnxParser, OptProfileSelector};

use crate::logger::{Listener, Severity, logger};
use crate::options::{Options, Shape};
use crate::{Error, Result};

/// What is built.
pub struct Plan<'a> {
    /// The model's file.
    pub onnx: &'a Path,
    /// Shapes of inputs whose extents are free; empty where none are.
    pub profile: Profile,
    /// Flags of the builder: those of [`Options`] that say how to build.
    pub options: &'a Options,
    /// GPU to build for; `None`: the one of this machine.
    #[cfg(feature = "rtx")]
    pub compute_capability: Option<ComputeCapability>,
}

/// Least, best and greatest shapes of inputs.
pub type Profile = [Vec<Shape>; 3];

/// Builds the engine and gives its bytes. The library is loaded before.
///
/// # Errors
/// A model that cannot be read, that its parser or its builder refuses.
pub fn build(plan: &Plan, listener: Listener) -> Result<Vec<u8>> {
    let tell = Listener::clone(&listener);
    // For its error: the parser tells none of a file that is not there.
    std::fs::File::open(plan.onnx).map_err(|error| Error::file(plan.onnx, error))?;
    let path = plan.onnx.to_str().ok_or_else(|| {
        Error::Input(format!("{}: TensorRT's parser takes paths of UTF-8", plan.onnx.display()))
    })?;
    let (logger, errors) = logger(listener)?;
    let begin = |error: trtx::Error| errors.refused("cannot begin a build", &error);
    let builder = Builder::new(&logger).map_err(begin)?;
    let mut builder = errors.sound("cannot begin a build", builder)?;
    let network = builder.create_network(0).map_err(begin)?;
    let mut config = builder.create_config().map_err(begin)?;
    let options = plan.options;
    if options.detailed {
        config.set_profiling_verbosity(trtx::ProfilingVerbosity::kDETAILED);
    }
    if let Some(level) = options.optimization_level {
        config.set_builder_optimization_level(level);
    }
    config.set_avg_timing_iterations(options.avg_timing);
    if let Some(bytes) = options.workspace {
        config.set_memory_pool_limit(MemoryPoolType::kWORKSPACE, bytes);
    }
    if let Some(count) = options.max_aux_streams {
        config.set_max_aux_streams(count);
    }
    if let Some(count) = options.max_tactics {
        config.set_max_nb_tactics(count);
    }
    if !options.tf32 {
        config.clear_flag(BuilderFlag::kTF32);
    }
    #[cfg(feature = "rtx")]
    if let Some(capability) = plan.compute_capability {
        config.set_nb_compute_capabilities(1).map_err(begin)?;
        config.set_compute_capability(capability, 0).map_err(begin)?;
    }
    if plan.profile.iter().any(|shapes| !shapes.is_empty()) {
        let mut profile = builder.creata_optimization_profile().map_err(begin)?;
        let selectors =
            [OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX];
        for (shapes, selector) in plan.profile.iter().zip(selectors) {
            for (name, extents) in shapes {
                let shape = Dims64::from_slice(extents);
                profile.set_dimensions(name, selector, &shape).map_err(begin)?;
            }
        }
        config.add_optimization_profile(&mut profile).map_err(begin)?;
    }
    let mut parser = OnnxParser::new(network, &logger).map_err(begin)?;
    errors.clear();
    // By its path, beside which tensors may lie in files of their own. 2: warnings and worse.
    let read = parser.parse_from_file(path, 2);
    read.map_err(|error| errors.refused("cannot read the model", &error))?;
    tell(Severity::Info, "Finished parsing network model.");
    errors.clear();
    let engine = builder
        .build_serialized_network(parser.network_mut(), &mut config)
        .map_err(|error| errors.refused("cannot build the model", &error))?;
    Ok(engine.to_vec())
}

/// The library's word for a compute capability: 89 of 8.9.
#[cfg(feature = "rtx")]
pub fn capability(number: u32) -> Option<ComputeCapability> {
    use ComputeCapability as C;
    Some(match number {
        75 => C::kSM75,
        80 => C::kSM80,
        86 => C::kSM86,
        89 => C::kSM89,
        120 => C::kSM120,
        _ => return None,
    })
}
