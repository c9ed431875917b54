//! Learning from another model: its probabilities (Hinton et al. 2015, <https://arxiv.org/abs/1503.02531>) and where in space its
//! channels are active (Shu et al. 2021, <https://arxiv.org/abs/2011.13256>, as in YOLOv6).

use qpipe::stages::finetune::Distillation;
use tch::{Kind, Reduction, Tensor};

use crate::interp::{Mode, Program};
use crate::{Error, Result};

/// What a model learns from.
pub struct Teacher {
    /// Weights and temperature.
    pub settings: Distillation,
    /// Runs the teacher; its options watch the values of `layers`, in their order.
    pub program: Program,
    /// Names of the layers whose outputs are compared, for messages.
    pub layers: Vec<String>,
}

impl Teacher {
    /// The part of the loss that the teacher is for, of a batch of `images`. `features`: what the student made of the layers.
    pub(super) fn loss(
        &mut self,
        images: &Tensor,
        logits: &Tensor,
        features: &[Option<Tensor>],
    ) -> Result<Tensor> {
        let mut own: Vec<Option<Tensor>> = self.layers.iter().map(|_| None).collect();
        let expected = {
            let _no_grad = tch::no_grad_guard();
            let mut watch = |index: usize, value: &Tensor| {
                if let Some(place) = own.get_mut(index) {
                    *place = Some(value.shallow_clone());
                }
                Ok(())
            };
            let images = [images.shallow_clone()];
            self.program.forward(&images, Mode::Eval, &mut watch)?.remove(0)
        };
        let temperature = self.settings.temperature;
        let mut loss =
            divergence(logits, &expected, temperature)?.f_mul_scalar(self.settings.logits)?;
        let weight = self.settings.features / self.layers.len().max(1) as f64;
        for ((layer, student), teacher) in self.layers.iter().zip(features).zip(&own) {
            let (Some(student), Some(teacher)) = (student, teacher) else {
                return Err(Error::bug(format!("layer \"{layer}\" was not computed")));
            };
            let part = channel_wise(student, teacher, temperature)
                .map_err(|error| error.at(format!("layer \"{layer}\"")))?;
            loss = loss.f_add(&part.f_mul_scalar(weight)?)?;
        }
        Ok(loss)
    }
}

/// Mean over the rows of `[N, K]` of the Kullback-Leibler divergence of `softmax(student/T)` from `softmax(teacher/T)`, times `T²`.
fn divergence(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let log = |values: &Tensor| values.f_div_scalar(temperature)?.f_log_softmax(1, Kind::Float);
    let sum = log(student)?.f_kl_div(&log(teacher)?, Reduction::Sum, true)?;
    let rows = student.size()[0].max(1) as f64;
    Ok(sum.f_mul_scalar(temperature * temperature / rows)?)
}

/// The same of each channel of `[N, C, …]`, as a distribution over space.
fn channel_wise(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let size = student.size();
    if size != teacher.size() || size.len() < 3 {
        return Err(Error::user(format!(
            "its output is {size:?} here and {:?} in the teacher: expected [batch, channels, height, width] in both",
            teacher.size()
        ))
        .help("name layers of equal shape in `layers`"));
    }
    let rows = |values: &Tensor| values.f_reshape([size[0] * size[1], -1]);
    divergence(&rows(student)?, &rows(teacher)?, temperature)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formulas, written out: `T²/rows · Σ p (ln p − ln q)`.
    fn expected(student: &[f64], teacher: &[f64], row: usize, temperature: f64) -> f64 {
        let softmax = |values: &[f64]| -> Vec<f64> {
            let powers: Vec<f64> = values.iter().map(|v| (v / temperature).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        };
        let rows = student.chunks(row).zip(teacher.chunks(row));
        let sum: f64 = rows
            .flat_map(|(student, teacher)| {
                let (q, p) = (softmax(student), softmax(teacher));
                p.into_iter().zip(q).map(|(p, q)| p * (p.ln() - q.ln())).collect::<Vec<f64>>()
            })
            .sum();
        sum * temperature * temperature / (student.len() / row) as f64
    }

    #[test]
    fn divergences_are_those_of_the_papers() {
        let student: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 11) * 0.3).collect();
        let teacher: Vec<f64> = (0..24).map(|i| f64::from(i * 5 % 13) * 0.2).collect();
        let tensor = |values: &[f64], shape: &[i64]| {
            Tensor::from_slice(values).to_kind(Kind::Float).reshape(shape)
        };
        for temperature in [1.0, 4.0] {
            let (s, t) = (tensor(&student, &[4, 6]), tensor(&teacher, &[4, 6]));
            let found = divergence(&s, &t, temperature).unwrap().double_value(&[]);
            assert!((found - expected(&student, &teacher, 6, temperature)).abs() < 1e-5);
            // Two samples of three channels of 2×2.
            let (s, t) = (tensor(&student, &[2, 3, 2, 2]), tensor(&teacher, &[2, 3, 2, 2]));
            let found = channel_wise(&s, &t, temperature).unwrap().double_value(&[]);
            assert!((found - expected(&student, &teacher, 4, temperature)).abs() < 1e-5);
        }
        let (s, t) = (tensor(&student, &[2, 12]), tensor(&teacher, &[2, 12]));
        assert!(channel_wise(&s, &t, 1.0).is_err(), "no space to compare in");
    }
}
