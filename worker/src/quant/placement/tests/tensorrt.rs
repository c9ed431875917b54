//! TensorRT's rules, each on a small graph.

use std::collections::BTreeSet;

use qpipe::stages::tensorrt_version::TensorrtVersion;

use super::draft::Draft;
use super::*;
use crate::quant::placement::{Selection, plan_for, policy};

fn tensorrt(model: &Model) -> Plan {
    let plan = planned(model, &request(Target::Tensorrt));
    // It computes these in float, and follows the newest TensorRT in all else.
    if count(model, "ConvTranspose") + count(model, "AveragePool") == 0 {
        let rtx = planned(model, &request(Target::TensorrtRtx));
        let lines =
            |plan: &Plan| serde_json::to_value((&plan.tensors, &plan.weights, &plan.layers));
        assert_eq!(lines(&plan).unwrap(), lines(&rtx).unwrap(), "TensorRT-RTX does the same");
    }
    plan
}

/// Names of the values that a node reads quantized.
fn reads(plan: &Plan, node: &str) -> Vec<String> {
    tensor(plan, node).iter().map(|tensor| tensor.tensor.clone()).collect()
}

fn float(plan: &Plan, node: &str) -> (Option<&'static str>, String) {
    let layer = layer(plan, node);
    assert!(!layer.quantized, "{node}");
    (layer.rule, layer.reason.clone().expect("a reason"))
}

fn by(plan: &Plan, node: &str) -> Option<&'static str> {
    let layer = layer(plan, node);
    assert!(layer.quantized && layer.reason.is_none(), "{node}: {:?}", layer.reason);
    layer.rule
}

fn chain() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    for name in ["scale", "shift", "mean", "variance"] {
        draft.constant(name, &[4]);
    }
    draft.node("norm", "BatchNormalization", &["a", "scale", "shift", "mean", "variance"]);
    draft.node("relu", "Relu", &["norm"]);
    draft.conv("b", "relu", 1);
    let mut model = draft.end(&["b"]);
    prepare(&mut model).expect("prepares");
    model
}

#[test]
fn nothing_stands_between_a_convolution_its_normalization_and_its_activation() {
    let model = chain();
    assert_eq!(count(&model, "BatchNormalization"), 0, "it is folded");
    let plan = tensorrt(&model);
    assert_eq!((by(&plan, "a"), by(&plan, "b")), (Some("weighted-layer"), Some("weighted-layer")));
    assert_eq!(reads(&plan, "a"), ["x"]);
    assert_eq!(reads(&plan, "b"), ["relu"]);
    assert_eq!(plan.tensors.len(), 2, "and none on the output");
    assert_eq!(float(&plan, "relu").0, Some("fused-activation"));
}

fn grouped() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("depthwise", "x", 4);
    draft.conv("grouped", "depthwise", 2);
    draft.end(&["grouped"])
}

#[test]
fn grouped_convolutions_have_a_scale_for_each_output_channel() {
    let mut model = grouped();
    let plan = tensorrt(&model);
    for name in ["depthwise", "grouped"] {
        assert_eq!(by(&plan, name), Some("grouped-conv"));
    }
    let axes: Vec<_> = plan.weights.iter().map(|w| (w.axis, w.channels)).collect();
    assert_eq!(axes, [(Some(0), 4), (Some(0), 4)]);
    insert(&mut model, &plan).expect("inserts");
    let scale = model.graph.initializers["depthwise_w_scale"].to_f32().expect("floats");
    assert_eq!(scale, [1.0, 2.0, 3.0, 4.0].map(|amax| amax / 127.0));
}

fn transposed() -> Model {
    let mut draft = Draft::new(&[1, 2, 4, 4]);
    draft.constant("up_w", &[2, 3, 1, 1]);
    draft.node("up", "ConvTranspose", &["x", "up_w"]);
    draft.end(&["up"])
}

#[test]
fn the_scales_of_a_transposed_convolution_are_along_the_axis_of_the_version() {
    let model = transposed();
    let of = |version| {
        let all = Selection::all(&model.graph);
        let request = request(Target::Tensorrt);
        plan_for(&model.graph, &rising(&model.graph), &request, &all, version).expect("plans")
    };
    for (version, axis, scales) in [
        ((8, 5), 0, vec![3.0_f32, 6.0]),
        ((10, 1), 0, vec![3.0, 6.0]),
        ((10, 2), 1, vec![4.0, 5.0, 6.0]),
        ((11, 0), 1, vec![4.0, 5.0, 6.0]),
    ] {
        let plan = of(TensorrtVersion::new(version.0, version.1));
        assert_eq!(by(&plan, "up"), Some("transposed-conv"));
        assert_eq!(plan.weights[0].axis, Some(axis), "{version:?}");
        let mut inserted = model.clone();
        insert(&mut inserted, &plan).expect("inserts");
        let scale = inserted.graph.initializers["up_w_scale"].to_f32().expect("floats");
        let expected: Vec<f32> = scales.iter().map(|amax| amax / 127.0).collect();
        assert_eq!(scale, expected, "{version:?}");
    }
    assert_eq!(tensorrt(&model).weights[0].axis, Some(1), "the newest is the default");
}

