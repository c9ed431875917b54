//! An engine that is loaded and run.

use std::path::Path;
use std::rc::Rc;

use cudarc::driver::sys::CUstream;
use half::{bf16, f16};
use trtx::trtx_sys::nvinfer1::{Dims64, ProfilingVerbosity};
use trtx::{
    CudaEngine, DataType, ExecutionContext, ExecutionContextAllocationStrategy,
    LayerInformationFormat, Runtime, RuntimeConfig, TensorFormat, TensorIOMode, TensorLocation,
};

use crate::files::{Output, Query};
use crate::logger::{Errors, Listener, logger};
use crate::options::Shape;
use crate::queries::{Buffers, Gpu, Kernels, Protocol};
use crate::{Error, Result};

/// An engine on the first visible GPU. The library is loaded before.
pub struct Session {
    // Dropped in this order, as the library wants it. Made with the first shapes: it takes the memory of the greatest.
    context: Option<ExecutionContext<'static>>,
    _config: Option<Rc<RuntimeConfig<'static>>>,
    engine: CudaEngine<'static>,
    _runtime: Runtime<'static>,
    errors: Errors,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// Of `inputs` and `outputs`, in their order, once shapes are set.
    buffers: Buffers,
    gpu: Gpu,
}

/// An input or output.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    kind: Kind,
    /// As the engine tells it: −1 where an extent is free.
    declared: Vec<i64>,
    /// In a run.
    shape: Vec<usize>,
}

/// Types of inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
    I8,
    U8,
    Bool,
    I32,
    I64,
}

impl Kind {
    fn of(kind: &DataType, name: &str) -> Result<Self> {
        Ok(match kind {
            DataType::kFLOAT => Self::F32,
            DataType::kHALF => Self::F16,
            DataType::kBF16 => Self::Bf16,
            DataType::kINT8 => Self::I8,
            DataType::kUINT8 => Self::U8,
            DataType::kBOOL => Self::Bool,
            DataType::kINT32 => Self::I32,
            DataType::kINT64 => Self::I64,
            _ => {
                return Err(Error::Input(format!(
                    "`{name}` has a type that is not read here: expected floats of 32 or 16 bits, integers or bool"
                )));
            }
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> Vec<f32> {
        let words = bytes.chunks_exact(self.bytes());
        match self {
            Self::F32 => words.map(|it| f32::from_le_bytes(array(it))).collect(),
            Self::F16 => words.map(|it| f16::from_le_bytes(array(it)).to_f32()).collect(),
            Self::Bf16 => words.map(|it| bf16::from_le_bytes(array(it)).to_f32()).collect(),
            Self::I8 => words.map(|it| f32::from(i8::from_le_bytes(array(it)))).collect(),
            Self::U8 => words.map(|it| f32::from(it[0])).collect(),
            Self::Bool => words.map(|it| f32::from(u8::from(it[0] != 0))).collect(),
            Self::I32 => words.map(|it| i32::from_le_bytes(array(it)) as f32).collect(),
            Self::I64 => words.map(|it| i64::from_le_bytes(array(it)) as f32).collect(),
        }
    }

    fn write(self, values: &[f32]) -> Vec<u8> {
        let each = values.iter();
        match self {
            Self::F32 => each.flat_map(|it| it.to_le_bytes()).collect(),
            Self::F16 => each.flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect(),
            Self::Bf16 => each.flat_map(|it| bf16::from_f32(*it).to_le_bytes()).collect(),
            Self::I8 => each.flat_map(|it| (*it as i8).to_le_bytes()).collect(),
            Self::U8 => each.map(|it| *it as u8).collect(),
            Self::Bool => each.map(|it| u8::from(*it != 0.0)).collect(),
            Self::I32 => each.flat_map(|it| (*it as i32).to_le_bytes()).collect(),
            Self::I64 => each.flat_map(|it| (*it as i64).to_le_bytes()).collect(),
        }
    }
}

/// A context, and the configuration that it refers to.
///
/// Its kernels are the final ones from the first run on: TensorRT-RTX compiles those for a shape beside the runs else, and a CUDA graph would keep
/// what came before. Profilers are told the names of layers, as of trtexec, whatever the engine was built with.
fn make_context(
    engine: &mut CudaEngine<'static>,
) -> trtx::Result<(ExecutionContext<'static>, Rc<RuntimeConfig<'static>>)> {
    let mut config = engine.create_runtime_config()?;
    #[cfg(feature = "rtx")]
    config.set_dynamic_shapes_kernel_specialization_strategy(
        trtx::DynamicShapesKernelSpecializationStrategy::kEAGER,
    );
    config.set_execution_context_allocation_strategy(ExecutionContextAllocationStrategy::kSTATIC);
    let config = Rc::new(config);
    let mut context = engine.create_execution_context_with_config(Rc::clone(&config))?;
    context.set_nvtx_verbosity(ProfilingVerbosity::kLAYER_NAMES_ONLY);
    Ok((context, config))
}

fn no_shapes() -> Error {
    Error::Input("no shapes are set".to_owned())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a chunk of that length")
}

struct Launch<'a> {
    context: &'a mut ExecutionContext<'static>,
    errors: &'a Errors,
}

impl Kernels for Launch<'_> {
    fn enqueue(&mut self, stream: CUstream) -> Result<()> {
        // SAFETY: `Session::set_shapes` bound an address to each input and output, of memory that lives as long as the session.
        let enqueued = unsafe { self.context.enqueue_v3(stream.cast()) };
        enqueued.map_err(|error| self.errors.refused("cannot run the engine", &error))
    }
}

impl Session {
    /// Loads an engine.
    ///
    /// # Errors
    /// No GPU, a file that cannot be read, an engine that the library refuses.
    pub fn open(path: &Path, listener: Listener) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
        Self::load(&bytes, listener)
    }

