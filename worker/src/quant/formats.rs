//! Which scheme tensors and weights have: what a pipeline asks for, over what the target does by itself.

use qpipe::stages::formats::{ActivationType, Activations, Granularity, WeightType, Weights};
use qpipe::stages::insert_qdq::Target;

use super::grid::Groups;
use super::placement::{Policy, View, has_one_scale, is_stack};
use super::scheme::{FLOAT8, INT4, INT7, INT8, Scheme, UINT8, UINT8_POSITIVE};
use crate::graph::{DType, Node};

/// Elements of a block where nothing says.
const BLOCK_SIZE: i64 = 32;

/// Schemes of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Formats {
    /// That of weights.
    pub weights: Scheme,
    /// Which elements of a weight share a scale.
    pub granularity: Granularity,
    /// Elements of a block, where that says so.
    pub block_size: i64,
    activations: Activations,
}

impl Default for Formats {
    fn default() -> Self {
        Self::of(None, None, true)
    }
}

impl Formats {
    /// Those of a configuration.
    pub fn of(
        weights: Option<Weights>,
        activations: Option<Activations>,
        per_channel: bool,
    ) -> Self {
        let weights = weights.unwrap_or_default();
        let otherwise = if per_channel { Granularity::PerChannel } else { Granularity::PerTensor };
        Self {
            weights: match (weights.dtype, weights.symmetric) {
                (WeightType::Int8, true) if weights.reduce_range => INT7,
                (WeightType::Int8, true) => INT8,
                (WeightType::Int8, false) if weights.reduce_range => Scheme::affine(DType::I7),
                (WeightType::Int8, false) => Scheme::affine(DType::I8),
                (WeightType::Int4, true) => INT4,
                (WeightType::Int4, false) => Scheme::affine(DType::I4),
                (WeightType::Float8e4m3fn, _) => FLOAT8,
            },
            granularity: weights.granularity.unwrap_or(otherwise),
            block_size: weights.block_size.map_or(BLOCK_SIZE, i64::from),
            activations: activations.unwrap_or_default(),
        }
    }

    /// That of a computed value by a runtime's rules; `None`: it stays float.
    pub fn activation(&self, policy: &Policy, view: &View, name: &str) -> Option<Scheme> {
        let own = (policy.scheme)(view, name);
        Some(match (self.activations.dtype, self.activations.symmetric) {
            (None, true) => own,
            (None, false) => Scheme::affine(own.dtype),
            (Some(ActivationType::Float), _) => return None,
            (Some(ActivationType::Float8e4m3fn), _) => FLOAT8,
            (Some(ActivationType::Int8), true) => INT8,
            (Some(ActivationType::Int8), false) => Scheme::affine(DType::I8),
            (Some(ActivationType::Uint8), true) if view.is_positive(name) => UINT8_POSITIVE,
            (Some(ActivationType::Uint8), true) => UINT8,
            (Some(ActivationType::Uint8), false) => Scheme::affine(DType::U8),
        })
    }

    /// Whether computed values are quantized at all.
    pub fn quantizes_activations(&self) -> bool {
        self.activations.dtype != Some(ActivationType::Float)
    }

    /// Which elements of a layer's weight share a scale. A layer with fewer input channels than a block has a scale for each output channel:
    /// blocks of a depthwise convolution would be single elements. A stack of matrices has one scale, the only one that a runtime has a kernel of.
    pub fn groups(&self, node: &Node, shape: &[i64], channel_axis: i64) -> Groups {
        if has_one_scale(node, shape) {
            return Groups::whole();
        }
        let axis = input_axis(node, shape, channel_axis);
        match self.granularity {
            Granularity::PerTensor => Groups::whole(),
            Granularity::PerBlock if shape[axis as usize] >= self.block_size => {
                Groups::blocks(shape, axis, self.block_size)
            }
            Granularity::PerChannel | Granularity::PerBlock => {
                Groups::channels(shape, channel_axis)
            }
        }
    }

    /// Why node `index` stays float in these types, if it is a product with a constant stack of matrices: ONNX Runtime has integer kernels of it only whose weights have one scale.
    pub fn refuses_stack(&self, target: Target, view: &View, index: usize) -> Option<String> {
        let node = &view.graph.nodes[index];
        let weight = node.input(1).and_then(|name| view.constant(name))?;
        if target != Target::Onnxruntime || !is_stack(node, &weight.shape) {
            return None;
        }
        let what = match (self.weights.dtype.stored(), self.granularity, self.activations.dtype) {
            (_, Granularity::PerBlock, _) => "weights of blocks",
            (DType::I8, _, None | Some(ActivationType::Int8 | ActivationType::Uint8)) => {
                return None;
            }
            (DType::I8, _, _) => "activations that are no integers",
            _ => "weights other than int8",
        };
        Some(format!("its weight is several matrices, of which there is no kernel with {what}"))
    }

    /// Why a runtime cannot take a layer's weight so, if it cannot.
    pub fn refuses(
        &self,
        target: Target,
        node: &Node,
        shape: &[i64],
        channel_axis: i64,
    ) -> Option<String> {
        if !matches!(target, Target::Tensorrt | Target::TensorrtRtx)
            || self.weights.dtype != DType::I4
        {
            return None;
        }
        let extent = shape[input_axis(node, shape, channel_axis) as usize];
        if !["Gemm", "MatMul"].contains(&node.op_type.as_str()) {
            return Some("TensorRT takes int4 weights of matrix products only".to_owned());
        }
        (extent % self.block_size != 0).then(|| {
            format!(
                "its {extent} input channels are no whole number of blocks of {}, as TensorRT wants",
                self.block_size
            )
        })
    }
}

/// The axis of a weight's input channels, which blocks divide.
fn input_axis(node: &Node, shape: &[i64], channel_axis: i64) -> i64 {
    match node.op_type.as_str() {
        "MatMul" => shape.len() as i64 - 2,
        // The other of the first two.
        _ => 1 - channel_axis,
    }
}
