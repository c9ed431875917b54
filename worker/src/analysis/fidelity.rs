//! How far values are from what they should be.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// Sums over batches of values and what they should be.
#[derive(Clone, Debug, Default)]
pub struct Fidelity {
    signal: f64,
    noise: f64,
    square: f64,
    dot: f64,
    elements: u64,
    rows: u64,
    agree: u64,
}

/// A [`Fidelity`] as figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Signal to quantization noise, 10 lg (Σ x² / Σ (x − q)²), in dB; `null`: no difference at all.
    pub sqnr_db: Option<f64>,
    /// Σ x q / √(Σ x² Σ q²).
    pub cosine: f64,
    /// Share of rows `[N, …]` whose largest element is at the same place, 0…1.
    pub agreement: f64,
}

impl Fidelity {
    /// Takes values `[N, …]` and what they should be, of the same shape.
    pub fn add(&mut self, expected: &Tensor, found: &Tensor) -> Result<()> {
        let double = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Double);
        let (x, q) = (double(expected)?, double(found)?.f_to_device(expected.device())?);
        let sum = |tensor: Tensor| tensor.f_sum(Kind::Double)?.f_double_value(&[]);
        self.signal += sum(x.f_square()?)?;
        self.noise += sum(x.f_sub(&q)?.f_square()?)?;
        self.square += sum(q.f_square()?)?;
        self.dot += sum(x.f_mul(&q)?)?;
        self.elements += x.numel() as u64;
        if x.dim() > 1 && x.numel() > 0 {
            let largest = |tensor: &Tensor| tensor.f_flatten(1, -1)?.f_argmax(1, false);
            let same = largest(&x)?.f_eq_tensor(&largest(&q)?)?;
            self.agree += same.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64;
            self.rows += x.size()[0] as u64;
        }
        Ok(())
    }

    /// Root of the mean square of what the values should be.
    pub fn signal_rms(&self) -> f64 {
        (self.signal / self.elements.max(1) as f64).sqrt()
    }

    /// The same of how far they are from it.
    pub fn noise_rms(&self) -> f64 {
        (self.noise / self.elements.max(1) as f64).sqrt()
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let sqnr = 10.0 * (self.signal / self.noise).log10();
        let norm = (self.signal * self.square).sqrt();
        Figures {
            sqnr_db: (self.noise != 0.0).then_some(sqnr),
            cosine: if norm > 0.0 {
                self.dot / norm
            } else {
                f64::from(u8::from(self.noise == 0.0))
            },
            agreement: if self.rows == 0 { 1.0 } else { self.agree as f64 / self.rows as f64 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_all_batches() {
        let mut fidelity = Fidelity::default();
        let add = |fidelity: &mut Fidelity, x: &[f32], q: &[f32]| {
            let tensor = |values: &[f32]| Tensor::from_slice(values).reshape([-1, 2]);
            fidelity.add(&tensor(x), &tensor(q)).unwrap();
        };
        add(&mut fidelity, &[3.0, 4.0], &[3.0, 4.0]);
        let exact = Figures { sqnr_db: None, cosine: 1.0, agreement: 1.0 };
        assert_eq!(fidelity.figures(), exact);
        // Σ x² = 50, Σ (x − q)² = 0.5.
        add(&mut fidelity, &[3.0, 4.0], &[3.5, 3.5]);
        let figures = fidelity.figures();
        assert!((figures.sqnr_db.unwrap() - 20.0).abs() < 1e-9);
        assert!((figures.cosine - 49.5 / (50.0_f64 * 49.5).sqrt()).abs() < 1e-9);
        assert_eq!(figures.agreement, 0.5, "a tie goes to the first");
    }

    #[test]
    fn zeros_are_like_zeros_only() {
        let zeros = Tensor::from_slice(&[0.0_f32, 0.0]);
        let mut same = Fidelity::default();
        same.add(&zeros, &zeros).unwrap();
        assert_eq!(same.figures().cosine, 1.0);
        let mut other = Fidelity::default();
        other.add(&zeros, &Tensor::from_slice(&[1.0_f32, 0.0])).unwrap();
        let figures = other.figures();
        assert_eq!((figures.sqnr_db, figures.cosine), (Some(f64::NEG_INFINITY), 0.0));
    }
}
