//! Optimizers, with their state in the open so that a checkpoint can hold it.

use qpipe::stages::training::Optimizer as Rule;
use tch::Tensor;

use crate::Result;
use crate::interp::{Parameter, Role};

/// An optimizer over a program's parameters; SGD as `torch.optim.SGD` or AdamW as `torch.optim.AdamW`.
///
/// Weight decay leaves biases, the parameters of normalizations and learned scales alone; those stay above zero.
pub struct Optimizer {
    rule: Rule,
    /// Momentum, or AdamW's first and second moments, in the order of the parameters.
    state: Vec<Vec<Tensor>>,
    steps: i64,
}

impl Optimizer {
    /// An optimizer without momentum yet.
    pub fn new(rule: Rule, parameters: &[Parameter]) -> Result<Self> {
        let moments = match rule {
            Rule::Sgd { .. } => 1,
            Rule::Adamw { .. } => 2,
        };
        let zeros = |parameter: &Parameter| {
            (0..moments).map(|_| Ok(parameter.tensor.f_zeros_like()?)).collect::<Result<Vec<_>>>()
        };
        let state = parameters.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { rule, state, steps: 0 })
    }

    /// One step along the gradients, one for each parameter; undefined: the loss does not depend on it.
    pub fn step(&mut self, parameters: &[Parameter], gradients: &[Tensor], lr: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        for ((parameter, gradient), state) in parameters.iter().zip(gradients).zip(&mut self.state)
        {
            if !gradient.defined() {
                continue;
            }
            let mut value = parameter.tensor.shallow_clone();
            let before =
                if parameter.role == Role::Scale { Some(value.f_detach_copy()?) } else { None };
            let decays = parameter.role == Role::Weight;
            match &self.rule {
                Rule::Sgd { momentum, weight_decay, nesterov, .. } => {
                    let mut step = if decays && *weight_decay > 0.0 {
                        gradient.f_add(&value.f_mul_scalar(*weight_decay)?)?
                    } else {
                        gradient.shallow_clone()
                    };
                    if *momentum > 0.0 {
                        let velocity = &mut state[0];
                        let _ = velocity.f_mul_scalar_(*momentum)?;
                        // The first step's momentum is the gradient itself, as in PyTorch.
                        let _ = velocity.f_add_(&step)?;
                        step = if *nesterov {
                            step.f_add(&velocity.f_mul_scalar(*momentum)?)?
                        } else {
                            velocity.shallow_clone()
                        };
                    }
                    let _ = value.f_sub_(&step.f_mul_scalar(lr)?)?;
                }
                Rule::Adamw { weight_decay, .. } => {
                    const BETAS: (f64, f64) = (0.9, 0.999);
                    if decays {
                        let _ = value.f_mul_scalar_(1.0 - lr * weight_decay)?;
                    }
                    let [first, second] = &mut state[..] else { continue };
                    let _ = first.f_mul_scalar_(BETAS.0)?;
                    let _ = first.f_add_(&gradient.f_mul_scalar(1.0 - BETAS.0)?)?;
                    let _ = second.f_mul_scalar_(BETAS.1)?;
                    let square = gradient.f_mul(gradient)?.f_mul_scalar(1.0 - BETAS.1)?;
                    let _ = second.f_add_(&square)?;
                    let steps = self.steps as f64;
                    let (c1, c2) = (1.0 - BETAS.0.powf(steps), 1.0 - BETAS.1.powf(steps));
                    let root = second.f_sqrt()?.f_div_scalar(c2.sqrt())?.f_add_scalar(1e-8)?;
                    let _ = value.f_sub_(&first.f_div(&root)?.f_mul_scalar(lr / c1)?)?;
                }
            }
            // A scale stays above zero: a step halves it at most.
            if let Some(before) = before {
                let least = before.f_mul_scalar(0.5)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
                value.f_copy_(&value.f_maximum(&least)?)?;
            }
        }
        Ok(())
    }

    /// Its tensors by name, and its count of steps.
    pub(super) fn state(&self, parameters: &[Parameter]) -> (Vec<(String, Tensor)>, i64) {
        let named = parameters.iter().zip(&self.state).flat_map(|(parameter, state)| {
            state.iter().enumerate().map(|(moment, tensor)| {
                (format!("optimizer.{moment}.{}", parameter.name), tensor.shallow_clone())
            })
        });
        (named.collect(), self.steps)
    }

    /// Puts a [`Optimizer::state`] back; `false` where a tensor is missing.
    pub(super) fn load(
        &mut self,
        parameters: &[Parameter],
        find: impl Fn(&str) -> Option<Tensor>,
        steps: i64,
    ) -> Result<bool> {
        self.steps = steps;
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
            let loss = (w * w).sum(tch::Kind::Float);
            let gradients = Tensor::run_backward(&[loss], &[w], false, false);
            optimizer.step(&parameters, &gradients, 0.1).unwrap();
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
                optimizer.step(&parameters, &[gradient], 10.0).unwrap();
                f32::try_from(parameters[0].tensor.detach()).unwrap()
            };
            assert_eq!(step(0.0), 0.5);
            assert_eq!(step(1.0), 0.25);
            assert_eq!(step(1.0), 0.125);
        }
    }

    const SGD_MOMENTUM: [f32; 2] = [0.062, -0.124];
    const SGD_NESTEROV: [f32; 2] = [-0.140_468_4, 0.280_936_8];
    const ADAMW: [f32; 2] = [0.574_973_9, -1.431_025_2];
}
