//! How figures are written.

/// `91.70 %` of 0.917.
pub(super) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// `+0.12` percentage points.
pub(super) fn points(points: f64) -> String {
    // No `-0.00`.
    if points.abs() < 0.005 { "0.00".to_owned() } else { format!("{points:+.2}") }
}

/// Milliseconds with at least three digits.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.3}"),
        ms if ms < 100.0 => format!("{ms:.2}"),
        _ => format!("{ms:.1}"),
    }
}

/// Images a second: `12,345`, below a hundred `98.7`.
pub(super) fn rate(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.98×`.
pub(super) fn times(factor: f64) -> String {
    format!("{factor:.2}×")
}

/// `+98 %` of 1.98.
pub(super) fn gain(factor: f64) -> String {
    let percent = ((factor - 1.0) * 100.0).round();
    if percent == 0.0 { "0 %".to_owned() } else { format!("{percent:+.0} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(percent(0.917), "91.70 %");
        assert_eq!([points(-0.001), points(0.3), points(-1.234)], ["0.00", "+0.30", "-1.23"]);
        assert_eq!([0.1234, 9.876, 123.45].map(milliseconds), ["0.123", "9.88", "123.5"]);
        assert_eq!(
            [98.66, 345.0, 1234.5, 1_234_567.0].map(rate),
            ["98.7", "345", "1,234", "1,234,567"]
        );
        assert_eq!(
            [times(1.984), gain(1.984), gain(0.9), gain(1.001)],
            ["1.98×", "+98 %", "-10 %", "0 %"]
        );
    }
}
