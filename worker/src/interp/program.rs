//! The compiled graph and its forward pass.

use std::collections::HashMap;

use tch::{Device, Tensor};

use super::declared::Declared;
use super::parameters::Parameter;
use crate::ops::{Arguments, Kernel};
use crate::{Error, Result, torch};

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of values that are handed to the watcher of [`Program::forward`].
    pub watch: Vec<String>,
    /// Lay images out with the channels next to each other in memory.
    pub channels_last: bool,
    /// Where to run; by default where the process does ([`torch::device`]).
    pub device: Device,
    /// What becomes of the scales of Q/DQ pairs.
    pub scales: Scales,
    /// BatchNormalization takes its running statistics in training mode too, and leaves them.
    pub frozen_statistics: bool,
}

/// What becomes of the scales of Q/DQ pairs that are executed as one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scales {
    /// They are constants.
    #[default]
    Frozen,
    /// They are parameters, of weights and of activations.
    Learned,
    /// Those of activations are set between two steps ([`Program::followed`]); those of weights are constants.
    Followed,
}

/// An activation's scale that is set between two steps.
#[derive(Debug)]
pub struct Followed {
    /// The value that is quantized.
    pub value: String,
    /// Name of the scale; several values may share one.
    pub name: String,
    /// The scale, one number.
    pub scale: Tensor,
    /// By what the largest magnitude is divided to give it.
    pub levels: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            watch: Vec::new(),
            channels_last: true,
            device: torch::device(),
            scales: Scales::Frozen,
            frozen_statistics: false,
        }
    }
}

/// Whether a forward pass is one of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// BatchNormalization takes its running statistics; Dropout does nothing.
    Eval,
    /// BatchNormalization takes the batch's statistics and updates the running ones; Dropout drops.
    Train,
}

/// Where a step finds an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The optional input is left out.
    Nothing,
    /// A constant, by its index.
    Constant(usize),
    /// A value that an earlier step made, or an input, by its slot.
    Slot(usize),
}

/// One kernel to run.
pub(super) struct Step {
    pub kernel: Kernel,
    pub inputs: Vec<Source>,
    /// Slot of each output; `None`: nobody reads it.
    pub outputs: Vec<Option<usize>>,
    /// Watched outputs: index in `Options::watch`, slot.
    pub watched: Vec<(usize, usize)>,
    /// Slots that no later step reads.
    pub last_use: Vec<usize>,
    /// The input whose memory the kernel may take for its output.
    pub spare: Option<usize>,
    /// For messages: node, operator and opset.
    pub place: String,
}

/// A constant of the program.
pub(super) struct Constant {
    pub name: String,
    pub tensor: Tensor,
}

/// A graph compiled for execution.
pub struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) constants: Vec<Constant>,
    pub(super) parameters: Vec<Parameter>,
    /// Indices of the constants that training mode changes: running statistics.
    pub(super) statistics: Vec<usize>,
    pub(super) followed: Vec<Followed>,
    /// Slot of each input of the graph, and what the file says of it.
    pub(super) inputs: Vec<(usize, Declared)>,
    pub(super) outputs: Vec<Source>,
    /// Watched values that are no step's output: index in `Options::watch`, where it is.
    pub(super) watched: Vec<(usize, Source)>,
    pub(super) slots: Vec<Option<Tensor>>,
    pub(super) channels_last: bool,
    pub(super) device: Device,
}

impl Program {
    /// The constants that are trained: weights, biases, scales and shifts of normalizations, learned scales of Q/DQ pairs.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The scales that are set between two steps, in the order of the graph.
    pub fn followed(&self) -> &[Followed] {
        &self.followed
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether parameters collect gradients.
    pub fn train(&mut self, on: bool) {
        for parameter in &self.parameters {
            // The flag is the tensor's own, shared by every handle to it.
            let _ = parameter.tensor.set_requires_grad(on);
        }
    }

    /// Runs the graph. `inputs` and outputs are in the graph's order; a value is freed after its last use
    /// (with gradients on, libtorch keeps what the backward pass needs). `watch` is given each watched
    /// value when it is made: its index in [`Options::watch`] and itself.
    ///
    /// # Errors
    /// A wrong count of inputs, or one of another shape than the file declares; what a kernel refuses, with its node, operator and opset.
    pub fn forward(
        &mut self,
        inputs: &[Tensor],
        mode: Mode,
        watch: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        self.slots.iter_mut().for_each(|slot| *slot = None);
        self.feed(inputs)?;
        for &(index, source) in &self.watched {
            if let Some(tensor) = self.tensor(source) {
                watch(index, tensor)?;
            }
        }
        let training = mode == Mode::Train;
        for step in &self.steps {
            let made = {
                let tensors: Vec<Option<&Tensor>> = step
                    .inputs
                    .iter()
                    .map(|&source| find(&self.constants, &self.slots, source))
                    .collect();
                (step.kernel)(&Arguments { tensors: &tensors, training, spare: step.spare })
                    .map_err(|error| blame_model(error).at(&step.place))?
            };
            for (tensor, slot) in made.into_iter().zip(&step.outputs) {
                if let Some(slot) = *slot {
                    self.slots[slot] = Some(tensor);
                }
            }
            for &(index, slot) in &step.watched {
                if let Some(tensor) = &self.slots[slot] {
                    watch(index, tensor)?;
                }
            }
            for &slot in &step.last_use {
                self.slots[slot] = None;
            }
        }
        let outputs = self.outputs.iter().map(|&source| {
            let output = self.tensor(source).map(Tensor::shallow_clone);
            output.ok_or_else(|| Error::bug("an output of the graph was not made"))
        });
        let outputs = outputs.collect();
        self.slots.iter_mut().for_each(|slot| *slot = None);
        outputs
    }

    fn feed(&mut self, inputs: &[Tensor]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            let names: Vec<&str> =
                self.inputs.iter().map(|(_, input)| input.name.as_str()).collect();
            return Err(Error::user(format!(
                "the model has {} inputs ({}), {} were given",
                names.len(),
                names.join(", "),
                inputs.len()
            )));
        }
        let mut named = HashMap::new();
        for (tensor, (_, declared)) in inputs.iter().zip(&self.inputs) {
            declared.check(&tensor.size(), &mut named)?;
        }
        for (tensor, &(slot, _)) in inputs.iter().zip(&self.inputs) {
            let tensor = tensor.f_to_device(self.device)?;
            let laid_out = self.channels_last && tensor.dim() == 4;
            self.slots[slot] = Some(if laid_out { torch::channels_last(&tensor)? } else { tensor });
        }
        Ok(())
    }

    fn tensor(&self, source: Source) -> Option<&Tensor> {
        find(&self.constants, &self.slots, source)
    }
}

fn find<'a>(
    constants: &'a [Constant],
    slots: &'a [Option<Tensor>],
    source: Source,
) -> Option<&'a Tensor> {
    match source {
        Source::Nothing => None,
        Source::Constant(index) => Some(&constants[index].tensor),
        Source::Slot(index) => slots[index].as_ref(),
    }
}

/// What libtorch refuses in a node is the model's fault (shapes that do not fit), not the program's.
fn blame_model(error: Error) -> Error {
    Error { blame: qpipe::task::Blame::User, ..error }
}
