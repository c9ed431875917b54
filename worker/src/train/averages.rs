//! Running averages that training keeps beside the weights: of the weights themselves, and of the activations' magnitudes.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use crate::Result;
use crate::interp::Program;
use crate::torch::copied;

/// Exponential moving average of all that training changes.
pub(super) struct Average {
    decay: f64,
    /// Steps averaged.
    pub steps: u64,
    /// As [`Program::changing`], where the program runs.
    pub tensors: Vec<(String, Tensor)>,
}

impl Average {
    /// Begins at what the program has.
    pub fn new(decay: f64, program: &Program) -> Result<Self> {
        let mut average = Self { decay, steps: 0, tensors: Vec::new() };
        average.restart(program, 0)?;
        Ok(average)
    }

    /// Takes what the program has for the average of so many steps.
    pub fn restart(&mut self, program: &Program, steps: u64) -> Result<()> {
        self.steps = steps;
        self.tensors = program.changing()?;
        for (_, tensor) in &mut self.tensors {
            *tensor = copied(tensor)?;
        }
        Ok(())
    }

    /// Takes up what a step made.
    pub fn update(&mut self, program: &Program) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        let steps = self.steps as f64;
        let decay = self.decay.min((1.0 + steps) / (10.0 + steps));
        for ((_, average), (_, now)) in self.tensors.iter_mut().zip(program.changing()?) {
            let _ = average.f_mul_scalar_(decay)?;
            let _ = average.f_add_(&now.f_mul_scalar(1.0 - decay)?)?;
        }
        Ok(())
    }

    /// Copies of the averages, as [`Program::state`].
    pub fn copy(&self) -> Result<Vec<(String, Tensor)>> {
        let copy = |tensor: &Tensor| tensor.f_detach_copy()?.f_to_device(tch::Device::Cpu);
        self.tensors.iter().map(|(name, tensor)| Ok((name.clone(), copy(tensor)?))).collect()
    }

    /// Runs with the averages in the program, and puts the program's own state back.
    pub fn within<T>(
        &self,
        classifier: &mut super::Classifier,
        run: impl FnOnce(&mut super::Classifier) -> Result<T>,
    ) -> Result<T> {
        let own = classifier.program.state()?;
        classifier.program.load_state(&self.tensors)?;
        let made = run(classifier);
        classifier.program.load_state(&own)?;
        made
    }
}

/// Lets scales of activations follow the largest magnitudes: each step `scale = m·scale + (1 − m)·amax/levels`, with the largest
/// magnitude of the step's batches in all values that share the scale.
pub(super) struct Follower {
    momentum: f64,
    scales: Vec<Scale>,
    /// Positions in `scales` by the value's name.
    of: HashMap<String, Vec<usize>>,
}

struct Scale {
    tensor: Tensor,
    levels: f64,
    /// The largest magnitude of the step, one number beside the scale; 0 before.
    seen: Tensor,
}

impl Follower {
    pub fn new(momentum: f64, program: &Program) -> Result<Self> {
        let (mut scales, mut of) = (Vec::new(), HashMap::<String, Vec<usize>>::new());
        let mut known: HashMap<&str, usize> = HashMap::new();
        for followed in program.followed() {
            let position = *known.entry(&followed.name).or_insert(scales.len());
            if position == scales.len() {
                let tensor = followed.scale.shallow_clone();
                let seen = Tensor::f_zeros([], (Kind::Float, tensor.device()))?;
                scales.push(Scale { tensor, levels: followed.levels, seen });
            }
            of.entry(followed.value.clone()).or_default().push(position);
        }
        Ok(Self { momentum, scales, of })
    }

    /// Looks at a value of a forward pass; nobody waits for what is seen.
    pub fn see(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let Some(positions) = self.of.get(name) else { return Ok(()) };
        let _no_grad = tch::no_grad_guard();
        let amax = value.f_detach()?.f_abs()?.f_max()?.f_to_kind(Kind::Float)?;
        for &position in positions {
            let seen = &mut self.scales[position].seen;
            // Of no number the greater is none either: such a step moves nothing.
            seen.f_copy_(&seen.f_maximum(&amax)?)?;
        }
        Ok(())
    }

    /// Ends a step. A value of zeros, or none, says nothing.
    pub fn update(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for scale in &mut self.scales {
            let amax = scale.seen.f_to_kind(Kind::Double)?;
            let part = amax.f_mul_scalar(1.0 - self.momentum)?.f_div_scalar(scale.levels)?;
            let moved = scale.tensor.f_mul_scalar(self.momentum)?;
            let moved = moved.f_add(&part.f_to_kind(Kind::Float)?)?;
            let says = scale.seen.f_isfinite()?.f_logical_and(&scale.seen.f_gt(0.0)?)?;
            scale.tensor.f_copy_(&moved.f_where_self(&says, &scale.tensor)?)?;
        }
        self.forget()
    }

    /// Nothing was seen in this step.
    pub fn forget(&mut self) -> Result<()> {
        for scale in &mut self.scales {
            let _ = scale.seen.f_zero_()?;
        }
        Ok(())
    }
}
