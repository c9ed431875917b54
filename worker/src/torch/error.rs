//! Errors of libtorch.

use super::memory;
use crate::Error;

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        told(&error.to_string())
    }
}

/// libtorch's text, less its C++ backtrace. What is not the program's fault is told in our own words.
pub(super) fn told(text: &str) -> Error {
    let first = text.split("\nException raised from").next().unwrap_or(text).trim();
    if let Some(error) = memory::out_of_memory(first) {
        return error;
    }
    if let Some((operator, _)) = first.split_once(" does not have a deterministic implementation") {
        let operator = operator.rsplit([' ', '\n']).next().unwrap_or(operator);
        return Error::user(format!(
            "{operator} of libtorch has no algorithm that gives the same bits each time, and deterministic = true"
        ))
        .key("deterministic")
        .help("leave `deterministic` out, or train on the CPU: device = \"cpu\"");
    }
    Error::bug(format!("libtorch: {first}"))
}
