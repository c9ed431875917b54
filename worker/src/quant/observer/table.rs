//! The table of methods.

use qpipe::stages::calibrate::Method;

use super::{entropy, histogram::Histogram, max, mse, percentile};

/// What methods may be told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Percentile of |x| that method `percentile` keeps, in per cent.
    pub percentile: f64,
}

/// A method.
pub struct Rule {
    /// Its name.
    pub method: Method,
    /// Chooses `amax` of a histogram that is not empty.
    pub amax: fn(&Histogram, &Settings) -> f32,
}

/// All methods.
pub const METHODS: &[Rule] = &[
    Rule { method: Method::Max, amax: max::amax },
    Rule { method: Method::Percentile, amax: percentile::amax },
    Rule { method: Method::Entropy, amax: entropy::amax },
    Rule { method: Method::Mse, amax: mse::amax },
];

/// `amax` by `method`; 0 for a tensor of zeros only.
pub fn amax(method: Method, histogram: &Histogram, settings: &Settings) -> f32 {
    match METHODS.iter().find(|rule| rule.method == method) {
        Some(rule) if !histogram.is_zero() => (rule.amax)(histogram, settings),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_one_line() {
        for method in Method::ALL {
            assert_eq!(METHODS.iter().filter(|rule| rule.method == method).count(), 1);
        }
    }

    #[test]
    fn zeros_have_amax_0_by_every_method() {
        let settings = Settings { percentile: 99.99 };
        for method in Method::ALL {
            assert_eq!(amax(method, &Histogram::default(), &settings), 0.0);
        }
    }
}
