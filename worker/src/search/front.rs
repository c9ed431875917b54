//! The Pareto front.

/// Which of these points, latency and signal to noise in dB, are on the front: no other is at least as fast and as accurate, and better in
/// one of the two. Of equal points all are.
pub fn front(points: &[(f64, f64)]) -> Vec<bool> {
    let dominated = |&(latency, sqnr): &(f64, f64)| {
        points.iter().any(|&(other, signal)| {
            other <= latency && signal >= sqnr && (other < latency || signal > sqnr)
        })
    };
    points.iter().map(|point| !dominated(point)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_another_beats_in_both_is_not_on_it() {
        let infinite = f64::INFINITY;
        let points =
            [(2.0, infinite), (1.0, 20.0), (1.5, 30.0), (1.6, 29.0), (1.5, 28.0), (0.9, 20.0)];
        assert_eq!(front(&points), [true, false, true, false, false, true]);
        assert_eq!(front(&[(1.0, 5.0), (1.0, 5.0)]), [true, true]);
        assert_eq!(front(&[]), Vec::<bool>::new());
    }

    /// INT8 that is nowhere faster: the float engine alone is left.
    #[test]
    fn a_float_engine_that_is_the_fastest_is_the_whole_front() {
        assert_eq!(front(&[(1.0, f64::INFINITY), (1.2, 30.0), (1.1, 40.0)]), [true, false, false]);
    }

    proptest! {
        /// The front is not empty, falls in error as it rises in latency, and each other point has one of it that is no worse.
        #[test]
        fn the_front_is_a_staircase(points in prop::collection::vec((0..20_u32, 0..20_u32), 1..40)) {
            let points: Vec<(f64, f64)> =
                points.into_iter().map(|(a, b)| (f64::from(a), f64::from(b))).collect();
            let on = front(&points);
            let mut stairs: Vec<(f64, f64)> =
                points.iter().zip(&on).filter(|(_, on)| **on).map(|(point, _)| *point).collect();
            prop_assert!(!stairs.is_empty());
            for point in &points {
                prop_assert!(stairs.iter().any(|on| on.0 <= point.0 && on.1 >= point.1));
            }
            stairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            prop_assert!(stairs.windows(2).all(|two| two[0].1 < two[1].1 || two[0] == two[1]));
        }
    }
}
