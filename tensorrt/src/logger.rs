//! What the library says.

use std::sync::{Arc, Mutex, PoisonError};

use trtx::Logger;
use trtx::logger::LogHandler;
pub use trtx::logger::Severity;

use crate::{Error, Result};

/// Who is told each line that the library says.
pub type Listener = Arc<dyn Fn(Severity, &str) + Send + Sync>;

/// Errors of the library, which tells the cause of a refusal in its log alone.
#[derive(Clone, Default)]
pub struct Errors(Arc<Mutex<Vec<String>>>);

impl Errors {
    /// A refusal for all of them; what the bindings say where there is none.
    pub fn refused(&self, what: &'static str, error: &trtx::Error) -> Error {
        let errors = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let cause = if errors.is_empty() { error.to_string() } else { cause(&errors) };
        Error::Refused { what, cause }
    }

    /// Forgets those of what succeeded all the same.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What the library made, unless it said errors meanwhile: where CUDA fails it gives a pointer to nothing, which may not even be dropped.
    ///
    /// # Errors
    /// What it said.
    pub fn sound<T>(&self, what: &'static str, made: T) -> Result<T> {
        let errors = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if errors.is_empty() {
            return Ok(made);
        }
        std::mem::forget(made);
        Err(Error::Refused { what, cause: cause(&errors) })
    }
}

/// The errors in one line. The parser tells of a node before it, in it and behind it.
fn cause(errors: &[String]) -> String {
    let telling = errors
        .iter()
        .filter(|error| !error.contains("--- Begin node") && !error.contains("--- End node"));
    let lines: Vec<String> =
        telling.map(|error| error.lines().map(str::trim).collect::<Vec<_>>().join(" ")).collect();
    lines.join("; ")
}

struct Handler {
    listener: Listener,
    errors: Errors,
}

impl LogHandler for Handler {
    fn log(&self, severity: Severity, message: &str) {
        if severity <= Severity::Error {
            let mut errors = self.errors.0.lock().unwrap_or_else(PoisonError::into_inner);
            errors.push(message.to_owned());
        }
        (self.listener)(severity, message);
    }
}

/// A logger that tells `listener`, and the errors that it sees.
///
/// # Errors
/// A library that is not loaded.
pub fn logger(listener: Listener) -> Result<(Logger, Errors)> {
    let errors = Errors::default();
    let handler = Handler { listener, errors: errors.clone() };
    let logger = Logger::new(handler).map_err(|error| errors.refused("cannot log", &error))?;
    Ok((logger, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the parser of TensorRT-RTX 1.7 says it.
    #[test]
    fn what_the_parser_says_of_a_node_is_one_line() {
        let errors = [
            "ModelImporter.cpp:140: While parsing node number 1 [Foo -> \"b\"]:",
            "ModelImporter.cpp:143: --- Begin node ---\nNode name: odd",
            "ModelImporter.cpp:145: --- End node ---",
            "ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:998 In function checkFallback:\n[6] creator && \"Plugin not found\"",
        ];
        let expected = "ModelImporter.cpp:140: While parsing node number 1 [Foo -> \"b\"]:; \
                        ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:998 In function checkFallback: [6] creator && \"Plugin not found\"";
        assert_eq!(cause(&errors.map(str::to_owned)), expected);
    }

    #[test]
    fn errors_are_of_what_failed_alone() {
        let errors = Errors::default();
        let say = |text: &str| errors.0.lock().unwrap().push(text.to_owned());
        assert_eq!(errors.sound("cannot begin", 7).unwrap(), 7);
        say("CUDA failed");
        let error = errors.sound("cannot begin", 7).unwrap_err();
        assert_eq!(error.to_string(), "cannot begin: CUDA failed");
        say("a tactic was left out");
        errors.clear();
        let error = errors.refused("cannot run", &trtx::Error::Runtime("no".to_owned()));
        assert!(error.to_string().ends_with("no"), "{error}");
    }
}
