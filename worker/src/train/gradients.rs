//! The gradients of a step: averaged over its batches, and not larger than allowed.

use tch::{Kind, Tensor};

use crate::Result;

/// A sum of batches' gradients, each weighted by its count of samples.
#[derive(Default)]
pub(super) struct Sum {
    gradients: Vec<Tensor>,
    samples: i64,
    batches: u32,
}

impl Sum {
    /// Adds the gradients of a batch's mean loss; an undefined one is no part of it.
    pub fn add(&mut self, gradients: Vec<Tensor>, samples: i64) -> Result<()> {
        self.batches += 1;
        let before = self.samples;
        self.samples += samples;
        if self.batches == 1 {
            self.gradients = gradients;
            return Ok(());
        }
        for (sum, gradient) in self.gradients.iter_mut().zip(gradients) {
            // The first batch's gradients are not yet weighted, so that a step of one batch is its gradients as they are.
            if sum.defined() && self.batches == 2 {
                *sum = sum.f_mul_scalar(before as f64)?;
            }
            if gradient.defined() {
                let weighted = gradient.f_mul_scalar(samples as f64)?;
                *sum = if sum.defined() { sum.f_add(&weighted)? } else { weighted };
            }
        }
        Ok(())
    }

    /// The mean over all samples.
    pub fn mean(mut self) -> Result<Vec<Tensor>> {
        if self.batches > 1 {
            for gradient in self.gradients.iter_mut().filter(|gradient| gradient.defined()) {
                *gradient = gradient.f_div_scalar(self.samples as f64)?;
            }
        }
        Ok(self.gradients)
    }
}

/// Scales gradients down to a norm over all of them, as `torch.nn.utils.clip_grad_norm_`. Nobody waits for the norm.
pub(super) fn clip(gradients: &mut [Tensor], most: f64) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let mut square: Option<Tensor> = None;
    for gradient in gradients.iter().filter(|gradient| gradient.defined()) {
        let own = gradient.f_mul(gradient)?.f_sum(Kind::Double)?;
        square = Some(square.map_or(Ok(own.shallow_clone()), |sum| sum.f_add(&own))?);
    }
    let Some(square) = square else { return Ok(()) };
    let norm = square.f_sqrt()?.f_add_scalar(1e-6)?;
    // A norm that is no number leaves them as they are: such a step is none, or ends the training.
    let factor = norm.f_full_like(most)?.f_div(&norm)?.f_clamp_max(1.0)?;
    let factor = factor.f_nan_to_num(1.0, 1.0, 1.0)?;
    for gradient in gradients.iter_mut().filter(|gradient| gradient.defined()) {
        *gradient = gradient.f_mul(&factor.f_to_kind(gradient.kind())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(gradients: &[Tensor]) -> Vec<f64> {
        gradients.iter().filter(|g| g.defined()).map(|g| g.double_value(&[])).collect()
    }

    #[test]
    fn batches_count_by_their_samples() {
        let mut sum = Sum::default();
        for (value, samples) in [(1.0_f32, 2), (4.0, 1)] {
            sum.add(vec![Tensor::from(value), Tensor::new()], samples).unwrap();
        }
        assert_eq!(values(&sum.mean().unwrap()), [2.0]);
    }

    #[test]
    fn a_norm_is_held_over_all_gradients() {
        let mut gradients = [Tensor::from(3.0_f32), Tensor::new(), Tensor::from(4.0_f32)];
        clip(&mut gradients, 10.0).unwrap();
        assert_eq!(values(&gradients), [3.0, 4.0]);
        clip(&mut gradients, 1.0).unwrap();
        let norm = values(&gradients).iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
        let mut gradients = [Tensor::from(f32::NAN), Tensor::from(4.0_f32)];
        clip(&mut gradients, 1.0).unwrap();
        assert_eq!(gradients[1], Tensor::from(4.0_f32));
        assert!(gradients[0].double_value(&[]).is_nan());
        clip(&mut [Tensor::new()], 1.0).unwrap();
    }
}
