//! The learning rate, step by step.

use qpipe::stages::training::Schedule;

/// Learning rate at `step` (from 0) of `steps`, of which an epoch has `per_epoch`; `peak` is the optimizer's.
///
/// `cosine`: Loshchilov & Hutter 2017, <https://arxiv.org/abs/1608.03983>; `one-cycle`: Smith & Topin 2018,
/// <https://arxiv.org/abs/1708.07120>, linear up from 1/25 of the peak, a cosine down to nothing.
pub fn rate(schedule: &Schedule, peak: f64, step: u64, steps: u64, per_epoch: u64) -> f64 {
    let (at, all) = (step as f64, steps.max(1) as f64);
    let cosine = |part: f64, last: f64| {
        let part = part.clamp(0.0, 1.0);
        last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
    };
    peak * match schedule {
        Schedule::Constant {} => 1.0,
        Schedule::Cosine { final_factor, warmup_epochs } => {
            let warmup = (warmup_epochs * per_epoch as f64).min(all - 1.0);
            if at < warmup {
                (at + 1.0) / (warmup + 1.0)
            } else {
                // The last step has the last rate.
                cosine((at - warmup) / (all - 1.0 - warmup).max(1.0), *final_factor)
            }
        }
        Schedule::OneCycle { rise } => {
            let top = rise * all;
            if at < top {
                0.04 + 0.96 * (at + 1.0) / top.max(1.0).max(at + 1.0)
            } else {
                cosine((at + 1.0 - top) / (all - top).max(1.0), 0.0)
            }
        }
        Schedule::Step { epochs, factor, warmup_epochs } => {
            let epoch = step / per_epoch.max(1);
            let falls = epochs.iter().filter(|&&fall| u64::from(fall) <= epoch).count();
            let warmup = warmup_epochs * per_epoch as f64;
            ((at + 1.0) / (warmup + 1.0)).min(1.0) * factor.powi(falls as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schedule: &Schedule) -> Vec<f64> {
        (0..100).map(|step| rate(schedule, 2.0, step, 100, 10)).collect()
    }

    #[test]
    fn a_cosine_warms_up_and_ends_at_its_last_factor() {
        let rates = all(&Schedule::Cosine { final_factor: 0.01, warmup_epochs: 1.0 });
        assert!(rates[0] > 0.0 && rates[0] < 0.3);
        assert!(rates[..10].is_sorted() && rates[10..].is_sorted_by(|a, b| a >= b));
        assert!((rates[10] - 2.0).abs() < 1e-9);
        assert!((rates[99] - 0.02).abs() < 1e-9);
        let plain = all(&Schedule::Cosine { final_factor: 0.0, warmup_epochs: 0.0 });
        assert_eq!((plain[0], plain[99]), (2.0, 0.0));
    }

    #[test]
    fn one_cycle_peaks_after_its_rise() {
        let rates = all(&Schedule::OneCycle { rise: 0.3 });
        let top = (0..100).max_by(|&a, &b| rates[a].total_cmp(&rates[b])).unwrap();
        assert_eq!(top, 29);
        assert!((rates[29] - 2.0).abs() < 1e-9);
        assert!(rates[99] < 1e-9 && rates[0] < 0.2);
        // Neither end of the range of `rise` divides by nothing.
        for rise in [0.0, 1.0] {
            assert!(all(&Schedule::OneCycle { rise }).iter().all(|rate| rate.is_finite()));
        }
    }

    #[test]
    fn steps_multiply() {
        let steps =
            |warmup_epochs| all(&Schedule::Step { epochs: vec![3, 6], factor: 0.1, warmup_epochs });
        let rates = steps(0.0);
        assert_eq!(rates[0], 2.0);
        assert_eq!([rates[29], rates[30]], [2.0, 2.0 * 0.1]);
        assert!((rates[60] - 0.02).abs() < 1e-12);
        let warmed = steps(2.0);
        assert!(warmed[0] < 0.2 && warmed[..20].is_sorted() && warmed[19] < 2.0);
        assert_eq!(warmed[20..], rates[20..]);
    }
}
