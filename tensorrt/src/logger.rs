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
    /// A refusal for the first of them, the cause of those behind it; what the bindings say where there is none.
    pub fn refused(&self, what: &'static str, error: &trtx::Error) -> Error {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = errors.first().cloned().unwrap_or_else(|| error.to_string());
        errors.clear();
        Error::Refused { what, cause }
    }
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
