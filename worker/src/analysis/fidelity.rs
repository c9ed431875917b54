//! How far values are from what they should be.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// The least SQNR there is, in dB: of values that are NaN or infinite where they should not be, and of noise without any signal. A number, since
/// JSON has no infinity, and `null` says that nothing differs.
pub const WORST: f64 = -999.0;

/// Sums over batches of values and what they should be. What is not finite takes part in none: where it is the same on both sides, an
/// infinity of one sign or a NaN, nothing differs; any other is counted apart.
#[derive(Clone, Debug, Default)]
pub struct Fidelity {
    signal: f64,
    noise: f64,
    square: f64,
    dot: f64,
    elements: u64,
    rows: u64,
    agree: u64,
    not_finite: u64,
}

/// A [`Fidelity`] as figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Signal to quantization noise, 10 lg (Σ x² / Σ (x − q)²), in dB, at least [`WORST`]; `null`: no difference at all.
    pub sqnr_db: Option<f64>,
    /// Σ x q / √(Σ x² Σ q²); 0 with elements that are not finite.
    pub cosine: f64,
    /// Share of rows `[N, …]` whose largest element is at the same place, 0…1. A row with a NaN agrees with none without, and the other way round.
    pub agreement: f64,
    /// Elements that are NaN or infinite where they should be something else, or the other way round: of one the SQNR is [`WORST`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub not_finite: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Figures {
    /// The SQNR for comparisons: no difference is better than any.
    pub fn decibels(&self) -> f64 {
        self.sqnr_db.unwrap_or(f64::INFINITY)
    }
}

