//! Optimizers, with their state in the open so that a checkpoint can hold it. A step is one call of libtorch's for all parameters.

use qpipe::stages::training::Optimizer as Rule;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::interp::{Parameter, Role};
use crate::torch::{Group, laid_out_as};

/// An optimizer over a program's parameters; SGD as `torch.optim.SGD` or AdamW as `torch.optim.AdamW`.
///
/// Weight decay is of the weights of convolutions and matrix products alone; learned scales stay above zero.
pub struct Optimizer {
    rule: Rule,
    /// Momentum, or AdamW's first and second moments, in the order of the parameters.
    state: Vec<Vec<Tensor>>,
    /// Steps made, one float, where the parameters are: a step that overflowed is none, which only they know.
    steps: Tensor,
}

impl Optimizer {
    /// An optimizer without momentum yet.
    pub fn new(rule: Rule, parameters: &[Parameter]) -> Result<Self> {
        let moments = match rule {
            Rule::Sgd { .. } => 1,
            Rule::Adamw { .. } => 2,
        };
        let zeros = |parameter: &Parameter| {
            let own = &parameter.tensor;
            let new = || {
                let options = (own.kind(), own.device());
                let mut tensor = Tensor::f_empty_strided(own.size(), own.stride(), options)?;
                let _ = tensor.f_zero_()?;
                Ok(tensor)
            };
            (0..moments).map(|_| new()).collect::<Result<Vec<_>>>()
        };
        let state = parameters.iter().map(zeros).collect::<Result<_>>()?;
        let device = parameters.first().map_or(Device::Cpu, |first| first.tensor.device());
        Ok(Self { rule, state, steps: Tensor::f_zeros([], (Kind::Float, device))? })
    }

    /// One step along the gradients, one for each parameter; undefined: the loss does not depend on it. Nothing changes where
    /// `found`, one number, is 1.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Tensor],
        lr: f64,
        found: Option<&Tensor>,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _ = self.steps.f_add_scalar_(1.0)?;
        let before: Vec<Tensor> =
            scales(parameters).map(Tensor::f_detach_copy).collect::<std::result::Result<_, _>>()?;
        for decays in [true, false] {
            let group = self.group(parameters, gradients, decays)?;
            if group.parameters.is_empty() {
                continue;
            }
            let decay = |weight_decay: f64| if decays { weight_decay } else { 0.0 };
            match self.rule {
                Rule::Sgd { momentum, weight_decay, nesterov, .. } => {
                    // Without momentum there is nothing to look ahead by.
                    let nesterov = nesterov && momentum > 0.0;
                    group.sgd(lr, momentum, decay(weight_decay), nesterov, found)?;
                }
                Rule::Adamw { weight_decay, .. } => {
                    group.adamw(&self.steps, lr, decay(weight_decay), found)?;
                }
            }
        }
        // A scale stays above zero: a step halves it at most.
        for (scale, before) in scales(parameters).zip(before) {
            let least = before.f_mul_scalar(0.5)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
            scale.shallow_clone().f_copy_(&scale.f_maximum(&least)?)?;
        }
        if let Some(found) = found {
            let _ = self.steps.f_sub_(&found.f_reshape([])?)?;
        }
        Ok(())
    }

    /// The parameters that decay, or those that do not, as far as the loss depends on them.
    fn group(&self, parameters: &[Parameter], gradients: &[Tensor], decays: bool) -> Result<Group> {
        let moments = self.state.first().map_or(0, Vec::len);
        let mut group = Group {
            parameters: Vec::new(),
            gradients: Vec::new(),
            moments: (0..moments).map(|_| Vec::new()).collect(),
        };
        for ((parameter, gradient), state) in parameters.iter().zip(gradients).zip(&self.state) {
            if gradient.defined() && (parameter.role == Role::Weight) == decays {
                group.parameters.push(parameter.tensor.shallow_clone());
                group.gradients.push(laid_out_as(gradient, &parameter.tensor)?);
                for (list, moment) in group.moments.iter_mut().zip(state) {
                    list.push(moment.shallow_clone());
                }
            }
        }
        Ok(group)
    }

    /// Its tensors by name, and its count of steps.
    pub(super) fn state(&self, parameters: &[Parameter]) -> Result<(Vec<(String, Tensor)>, i64)> {
        let named = parameters.iter().zip(&self.state).flat_map(|(parameter, state)| {
            state.iter().enumerate().map(|(moment, tensor)| {
                (format!("optimizer.{moment}.{}", parameter.name), tensor.shallow_clone())
            })
        });
        Ok((named.collect(), self.steps.f_double_value(&[])? as i64))
    }

    /// Puts a [`Optimizer::state`] back; `false` where a tensor is missing.
    pub(super) fn load(
        &mut self,
        parameters: &[Parameter],
        find: impl Fn(&str) -> Option<Tensor>,
        steps: i64,
    ) -> Result<bool> {
        let _ = self.steps.f_fill_(steps)?;
        for (parameter, state) in parameters.iter().zip(&mut self.state) {
            for (moment, tensor) in state.iter_mut().enumerate() {
                match find(&format!("optimizer.{moment}.{}", parameter.name)) {
                    Some(saved) if saved.size() == tensor.size() => tensor.f_copy_(&saved)?,
                    _ => return Ok(false),
                };
            }
        }
        Ok(true)
    }
}

