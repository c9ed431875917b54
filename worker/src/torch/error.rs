//! Errors of libtorch.

use crate::Error;

impl From<tch::TchError> for Error {
    /// libtorch's text, less its C++ backtrace.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let first = text.split("\nException raised from").next().unwrap_or(&text).trim();
        Self::bug(format!("libtorch: {first}"))
    }
}
