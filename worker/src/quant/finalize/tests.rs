//! Exported forms of a small layer whose numbers are known.

use proptest::prelude::*;
use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use tch::{Device, Tensor};

use super::finalize;
use crate::graph::{Attribute, DType, Dim, Graph, Model, Node, TensorData, ValueInfo};
use crate::interp::{Mode, Options, Program};
use crate::onnx;
use crate::quant::fixture;
use crate::quant::insert::insert;
use crate::quant::placement::plan;

/// A Gemm `[1, 2] → [1, 3]` with weights by output channel, and its bias.
fn gemm(weight: [f32; 6], bias: [f32; 3]) -> Model {
    let graph = Graph {
        nodes: vec![
            Node::new("fc", "Gemm", &["x", "w", "b"], &["y"]).with("transB", Attribute::Int(1)),
        ],
        inputs: vec![ValueInfo::f32("x", [1, 2].map(Dim::Fixed).to_vec())],
        outputs: vec![ValueInfo::f32("y", [1, 3].map(Dim::Fixed).to_vec())],
        initializers: [
            ("w".to_owned(), TensorData::f32(&[3, 2], &weight)),
            ("b".to_owned(), TensorData::f32(&[3], &bias)),
        ]
        .into_iter()
        .collect(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

/// With pairs for `target`, `x` clipped at `amax`.
fn quantized(mut model: Model, target: Target, amax: f32) -> Model {
    let ranges = fixture::ranges(Method::Max, [("x", amax)]);
    let request = fixture::request(target, Method::Max);
    let plan = plan(&model.graph, &ranges, &request).expect("plans");
    insert(&mut model, &plan).expect("inserts");
    model
}

fn run(model: &Model, x: [f32; 2]) -> Vec<f32> {
    let mut program = Program::compile(model, &Options::default()).expect("compiles");
    let x = Tensor::from_slice(&x).view([1, 2]).to_device(Device::Cpu);
    let outputs = program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).expect("runs");
    Vec::try_from(outputs[0].view(-1)).expect("floats")
}

fn count(model: &Model, op: &str) -> usize {
    model.graph.nodes.iter().filter(|node| node.op_type == op).count()
}

#[test]
fn onnxruntime_gets_integers() {
    let mut model = quantized(
        gemm([1.27, -0.5, 0.0, 0.0, 2.54, 0.02], [1.0, -1.0, 0.0]),
        Target::Onnxruntime,
        12.7,
    );
    finalize(&mut model, None).expect("finalizes");
    onnx::check(&model).expect("the standard's rules");
    assert_eq!((count(&model, "QuantizeLinear"), count(&model, "DequantizeLinear")), (1, 3));
    let initializers = &model.graph.initializers;
    assert!(!initializers.contains_key("w") && !initializers.contains_key("b"));
    assert_eq!(initializers["w_quantized"].to_i8().unwrap(), [127, -50, 0, 0, 127, 1]);
    // The channel of zeros has the scale of the largest.
    let scales = initializers["w_scale"].to_f32().unwrap();
    assert_eq!(scales, [1.27_f32, 2.54, 2.54].map(|amax| amax / 127.0));
    let x = initializers["x_scale"].to_f32().unwrap()[0];
    assert_eq!(x, 12.7 / 127.0);
    assert_eq!(initializers["x_zero_point"], TensorData::u8(&[], &[128]));
    // At 0.1 × 0.01 and 0.1 × 0.02.
    assert_eq!(initializers["fc_bias_quantized"].to_i32().unwrap(), [1000, -500, 0]);
    let bias = initializers["fc_bias_scale"].to_f32().unwrap();
    assert_eq!(bias, scales.iter().map(|scale| x * scale).collect::<Vec<f32>>());
    let again = model.clone();
    finalize(&mut model, None).expect("finalizes");
    assert_eq!(model, again, "nothing is left to do");
}

#[test]
fn tensorrt_keeps_floats_and_refuses_uint8() {
    let float = gemm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0; 3]);
    let mut model = quantized(float.clone(), Target::Tensorrt, 1.0);
    let before = model.clone();
    finalize(&mut model, None).expect("finalizes");
    assert_eq!(model, before);
    let mut other = quantized(float.clone(), Target::Onnxruntime, 1.0);
    let error = finalize(&mut other, Some(Target::Tensorrt)).expect_err("refused");
    assert_eq!(
        error.message,
        "node \"x_quantize\" (QuantizeLinear): TensorRT takes int8 and float8e4m3fn with zero point 0 only"
    );
    // The other way round int8 becomes uint8.
    finalize(&mut model, Some(Target::Onnxruntime)).expect("finalizes");
    assert_eq!(model.graph.initializers["x_zero_point"].dtype, DType::U8);
    let mut untouched = float.clone();
    finalize(&mut untouched, Some(Target::Onnxruntime)).expect("a float model passes");
    assert_eq!(untouched, float);
}

#[test]
fn a_bias_fits_however_small_its_weights() {
    let tiny = [1e-12, 1e-12, 1.0, 1.0, 0.5, 0.5];
    let mut model = quantized(gemm(tiny, [3.0, 3.0, 3.0]), Target::Onnxruntime, 1e-3);
    let simulated = run(&model, [1e-3, 1e-3]);
    finalize(&mut model, None).expect("finalizes");
    let exported = run(&model, [1e-3, 1e-3]);
    assert!((exported[0] - 3.0).abs() < 1e-5, "{exported:?}");
    for (a, b) in simulated.iter().zip(&exported) {
        assert!((a - b).abs() < 1e-4, "{simulated:?} {exported:?}");
    }
}