impl Fidelity {
    /// Takes values `[N, …]` and what they should be, of the same shape.
    pub fn add(&mut self, expected: &Tensor, found: &Tensor) -> Result<()> {
        let double = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Double);
        let (x, q) = (double(expected)?, double(found)?.f_to_device(expected.device())?);
        let sum = |tensor: Tensor| tensor.f_sum(Kind::Double)?.f_double_value(&[]);
        let [mut signal, mut square] = [sum(x.f_square()?)?, sum(q.f_square()?)?];
        let mut own = (x.shallow_clone(), q.shallow_clone());
        self.elements += x.numel() as u64;
        if !(signal.is_finite() && square.is_finite()) {
            let count = |mask: &Tensor| mask.f_sum(Kind::Int64)?.f_int64_value(&[]);
            let beyond = x.f_isfinite()?.f_logical_and(&q.f_isfinite()?)?.f_logical_not()?;
            let nan = x.f_isnan()?.f_logical_and(&q.f_isnan()?)?;
            let same = x.f_eq_tensor(&q)?.f_logical_or(&nan)?.f_logical_and(&beyond)?;
            let (beyond_all, same) = (count(&beyond)?, count(&same)?);
            self.not_finite += (beyond_all - same) as u64;
            self.elements -= beyond_all as u64;
            own = (x.f_masked_fill(&beyond, 0.0)?, q.f_masked_fill(&beyond, 0.0)?);
            [signal, square] = [sum(own.0.f_square()?)?, sum(own.1.f_square()?)?];
        }
        self.signal += signal;
        self.square += square;
        self.noise += sum(own.0.f_sub(&own.1)?.f_square()?)?;
        self.dot += sum(own.0.f_mul(&own.1)?)?;
        if x.dim() > 1 && x.numel() > 0 {
            let rows = |tensor: &Tensor| tensor.f_flatten(1, -1);
            let (x, q) = (rows(&x)?, rows(&q)?);
            let mut same = x.f_argmax(1, false)?.f_eq_tensor(&q.f_argmax(1, false)?)?;
            if self.not_finite > 0 {
                // The largest of a row with a NaN is the NaN.
                let nan = |tensor: &Tensor| tensor.f_isnan()?.f_any_dim(1, false);
                same = nan(&x)?.f_eq_tensor(&nan(&q)?)?.f_logical_and(&same)?;
            }
            self.agree += same.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64;
            self.rows += x.size()[0] as u64;
        }
        Ok(())
    }

    /// Root of the mean square of what the values should be.
    pub fn signal_rms(&self) -> f64 {
        (self.signal / self.elements.max(1) as f64).sqrt()
    }

    /// The same of how far they are from it; infinite with elements that are not finite.
    pub fn noise_rms(&self) -> f64 {
        if self.not_finite > 0 {
            return f64::INFINITY;
        }
        (self.noise / self.elements.max(1) as f64).sqrt()
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let exact = self.noise == 0.0 && self.not_finite == 0;
        let sqnr = 10.0 * (self.signal / self.noise).log10();
        // Of NaN, which sums that overflow give, it is the worst too.
        let sqnr = if self.not_finite > 0 { WORST } else { sqnr.max(WORST) };
        let cosine = self.dot / (self.signal * self.square).sqrt();
        Figures {
            sqnr_db: (!exact).then_some(sqnr),
            cosine: if self.not_finite > 0 {
                0.0
            } else if cosine.is_finite() {
                cosine
            } else {
                f64::from(u8::from(exact))
            },
            agreement: if self.rows == 0 { 1.0 } else { self.agree as f64 / self.rows as f64 },
            not_finite: self.not_finite,
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
        let exact = Figures { sqnr_db: None, cosine: 1.0, agreement: 1.0, not_finite: 0 };
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
        assert_eq!((figures.sqnr_db, figures.cosine), (Some(WORST), 0.0));
    }

    fn of(expected: &[f32], found: &[f32]) -> Figures {
        let rows = |values: &[f32]| Tensor::from_slice(values).reshape([-1, 2]);
        let mut fidelity = Fidelity::default();
        fidelity.add(&rows(expected), &rows(found)).unwrap();
        fidelity.figures()
    }

    const INFINITE: f32 = f32::INFINITY;

    /// A mask has -∞ where nothing is to be seen, of any form of the model.
    #[test]
    fn what_is_the_same_on_both_sides_is_no_difference_finite_or_not() {
        let masked = [3.0, -INFINITE, INFINITE, 4.0, f32::NAN, 0.0];
        let exact = Figures { sqnr_db: None, cosine: 1.0, agreement: 1.0, not_finite: 0 };
        assert_eq!(of(&masked, &masked), exact);
        // Σ x² = 25, Σ (x − q)² = 0.25.
        let figures = of(&masked, &[3.0, -INFINITE, INFINITE, 4.5, f32::NAN, 0.0]);
        assert!((figures.sqnr_db.unwrap() - 20.0).abs() < 1e-9, "{figures:?}");
        assert!((figures.cosine - 27.0 / (25.0_f64 * 29.25).sqrt()).abs() < 1e-9, "{figures:?}");
        let nothing = of(&[f32::NAN; 2], &[f32::NAN; 2]);
        assert_eq!((nothing.sqnr_db, nothing.cosine), (None, 1.0));
    }

    #[test]
    fn what_should_be_finite_and_is_not_is_the_worst_there_is() {
        let expected = [3.0, 4.0, 1.0, 0.0];
        for bad in [f32::NAN, -f32::NAN, INFINITE, -INFINITE] {
            for (one, other) in [(expected, [3.0, 4.0, bad, 0.0]), ([3.0, 4.0, bad, 0.0], expected)]
            {
                let figures = of(&one, &other);
                assert_eq!((figures.sqnr_db, figures.not_finite), (Some(WORST), 1), "{figures:?}");
                assert_eq!(figures.cosine, 0.0);
                let text = serde_json::to_string(&figures).unwrap();
                assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
            }
            assert_eq!(of(&[bad, 0.0], &[-bad, 0.0]).not_finite, u64::from(!bad.is_nan()));
        }
        // The NaN is where the largest should be, and in a row of nothing but NaN the first is taken for it.
        for found in [[f32::NAN, 0.0], [f32::NAN; 2]] {
            assert_eq!(of(&[1.0, 0.0], &found).agreement, 0.0, "{found:?}");
            assert_eq!(of(&found, &[1.0, 0.0]).agreement, 0.0, "{found:?}");
        }
        assert_eq!(of(&[f32::NAN, 0.0], &[f32::NAN, 0.0]).agreement, 1.0);
    }
}
