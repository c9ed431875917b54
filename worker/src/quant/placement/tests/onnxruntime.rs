//! ONNX Runtime's rules, each on a small graph.

use std::collections::BTreeSet;

use super::draft::Draft;
use super::*;
use crate::quant::placement::policy;

fn onnxruntime(model: &Model) -> Plan {
    planned(model, &request(Target::Onnxruntime))
}

/// The values with a pair.
fn values(plan: &Plan) -> Vec<&str> {
    plan.tensors.iter().map(|tensor| tensor.tensor.as_str()).collect()
}

fn rule(plan: &Plan, node: &str) -> (Option<&'static str>, bool) {
    let layer = layer(plan, node);
    (layer.rule, layer.quantized)
}

fn convolutions() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.node("relu", "Relu", &["a"]);
    draft.conv("depthwise", "relu", 4);
    draft.node("sigmoid", "Sigmoid", &["depthwise"]);
    draft.node("silu", "Mul", &["depthwise", "sigmoid"]);
    draft.constant("up_w", &[4, 4, 1, 1]);
    draft.node("up", "ConvTranspose", &["silu", "up_w"]);
    draft.conv("b", "up", 1);
    draft.conv("end", "b", 1);
    draft.node("last", "Relu", &["end"]);
    draft.end(&["last"])
}

#[test]
fn a_convolution_is_between_integers_or_float() {
    let plan = onnxruntime(&convolutions());
    assert_eq!(rule(&plan, "a"), (Some("integer-conv"), true));
    assert_eq!(rule(&plan, "relu"), (Some("fused-activation"), false));
    assert_eq!(rule(&plan, "depthwise"), (Some("grouped-conv"), true));
    assert_eq!(rule(&plan, "up"), (Some("transposed-conv"), false));
    assert_eq!(rule(&plan, "b"), (Some("integer-conv"), true));
    assert_eq!(rule(&plan, "end"), (Some("output-layer"), false), "its Relu makes the output");
    for name in ["sigmoid", "silu"] {
        assert_eq!(rule(&plan, name), (Some("float-activation"), false));
    }
    // Behind each convolution; float layers read it rounded, and the next one's input is made integers again.
    assert_eq!(values(&plan), ["x", "relu", "depthwise", "up", "b"]);
    assert_eq!(tensor(&plan, "end")[0].tensor, "b");
    let [depthwise] = tensor(&plan, "silu")[..] else { panic!("one input") };
    assert_eq!(depthwise.readers, ["sigmoid", "silu"]);
    let axes: Vec<_> =
        plan.weights.iter().map(|w| (w.layer.as_str(), w.axis, w.channels)).collect();
    assert_eq!(axes, [("a", Some(0), 4), ("depthwise", Some(0), 4), ("b", Some(0), 4)]);
}

fn attention() -> Model {
    let mut draft = Draft::new(&[1, 4, 4]);
    draft.attention();
    draft.matmul("next", "sum", [4, 4]);
    draft.matmul("last", "next", [4, 4]);
    draft.end(&["last"])
}

#[test]
fn products_of_an_attention_block_are_integers_and_what_is_between_them_is_not() {
    let plan = onnxruntime(&attention());
    for name in ["scores", "mixed"] {
        assert_eq!(rule(&plan, name), (Some("computed-matmul"), true));
        assert_eq!(tensor(&plan, name).len(), 2, "{name}");
    }
    assert_eq!(rule(&plan, "probabilities"), (Some("float-normalization"), false));
    assert_eq!(rule(&plan, "turned"), (Some("keeps-scale"), false), "its input is float");
    for name in ["q", "masked"] {
        assert_eq!(rule(&plan, name), (Some("residual-add"), false));
    }
    assert_eq!(rule(&plan, "sum"), (Some("residual-add"), true));
    assert_eq!(tensor(&plan, "sum").len(), 2, "both inputs");
    // A product writes floats where a bias or a scaling reads it, and integers where a layer does.
    let expected = ["x", "q", "turned", "v", "probabilities", "mixed", "projected", "sum", "next"];
    let found: BTreeSet<&str> = values(&plan).into_iter().collect();
    assert_eq!(found, expected.into_iter().collect());
    let probabilities = plan.tensors.iter().find(|t| t.tensor == "probabilities").expect("there");
    assert_eq!(probabilities.zero_point, 0, "they are never negative");
}

