//! Durations for people.

/// `0.04 s`, `12.3 s`, `3 min 7 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round();
    if seconds < 0.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600.0 {
        format!("{} min {} s", (whole / 60.0).floor(), whole % 60.0)
    } else {
        format!("{} h {} min", (whole / 3600.0).floor(), (whole % 3600.0 / 60.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_length() {
        let cases = [0.004, 0.994, 1.0, 12.34, 59.94, 60.0, 187.2, 3600.0, 7530.0].map(seconds);
        let expected = [
            "0.00 s",
            "0.99 s",
            "1.0 s",
            "12.3 s",
            "59.9 s",
            "1 min 0 s",
            "3 min 7 s",
            "1 h 0 min",
            "2 h 5 min",
        ];
        assert_eq!(cases, expected);
    }
}
