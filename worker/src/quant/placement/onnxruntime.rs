//! ONNX Runtime's rules on CPUs: pairs on inputs and outputs, so that each layer between them is one
//! integer kernel (QLinearConv, QLinearAdd, QLinearGlobalAveragePool, QGemm).
//!
//! Activations are uint8: with int8 ones its convolutions are no faster than float. A value that may be negative
//! has the zero point 128 (the values of int8 with zero point 0, and the same scale `amax / 127`). A value
//! that is never negative has zero point 0 and scale `amax / 255`: only then does ONNX Runtime drop the
//! Relu before it and fuse the convolution (with zero point 128 it runs half of a ResNet's convolutions
//! in float), and its range has twice the steps.
//!
//! The pair stands behind the activation that is fused into its layer (Relu, Clip); all readers of the value
//! read it quantized, also those that are left in float, else the layer before them could not be fused. Max pooling
//! and changes of shape keep their input's scale, as ONNX Runtime demands. Outputs of the graph stay float.

use qpipe::stages::insert_qdq::Target;

use super::{Policy, Selection, Sites, View};
use crate::quant::scheme::{UINT8, UINT8_POSITIVE};

pub(super) const POLICY: Policy = Policy {
    target: Target::Onnxruntime,
    name: "onnxruntime",
    place,
    scheme: |view, name| if view.is_positive(name) { UINT8_POSITIVE } else { UINT8 },
    range_of: |view, name| view.origin(name),
};

fn place(view: &View, selection: &Selection) -> Sites {
    let mut sites = Sites::default();
    let nodes = view.graph.nodes.iter().enumerate();
    for (index, node) in nodes.filter(|(index, _)| selection.has(*index)) {
        match node.op_type.as_str() {
            "Conv" => {
                let layer = sites.weighted(view, index);
                // Its kernel writes integers only.
                if layer {
                    output(view, &mut sites, index);
                }
            }
            // Their kernels also write floats: an output that no quantized layer reads stays float.
            "Gemm" | "MatMul" => {
                let layer = sites.weighted(view, index);
                if layer && feeds_layer(view, selection, index) {
                    output(view, &mut sites, index);
                }
            }
            "Add" | "Concat" => {
                let inputs: Option<Vec<&str>> =
                    (0..node.inputs.len()).map(|input| view.activation(index, input)).collect();
                match inputs {
                    Some(inputs) => {
                        for (position, input) in inputs.into_iter().enumerate() {
                            sites.read(input, (index, position));
                        }
                        sites.quantized.push(index);
                        output(view, &mut sites, index);
                    }
                    None => {
                        sites.refused.push((index, "one of its inputs is a constant".to_owned()))
                    }
                }
            }
            "AveragePool" | "GlobalAveragePool" | "ReduceMean" => unary(view, &mut sites, index),
            "MaxPool" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" => {
                // Worth it only between integers.
                let quantized = |name: &str| sites.tensors.contains_key(name);
                if node.input(0).is_some_and(quantized) {
                    unary(view, &mut sites, index);
                } else {
                    sites.refused.push((index, "its input is float".to_owned()));
                }
            }
            _ => {}
        }
    }
    sites
}

fn unary(view: &View, sites: &mut Sites, index: usize) {
    if let Some(input) = view.activation(index, 0) {
        sites.read(input, (index, 0));
        sites.quantized.push(index);
        output(view, sites, index);
    }
}

/// Whether a selected layer reads the output of a node.
fn feeds_layer(view: &View, selection: &Selection, index: usize) -> bool {
    let layers = ["Conv", "Gemm", "MatMul", "Add", "Concat"];
    let readers = fused_output(view, index).map(|value| view.readers(value)).unwrap_or_default();
    readers.into_iter().any(|(reader, _)| {
        selection.has(reader) && layers.contains(&view.graph.nodes[reader].op_type.as_str())
    })
}

/// Quantizes a layer's output for all that read it.
fn output(view: &View, sites: &mut Sites, index: usize) {
    let Some(value) = fused_output(view, index) else { return };
    for site in view.readers(value) {
        sites.read(value, site);
    }
}

/// The value behind the activation that is fused into the layer; `None` for an output of the graph.
fn fused_output<'a>(view: &View<'a>, index: usize) -> Option<&'a str> {
    let value = view.graph.nodes[index].outputs.first()?;
    if view.graph.is_output(value) {
        return None;
    }
    if let [(reader, 0)] = view.readers(value)[..] {
        let node = &view.graph.nodes[reader];
        let bounds = (1..node.inputs.len()).all(|input| view.activation(reader, input).is_none());
        if node.op_type == "Relu" || (node.op_type == "Clip" && bounds) {
            let value = node.outputs.first()?;
            return (!view.graph.is_output(value)).then_some(value);
        }
    }
    Some(value)
}
