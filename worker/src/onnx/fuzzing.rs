//! Entry point of the fuzz target of the reader; no part of the library's interface. docs/fuzzing.md says how it is run.

use bytes::Bytes;

use super::{check, parse, to_bytes};

/// Gives bytes to the reader. What it takes for a model is checked, written, and read back as the same model,
/// which gives the same bytes again.
///
/// # Panics
/// Where the reader breaks its word.
pub fn onnx(bytes: &[u8]) {
    let Ok(model) = parse(Bytes::copy_from_slice(bytes)) else { return };
    let _ = check(&model);
    let written = to_bytes(&model).expect("what fits into a file fits into one again");
    let again = parse(written.clone()).expect("what was written can be read");
    assert_eq!(to_bytes(&again).expect("of the same size"), written);
    assert_eq!(format!("{:?}", again.graph.nodes), format!("{:?}", model.graph.nodes));
    assert_eq!(again.graph.inputs.len(), model.graph.inputs.len());
    assert_eq!(again.graph.initializers.len(), model.graph.initializers.len());
}
