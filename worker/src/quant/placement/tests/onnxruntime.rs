//! ONNX Runtime's rules, each on a small graph.

use std::collections::BTreeSet;

use qpipe::stages::formats::{ActivationType, Activations, Granularity, WeightType, Weights};

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
    assert_eq!(rule(&plan, "sigmoid"), (Some("integer-sigmoid"), true));
    assert_eq!(rule(&plan, "silu"), (Some("integer-gate"), true));
    // Behind each convolution; float layers read it rounded, and the next one's input is made integers again.
    assert_eq!(values(&plan), ["x", "relu", "depthwise", "sigmoid", "silu", "up", "b"]);
    assert_eq!(tensor(&plan, "end")[0].tensor, "b");
    let [depthwise] = tensor(&plan, "sigmoid")[..] else { panic!("one input") };
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
    assert_eq!(rule(&plan, "sum"), (Some("float-residual"), false));
    assert!(tensor(&plan, "sum").is_empty(), "no product gains by integers there");
    // A product writes floats where a bias or a scaling reads it, and integers where a layer does.
    let expected = ["x", "q", "turned", "v", "probabilities", "mixed", "sum", "next"];
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

/// A float branch and integers, of which a pooling takes the means: what it reads is integers, so the concatenation writes them.
#[test]
fn a_concatenation_that_a_pooling_reads_is_integers() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.node("b", "Sqrt", &["x"]);
    let concat = draft.node("concat", "Concat", &["a", "b"]);
    concat.attributes.insert("axis".to_owned(), Attribute::Int(1));
    draft.node("pool", "GlobalAveragePool", &["concat"]);
    let plan = onnxruntime(&draft.end(&["pool"]));
    assert_eq!(rule(&plan, "concat"), (Some("concat"), true));
    assert_eq!(values(&plan), ["x", "a", "b", "concat"]);
}

/// The outer one is integers by what reads it behind its activation, and so is the inner one.
#[test]
fn a_concatenation_within_one_with_an_activation_is_integers() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.node("b", "Elu", &["a"]);
    for (name, inputs) in [("inner", ["a", "b"]), ("outer", ["x", "inner"])] {
        let concat = draft.node(name, "Concat", &inputs);
        concat.attributes.insert("axis".to_owned(), Attribute::Int(1));
    }
    draft.node("relu", "Relu", &["outer"]);
    draft.matmul("fc", "relu", [8, 4]);
    let plan = onnxruntime(&draft.end(&["fc"]));
    for name in ["inner", "outer"] {
        assert_eq!(rule(&plan, name), (Some("concat"), true), "{name}");
    }
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

fn gates() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    // Squeeze-and-excite behind a Relu, its gate a HardSigmoid.
    draft.node("relu", "Relu", &["a"]);
    draft.node("squeeze", "GlobalAveragePool", &["relu"]);
    draft.conv("excite", "squeeze", 1);
    draft.node("gate", "HardSigmoid", &["excite"]);
    draft.node("scaled", "Mul", &["gate", "relu"]);
    draft.conv("b", "scaled", 1);
    draft.node("sigmoid", "Sigmoid", &["b"]);
    draft.node("silu", "Mul", &["b", "sigmoid"]);
    // The same with linear layers, behind SiLU.
    draft.node("pooled", "GlobalAveragePool", &["silu"]);
    draft.node("flat", "Flatten", &["pooled"]);
    draft.matmul("linear", "flat", [4, 4]);
    draft.node("share", "Sigmoid", &["linear"]);
    draft.constant("shape", &[4]);
    draft.node("shaped", "Reshape", &["share", "shape"]);
    draft.node("weighed", "Mul", &["silu", "shaped"]);
    // A block whose branch ends in a gate.
    draft.node("sum", "Add", &["scaled", "weighed"]);
    draft.conv("c", "sum", 1);
    // HardSwish in two nodes, and a gate behind it.
    draft.node("hard", "HardSigmoid", &["c"]);
    draft.node("swish", "Mul", &["c", "hard"]);
    draft.node("through", "Mul", &["swish", "gate"]);
    draft.conv("d", "through", 1);
    // Scores: both are gates. And a gate that makes an output.
    draft.node("object", "Sigmoid", &["d"]);
    draft.node("class", "Sigmoid", &["b"]);
    draft.node("score", "Mul", &["object", "class"]);
    draft.node("likely", "Sqrt", &["score"]);
    draft.node("end", "Mul", &["d", "object"]);
    draft.end(&["likely", "end"])
}

