//! Builds by trtexec that fail, in part or whole, of what is no fault of the model.

use serde_json::json;

use super::trtexec::{Machine, message};

/// The log of such a build begins with errors of builds that succeed.
#[test]
fn a_gpu_without_memory_is_no_matter_of_pairs() {
    let machine = Machine::new("memory");
    let ended = machine.build("engine", "fixed.onnx", json!({}));
    let told = message(&ended);
    assert!(
        told.starts_with("TensorRT 8.5.3 cannot build the model: the GPU has too little free memory: 2: [virtualMemoryBuffer"),
        "{told}"
    );
    let help = ended.failure.unwrap()["help"].to_string();
    assert!(help.contains("smaller batch") && !help.contains("insert-qdq"), "{help}");
}
