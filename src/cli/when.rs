//! Points of time for people.

/// `2025-01-31 12:00:00 UTC` of a time in RFC 3339; what is no such time stays as it is.
pub fn when(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(when("2025-01-31T12:00:00.123456Z"), "2025-01-31 12:00:00 UTC");
        assert_eq!(when("yesterday"), "yesterday");
    }
}
