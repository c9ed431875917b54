//! Where TensorRT-RTX differs from TensorRT: what its engines compute in float whatever pairs there are.

use super::RTX_ENGINES;
use crate::quant::placement::rule::{Order, Rule, Verdict};

pub(in super::super) const TRANSPOSED: Rule = Rule {
    name: "transposed-conv",
    operators: &["ConvTranspose"],
    about: "Stays float.",
    reason: "TensorRT-RTX has no integer kernel of it: with pairs it dequantizes input and weight, the weight in a kernel of its own at each run, and computes in float on rounded values.",
    source: RTX_ENGINES,
    order: Order::Forward,
    apply: |_, _, _| Verdict::Float("TensorRT-RTX has no integer kernel of it".to_owned()),
};

pub(in super::super) const AVERAGE: Rule = Rule {
    name: "average-pool",
    operators: &["AveragePool"],
    about: "Stays float.",
    reason: "TensorRT-RTX has no integer kernel of it: with a pair the layer before rounds and dequantizes what it gives, the pooling reads and writes floats, and the next layer's quantization is a kernel of its own, as without a pair.",
    source: RTX_ENGINES,
    order: Order::Forward,
    apply: |_, _, _| Verdict::Float("TensorRT-RTX has no integer kernel of it".to_owned()),
};
