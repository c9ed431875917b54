//! Products with several constant matrices.

use super::*;

/// A stack of matrices with one scale for each is found by its axis too; with one for all, the only one of which there is a kernel, it is no finding.
#[test]
fn a_stack_of_matrices_has_one_scale_for_onnxruntime() {
    let rules = |scales: &[f32], axis, target| -> Vec<&'static str> {
        let mut draft = Draft::new();
        draft.constant("w", TensorData::f32(&[4, 8, 2], &[0.5; 64]));
        let (x, w) = (draft.pair("x", &[0.1], 0, 0), draft.pair("w", scales, 0, axis));
        draft.node("MatMul", "m", &[&x, &w]);
        draft.found("m", target).iter().map(|finding| finding.rule).collect()
    };
    let two = [0.1, 0.2];
    assert_eq!(rules(&two, 2, Target::Onnxruntime), ["stack-scales"]);
    assert_eq!(rules(&SCALES, 0, Target::Onnxruntime), ["weight-axis", "stack-scales"]);
    assert!(rules(&[0.1], 0, Target::Onnxruntime).is_empty());
    assert_eq!(rules(&[0.1], 0, Target::Tensorrt), ["per-tensor-weight"]);
    assert!(rules(&two, 2, Target::Tensorrt).is_empty());
}
