//! Fuzz target: which files an input names.

use super::{of_model, of_table};
use crate::cache::fuzzing;

/// A model behind a byte that is even, a table behind an odd one.
///
/// # Panics
///
/// Where more files are named than the input has room for, or one without end.
pub fn companions(bytes: &[u8]) {
    let Some((kind, content)) = bytes.split_first() else { return };
    let path = fuzzing::file("input", content);
    let found = if kind & 1 == 0 { of_model(&path) } else { of_table(&path) };
    assert!(found.len() <= content.len());
    let folder = path.parent().expect("it lies in a folder").as_os_str().len();
    for name in found {
        // A byte that is no text is three.
        assert!(name.as_os_str().len() <= folder + 1 + 3 * content.len(), "{}", name.display());
    }
}