#[test]
fn what_gates_a_convolutions_output_is_integers() {
    let model = gates();
    let plan = onnxruntime(&model);
    for name in ["scaled", "silu", "weighed"] {
        assert_eq!(rule(&plan, name), (Some("integer-gate"), true), "{name}");
        assert_eq!(tensor(&plan, name).len(), 2, "{name}: both inputs");
    }
    assert_eq!(rule(&plan, "sigmoid"), (Some("integer-sigmoid"), true));
    assert_eq!(rule(&plan, "sum"), (Some("residual-add"), true));
    for name in ["gate", "share", "hard", "swish", "through", "object", "class", "score", "end"] {
        assert_eq!(rule(&plan, name), (Some("float-activation"), false), "{name}");
    }
    let values = values(&plan);
    for name in ["share", "hard", "swish", "object", "class", "score"] {
        assert!(!values.contains(&name), "{name} is rounded for nothing: {values:?}");
    }
    for name in ["gate", "sigmoid", "shaped"] {
        let gate = plan.tensors.iter().find(|t| t.tensor == name).expect(name);
        assert_eq!((gate.scale, gate.zero_point), (1.0 / 255.0, 0), "{name}: 0 to 1");
    }
    let silu = plan.tensors.iter().find(|t| t.tensor == "silu").expect("there");
    assert_eq!(silu.zero_point, 128, "it has values below 0");
    // TensorRT's rules have no such pairs.
    let tensorrt = planned(&model, &request(Target::Tensorrt));
    for name in ["scaled", "silu", "weighed", "sigmoid"] {
        assert!(!layer(&tensorrt, name).quantized, "{name}");
    }
}

#[test]
fn gates_behind_matrix_products_stay_float() {
    let mut draft = Draft::new(&[1, 4, 4]);
    draft.matmul("up", "x", [4, 4]);
    draft.node("sigmoid", "Sigmoid", &["up"]);
    draft.node("silu", "Mul", &["up", "sigmoid"]);
    draft.matmul("down", "silu", [4, 4]);
    let plan = onnxruntime(&draft.end(&["down"]));
    for name in ["sigmoid", "silu"] {
        assert_eq!(rule(&plan, name), (Some("float-activation"), false), "{name}");
    }
    assert_eq!(values(&plan), ["x", "silu"], "the next layer's input only");
}

#[test]
fn a_gate_alone_is_integers_where_nothing_else_is_selected() {
    let only = ["silu".to_owned()];
    let request = Request { include: Some(&only), ..request(Target::Onnxruntime) };
    let plan = planned(&gates(), &request);
    assert_eq!(values(&plan), ["b", "sigmoid", "silu"]);
}