/// The learned scales among the parameters.
fn scales(parameters: &[Parameter]) -> impl Iterator<Item = &Tensor> {
    parameters.iter().filter(|own| own.role == Role::Scale).map(|own| &own.tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(role: Role) -> Vec<Parameter> {
        let tensor = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        vec![Parameter { name: "w".to_owned(), tensor, role }]
    }

    /// Three steps on the loss Σ w², whose gradient is 2 w.
    fn descend(rule: Rule, role: Role) -> Vec<f32> {
        let parameters = parameter(role);
        let mut optimizer = Optimizer::new(rule, &parameters).unwrap();
        for _ in 0..3 {
            let w = &parameters[0].tensor;
            let loss = (w * w).sum(Kind::Float);
            let gradients = Tensor::run_backward(&[loss], &[w], false, false);
            optimizer.step(&parameters, &gradients, 0.1, None).unwrap();
        }
        Vec::try_from(parameters[0].tensor.detach()).unwrap()
    }

    fn close(found: &[f32], expected: &[f32]) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?}, expected {expected:?}");
        }
    }

    /// The expected values were computed apart, from the formulas of `torch.optim`'s documentation.
    #[test]
    fn the_steps_are_those_of_pytorch() {
        let sgd = |momentum, weight_decay, nesterov| Rule::Sgd {
            lr: 0.1,
            momentum,
            weight_decay,
            nesterov,
        };
        close(&descend(sgd(0.0, 0.0, false), Role::Weight), &[0.512, -1.024]);
        close(&descend(sgd(0.9, 0.0, false), Role::Weight), &SGD_MOMENTUM);
        close(&descend(sgd(0.9, 0.1, true), Role::Weight), &SGD_NESTEROV);
        close(&descend(Rule::Adamw { lr: 0.1, weight_decay: 0.5 }, Role::Weight), &ADAMW);
        // A bias does not decay.
        let plain = descend(sgd(0.9, 0.0, true), Role::Bias);
        close(&descend(sgd(0.9, 0.1, true), Role::Bias), &plain);
    }

    #[test]
    fn a_learned_scale_does_not_decay_and_stays_above_zero() {
        for rule in [
            Rule::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.5, nesterov: false },
            Rule::Adamw { lr: 0.1, weight_decay: 0.5 },
        ] {
            let tensor = Tensor::from_slice(&[0.5_f32]).set_requires_grad(true);
            let parameters = vec![Parameter { name: "s".to_owned(), tensor, role: Role::Scale }];
            let mut optimizer = Optimizer::new(rule, &parameters).unwrap();
            let mut step = |gradient: f32| {
                let gradient = Tensor::from_slice(&[gradient]);
                optimizer.step(&parameters, &[gradient], 10.0, None).unwrap();
                f32::try_from(parameters[0].tensor.detach()).unwrap()
            };
            assert_eq!(step(0.0), 0.5);
            assert_eq!(step(1.0), 0.25);
            assert_eq!(step(1.0), 0.125);
        }
    }

    /// A step that overflowed changes neither parameters nor moments, and does not count.
    #[test]
    fn a_step_that_overflowed_is_none() {
        for rule in [
            Rule::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false },
            Rule::Adamw { lr: 0.1, weight_decay: 0.5 },
        ] {
            let run = |overflow: bool| {
                let parameters = parameter(Role::Weight);
                let mut optimizer = Optimizer::new(rule.clone(), &parameters).unwrap();
                for skip in [false, overflow, false] {
                    if skip {
                        let gradients = [Tensor::from_slice(&[f32::INFINITY, 1.0])];
                        let found = Tensor::from_slice(&[1.0_f32]);
                        optimizer.step(&parameters, &gradients, 0.1, Some(&found)).unwrap();
                    } else if !overflow || optimizer.steps.double_value(&[]) < 2.0 {
                        let gradients = [Tensor::from_slice(&[0.3_f32, -0.2])];
                        let found = Tensor::from_slice(&[0.0_f32]);
                        optimizer.step(&parameters, &gradients, 0.1, Some(&found)).unwrap();
                    }
                }
                let values: Vec<f32> = Vec::try_from(parameters[0].tensor.detach()).unwrap();
                (values, optimizer.steps.double_value(&[]))
            };
            let (values, steps) = run(true);
            assert_eq!(steps, 2.0);
            assert!(values.iter().all(|value| value.is_finite()));
            let (more, three) = run(false);
            assert_eq!(three, 3.0);
            assert_ne!(values, more);
        }
    }

    const SGD_MOMENTUM: [f32; 2] = [0.062, -0.124];
    const SGD_NESTEROV: [f32; 2] = [-0.140_468_4, 0.280_936_8];
    const ADAMW: [f32; 2] = [0.574_973_9, -1.431_025_2];
}