fn attention() -> Model {
    let mut draft = Draft::new(&[1, 4, 4]);
    draft.attention();
    draft.constant("weight", &[4]);
    draft.node("norm", "LayerNormalization", &["sum", "weight"]);
    draft.matmul("up", "norm", [4, 4]);
    draft.node("gelu", "Gelu", &["up"]);
    draft.matmul("down", "gelu", [4, 4]);
    draft.end(&["down"])
}

#[test]
fn products_of_an_attention_block_are_integers_and_what_is_between_them_is_not() {
    let plan = tensorrt(&attention());
    assert_eq!(by(&plan, "scores"), Some("computed-matmul"));
    assert_eq!(reads(&plan, "scores"), ["q", "turned"], "behind the biases and the Transpose");
    assert_eq!(reads(&plan, "mixed"), ["v", "probabilities"]);
    assert_eq!(by(&plan, "projected"), Some("weighted-layer"));
    let weights: BTreeSet<&str> = plan.weights.iter().map(|w| w.layer.as_str()).collect();
    let layers = ["q_product", "k_product", "v_product", "projected", "up", "down"];
    assert_eq!(weights, layers.into_iter().collect());
    assert_eq!(float(&plan, "turned").0, Some("commuting"));
    assert_eq!(float(&plan, "probabilities").0, Some("float-normalization"));
    assert_eq!(float(&plan, "norm").0, Some("float-normalization"));
    assert_eq!(float(&plan, "gelu").0, Some("float-activation"));
    assert_eq!(reads(&plan, "down"), ["gelu"], "the next layer's input is quantized");
    for (node, part) in [("q", "it adds a constant"), ("masked", "a Softmax reads it")] {
        let (rule, reason) = float(&plan, node);
        assert_eq!(rule, Some("residual-add"));
        assert!(reason.starts_with(part), "{node}: {reason}");
    }
    // The branch that skips the block.
    assert_eq!((by(&plan, "sum"), reads(&plan, "sum")), (Some("residual-add"), vec!["x".into()]));
}

#[test]
fn a_weight_that_is_no_matrix_is_named() {
    let mut draft = Draft::new(&[2, 4, 4]);
    draft.constant("w", &[2, 4, 4]);
    draft.node("batched", "MatMul", &["x", "w"]);
    draft.node("left", "MatMul", &["w", "batched"]);
    let plan = tensorrt(&draft.end(&["left"]));
    assert!(float(&plan, "batched").1.starts_with("its weight has 3 dimension(s)"));
    let (rule, reason) = float(&plan, "left");
    assert_eq!(rule, Some("weighted-layer"));
    assert_eq!(reason, "its weight is not a constant of the model, or its input is one");
}

/// GELU by tanh, as exporters write it out.
fn gelu() -> Model {
    let mut draft = Draft::new(&[1, 4]);
    for name in ["third", "root", "one", "half"] {
        draft.constant(name, &[]);
    }
    draft.matmul("fc", "x", [4, 4]);
    draft.node("square", "Mul", &["fc", "fc"]);
    draft.node("cube", "Mul", &["square", "fc"]);
    draft.node("small", "Mul", &["cube", "third"]);
    draft.node("inner", "Add", &["fc", "small"]);
    draft.node("outer", "Mul", &["inner", "root"]);
    draft.node("tanh", "Tanh", &["outer"]);
    draft.node("more", "Add", &["tanh", "one"]);
    draft.node("product", "Mul", &["fc", "more"]);
    draft.node("gelu", "Mul", &["product", "half"]);
    draft.matmul("next", "gelu", [4, 4]);
    draft.end(&["next"])
}

#[test]
fn additions_within_an_activation_are_no_residuals() {
    let plan = tensorrt(&gelu());
    let (rule, reason) = float(&plan, "inner");
    assert_eq!(rule, Some("residual-add"));
    assert!(reason.starts_with("both inputs come from the same layers"), "{reason}");
    let names: Vec<&str> = plan.tensors.iter().map(|t| t.tensor.as_str()).collect();
    assert_eq!(names, ["x", "gelu"]);
}

