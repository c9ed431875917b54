//! The table of rules.

use qpipe::stages::insert_qdq::Target;
use serde::Serialize;

use super::view::PairView;
use super::{idle, layers, neighbours, operators, outputs, pairs, types};
use crate::graph::Graph;

/// Something found at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What is there.
    pub what: String,
    /// What it costs.
    pub cost: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What a rule finds: places in the order of the graph, and what is there.
pub(super) type Found<'a> = Vec<(&'a crate::graph::Node, String)>;

/// A rule.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it costs to break it.
    pub cost: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Runtimes for which it holds.
    pub targets: &'static [Target],
    find: for<'a> fn(&PairView<'a>) -> Found<'a>,
}

const ALL: &[Target] = &Target::ALL;
const TENSORRT: &[Target] = &[Target::Tensorrt, Target::TensorrtRtx];

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "integer-operator",
        cost: "TensorRT refuses the model: its ONNX parser reads quantization as pairs of QuantizeLinear and DequantizeLinear only",
        remedy: "quantize the float model here (target = \"tensorrt\" of `insert-qdq`), or statically in Q/DQ form: quant_format=QuantFormat.QDQ of quantize_static in onnxruntime.quantization",
        targets: TENSORRT,
        find: operators::integers,
    },
    Rule {
        name: "packed-weight",
        cost: "TensorRT refuses the model: its ONNX parser has no such operator (TensorRT-RTX reads MatMulNBits)",
        remedy: "quantize weights here (`insert-qdq` with weights = { type = \"int4\", granularity = \"per-block\", block_size = 128 } and activations = { type = \"float\" }); the Q/DQ form of onnxruntime's MatMulNBitsQuantizer has zero points or negative scales, which TensorRT refuses too",
        targets: TENSORRT,
        find: operators::packed,
    },
    Rule {
        name: "tensorrt-operator",
        cost: "ONNX Runtime refuses the model: it has no such operator",
        remedy: "write QuantizeLinear and DequantizeLinear of the standard, which has float8 since opset 19, int4 and blocks since 21; or quantize the float model here, with target = \"onnxruntime\" of `insert-qdq`",
        targets: &[Target::Onnxruntime],
        find: operators::tensorrts,
    },
    Rule {
        name: "double-pair",
        cost: "values are rounded twice, and one more kernel converts them",
        remedy: "take one of the two pairs away",
        targets: ALL,
        find: pairs::double,
    },
    Rule {
        name: "zero-point",
        cost: "TensorRT refuses the model: it takes int8, int4 and float8e4m3fn with zero point 0 only",
        remedy: "quantize symmetrically: target = \"tensorrt\" of `insert-qdq`; ActivationSymmetric, QInt8 and QuantizeBias=False of onnxruntime.quantization",
        targets: TENSORRT,
        find: pairs::zero_point,
    },
    Rule {
        name: "wide-integers",
        cost: "ONNX Runtime's kernels on CPUs compute with 8 bits: this one runs in float, and all around it is converted",
        remedy: "quantize it to 8 bits: target = \"onnxruntime\" of `insert-qdq`, activation_type=QuantType.QUInt8 of onnxruntime.quantization; or take its pairs away",
        // TensorRT refuses them: `zero-point`.
        targets: &[Target::Onnxruntime],
        find: types::wide,
    },
    Rule {
        name: "float16-pair",
        cost: "ONNX Runtime's integer kernels are those between float32 pairs: this one runs in float on rounded values, between casts",
        remedy: "quantize the float32 model: float16 saves nothing on a CPU",
        targets: &[Target::Onnxruntime],
        find: types::half,
    },
    Rule {
        name: "cast-behind-pair",
        cost: "TensorRT fuses a DequantizeLinear with the layer right behind it, and may leave the layer in float behind a Cast (TensorRT-RTX 1.7 fuses it all the same)",
        remedy: "give the DequantizeLinear a scale of float16, which opset 19 and TensorRT 10 take: what it makes is float16 then; and take the Cast away",
        targets: &[Target::Tensorrt],
        find: types::cast,
    },
    Rule {
        name: "scale",
        cost: "TensorRT refuses the model: it takes scales above 0 only; behind 0 or NaN all runtimes compute nonsense",
        remedy: "calibrate again; what was 0 for every image takes any scale, or no pair; of weights with negative scales turn the signs of scales and integers",
        targets: ALL,
        find: pairs::scale,
    },
    Rule {
        name: "idle-pair",
        cost: "values are rounded, and nothing computes with the integers: accuracy and a kernel for nothing",
        remedy: "take it away",
        // ONNX Runtime's kernels write integers, and take the pair behind them in.
        targets: TENSORRT,
        find: idle::idle,
    },
    Rule {
        name: "per-tensor-weight",
        cost: "channels with small weights have few of the 256 steps: accuracy, most of all of depthwise convolutions",
        remedy: "one scale for each output channel: per_channel = true",
        targets: ALL,
        find: layers::per_tensor,
    },
    Rule {
        name: "weight-axis",
        cost: "runtimes refuse it, or run the layer in float",
        remedy: "scales belong to the output channels: axis 0 of Conv, 1 of ConvTranspose, the columns of a MatMul",
        targets: ALL,
        find: layers::axis,
    },
    Rule {
        name: "stack-scales",
        cost: "ONNX Runtime (1.32) makes one integer kernel of it, which fails at its first run (\"b zero point is not valid\"); where a QuantizeLinear alone reads the product, it runs in float on rounded values",
        remedy: "one scale for all matrices (`insert-qdq` with target = \"onnxruntime\" quantizes the float model so; per_channel=False of onnxruntime.quantization), or no pairs: nodes_to_exclude",
        targets: &[Target::Onnxruntime],
        find: layers::stack_scales,
    },
    Rule {
        name: "half-quantized",
        cost: "the layer runs in float, and the pair is computed for nothing",
        remedy: "quantize both input and weight, or neither",
        targets: ALL,
        find: layers::half,
    },
    Rule {
        name: "unquantized-output",
        cost: "the integer kernel of a convolution writes integers only: this one runs in float on rounded values, and what it reads is dequantized in kernels of their own",
        remedy: "one pair on what it gives, behind its activation, for all readers, those in float too; behind a Relu with zero point 0 of uint8 or -128 of int8; or no pairs on its input and weight",
        // TensorRT's convolutions write floats as well.
        targets: &[Target::Onnxruntime],
        find: outputs::unquantized,
    },
    Rule {
        name: "float-island",
        cost: "values are made float and integer again around it, which may cost more than the layer gains",
        remedy: "quantize it, or leave its neighbours in float too",
        targets: ALL,
        find: layers::island,
    },
    Rule {
        name: "blocked-fusion",
        cost: "the activation, or the addition of the bias, is a kernel of its own, and its input is written to memory",
        remedy: "put the pair behind it",
        targets: ALL,
        find: neighbours::blocked,
    },
    Rule {
        name: "fused-branch",
        cost: "the convolution, the addition and the activation behind it are not one kernel (ResNet-50 on an H100, batch 32: 1.22 ms instead of 0.99)",
        remedy: "quantize the identity branch only",
        targets: TENSORRT,
        find: neighbours::fused_branch,
    },
    Rule {
        name: "unquantized-identity",
        cost: "the addition runs in float, and the convolution before it writes floats",
        remedy: "put a pair on the branch that skips the convolution",
        targets: TENSORRT,
        find: neighbours::identity,
    },
    Rule {
        name: "concat-scales",
        cost: "all inputs but one are scaled anew; a layer that reads it without a pair in between runs in float",
        remedy: "give the inputs one scale: the largest",
        // ONNX Runtime's kernel takes a scale for each input, and converts by a table while it copies.
        targets: TENSORRT,
        find: neighbours::concat_scales,
    },
    Rule {
        name: "concat-half",
        cost: "it runs in float between integers: what it reads is dequantized, what it writes is quantized again",
        remedy: "quantize all inputs, or none and the output alone",
        targets: ALL,
        find: neighbours::concat_half,
    },
    Rule {
        name: "moving-scale",
        cost: "it runs in float between integers: what it reads is dequantized, what it writes is quantized again",
        remedy: "give all that it writes a pair of the scale and zero point of what it reads",
        // TensorRT moves a quantization behind it in front, and rounds once.
        targets: &[Target::Onnxruntime],
        find: neighbours::moving_scale,
    },
];

/// All findings for a runtime (all runtimes: `None`), by rules in the order of [`RULES`].
pub fn lint(graph: &Graph, target: Option<Target>) -> Vec<Finding> {
    lint_as_written(graph, graph, target)
}

/// The same of a graph whose operators were made those of the standard; `written` is as its file has it.
pub fn lint_as_written(graph: &Graph, written: &Graph, target: Option<Target>) -> Vec<Finding> {
    let view = PairView::of(graph, target).as_written(written);
    let rules =
        RULES.iter().filter(|rule| target.is_none_or(|target| rule.targets.contains(&target)));
    let found = rules.flat_map(|rule| {
        let found = (rule.find)(&view);
        found.into_iter().map(|(node, what)| Finding {
            rule: rule.name,
            node: node.label().to_owned(),
            operator: node.op_type.clone(),
            what,
            cost: rule.cost,
            remedy: rule.remedy,
        })
    });
    found.collect()
}
