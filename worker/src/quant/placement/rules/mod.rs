//! The rules, by families. What they share of a graph's facts is in [`super::View`].

pub(super) mod concat;
pub(super) mod float;
pub(super) mod gate;
pub(super) mod integer;
pub(super) mod moving;
pub(super) mod pooling;
pub(super) mod residual;
pub(super) mod rtx;
pub(super) mod stack;
pub(super) mod weighted;

/// NVIDIA's guide to explicit quantization and where pairs are wanted.
const TENSORRT_GUIDE: &str = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html";
/// Which groups of nodes ONNX Runtime makes one integer kernel of.
const ONNXRUNTIME_SELECTORS: &str = "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc";
/// ONNX Runtime's guide.
const ONNXRUNTIME_GUIDE: &str =
    "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html";
/// Engines that we built: `docs/tensorrt-rtx.md` has their layers.
const RTX_ENGINES: &str = "layers of engines of TensorRT-RTX 1.7 for compute capabilities 80, 86, 89 and 120 ([What engines make of the rules](tensorrt-rtx.md#what-engines-make-of-the-rules))";
/// Our own figures of ONNX Runtime: `docs/placement.md` says more.
const MEASURED: &str = "measured with ONNX Runtime 1.32, AVX2 without VNNI ([Activations and gates](#activations-and-gates-on-onnx-runtime))";
