//! `${secret.NAME}`: environment variables that reach a command, and nothing else.
//!
//! The text stays as it is in the configuration, so that keys, records and lock files hold only the
//! name. The value is put in when the program is started.

use super::pipeline::StageCell;

/// What stands for a secret in a configuration.
pub fn placeholder(name: &str) -> String {
    format!("${{secret.{name}}}")
}

/// The secrets of a stage whose environment variables are not set, or empty as CI systems leave those
/// that they do not know.
pub fn missing(cell: &StageCell) -> Vec<String> {
    let is_set = |name: &String| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cell.secrets.iter().filter(|name| !is_set(name)).cloned().collect()
}

/// The name behind `secret.`, if a reference is one.
pub(super) fn of_reference(reference: &str) -> Option<&str> {
    reference.trim().strip_prefix("secret.")
}

/// Whether an environment variable can have that name.
pub(super) fn is_name(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    !name.is_empty() && name.chars().all(letter) && !name.starts_with(|c: char| c.is_ascii_digit())
}
