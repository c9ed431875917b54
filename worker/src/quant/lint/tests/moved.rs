//! Weights and factors that are moved between their pairs and the product.

use super::*;

/// A product with a weight of 4 outputs and 4 inputs, as PyTorch's exporter writes a fake-quantized Linear.
fn linear(scales: &[f32], axis: i64, mover: &Node) -> Vec<(&'static str, String)> {
    let mut draft = Draft::new();
    let x = draft.pair("x", &[0.1], 0, 0);
    draft.constant("w", TensorData::f32(&[4, 4], &[0.5; 16]));
    draft.constant("shape", TensorData::i64(&[2], &[0, -1]));
    draft.constant("axes", TensorData::i64(&[1], &[0]));
    let w = if scales.is_empty() { "w".to_owned() } else { draft.pair("w", scales, 0, axis) };
    let mut mover = mover.clone();
    mover.inputs[0] = w;
    draft.0.nodes.push(mover);
    let made = draft.node("MatMul", "m", &[&x, "moved"]);
    let found = draft.found(&made, Target::Tensorrt);
    found.into_iter().map(|finding| (finding.rule, finding.node)).collect()
}

fn transpose() -> Node {
    Node::new("t", "Transpose", &["?"], &["moved"]).with("perm", Attribute::Ints(vec![1, 0]))
}

#[test]
fn a_weight_is_seen_behind_what_moves_it() {
    let found = |rule| vec![(rule, "m".to_owned())];
    assert_eq!(linear(&SCALES, 0, &transpose()), []);
    assert_eq!(linear(&SCALES, -2, &transpose()), []);
    assert_eq!(linear(&SCALES, 1, &transpose()), found("weight-axis"));
    assert_eq!(linear(&[0.1], 0, &transpose()), found("per-tensor-weight"));
    assert_eq!(linear(&[], 0, &transpose()), found("half-quantized"));
    // Without `perm` it turns the axes round.
    assert_eq!(linear(&SCALES, 0, &Node::new("t", "Transpose", &["?"], &["moved"])), []);
    let reshape = Node::new("r", "Reshape", &["?", "shape"], &["moved"]);
    assert_eq!(linear(&SCALES, 1, &reshape), []);
    assert_eq!(linear(&SCALES, 0, &reshape), found("weight-axis"));
    let unsqueeze = Node::new("u", "Unsqueeze", &["?", "axes"], &["moved"]);
    assert_eq!(linear(&SCALES, 1, &unsqueeze), []);
    assert_eq!(linear(&SCALES, 0, &unsqueeze), found("weight-axis"));
    let squeeze = Node::new("s", "Squeeze", &["?"], &["moved"]);
    assert_eq!(linear(&SCALES, 1, &squeeze), []);
}

/// Keys of attention are turned behind their pair.
#[test]
fn a_factor_is_seen_behind_what_moves_it() {
    let mut draft = Draft::new();
    let r = draft.node("Relu", "r", &["x"]);
    let (query, key) = (draft.pair("x", &[0.1], 0, 0), draft.pair(&r, &[0.1], 0, 0));
    let key = draft.node("Transpose", "t", &[&key]);
    let scores = draft.node("MatMul", "scores", &[&query, &key]);
    assert_eq!(draft.found(&scores, Target::Tensorrt), []);
}

/// TensorFlow's layout is turned between a pair and its convolution, and back between the convolution and the next pair.
#[test]
fn an_input_and_an_output_are_seen_behind_what_moves_them() {
    let found = |mover: &str, target| {
        let mut draft = Draft::new();
        let x = draft.pair("x", &[0.1], 0, 0);
        let before = draft.node(mover, "before", &[&x]);
        let c = draft.conv("c", &before, &SCALES, 0);
        let r = draft.node("Relu", "r", &[&c]);
        let behind = draft.node(mover, "behind", &[&r]);
        let d = draft.pair(&behind, &[0.1], -128, 0);
        let d = draft.conv("d", &d, &SCALES, 0);
        let last = draft.pair(&d, &[0.1], 0, 0);
        let found = draft.found(&last, target);
        found.into_iter().map(|finding| (finding.rule, finding.node)).collect::<Vec<_>>()
    };
    assert_eq!(found("Transpose", Target::Onnxruntime), []);
    assert_eq!(found("MaxPool", Target::Onnxruntime), []);
    // It moves no pairs over this one: what reads it is float.
    let half = [("half-quantized", "c".to_owned())];
    assert_eq!(found("Flatten", Target::Onnxruntime), half);
}

/// As optimized graphs of ONNX Runtime 1.32 were: with pairs on both sides of the Flatten, or a Reshape, the product is QGemm.
#[test]
fn onnxruntime_moves_no_pair_over_a_flatten() {
    let found = |mover: &str, behind: bool, target| {
        let mut draft = Draft::new();
        let x = draft.pair("x", &[0.1], 0, 0);
        let c = draft.conv("c", &x, &SCALES, 0);
        let c = draft.pair(&c, &[0.1], 0, 0);
        draft.constant("shape", TensorData::i64(&[2], &[0, -1]));
        let mut flat = draft.node(mover, "flat", &[&c, "shape"]);
        if behind {
            flat = draft.pair(&flat, &[0.1], 0, 0);
        }
        draft.constant("w", TensorData::f32(&[4, 4], &[0.5; 16]));
        let w = draft.pair("w", &SCALES, 0, 1);
        let made = draft.node("MatMul", "fc", &[&flat, &w]);
        let found = draft.found(&made, target);
        found
            .into_iter()
            .map(|finding| (finding.rule, finding.node, finding.what))
            .collect::<Vec<_>>()
    };
    let [(rule, node, what)] = &found("Flatten", false, Target::Onnxruntime)[..] else {
        panic!("one finding")
    };
    assert_eq!((*rule, node.as_str()), ("half-quantized", "fc"));
    assert!(what.contains("stands \"flat\" (Flatten), over which"), "{what}");
    assert_eq!(found("Flatten", true, Target::Onnxruntime), []);
    assert_eq!(found("Reshape", false, Target::Onnxruntime), []);
    assert_eq!(found("Flatten", false, Target::Tensorrt), []);
}

#[test]
fn a_cycle_of_movers_ends() {
    let mut draft = Draft::new();
    draft.0.nodes.push(Node::new("one", "Identity", &["b"], &["a"]));
    draft.0.nodes.push(Node::new("other", "Identity", &["a"], &["b"]));
    let made = draft.node("MatMul", "m", &["a", "b"]);
    assert_eq!(draft.found(&made, Target::Onnxruntime), []);
}
