//! Amounts with a unit as text: `8 GB`, `1 h 30 min`.

use std::time::Duration;

use super::contract::Problem;

/// Units of sizes, in bytes.
const SIZES: &[(&str, u64)] = &[
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Units of times, in seconds.
const TIMES: &[(&str, f64)] =
    &[("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0)];

/// What users write instead of a unit.
const OTHERS: &[(&str, &str)] = &[
    ("b", "kB"),
    ("k", "kB"),
    ("m", "MB"),
    ("g", "GB"),
    ("t", "TB"),
    ("ki", "KiB"),
    ("mi", "MiB"),
    ("gi", "GiB"),
    ("ti", "TiB"),
    ("m", "min"),
    ("mins", "min"),
    ("minute", "min"),
    ("minutes", "min"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("hr", "h"),
    ("hrs", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("msec", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
];

/// A size in bytes: one number and one unit, such as `8 GB` or `1.5GiB`.
///
/// # Errors
///
/// A problem at `field`: not of that form, an unknown unit, or less than a byte.
pub fn bytes(field: &str, text: &str) -> Result<u64, Problem> {
    const FORM: &str = "write a number and a unit (kB, MB, GB, TB, KiB, MiB, GiB, TiB), such as \
                        \"8 GB\", or bytes as an integer";
    let wrong = |why: String| Problem::at(field, format!("\"{text}\" is not a size: {why}"));
    let parts = parts(text).map_err(|why| wrong(why).help(FORM))?;
    let [(number, unit)] = parts.as_slice() else {
        return Err(wrong("expected one number and one unit".to_owned()).help(FORM));
    };
    let factor = factor(SIZES, unit).map_err(|(why, label)| wrong(why).label(label).help(FORM))?;
    #[expect(clippy::cast_precision_loss, reason = "units are powers that f64 holds exactly")]
    let bytes = (number * factor as f64).round();
    #[expect(clippy::cast_precision_loss, reason = "a bound; that it is rounded does not matter")]
    let most = i64::MAX as f64;
    if !(1.0..most).contains(&bytes) {
        let why = if bytes < 1.0 { "less than a byte" } else { "more than any machine has" };
        return Err(wrong(why.to_owned()).help(FORM));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a whole number within the bounds above"
    )]
    Ok(bytes as u64)
}

/// A time from numbers and units, such as `90 s` or `1 h 30 min`.
///
/// # Errors
///
/// A problem at `field`: not of that form, an unknown unit, or not above zero.
pub fn time(field: &str, text: &str) -> Result<Duration, Problem> {
    const FORM: &str = "write numbers and units (ms, s, min, h, d), such as \"90 s\" or \
                        \"1 h 30 min\", or a number of seconds";
    let wrong = |why: String| Problem::at(field, format!("\"{text}\" is not a time: {why}"));
    let mut seconds = 0.0;
    for (number, unit) in parts(text).map_err(|why| wrong(why).help(FORM))? {
        let factor =
            factor(TIMES, unit).map_err(|(why, label)| wrong(why).label(label).help(FORM))?;
        seconds += number * factor;
    }
    self::seconds(seconds).map_err(|why| wrong(why.to_owned()).help(FORM))
}

/// Seconds as a time.
///
/// # Errors
///
/// What is wrong with a time that is not above zero, or longer than can be counted.
pub fn seconds(seconds: f64) -> Result<Duration, &'static str> {
    // A thousand years; more would overflow when it is added to a clock's time.
    const MOST: f64 = 3.2e10;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time.is_zero() => Err("expected more than nothing"),
        Ok(time) if seconds <= MOST => Ok(time),
        Err(_) if seconds <= 0.0 => Err("expected more than nothing"),
        Ok(_) | Err(_) => Err("that is longer than any run"),
    }
}

fn factor<T: Copy>(units: &[(&str, T)], unit: &str) -> Result<T, (String, String)> {
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) {
        return Ok(*factor);
    }
    if unit.is_empty() {
        return Err(("the unit is missing".to_owned(), "no unit".to_owned()));
    }
    let small = unit.to_lowercase();
    let same = units.iter().map(|(name, _)| *name).find(|name| name.to_lowercase() == small);
    let known = |name: &str| units.iter().any(|(unit, _)| *unit == name);
    let other = OTHERS.iter().find(|(word, name)| *word == small && known(name));
    let label = match same.or(other.map(|(_, name)| *name)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "not a unit".to_owned(),
    };
    Err((format!("unknown unit `{unit}`"), label))
}

/// Numbers, each with what stands behind it up to the next one.
fn parts(text: &str) -> Result<Vec<(f64, &str)>, String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let number = match number.parse::<f64>() {
            Ok(number) => number,
            Err(_) if number.is_empty() && behind.starts_with('-') => {
                return Err("it is negative".to_owned());
            }
            Err(_) if number.is_empty() => return Err("expected a number first".to_owned()),
            Err(_) => return Err(format!("`{number}` is not a number")),
        };
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        parts.push((number, unit));
        rest = next.trim_start();
    }
    if parts.is_empty() { Err("it is empty".to_owned()) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let read = |text| bytes("memory", text).unwrap();
        assert_eq!(read("8 GB"), 8_000_000_000);
        assert_eq!(read("1.5GiB"), 3 << 29);
        assert_eq!(read(" 512 KiB "), 512 << 10);
        assert_eq!(read("0.5 kB"), 500);
    }

    #[test]
    fn times_are_read_with_their_units() {
        let read = |text| time("timeout", text).unwrap();
        assert_eq!(read("90 s"), Duration::from_secs(90));
        assert_eq!(read("1 h 30 min"), Duration::from_secs(5_400));
        assert_eq!(read("1h30min"), Duration::from_secs(5_400));
        assert_eq!(read("250 ms"), Duration::from_millis(250));
        assert_eq!(read("1.5 d"), Duration::from_secs(129_600));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let size = |text| bytes("memory", text).unwrap_err();
        assert!(size("8 gb").message.ends_with("unknown unit `gb`"));
        assert_eq!(size("8 gb").label.as_deref(), Some("did you mean `GB`?"));
        assert_eq!(size("8 G").label.as_deref(), Some("did you mean `GB`?"));
        assert_eq!(size("8 bananas").label.as_deref(), Some("not a unit"));
        assert!(size("8").message.ends_with("the unit is missing"));
        assert!(size("8 GB 1 MB").message.ends_with("expected one number and one unit"));
        assert!(size("0 GB").message.ends_with("less than a byte"));
        assert!(size("-1 GB").message.ends_with("it is negative"));
        assert!(size("99999999 TB").message.ends_with("more than any machine has"));
        assert!(size("").message.ends_with("it is empty"));
        let wrong = |text| time("timeout", text).unwrap_err();
        assert_eq!(wrong("2 hours").label.as_deref(), Some("did you mean `h`?"));
        assert_eq!(wrong("2 m").label.as_deref(), Some("did you mean `min`?"));
        assert!(wrong("0 s").message.ends_with("expected more than nothing"));
        assert!(wrong("soon").message.ends_with("expected a number first"));
        assert!(wrong("1.2.3 s").message.ends_with("`1.2.3` is not a number"));
        assert!(wrong("99999999999999999999999 d").message.ends_with("longer than any run"));
    }
}
