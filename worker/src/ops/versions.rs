//! Since when operators exist.

/// The opset in which `op_type` of the standard's domain first appeared, for those later than 11.
pub fn first_version(op_type: &str) -> Option<i64> {
    Some(match op_type {
        "HardSwish" => 14,
        "LayerNormalization" => 17,
        "Gelu" => 20,
        _ => return None,
    })
}