    /// The same, of an engine's bytes.
    ///
    /// # Errors
    /// No GPU, an engine that the library refuses.
    pub fn load(bytes: &[u8], listener: Listener) -> Result<Self> {
        // First, for its error and its context, which the library takes.
        let gpu = Gpu::open()?;
        let (logger, errors) = logger(listener)?;
        // The library keeps its address until the process ends.
        let logger: &'static trtx::Logger = Box::leak(Box::new(logger));
        let refused = |error: trtx::Error| errors.refused("cannot load the engine", &error);
        let runtime = Runtime::new(logger).map_err(refused)?;
        let mut runtime = errors.sound("cannot load the engine", runtime)?;
        let engine = runtime.deserialize_cuda_engine(bytes).map_err(refused)?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for index in 0..engine.nb_io_tensors().map_err(refused)? {
            let name = engine.io_tensor_name(index).map_err(refused)?;
            let kind = Kind::of(&engine.tensor_data_type(&name).map_err(refused)?, &name)?;
            let declared = engine.tensor_shape(&name).map_err(refused)?;
            if engine.tensor_location(&name).map_err(refused)? != TensorLocation::kDEVICE
                || engine.tensor_format(&name).map_err(refused)? != TensorFormat::kLINEAR
            {
                return Err(Error::Input(format!(
                    "`{name}` lies in the host's memory or in vectors of channels: expected plain rows in the GPU's"
                )));
            }
            let tensor = Tensor { name, kind, declared, shape: Vec::new() };
            match engine.tensor_io_mode(&tensor.name).map_err(refused)? {
                TensorIOMode::kINPUT => inputs.push(tensor),
                _ => outputs.push(tensor),
            }
        }
        Ok(Self {
            context: None,
            _config: None,
            engine,
            _runtime: runtime,
            errors,
            inputs,
            outputs,
            buffers: Buffers::default(),
            gpu,
        })
    }

    /// Its layers as the library tells them, JSON.
    ///
    /// # Errors
    /// A library that does not tell.
    pub fn layers(&self) -> Result<String> {
        self.errors.clear();
        let inspector = self.engine.create_engine_inspector();
        let told = inspector.and_then(|it| it.engine_information(LayerInformationFormat::kJSON));
        told.map_err(|error| self.errors.refused("does not tell its layers", &error))
    }

    /// Sets the shapes of inputs, those of free extents among them, and makes room for all. Values are lost.
    ///
    /// # Errors
    /// A shape that is missing or does not fit, too little memory.
    pub fn set_shapes(&mut self, shapes: &[Shape]) -> Result<()> {
        if let Some((name, _)) = shapes.iter().find(|(name, _)| self.place(name).is_none()) {
            return Err(self.no_input(name));
        }
        self.errors.clear();
        let context = match &mut self.context {
            Some(context) => context,
            unmade => {
                let refused =
                    |error| self.errors.refused("cannot make a context of the engine", &error);
                let (made, config) = make_context(&mut self.engine).map_err(refused)?;
                self._config = Some(config);
                unmade.insert(made)
            }
        };
        for input in &mut self.inputs {
            let given = shapes.iter().find(|(name, _)| *name == input.name).map(|(_, shape)| shape);
            let shape = given.unwrap_or(&input.declared);
            let fits = shape.len() == input.declared.len()
                && shape
                    .iter()
                    .zip(&input.declared)
                    .all(|(mine, of)| *mine >= 0 && (*of < 0 || mine == of));
            if !fits {
                return Err(Error::Input(format!(
                    "input `{}` of {:?}: expected a shape that fits, got {}",
                    input.name,
                    input.declared,
                    given.map_or("none".to_owned(), |shape| format!("{shape:?}"))
                )));
            }
            let set = context.set_input_shape(&input.name, &Dims64::from_slice(shape));
            set.map_err(|error| self.errors.refused("does not take the shape", &error))?;
            input.shape = shape.iter().map(|extent| *extent as usize).collect();
        }
        for output in &mut self.outputs {
            let shape = context.tensor_shape(&output.name);
            let shape = shape.map_err(|error| self.errors.refused("tells no shape", &error))?;
            let extents = usize::try_from(shape.nbDims).ok().and_then(|count| shape.d.get(..count));
            let extents =
                extents.map(|it| it.iter().map(|extent| usize::try_from(*extent)).collect());
            let Some(Ok(extents)) = extents else {
                return Err(Error::Input(format!(
                    "output `{}` has a shape that depends on values: it cannot be run here",
                    output.name
                )));
            };
            output.shape = extents;
        }
        self.buffers = Buffers::default();
        for (tensors, buffers) in
            [(&self.inputs, &mut self.buffers.inputs), (&self.outputs, &mut self.buffers.outputs)]
        {
            for tensor in tensors {
                let bytes = tensor.shape.iter().product::<usize>() * tensor.kind.bytes();
                let buffer = self.gpu.buffer(bytes)?;
                // SAFETY: memory of the tensor's size, which lives until the next shapes are set, which bind others.
                let bound =
                    unsafe { context.set_tensor_address(&tensor.name, buffer.address(&self.gpu)) };
                bound.map_err(|error| self.errors.refused("does not take memory", &error))?;
                buffers.push(buffer);
            }
        }
        Ok(())
    }