/// The standard's Q then DQ.
fn reference(x: f32, scale: f32, zero_point: f32, low: f32, high: f32) -> f32 {
    (((x / scale).round_ties_even() + zero_point).clamp(low, high) - zero_point) * scale
}

proptest! {
    /// The interpreter's one step equals the standard's two, but for quotients within rounding of a tie.
    #[test]
    fn fake_quantization_is_quantization_then_dequantization(
        x in prop::collection::vec(-20.0_f32..20.0, 2),
        amax in 0.01_f32..30.0,
        unsigned: bool,
    ) {
        let target = if unsigned { Target::Onnxruntime } else { Target::Tensorrt };
        let identity = gemm([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0; 3]);
        let mut model = quantized(identity, target, amax);
        // The Gemm's weights 1 are exact at any scale up to rounding: look at its quantized input instead.
        model.graph.outputs = vec![ValueInfo::f32("x_dequantized", [1, 2].map(Dim::Fixed).to_vec())];
        let scale = amax / 127.0;
        let (zero, low, high) = if unsigned { (128.0, 0.0, 255.0) } else { (0.0, -128.0, 127.0) };
        for (&x, found) in x.iter().zip(run(&model, [x[0], x[1]])) {
            let expected = reference(x, scale, zero, low, high);
            let tie = ((x / scale).fract().abs() - 0.5).abs() < 1e-4;
            prop_assert!(found == expected || (tie && (found - expected).abs() < 1.01 * scale),
                "x {x}, scale {scale}: {found}, expected {expected}");
        }
    }

    /// Integers of weights are those that the simulation rounds to.
    #[test]
    fn exported_weights_are_the_simulated_ones(weight in prop::collection::vec(-3.0_f32..3.0, 6)) {
        let weight: [f32; 6] = weight.try_into().expect("six");
        let mut model = quantized(gemm(weight, [0.0; 3]), Target::Onnxruntime, 1.0);
        model.graph.outputs = vec![ValueInfo::f32("w_dequantized", [3, 2].map(Dim::Fixed).to_vec())];
        let simulated = run(&model, [0.0; 2]);
        finalize(&mut model, None).expect("finalizes");
        prop_assert_eq!(simulated, run(&model, [0.0; 2]));
    }
}

/// Means over positions between pairs become poolings for ONNX Runtime, of `[N, C, …]` and with all positions only.
#[test]
fn means_over_all_positions_become_poolings() {
    let build = |axes: &[i64], keepdims: i64, shape: &[i64]| {
        let constant = |value| TensorData::f32(&[], &[value]);
        let pair = |from: &str, quantized: &str, to: &str| {
            [
                Node::new(quantized, "QuantizeLinear", &[from, "scale", "zero"], &[quantized]),
                Node::new(to, "DequantizeLinear", &[quantized, "scale", "zero"], &[to]),
            ]
        };
        let mean = Node::new("mean", "ReduceMean", &["x_dq"], &["mean"])
            .with("axes", Attribute::Ints(axes.to_vec()))
            .with("keepdims", Attribute::Int(keepdims));
        let [a, b] = pair("x", "x_q", "x_dq");
        let [c, d] = pair("mean", "mean_q", "y");
        let dims = shape.iter().map(|&extent| Dim::Fixed(extent)).collect();
        let graph = Graph {
            nodes: vec![a, b, mean, c, d],
            inputs: vec![ValueInfo::f32("x", dims)],
            outputs: vec![ValueInfo { shape: None, ..ValueInfo::f32("y", Vec::new()) }],
            initializers: [
                ("scale".to_owned(), constant(0.01)),
                ("zero".to_owned(), crate::quant::scheme::zero_points(DType::U8, &[], &[128])),
            ]
            .into_iter()
            .collect(),
            ..Graph::default()
        };
        Model::new(graph, 17)
    };
    let output = |model: &Model, shape: &[i64]| {
        let mut program = Program::compile(model, &Options::default()).expect("compiles");
        let count: i64 = shape.iter().product();
        let x = (Tensor::arange(count, (tch::Kind::Float, Device::Cpu)) * 0.01 - 0.3).view(shape);
        program.forward(&[x], Mode::Eval, &mut |_, _| Ok(())).expect("runs").remove(0)
    };
    for (axes, keepdims, shape, expected) in [
        (&[2_i64, 3][..], 1, &[2_i64, 3, 2, 4][..], [1, 0]),
        (&[-1, -2], 0, &[2, 3, 2, 4], [1, 1]),
        (&[2], 0, &[2, 3, 4], [1, 1]),
        // Channels, or positions that are left.
        (&[1, 2], 1, &[2, 3, 2, 4], [0, 0]),
        (&[2, 3], 1, &[2, 3, 2, 2, 2], [0, 0]),
    ] {
        let before = build(axes, keepdims, shape);
        let mut after = before.clone();
        finalize(&mut after, Some(Target::Onnxruntime)).expect("finalizes");
        onnx::check(&after).expect("the standard's rules");
        let found = ["GlobalAveragePool", "Flatten"].map(|op| count(&after, op));
        assert_eq!(found, expected, "{axes:?} of {shape:?}");
        assert_eq!(output(&after, shape), output(&before, shape), "{axes:?} of {shape:?}");
    }
}
