//! One small graph for each rule of placement.

use qpipe_worker::graph::{Attribute, Model};

use super::draft::{CHANNELS, Draft, SIDE};

const IMAGE: &[i64] = &[CHANNELS, SIDE, SIDE];

fn axis(axis: i64) -> (&'static str, Attribute) {
    ("axis", Attribute::Int(axis))
}

fn window() -> [(&'static str, Attribute); 2] {
    ["kernel_shape", "strides"].map(|key| (key, Attribute::Ints(vec![2, 2])))
}

/// Conv, BatchNormalization and Relu, twice, and a third convolution.
pub fn chain() -> Model {
    let mut draft = Draft::new();
    let mut input = "x".to_owned();
    for name in ["a", "b"] {
        let part = |part: &str| format!("{name}_{part}");
        draft.conv(name, &input);
        let inputs = ["scale", "shift", "mean"].map(part);
        for constant in &inputs {
            draft.random(constant, &[CHANNELS]);
        }
        draft.positive(&part("variance"), &[CHANNELS]);
        let [scale, shift, mean] = &inputs;
        draft.node(
            &part("norm"),
            "BatchNormalization",
            &[name, scale, shift, mean, &part("variance")],
        );
        draft.node(&part("relu"), "Relu", &[&part("norm")]);
        input = part("relu");
    }
    draft.conv("c", &input);
    draft.end(&[("c", IMAGE)])
}

/// A convolution with an activation behind it, between two others.
pub fn activated(activation: &str) -> Model {
    let mut draft = Draft::new();
    draft.conv("a", "x");
    match activation {
        "silu" => {
            draft.node("gate", "Sigmoid", &["a"]);
            draft.node("act", "Mul", &["a", "gate"]);
        }
        "hard-swish-written-out" => {
            draft.with("gate", "HardSigmoid", &["a"], &[("alpha", Attribute::Float(1.0 / 6.0))]);
            draft.node("act", "Mul", &["a", "gate"]);
        }
        "relu6" => {
            draft.number("zero", 0.0);
            draft.number("six", 6.0);
            draft.node("act", "Clip", &["a", "zero", "six"]);
        }
        operator => drop(draft.node("act", operator, &["a"])),
    }
    draft.conv("b", "act");
    draft.node("b_relu", "Relu", &["b"]);
    draft.conv("c", "b_relu");
    draft.end(&[("c", IMAGE)])
}

/// Residual blocks: one with the identity, one that halves height and width with a convolution beside it.
pub fn residual() -> Model {
    let mut draft = Draft::new();
    draft.conv("stem", "x");
    draft.node("stem_relu", "Relu", &["stem"]);
    let half = [CHANNELS, 2 * CHANNELS];
    draft.conv("a1", "stem_relu");
    draft.node("a1_relu", "Relu", &["a1"]);
    draft.conv("a2", "a1_relu");
    draft.node("a_sum", "Add", &["a2", "stem_relu"]);
    draft.node("a_relu", "Relu", &["a_sum"]);
    draft.conv_of("b1", "a_relu", half, 1, 2);
    draft.node("b1_relu", "Relu", &["b1"]);
    draft.conv_of("b2", "b1_relu", [half[1]; 2], 1, 1);
    draft.conv_of("down", "a_relu", half, 1, 2);
    draft.node("b_sum", "Add", &["b2", "down"]);
    draft.node("b_relu", "Relu", &["b_sum"]);
    draft.conv_of("last", "b_relu", [half[1], CHANNELS], 1, 1);
    draft.end(&[("last", &[CHANNELS, SIDE / 2, SIDE / 2])])
}

/// A depthwise and a grouped convolution between ordinary ones.
pub fn grouped() -> Model {
    let mut draft = Draft::new();
    let mut input = "x".to_owned();
    for (name, groups) in [("a", 1), ("depthwise", CHANNELS), ("b", 1), ("grouped", 4)] {
        draft.conv_of(name, &input, [CHANNELS; 2], groups, 1);
        input = format!("{name}_relu");
        draft.node(&input, "Relu", &[name]);
    }
    draft.conv("last", &input);
    draft.end(&[("last", IMAGE)])
}

/// A ConvTranspose that doubles height and width, between two convolutions.
pub fn transposed(channels: [i64; 2]) -> Model {
    let mut draft = Draft::new();
    draft.conv_of("a", "x", [CHANNELS, channels[0]], 1, 1);
    draft.node("a_relu", "Relu", &["a"]);
    draft.random("up_w", &[channels[0], channels[1], 2, 2]);
    draft.random("up_b", &[channels[1]]);
    draft.with(
        "up",
        "ConvTranspose",
        &["a_relu", "up_w", "up_b"],
        &[("strides", Attribute::Ints(vec![2, 2]))],
    );
    draft.node("up_relu", "Relu", &["up"]);
    draft.conv_of("b", "up_relu", [channels[1], CHANNELS], 1, 1);
    draft.end(&[("b", &[CHANNELS, 2 * SIDE, 2 * SIDE])])
}

/// Two branches of one input, joined.
pub fn concat() -> Model {
    let mut draft = Draft::new();
    draft.conv("stem", "x");
    draft.node("stem_relu", "Relu", &["stem"]);
    for name in ["left", "right"] {
        draft.conv(name, "stem_relu");
        draft.node(&format!("{name}_relu"), "Relu", &[name]);
    }
    draft.with("joined", "Concat", &["left_relu", "right_relu"], &[axis(1)]);
    draft.conv_of("last", "joined", [2 * CHANNELS, CHANNELS], 1, 1);
    draft.end(&[("last", IMAGE)])
}

/// YOLO's C2f: a convolution split in two, one half through another and both joined.
pub fn split() -> Model {
    let mut draft = Draft::new();
    draft.pointwise("a", "x", [CHANNELS, 2 * CHANNELS]);
    draft.node("a_gate", "Sigmoid", &["a"]);
    draft.node("a_silu", "Mul", &["a", "a_gate"]);
    draft.halves("a_silu", ["first", "second"]);
    for (name, input) in [("b", "second"), ("c", "b_silu")] {
        let part = |part: &str| format!("{name}_{part}");
        draft.conv(name, input);
        draft.node(&part("gate"), "Sigmoid", &[name]);
        draft.node(&part("silu"), "Mul", &[name, &part("gate")]);
    }
    draft.node("sum", "Add", &["second", "c_silu"]);
    draft.with("joined", "Concat", &["first", "second", "sum"], &[axis(1)]);
    draft.pointwise("last", "joined", [3 * CHANNELS, CHANNELS]);
    draft.end(&[("last", IMAGE)])
}

/// A pooling between two convolutions.
pub fn pooled(operator: &str) -> Model {
    let mut draft = Draft::new();
    draft.conv("a", "x");
    draft.node("a_relu", "Relu", &["a"]);
    draft.with("pool", operator, &["a_relu"], &window());
    draft.conv("b", "pool");
    draft.end(&[("b", &[CHANNELS, SIDE / 2, SIDE / 2])])
}

/// The end of a classifier: means of each channel, ten classes of them.
pub fn classifier(operator: &str) -> Model {
    let mut draft = Draft::new();
    draft.conv("a", "x");
    draft.node("a_relu", "Relu", &["a"]);
    if operator == "ReduceMean" {
        draft.with("pool", operator, &["a_relu"], &[("axes", Attribute::Ints(vec![2, 3]))]);
    } else {
        draft.node("pool", operator, &["a_relu"]);
    }
    draft.node("flat", "Flatten", &["pool"]);
    draft.random("fc_w", &[64, CHANNELS]);
    draft.random("fc_b", &[64]);
    draft.with("fc", "Gemm", &["flat", "fc_w", "fc_b"], &[("transB", Attribute::Int(1))]);
    draft.node("fc_relu", "Relu", &["fc"]);
    draft.random("last_w", &[64, 16]);
    draft.random("last_b", &[16]);
    draft.node("last", "Gemm", &["fc_relu", "last_w", "last_b"]);
    draft.end(&[("last", &[16])])
}

/// Channels shuffled between two convolutions: Reshape, Transpose, Reshape.
pub fn shuffled() -> Model {
    let mut draft = Draft::new();
    draft.conv("a", "x");
    draft.node("a_relu", "Relu", &["a"]);
    draft.ints("apart", &[0, 2, CHANNELS / 2, SIDE, SIDE]);
    draft.ints("together", &[0, CHANNELS, SIDE, SIDE]);
    draft.node("groups", "Reshape", &["a_relu", "apart"]);
    let turned = Attribute::Ints(vec![0, 2, 1, 3, 4]);
    draft.with("turned", "Transpose", &["groups"], &[("perm", turned)]);
    draft.node("shuffled", "Reshape", &["turned", "together"]);
    draft.conv("b", "shuffled");
    draft.end(&[("b", IMAGE)])
}

/// Squeeze-and-excite between two convolutions.
pub fn excited() -> Model {
    let mut draft = Draft::new();
    draft.conv("a", "x");
    draft.node("a_relu", "Relu", &["a"]);
    draft.node("squeezed", "GlobalAveragePool", &["a_relu"]);
    draft.pointwise("narrow", "squeezed", [CHANNELS, 16]);
    draft.node("narrow_relu", "Relu", &["narrow"]);
    draft.pointwise("wide", "narrow_relu", [16, CHANNELS]);
    draft.node("gate", "Sigmoid", &["wide"]);
    draft.node("excited", "Mul", &["a_relu", "gate"]);
    draft.conv("b", "excited");
    draft.end(&[("b", IMAGE)])
}

/// Width of a token.
const WIDTH: i64 = 64;
const TOKENS: i64 = 32;
const HEADS: i64 = 4;

/// A block of a transformer: attention, GELU.
pub fn attention() -> Model {
    let mut draft = Draft::of([1, TOKENS, WIDTH]);
    draft.ints("tokens_shape", &[0, TOKENS, WIDTH]);
    draft.ints("heads_shape", &[0, TOKENS, HEADS, WIDTH / HEADS]);
    draft.number("root", ((WIDTH / HEADS) as f32).sqrt());
    for name in ["one", "two"] {
        draft.random(&format!("{name}_scale"), &[WIDTH]);
        draft.random(&format!("{name}_shift"), &[WIDTH]);
    }
    draft.node("tokens", "Reshape", &["x", "tokens_shape"]);
    draft.linear("embedded", "tokens", [WIDTH, WIDTH]);
    draft.with("norm", "LayerNormalization", &["embedded", "one_scale", "one_shift"], &[axis(-1)]);
    for name in ["q", "k", "v"] {
        let part = |part: &str| format!("{name}_{part}");
        draft.linear(name, "norm", [WIDTH, WIDTH]);
        draft.node(&part("heads"), "Reshape", &[name, "heads_shape"]);
        let perm = if name == "k" { [0, 2, 3, 1] } else { [0, 2, 1, 3] };
        draft.with(
            &part("turned"),
            "Transpose",
            &[&part("heads")],
            &[("perm", Attribute::Ints(perm.to_vec()))],
        );
    }
    draft.node("scores", "MatMul", &["q_turned", "k_turned"]);
    draft.node("scaled", "Div", &["scores", "root"]);
    draft.with("probabilities", "Softmax", &["scaled"], &[axis(-1)]);
    draft.node("mixed", "MatMul", &["probabilities", "v_turned"]);
    draft.with("back", "Transpose", &["mixed"], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
    draft.node("merged", "Reshape", &["back", "tokens_shape"]);
    draft.linear("projected", "merged", [WIDTH, WIDTH]);
    draft.node("sum", "Add", &["embedded", "projected"]);
    draft.with("second", "LayerNormalization", &["sum", "two_scale", "two_shift"], &[axis(-1)]);
    draft.linear("up", "second", [WIDTH, 2 * WIDTH]);
    draft.gelu("gelu", "up");
    draft.linear("down", "gelu", [2 * WIDTH, WIDTH]);
    draft.node("end", "Add", &["sum", "down"]);
    draft.end(&[("end", &[TOKENS, WIDTH])])
}

/// Two products of a sequence with constant matrices.
pub fn products() -> Model {
    let mut draft = Draft::of([1, TOKENS, WIDTH]);
    draft.linear("a", "x", [WIDTH, WIDTH]);
    draft.node("a_relu", "Relu", &["a"]);
    draft.linear("b", "a_relu", [WIDTH, WIDTH]);
    draft.end(&[("b", &[1, TOKENS, WIDTH])])
}
