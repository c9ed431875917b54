//! Pairs on what a Concat joins, with none behind it, and Casts between pairs and layers.

use super::*;

/// A convolution of two joined values with these scales; what is found for a runtime.
fn joined(scales: [f32; 2], behind: bool, target: Target) -> Vec<(&'static str, String, String)> {
    let mut draft = Draft::new();
    let r = draft.node("Relu", "r", &["x"]);
    let [one, other] = [("x", scales[0]), (r.as_str(), scales[1])]
        .map(|(value, scale)| draft.pair(value, &[scale], 0, 0));
    let mut cat = draft.node("Concat", "cat", &[&one, &other]);
    cat = draft.node("MaxPool", "pool", &[&cat]);
    if behind {
        cat = draft.pair(&cat, &[0.2], 0, 0);
    }
    let c = draft.conv("c", &cat, &SCALES, 0);
    let c = draft.pair(&c, &[0.1], 0, 0);
    let d = draft.conv("d", &c, &SCALES, 0);
    let found = draft.found(&d, target);
    found.into_iter().map(|finding| (finding.rule, finding.node, finding.what)).collect()
}

/// As engines of TensorRT-RTX 1.7 were: with one scale the convolution reads int8, with two and no pair behind it floats.
#[test]
fn tensorrt_moves_pairs_of_one_scale_over_a_concat() {
    for target in [Target::Tensorrt, Target::TensorrtRtx] {
        assert_eq!(joined([0.1, 0.1], false, target), []);
        let found = joined([0.1, 0.2], false, target);
        let places: Vec<_> = found.iter().map(|(rule, node, _)| (*rule, node.as_str())).collect();
        assert_eq!(places, [("half-quantized", "c"), ("concat-scales", "cat")], "{found:?}");
        let what =
            "its weight is quantized, its input is joined of pairs with 2 scales or zero points";
        assert_eq!(found[0].2, what);
        let found = joined([0.1, 0.2], true, target);
        assert!(found.iter().all(|(rule, ..)| *rule == "concat-scales"), "{found:?}");
    }
    // It has no integer kernel of a Concat without a pair behind.
    let found = joined([0.1, 0.1], false, Target::Onnxruntime);
    assert_eq!((found[0].0, found[0].1.as_str()), ("half-quantized", "c"));
}

#[test]
fn a_cycle_of_concats_ends() {
    let mut draft = Draft::new();
    draft.node("Concat", "a", &["b", "b"]);
    draft.node("Concat", "b", &["a", "a"]);
    let c = draft.conv("c", "a", &SCALES, 0);
    assert_eq!(draft.found(&c, Target::Tensorrt), []);
}

/// A convolution of float16 between pairs of float32: the rules about its weight hold as without a Cast.
#[test]
fn a_layer_is_seen_behind_casts() {
    let found = |scales: &[f32], axis, to, target| {
        let mut draft = Draft::new();
        let x = draft.pair("x", &[0.1], 0, 0);
        let x = draft.cast("x16", &x, to);
        draft.constant("w", TensorData::f32(&[4, 4, 1, 1], &[0.5; 16]));
        let w = draft.pair("w", scales, 0, axis);
        let w = draft.cast("w16", &w, to);
        draft.node("Conv", "c", &[&x, &w]);
        let c = draft.pair("c", &[0.1], 0, 0);
        let found = draft.found(&c, target);
        found.into_iter().map(|finding| (finding.rule, finding.node)).collect::<Vec<_>>()
    };
    let place = |rule, node: &str| (rule, node.to_owned());
    let casts = [place("cast-behind-pair", "x16"), place("cast-behind-pair", "w16")];
    assert_eq!(found(&SCALES, 0, DType::F16, Target::Tensorrt), casts);
    assert_eq!(found(&SCALES, 0, DType::F16, Target::TensorrtRtx), []);
    let axis = place("weight-axis", "c");
    assert_eq!(found(&SCALES, 1, DType::F16, Target::TensorrtRtx), [axis]);
    let tensor = place("per-tensor-weight", "c");
    assert_eq!(found(&[0.1], 0, DType::F16, Target::TensorrtRtx), [tensor]);
    // A Cast to what it is already is dropped.
    assert_eq!(found(&SCALES, 0, DType::F32, Target::Onnxruntime), []);
    let half = place("float16-pair", "c");
    assert_eq!(found(&SCALES, 0, DType::F16, Target::Onnxruntime), [half]);
}