fn gated() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.node("sigmoid", "Sigmoid", &["a"]);
    draft.node("silu", "Mul", &["a", "sigmoid"]);
    draft.conv("b", "silu", 1);
    draft.node("hard", "HardSwish", &["b"]);
    draft.conv("c", "hard", 1);
    draft.end(&["c"])
}

#[test]
fn silu_and_hardswish_stay_float_and_the_next_layers_input_does_not() {
    let plan = tensorrt(&gated());
    for node in ["sigmoid", "silu", "hard"] {
        assert_eq!(float(&plan, node).0, Some("float-activation"), "{node}");
    }
    let names: Vec<&str> = plan.tensors.iter().map(|t| t.tensor.as_str()).collect();
    assert_eq!(names, ["x", "silu", "hard"]);
}

fn pooled() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    let kernel = Attribute::Ints(vec![2, 2]);
    let average = draft.node("average", "AveragePool", &["a"]);
    average.attributes.insert("kernel_shape".to_owned(), kernel);
    draft.conv("b", "average", 1);
    let mean = draft.node("mean", "ReduceMean", &["b"]);
    mean.attributes.insert("axes".to_owned(), Attribute::Ints(vec![-1, -2]));
    let norm = draft.node("centre", "ReduceMean", &["mean"]);
    norm.attributes.insert("axes".to_owned(), Attribute::Ints(vec![1]));
    draft.conv("c", "average", 1);
    draft.node("global", "GlobalAveragePool", &["c"]);
    draft.end(&["centre", "global"])
}

#[test]
fn tensorrt_rtx_computes_transposed_convolutions_and_average_poolings_in_float() {
    for (model, node, rule, quantized) in [
        (transposed(), "up", "transposed-conv", vec![]),
        // What reads the pooling is quantized behind it.
        (pooled(), "average", "average-pool", vec!["x", "average", "b", "c"]),
    ] {
        let plan = planned(&model, &request(Target::TensorrtRtx));
        let (by, reason) = float(&plan, node);
        assert_eq!(by, Some(rule));
        assert_eq!(reason, "TensorRT-RTX has no integer kernel of it");
        assert_eq!(reads(&plan, node), [""; 0], "{node}");
        let names: Vec<&str> = plan.tensors.iter().map(|t| t.tensor.as_str()).collect();
        assert_eq!(names, quantized);
    }
}

#[test]
fn poolings_read_integers_and_means_of_normalizations_do_not() {
    let plan = tensorrt(&pooled());
    assert_eq!(
        (by(&plan, "average"), reads(&plan, "average")),
        (Some("average-pool"), vec!["a".into()])
    );
    assert_eq!((by(&plan, "mean"), reads(&plan, "mean")), (Some("global-pool"), vec!["b".into()]));
    assert_eq!(by(&plan, "global"), Some("global-pool"));
    let (rule, reason) = float(&plan, "centre");
    assert_eq!(rule, Some("global-pool"));
    assert!(reason.starts_with("it is a mean along one axis"), "{reason}");
    // Neither what is behind a pooling that ends the network.
    assert!(
        plan.tensors.iter().all(|t| !["mean", "centre", "global"].contains(&t.tensor.as_str()))
    );
}

/// Two concatenations, the second behind a pooling and of the first, and one that nothing quantized reads.
fn concat() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    for (name, input) in [("a", "x"), ("b", "a"), ("c", "b")] {
        draft.conv(name, input, 1);
    }
    let axis = |node: &mut Node| {
        node.attributes.insert("axis".to_owned(), Attribute::Int(1));
    };
    axis(draft.node("first", "Concat", &["a", "b"]));
    axis(draft.node("second", "Concat", &["first", "c"]));
    let pool = draft.node("pool", "MaxPool", &["second"]);
    pool.attributes.insert("kernel_shape".to_owned(), Attribute::Ints(vec![1, 1]));
    draft.constant("wide_w", &[4, 12, 1, 1]);
    draft.node("wide", "Conv", &["pool", "wide_w"]);
    axis(draft.node("apart", "Concat", &["wide", "c"]));
    draft.constant("ones", &[1, 4, 8, 8]);
    axis(draft.node("padded", "Concat", &["wide", "ones"]));
    draft.constant("end_w", &[4, 8, 1, 1]);
    draft.node("end", "Conv", &["padded", "end_w"]);
    draft.end(&["apart", "end"])
}