/// The block of ConvNeXt: a convolution, and products whose result is added to its input.
#[test]
fn additions_behind_matrix_products_stay_float() {
    let mut draft = Draft::new(&[1, 4, 4, 4]);
    draft.conv("stem", "x", 1);
    let mut input = "stem".to_owned();
    for block in ["a", "b"] {
        let name = |part: &str| format!("{block}_{part}");
        draft.conv(&name("depthwise"), &input, 4);
        draft.matmul(&name("linear"), &name("depthwise"), [4, 4]);
        draft.node(&name("sum"), "Add", &[&input, &name("linear")]);
        input = name("sum");
    }
    // With a convolution's branch it is integers again, and what two such additions make.
    draft.conv("c", &input, 1);
    draft.node("joined", "Add", &[&input, "c"]);
    draft.conv("d", "joined", 1);
    draft.conv("e", "d", 1);
    draft.node("first", "Add", &["c", "d"]);
    draft.node("second", "Add", &["d", "e"]);
    draft.node("pair", "Add", &["first", "second"]);
    draft.conv("f", "pair", 1);
    draft.node("end", "Sqrt", &["f"]);
    let plan = onnxruntime(&draft.end(&["end"]));
    assert_eq!(rule(&plan, "a_sum"), (Some("residual-add"), true), "it reads the stem's integers");
    assert_eq!(rule(&plan, "b_sum"), (Some("float-residual"), false));
    for name in ["joined", "first", "second", "pair"] {
        assert_eq!(rule(&plan, name), (Some("residual-add"), true), "{name}");
    }
    let linear: Vec<_> = plan.tensors.iter().filter(|t| t.tensor.ends_with("linear")).collect();
    assert_eq!(linear.len(), 1, "the product before the float addition writes floats");
    assert_eq!(linear[0].tensor, "a_linear");
}

/// Products with stacks: two of like magnitudes, one whose matrices differ by a factor of 8, one of a single matrix in another count of dimensions than its input.
fn stacks() -> Model {
    let mut draft = Draft::new(&[1, 4, 4]);
    for (name, input, shape) in [
        ("first", "x", [2, 4, 4].as_slice()),
        ("second", "first", &[2, 4, 4]),
        ("third", "second", &[8, 1, 4, 4]),
        ("single", "second", &[1, 1, 4, 4]),
    ] {
        let weight = format!("{name}_w");
        draft.constant(&weight, shape);
        draft.node(name, "MatMul", &[input, &weight]);
    }
    draft.end(&["third", "single"])
}

#[test]
fn a_stack_of_matrices_has_one_scale_or_is_float() {
    let plan = onnxruntime(&stacks());
    assert_eq!(rule(&plan, "first"), (Some("matrix-stack"), true));
    assert_eq!(rule(&plan, "second"), (Some("matrix-stack"), true));
    assert_eq!(rule(&plan, "third"), (Some("matrix-stack"), false));
    let reason = layer(&plan, "third").reason.as_deref().expect("float");
    assert!(reason.contains("its 8 matrices differ by a factor of 8.0"), "{reason}");
    assert_eq!(rule(&plan, "single"), (Some("integer-matmul"), false));
    // Only the second product reads integers; what reads its output does not.
    assert_eq!(values(&plan), ["x", "first"]);
    let weights: Vec<_> = plan.weights.iter().map(|w| (w.weight.as_str(), w.axis)).collect();
    assert_eq!(weights, [("first_w", None), ("second_w", None)]);
    assert!(plan.weights.iter().all(|w| w.granularity == Granularity::PerTensor));
    assert_eq!(plan.weights[0].grid.scales, [32.0 / 127.0]);

    let mut model = stacks();
    insert(&mut model, &plan).expect("inserts");
    onnx::check(&model).expect("the standard's rules");
    assert!(model.graph.initializers["first_w_scale"].shape.is_empty());

    let plan = planned(&stacks(), &request(Target::Tensorrt));
    assert!(plan.layers.iter().all(|layer| !layer.quantized), "there it stays float");
    let reason = layer(&plan, "first").reason.as_deref().expect("float");
    assert!(reason.starts_with("its weight has 3 dimension(s)"), "{reason}");
}