    /// Gives an input its values, raw and little endian.
    ///
    /// # Errors
    /// No such input, another number of bytes than its shape has.
    pub fn set_raw(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.place(name).ok_or_else(|| self.no_input(name))?;
        let tensor = &self.inputs[place];
        let expected = tensor.shape.iter().product::<usize>() * tensor.kind.bytes();
        if bytes.len() != expected {
            return Err(Error::Input(format!(
                "input `{name}` of {:?}: expected {expected} bytes, got {}",
                tensor.shape,
                bytes.len()
            )));
        }
        self.buffers.inputs[place].host_mut()?[..expected].copy_from_slice(bytes);
        Ok(())
    }

    /// Gives an input its values, row by row.
    ///
    /// # Errors
    /// Those of [`Session::set_raw`].
    pub fn set_values(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let place = self.place(name).ok_or_else(|| self.no_input(name))?;
        let bytes = self.inputs[place].kind.write(values);
        self.set_raw(name, &bytes)
    }

    /// Gives all inputs numbers from −1 to 1 (0 to 1 of whole numbers), the same in each run.
    ///
    /// # Errors
    /// A GPU in error.
    pub fn set_noise(&mut self) -> Result<()> {
        let mut state = 1_u32;
        for place in 0..self.inputs.len() {
            let tensor = &self.inputs[place];
            let count = tensor.shape.iter().product::<usize>();
            let values = std::iter::repeat_with(|| {
                // Numerical Recipes' generator; good enough for pixels.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            });
            let whole = !matches!(tensor.kind, Kind::F32 | Kind::F16 | Kind::Bf16);
            let values = values.map(|it| if whole { f32::from(u8::from(it > 0.0)) } else { it });
            let values: Vec<f32> = values.take(count).collect();
            let name = tensor.name.clone();
            self.set_values(&name, &values)?;
        }
        Ok(())
    }

    /// Runs it once and gives all outputs.
    ///
    /// # Errors
    /// What the library or CUDA refuses.
    pub fn run(&mut self) -> Result<Vec<Output>> {
        let context = self.context.as_mut().ok_or_else(no_shapes)?;
        let mut launch = Launch { context, errors: &self.errors };
        self.gpu.run(&mut launch, &mut self.buffers)?;
        let outputs = self.outputs.iter().zip(&self.buffers.outputs).map(|(tensor, buffer)| {
            let bytes = tensor.shape.iter().product::<usize>() * tensor.kind.bytes();
            Ok(Output {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                values: tensor.kind.read(&buffer.host()?[..bytes]),
            })
        });
        outputs.collect()
    }

    /// Times it.
    ///
    /// # Errors
    /// What the library or CUDA refuses.
    pub fn time(&mut self, protocol: &Protocol, warn: &dyn Fn(&str)) -> Result<Vec<Query>> {
        let context = self.context.as_mut().ok_or_else(no_shapes)?;
        let mut launch = Launch { context, errors: &self.errors };
        self.gpu.time(&mut launch, &mut self.buffers, protocol, warn)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| input.name == name)
    }

    fn no_input(&self, name: &str) -> Error {
        let names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        Error::Input(format!("no input `{name}`: the engine has {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_types_come_back() {
        let values = [0.0, 1.0, -3.0, 100.0];
        for kind in [Kind::F32, Kind::F16, Kind::Bf16, Kind::I8, Kind::I32, Kind::I64] {
            let bytes = kind.write(&values);
            assert_eq!(bytes.len(), 4 * kind.bytes());
            assert_eq!(kind.read(&bytes), values, "{kind:?}");
        }
        assert_eq!(Kind::Bool.read(&Kind::Bool.write(&values)), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(Kind::U8.read(&Kind::U8.write(&[0.0, 255.0])), [0.0, 255.0]);
    }
}