#[test]
fn inputs_and_output_of_a_concatenation_have_one_scale() {
    let mut model = concat();
    let plan = tensorrt(&model);
    for node in ["first", "second"] {
        assert_eq!(by(&plan, node), Some("concat-one-scale"), "{node}");
    }
    let (rule, reason) = float(&plan, "apart");
    assert_eq!((rule, reason.as_str()), (Some("concat-one-scale"), "no quantized layer reads it"));
    assert_eq!(float(&plan, "padded").1, "one of its inputs is a constant");
    assert_eq!(float(&plan, "pool").0, Some("commuting"));

    let members = ["a", "b", "c", "first", "pool"];
    let of = |name: &str| plan.tensors.iter().find(|t| t.tensor == name).expect(name);
    let measured = rising(&model.graph);
    let amax = |name: &str| measured.seen(name, Method::Max).expect(name).amax;
    let most = members.map(amax).into_iter().fold(0.0, f32::max);
    for name in members {
        assert_eq!(of(name).scale, most / 127.0, "{name}");
        let expected = (name != "pool").then_some("pool");
        assert_eq!(of(name).range_of.as_deref(), expected, "the widest range is the last one's");
    }
    assert_eq!(of("x").range_of, None);
    assert!(
        plan.tensors.iter().all(|t| t.tensor != "second"),
        "its reader's pair stands behind the pooling"
    );

    insert(&mut model, &plan).expect("inserts");
    onnx::check(&model).expect("the standard's rules");
    let scale = |name: &str| {
        let quantize = format!("{name}_quantize");
        model.graph.nodes.iter().find(|n| n.name == quantize).expect(name).inputs[1].clone()
    };
    let shared: BTreeSet<String> = members.iter().map(|name| scale(name)).collect();
    assert_eq!(shared.len(), 1, "one constant, so that training keeps them equal");
    assert_ne!(scale("x"), scale("a"));
}

#[test]
fn a_concatenation_that_is_left_out_leaves_scales_apart() {
    let model = concat();
    let exclude = ["op:Concat".to_owned()];
    let plan = planned(&model, &Request { exclude: &exclude, ..request(Target::Tensorrt) });
    assert!(plan.tensors.iter().all(|tensor| tensor.range_of.is_none()));
}

#[test]
fn values_before_and_behind_a_pooling_have_one_scale() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    let pool = draft.node("pool", "MaxPool", &["a"]);
    pool.attributes.insert("kernel_shape".to_owned(), Attribute::Ints(vec![1, 1]));
    draft.conv("b", "pool", 1);
    draft.conv("c", "a", 1);
    let plan = tensorrt(&draft.end(&["b", "c"]));
    assert_eq!(reads(&plan, "b"), ["pool"]);
    assert!(reads(&plan, "pool").is_empty(), "no pair of its own");
    let [a, pool] = ["c", "b"].map(|reader| tensor(&plan, reader)[0]);
    assert_eq!((a.scale, a.range_of.as_deref()), (pool.scale, Some("pool")));
    assert!(float(&plan, "pool").1.starts_with("it commutes with rounding"));
}

#[test]
fn outputs_of_the_graph_stay_float() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.conv("b", "a", 1);
    let mut model = draft.end(&["a", "b"]);
    let plan = tensorrt(&model);
    // `a` is an output too: only its reader reads it quantized.
    assert_eq!(reads(&plan, "b"), ["a"]);
    insert(&mut model, &plan).expect("inserts");
    let outputs: Vec<&str> = model.graph.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["a", "b"]);
    for name in outputs {
        let producer = model.graph.nodes.iter().find(|n| n.outputs[0] == name).expect(name);
        assert_eq!(producer.op_type, "Conv", "{name}");
    }
}

#[test]
fn each_rule_decides_in_one_of_these_graphs() {
    let graphs =
        [chain(), grouped(), transposed(), attention(), gelu(), gated(), pooled(), concat()];
    let plans = graphs.map(|model| tensorrt(&model));
    let seen: BTreeSet<&str> =
        plans.iter().flat_map(|plan| &plan.layers).filter_map(|layer| layer.rule).collect();
    let rules = policy(Target::Tensorrt).expect("there").rules;
    assert_eq!(seen, rules.iter().map(|rule| rule.name).collect());
}

/// The parts of a convolution's output have one scale, and what joins them again has it too.
#[test]
fn a_split_commutes_behind_a_convolution() {
    let mut draft = Draft::new(&[1, 8, 8, 8]);
    draft.constant("a_w", &[8, 8, 1, 1]);
    draft.node("a", "Conv", &["x", "a_w"]);
    draft.node("split", "Split", &["a"]).outputs = ["one", "other"].map(str::to_owned).to_vec();
    draft.conv("b", "one", 1);
    draft.conv("c", "other", 1);
    let plan = planned(&draft.end(&["b", "c"]), &request(Target::Tensorrt));
    assert_eq!(layer(&plan, "split").rule, Some("commuting"));
    let scales = ["b", "c"].map(|reader| tensor(&plan, reader)[0].scale);
    assert_eq!(scales[0], scales[1]);
}