#[test]
fn types_without_a_kernel_leave_a_stack_in_float() {
    let planned = |weights, activations, per_channel| {
        let formats = Formats::of(weights, activations, per_channel);
        planned(&stacks(), &Request { formats, ..request(Target::Onnxruntime) })
    };
    let weights = |dtype, granularity| Some(Weights { dtype, granularity, ..Weights::default() });
    let activations = |dtype| Some(Activations { dtype: Some(dtype), ..Activations::default() });
    let int8 = weights(WeightType::Int8, None);
    for (plan, why) in [
        (planned(weights(WeightType::Int4, None), None, true), "weights other than int8"),
        (planned(weights(WeightType::Float8e4m3fn, None), None, true), "weights other than int8"),
        (
            planned(weights(WeightType::Int8, Some(Granularity::PerBlock)), None, true),
            "weights of blocks",
        ),
        (planned(int8, activations(ActivationType::Float), true), "no integers"),
        (planned(int8, activations(ActivationType::Float8e4m3fn), true), "no integers"),
    ] {
        assert_eq!(rule(&plan, "first"), (None, false));
        let reason = layer(&plan, "first").reason.as_deref().expect("float");
        assert!(reason.contains(why), "{reason}");
        assert!(values(&plan).is_empty(), "nothing reads integers");
    }
    for plan in [planned(None, None, false), planned(int8, activations(ActivationType::Int8), true)]
    {
        assert_eq!(rule(&plan, "first"), (Some("matrix-stack"), true));
    }
}

#[test]
fn each_rule_decides_in_one_of_these_graphs() {
    let plans =
        [convolutions(), attention(), joined(), gates(), stacks()].map(|model| onnxruntime(&model));
    let seen: BTreeSet<&str> =
        plans.iter().flat_map(|plan| &plan.layers).filter_map(|layer| layer.rule).collect();
    let rules = policy(Target::Onnxruntime).expect("there").rules;
    assert_eq!(seen, rules.iter().map(|rule| rule.name).collect());
}

/// A convolution divided by a Split: one part kept, one convolved, all joined; `read` are the values that make outputs beside it.
fn divided(read: &[&str]) -> Model {
    let mut draft = Draft::new(&[1, 8, 8, 8]);
    draft.constant("a_w", &[8, 8, 1, 1]);
    draft.node("a", "Conv", &["x", "a_w"]);
    draft.node("split", "Split", &["a"]).outputs = ["kept", "part"].map(str::to_owned).to_vec();
    draft.conv("b", "part", 1);
    draft
        .node("joined", "Concat", &["kept", "b"])
        .attributes
        .insert("axis".to_owned(), Attribute::Int(1));
    draft.constant("c_w", &[4, 8, 1, 1]);
    draft.node("c", "Conv", &["joined", "c_w"]);
    draft.node("end", "Sqrt", &["c"]);
    draft.end(&[read, &["end"]].concat())
}

#[test]
fn parts_of_integers_have_the_scale_of_the_whole() {
    let plan = onnxruntime(&divided(&[]));
    assert_eq!(rule(&plan, "split"), (Some("keeps-scale"), true));
    assert_eq!(values(&plan), ["x", "a", "kept", "part", "b", "joined", "c"]);
    let of = |name: &str| plan.tensors.iter().find(|t| t.tensor == name).expect(name);
    for part in ["kept", "part"] {
        assert_eq!(of(part).range_of.as_deref(), Some("a"), "{part}");
        assert_eq!((of(part).scale, of(part).zero_point), (of("a").scale, of("a").zero_point));
    }
}

#[test]
fn a_split_that_makes_an_output_or_is_left_out_stays_float() {
    let model = divided(&["kept"]);
    let plan = onnxruntime(&model);
    assert_eq!(rule(&plan, "split"), (Some("keeps-scale"), false));
    let of = |plan: &Plan, name: &str| {
        plan.tensors.iter().find(|t| t.tensor == name).map(|t| t.range_of.clone())
    };
    assert_eq!(of(&plan, "part"), Some(None), "its own range");
    let exclude = ["split".to_owned()];
    let model = divided(&[]);
    let plan = planned(&model, &Request { exclude: &exclude, ..request(Target::Onnxruntime) });
    assert_eq!((of(&plan, "part"), of(&plan, "kept")), (Some(None), Some(None)));
}

