//! The file of `--exportOutput`: what an engine computed.
//!
//! trtexec prints numbers as C++ streams do, so what is no number stands there as `nan`, `-nan`, `inf` or `-inf`, which JSON does not
//! have. A batch of a detector has tens of millions of values: they are read from the bytes, and only what is round them as JSON.

use serde::Deserialize;

/// An output of an engine.
#[derive(Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its values, those of the whole batch.
    pub values: Vec<f32>,
}

/// An output in the file, whose list of values is taken out and has a number.
#[derive(Deserialize)]
struct Entry {
    name: String,
    values: usize,
}

/// Reads the outputs.
///
/// # Errors
/// The reason why it is no such file.
pub fn read(text: &[u8]) -> Result<Vec<Output>, String> {
    let (mut frame, mut lists) = (Vec::new(), Vec::new());
    let (mut rest, mut last): (&[u8], &[u8]) = (text, b"");
    while let Some(&byte) = rest.first() {
        let taken = match byte {
            b'"' => {
                let end = end_of_string(rest).ok_or("it ends within a string")?;
                last = &rest[1..end];
                end + 1
            }
            b'[' if last == b"values" => {
                let end = rest.iter().position(|&byte| byte == b']');
                let end = end.ok_or("it ends within a list of values")?;
                frame.extend_from_slice(lists.len().to_string().as_bytes());
                lists.push(numbers(&rest[1..end])?);
                rest = &rest[end + 1..];
                continue;
            }
            _ => 1,
        };
        frame.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    let entries: Vec<Entry> = serde_json::from_slice(&frame).map_err(|error| error.to_string())?;
    let outputs = entries.into_iter().map(|Entry { name, values }| {
        let values = lists.get_mut(values).ok_or("`values` is no list")?;
        Ok(Output { name, values: std::mem::take(values) })
    });
    outputs.collect()
}

/// Place of the quote that ends the string with which `text` begins.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Numbers between commas.
fn numbers(list: &[u8]) -> Result<Vec<f32>, String> {
    if list.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let number = |word: &[u8]| {
        let word = word.trim_ascii();
        // Rust reads those of C++ that are no numbers too.
        let value = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        value.ok_or_else(|| format!("`{}` is no number", String::from_utf8_lossy(word)))
    };
    list.split(|&byte| byte == b',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_read_as_such() {
        let text = b"[\n  { \"name\" : \"a[\\\"b\"\n  , \"dimensions\" : \"1x6\"\n  , \"values\" : [ nan, -nan, inf, -inf, -0, 1.5e-05 ]\n  }\n\
            , { \"name\" : \"values\"\n  , \"dimensions\" : \"0\"\n  , \"values\" : [  ]\n  }\n]\n";
        let outputs = read(text).unwrap();
        assert_eq!(outputs[0].name, "a[\"b");
        let values = &outputs[0].values;
        assert!(values[0].is_nan() && values[1].is_nan(), "{values:?}");
        assert_eq!(values[2..], [f32::INFINITY, f32::NEG_INFINITY, 0.0, 1.5e-5]);
        assert_eq!(outputs[1], Output { name: "values".to_owned(), values: Vec::new() });
    }

    #[test]
    fn a_file_that_is_none_is_refused_with_the_reason() {
        for (text, reason) in [
            (&b"[{\"name\": \"y\", \"values\": [1, nanny]}]"[..], "`nanny` is no number"),
            (b"[{\"name\": \"y\", \"values\": [1,, 2]}]", "`` is no number"),
            (b"[{\"name\": \"y\", \"values\": [1, 2", "it ends within a list of values"),
            (b"[{\"name\": \"y", "it ends within a string"),
            (b"[{\"name\": \"y\", \"values\": 3}]", "`values` is no list"),
            (b"[{\"name\": \"y\"}]", "missing field `values`"),
            (b"", "EOF"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }

    /// `cargo test -p qpipe-worker --lib outputs -- --ignored --nocapture` tells how long ten million values take.
    #[test]
    #[ignore = "a measurement"]
    fn ten_million_values() {
        let words = (0..10_000_000_u32).map(|i| format!("{}", f64::from(i) * 1.2345e-4 - 500.0));
        let words: Vec<String> = words.collect();
        let text = format!("[{{\"name\": \"y\", \"values\": [ {} ]}}]", words.join(", "));
        let start = std::time::Instant::now();
        let count = read(text.as_bytes()).unwrap()[0].values.len();
        eprintln!("{count} values, {} bytes: {:?}", text.len(), start.elapsed());
    }
}
