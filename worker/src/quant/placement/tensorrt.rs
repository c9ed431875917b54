//! TensorRT's rules: <https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html>.
//!
//! int8 with zero point 0. Quantized are
//!
//! - the input and the weight of Conv, ConvTranspose, Gemm and MatMul with a constant weight;
//! - **one** input of a residual Add: the identity branch, so that the other branch's convolution, the
//!   Add and the Relu behind it become one kernel. In a down-sampling block that branch is the
//!   output of the down-sampling convolution;
//! - the input of a global pooling.
//!
//! Pooling and changes of shape commute with quantization, TensorRT moves the pairs itself. Biases and
//! outputs stay float. Measured on an H100 with ResNet-50 at batch 32: 0.99 ms, against 1.22 ms with pairs where
//! ONNX Runtime wants them.

use qpipe::stages::insert_qdq::Target;

use super::{Policy, Selection, Sites, View};
use crate::quant::scheme::INT8;

pub(super) const POLICY: Policy = Policy {
    target: Target::Tensorrt,
    name: "tensorrt",
    place,
    scheme: |_, _| INT8,
    range_of: |_, name| name,
};

fn place(view: &View, selection: &Selection) -> Sites {
    let mut sites = Sites::default();
    let nodes = view.graph.nodes.iter().enumerate();
    for (index, node) in nodes.filter(|(index, _)| selection.has(*index)) {
        match node.op_type.as_str() {
            "Conv" | "ConvTranspose" | "Gemm" | "MatMul" => {
                sites.weighted(view, index);
            }
            "Add" => match identity_branch(view, index) {
                Some(input) => {
                    sites.read(&node.inputs[input], (index, input));
                    sites.quantized.push(index);
                }
                None => sites.refused.push((index, "it adds a constant".to_owned())),
            },
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" => {
                if let Some(input) = view.activation(index, 0) {
                    sites.read(input, (index, 0));
                    sites.quantized.push(index);
                }
            }
            _ => {}
        }
    }
    sites
}

/// Which input of an Add is the identity branch: the one with fewer layers behind it, the second where
/// both have as many. `None`: an input is a constant.
fn identity_branch(view: &View, index: usize) -> Option<usize> {
    let (first, second) = (view.activation(index, 0)?, view.activation(index, 1)?);
    Some(if view.depth(first) < view.depth(second) { 0 } else { 1 })
}