fn joined() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.conv("b", "a", 1);
    let concat = draft.node("concat", "Concat", &["a", "b"]);
    concat.attributes.insert("axis".to_owned(), Attribute::Int(1));
    let pool = draft.node("pool", "MaxPool", &["concat"]);
    pool.attributes.insert("kernel_shape".to_owned(), Attribute::Ints(vec![1, 1]));
    let average = draft.node("average", "AveragePool", &["pool"]);
    average.attributes.insert("kernel_shape".to_owned(), Attribute::Ints(vec![2, 2]));
    draft.node("flat", "Flatten", &["average"]);
    draft.matmul("fc", "flat", [128, 4]);
    draft.constant("ones", &[1, 4]);
    draft
        .node("apart", "Concat", &["fc", "ones"])
        .attributes
        .insert("axis".to_owned(), Attribute::Int(1));
    draft.end(&["apart"])
}

/// What a detector ends in: convolutions joined, arithmetic in float, joined again; and a concatenation of activations that a convolution reads.
#[test]
fn concatenations_between_floats_stay_float() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    let axis = |node: &mut Node| {
        node.attributes.insert("axis".to_owned(), Attribute::Int(1));
    };
    draft.conv("a", "x", 1);
    for (sigmoid, mul, from) in [("s", "m", "a"), ("t", "n", "m")] {
        draft.node(sigmoid, "Sigmoid", &[from]);
        draft.node(mul, "Mul", &[from, sigmoid]);
    }
    // Of floats, but a layer reads it: behind another one and a change of shape.
    axis(draft.node("inner", "Concat", &["m", "n"]));
    axis(draft.node("outer", "Concat", &["inner", "n"]));
    draft.node("same", "Transpose", &["outer"]);
    draft.matmul("layer", "same", [8, 4]);
    draft.conv("box", "m", 1);
    draft.conv("score", "n", 1);
    axis(draft.node("heads", "Concat", &["box", "score"]));
    draft.node("moved", "Sqrt", &["heads"]);
    draft.node("scores", "Sigmoid", &["heads"]);
    axis(draft.node("tail", "Concat", &["moved", "scores"]));
    draft.node("strides", "Exp", &["tail"]);
    axis(draft.node("end", "Concat", &["strides", "scores"]));
    let plan = onnxruntime(&draft.end(&["end", "layer"]));
    for name in ["inner", "outer", "heads"] {
        assert_eq!(rule(&plan, name), (Some("concat"), true), "{name}");
    }
    for name in ["tail", "end"] {
        assert_eq!(rule(&plan, name), (Some("concat"), false), "{name}");
    }
    let values = values(&plan);
    for name in ["moved", "scores", "tail", "strides"] {
        assert!(!values.contains(&name), "{name} is rounded for nothing: {values:?}");
    }
    let reason = |name: &str| {
        let layer = plan.layers.iter().find(|layer| layer.node == name).unwrap();
        layer.reason.clone().unwrap()
    };
    assert!(reason("end").starts_with("it makes an output of the graph"), "{}", reason("end"));
    assert!(reason("tail").starts_with("no quantized layer reads it"), "{}", reason("tail"));
}

#[test]
fn a_concatenation_keeps_each_scale_and_a_pooling_its_inputs() {
    let plan = onnxruntime(&joined());
    assert_eq!(rule(&plan, "concat"), (Some("concat"), true));
    assert_eq!(rule(&plan, "apart"), (Some("concat"), false));
    assert_eq!(rule(&plan, "pool"), (Some("keeps-scale"), true));
    assert_eq!(rule(&plan, "average"), (Some("average-pool"), true));
    assert_eq!(rule(&plan, "flat"), (Some("keeps-scale"), true));
    assert_eq!(rule(&plan, "fc"), (Some("integer-matmul"), true));
    assert_eq!(values(&plan), ["x", "a", "b", "concat", "pool", "average", "flat"]);
    let of = |name: &str| plan.tensors.iter().find(|t| t.tensor == name).expect(name);
    let scales = ["a", "b", "concat"].map(|name| of(name).scale.to_bits());
    assert_eq!(BTreeSet::from(scales).len(), 3);
    assert_eq!(of("pool").range_of.as_deref(), Some("concat"));
    assert_eq!(of("flat").range_of.as_deref(), Some("average"));
}

#[test]
fn each_rule_decides_in_one_of_these_graphs() {
    let plans = [convolutions(), attention(), joined()].map(|model| onnxruntime(&model));
    let seen: BTreeSet<&str> =
        plans.iter().flat_map(|plan| &plan.layers).filter_map(|layer| layer.rule).collect();
    let rules = policy(Target::Onnxruntime).expect("there").rules;
    assert_eq!(seen, rules.iter().map(|rule| rule.name).collect());
}