/// Queries, keys and values as parts of one product.
#[test]
fn parts_of_floats_have_ranges_of_their_own() {
    let mut draft = Draft::new(&[1, 4, 4]);
    draft.matmul("qkv", "x", [4, 12]);
    draft.node("split", "Split", &["qkv"]).outputs = ["q", "k", "v"].map(str::to_owned).to_vec();
    let turned = Attribute::Ints(vec![0, 2, 1]);
    draft.node("turned", "Transpose", &["k"]).attributes.insert("perm".to_owned(), turned);
    draft.node("scores", "MatMul", &["q", "turned"]);
    draft.node("probabilities", "Softmax", &["scores"]);
    draft.node("mixed", "MatMul", &["probabilities", "v"]);
    let model = draft.end(&["mixed"]);
    for target in Target::ALL {
        let plan = planned(&model, &request(target));
        assert!(!layer(&plan, "split").quantized);
        let parts = ["q", "turned", "v"]
            .map(|name| plan.tensors.iter().find(|t| t.tensor == name).expect(name));
        assert_eq!(BTreeSet::from(parts.map(|part| part.scale.to_bits())).len(), 3, "{target:?}");
    }
}

#[test]
fn means_over_channels_stay_float() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    for (name, axes) in [("pooled", vec![2, 3]), ("spread", vec![1, 2])] {
        draft
            .node(name, "ReduceMean", &["a"])
            .attributes
            .insert("axes".to_owned(), Attribute::Ints(axes));
    }
    let plan = onnxruntime(&draft.end(&["pooled", "spread"]));
    assert_eq!(rule(&plan, "pooled"), (Some("average-pool"), true));
    assert_eq!(rule(&plan, "spread"), (Some("average-pool"), false));
}

/// `h.std((2, 3))` as PyTorch's exporters write it, and a division by the mean of magnitudes.
#[test]
fn means_within_a_deviation_stay_float() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("a", "x", 1);
    draft.constant("number", &[]);
    let mean = |draft: &mut Draft, name: &str, input: &str| {
        let axes = Attribute::Ints(vec![2, 3]);
        draft.node(name, "ReduceMean", &[input]).attributes.insert("axes".to_owned(), axes);
    };
    mean(&mut draft, "mean", "a");
    draft.node("centred", "Sub", &["a", "mean"]);
    draft.node("square", "Mul", &["centred", "centred"]);
    mean(&mut draft, "variance", "square");
    draft.node("fair", "Mul", &["variance", "number"]);
    draft.node("deviation", "Sqrt", &["fair"]);
    draft.node("size", "Abs", &["a"]);
    mean(&mut draft, "magnitude", "size");
    draft.node("safe", "Add", &["magnitude", "number"]);
    draft.node("scaled", "Div", &["a", "safe"]);
    mean(&mut draft, "pooled", "a");
    let model = draft.end(&["deviation", "scaled", "pooled"]);
    for target in Target::ALL {
        let plan = planned(&model, &request(target));
        for (name, reason) in [
            ("mean", "\"centred\" takes it off"),
            ("variance", "a mean of squares"),
            ("magnitude", "\"scaled\" divides by it"),
        ] {
            let layer = layer(&plan, name);
            assert!(!layer.quantized, "{target:?}: {name}");
            assert!(layer.reason.as_ref().is_some_and(|text| text.contains(reason)), "{layer:?}");
        }
        assert!(layer(&plan, "pooled").quantized, "{target:?}");
    }
}

#[test]
fn squares_are_never_negative() {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.node("square", "Mul", &["x", "x"]);
    draft.conv("a", "square", 1);
    draft.constant("numbers", &[2]);
    draft.node("power", "Pow", &["a", "numbers"]);
    draft.conv("b", "power", 1);
    draft.conv("c", "b", 1);
    let plan = onnxruntime(&draft.end(&["c"]));
    let zero_point = |name: &str| {
        plan.tensors.iter().find(|tensor| tensor.tensor == name).expect(name).zero_point
    };
    assert_eq!((zero_point("square"), zero_point("power"), zero_point("b")), (0, 128, 128));
}
