//! Loss scaling for gradients in half precision, as `torch.amp.GradScaler` (Micikevicius et al. 2018, <https://arxiv.org/abs/1710.03740>).

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

use crate::{Result, torch};

/// Factor at first, and what it is multiplied by after a step whose gradients overflowed and after [`INTERVAL`] steps without one.
const FIRST: f64 = 65536.0;
const BACKOFF: f64 = 0.5;
const GROWTH: f64 = 2.0;
const INTERVAL: i64 = 2000;

/// The factor that losses are multiplied by, so that small gradients do not vanish; it lives where the gradients do, so that
/// nobody waits for it.
pub(super) struct Scaler {
    scale: Tensor,
    /// Steps without an overflow.
    tracker: Tensor,
    /// 1 where a step's gradients are not finite.
    found: Tensor,
}

impl Scaler {
    pub fn new(device: Device) -> Result<Self> {
        let options = (Kind::Float, device);
        Ok(Self {
            scale: Tensor::f_full([1], FIRST, options)?,
            tracker: Tensor::f_zeros([1], (Kind::Int, device))?,
            found: Tensor::f_zeros([1], options)?,
        })
    }

    /// The loss whose gradients are to be taken.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor> {
        Ok(loss.f_mul(&self.scale)?.f_reshape(loss.size())?)
    }

    /// Takes the factor out of a step's gradients. Gives one number, 1 where they are not finite: then the step must not be made.
    pub fn unscale(&mut self, gradients: &[Tensor]) -> Result<&Tensor> {
        let _no_grad = tch::no_grad_guard();
        let _ = self.found.f_zero_()?;
        // Two parameters may share a gradient, which is divided once.
        let mut known = HashSet::new();
        let own = |gradient: &&Tensor| gradient.defined() && known.insert(gradient.data_ptr());
        let defined: Vec<Tensor> =
            gradients.iter().filter(own).map(Tensor::shallow_clone).collect();
        torch::unscale(&defined, &mut self.found, &self.scale.f_reciprocal()?)?;
        Ok(&self.found)
    }

    /// Adapts the factor after a step.
    pub fn update(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (tracker, found) = (&self.tracker, &self.found);
        let _ =
            self.scale.f_internal_amp_update_scale_(tracker, found, GROWTH, BACKOFF, INTERVAL)?;
        Ok(())
    }

    /// The factor; waits for the steps so far.
    pub fn factor(&self) -> Result<f64> {
        Ok(self.scale.f_double_value(&[0])?)
    }

    /// What a checkpoint holds, by name.
    pub fn state(&self) -> [(&'static str, &Tensor); 2] {
        [("scaler.scale", &self.scale), ("scaler.tracker", &self.tracker)]
    }

    /// Puts a [`Scaler::state`] back; `false` where a part is missing.
    pub fn load(&mut self, find: impl Fn(&str) -> Option<Tensor>) -> Result<bool> {
        for (name, tensor) in self.state() {
            match find(name) {
                Some(saved) => tensor.shallow_clone().f_copy_(&saved)?,
                None => return Ok(false),
            };
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(scaler: &mut Scaler, gradient: f32) -> (f64, f64) {
        let factor = scaler.factor().unwrap() as f32;
        let gradients = [Tensor::from_slice(&[gradient * factor]), Tensor::new()];
        let found = scaler.unscale(&gradients).unwrap().double_value(&[0]);
        scaler.update().unwrap();
        (gradients[0].double_value(&[0]), found)
    }

    #[test]
    fn an_overflow_halves_the_factor_and_long_peace_doubles_it() {
        let mut scaler = Scaler::new(Device::Cpu).unwrap();
        assert_eq!(step(&mut scaler, 3.0), (3.0, 0.0));
        assert_eq!(step(&mut scaler, f32::INFINITY).1, 1.0);
        assert_eq!(scaler.factor().unwrap(), FIRST / 2.0);
        for _ in 0..INTERVAL {
            step(&mut scaler, 1.0);
        }
        assert_eq!(scaler.factor().unwrap(), FIRST);
        let shared = Tensor::from_slice(&[FIRST as f32 * 3.0]);
        scaler.unscale(&[shared.shallow_clone(), shared.shallow_clone()]).unwrap();
        assert_eq!(shared.double_value(&[0]), 3.0);
        let loss = Tensor::from(2.0_f32);
        let scaled = scaler.scaled(&loss).unwrap();
        assert_eq!((scaled.size(), scaled.double_value(&[])), (vec![], 2.0 * FIRST));
        let mut other = Scaler::new(Device::Cpu).unwrap();
        step(&mut other, f32::NAN);
        let state = scaler.state().map(|(name, tensor)| (name, tensor.copy()));
        let find = |wanted: &str| {
            let own = state.iter().find(|(name, _)| *name == wanted)?;
            Some(own.1.to_kind(Kind::Float))
        };
        assert!(other.load(find).unwrap());
        assert_eq!(other.factor().unwrap(), FIRST);
        assert!(!other.load(|_| None).unwrap());
    }
}
