//! What `qpipe model` says of strangers' models, and what calibration does with them: `tests/models/foreign.py` makes them.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;

use qpipe_worker::inspect::{Ability, Lint, Summary};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::calibrate::check_calibration;
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::{onnx, passes};
use tch::{Kind, Tensor};

use crate::python;

/// The folder that the models are in, made once.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let mut command = python::torch("foreign.py");
    let output = command.arg(folder.path()).stdout(Stdio::null()).output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python: {said}");
    folder
});

fn file(name: &str) -> PathBuf {
    FOLDER.path().join(format!("{name}.onnx"))
}

fn lint(name: &str, target: &str) -> Lint {
    Lint::read(&file(name), Some(target)).unwrap()
}

/// The rules that a file breaks, each once.
fn rules(name: &str, target: &str) -> Vec<&'static str> {
    let mut rules: Vec<&str> = lint(name, target).findings.iter().map(|f| f.rule).collect();
    rules.dedup();
    rules
}

fn summary(name: &str) -> Summary {
    Summary::read(&file(name)).unwrap()
}

/// What is said of quantizing it for TensorRT.
fn quantizable(name: &str) -> Ability {
    summary(name).abilities.quantizable.swap_remove(0).1
}

#[test]
fn tensorrt_is_told_of_operators_that_it_cannot_read() {
    for name in ["QOperator_channels", "dynamic_float", "dynamic_linear", "dynamic_lstm"] {
        assert_eq!(rules(name, "tensorrt")[0], "integer-operator", "{name}");
        assert_eq!(rules(name, "onnxruntime"), [""; 0], "{name}");
    }
    let found = lint("QOperator_channels", "tensorrt").findings;
    let integers = found.iter().filter(|finding| finding.rule == "integer-operator");
    let nodes: Vec<&str> = integers.map(|finding| finding.node.as_str()).collect();
    assert_eq!(nodes, ["conv1_quant", "conv2_quant", "add_quant", "pool_quant", "fc_quant"]);
    // Within the branches of an If too.
    let found = lint("dynamic_branches", "tensorrt").findings;
    assert_eq!(found[0].operator, "DynamicQuantizeLinear", "only a branch reads it: {found:?}");
    assert_eq!(summary("dynamic_branches").abilities.executable.of, 4, "nothing of it is dead");
    assert!(
        found.iter().any(|finding| finding.node == "if"
            && finding.what.contains("a graph within it has node \"inner_quant\" (MatMulInteger)")),
        "{found:?}"
    );
    assert_eq!(rules("nbits_QOperator", "tensorrt"), ["packed-weight"]);
    for (name, target) in [("nbits_QOperator", "tensorrt-rtx"), ("nbits_QDQ", "onnxruntime")] {
        assert_eq!(rules(name, target), [""; 0], "{name}");
    }
    // Scales of blocks are negative there.
    assert_eq!(rules("nbits_QDQ", "tensorrt"), ["scale"]);
    let found = lint("int16", "tensorrt").findings;
    assert!(
        found.iter().any(|f| f.node == "x_QuantizeLinear" && f.what == "is int16"),
        "{found:?}"
    );
}

#[test]
fn lint_says_in_which_form_a_file_is_quantized() {
    let text = lint("dynamic_linear", "onnxruntime").text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("dynamic_linear.onnx: nothing found for onnxruntime"), "{text}");
    let form = "  dynamic quantization: scales are found from the data of each run: DynamicQuantizeLinear (2), MatMulInteger (2); \
                rules about pairs do not apply to them";
    assert_eq!(lines[1..], [form]);
    let text = lint("float", "tensorrt").text();
    assert!(text.ends_with("float.onnx: no Q/DQ pairs: nothing in it is quantized\n"), "{text}");
    // What holds for both forms: one scale for all channels.
    assert_eq!(rules("QOperator_tensor", "onnxruntime"), ["per-tensor-weight"]);
    assert_eq!(rules("QDQ_tensor", "onnxruntime"), ["per-tensor-weight"]);
    let json: serde_json::Value =
        serde_json::from_str(&lint("QOperator_tensor", "tensorrt").json().unwrap()).unwrap();
    assert_eq!(json["quantized"][1]["form"], "integer-operators");
    assert_eq!(json["quantized"][1]["operators"]["com.microsoft.QGemm"], 1);
}

#[test]
fn what_is_quantized_already_cannot_be_quantized() {
    for (name, place) in [
        ("QDQ_channels", "(DequantizeLinear): the model is quantized already: Q/DQ pairs"),
        (
            "QOperator_channels",
            "node \"conv1_quant\" (QLinearConv): the model is quantized already: operators on integers",
        ),
        (
            "dynamic_float",
            "node \"x_QuantizeLinear\" (DynamicQuantizeLinear): the model is quantized already: dynamic",
        ),
        (
            "dynamic_lstm",
            "node \"lstm1_quant\" (DynamicQuantizeLSTM): the model is quantized already",
        ),
        (
            "nbits_QOperator",
            "node \"mm1_Q4\" (MatMulNBits): the model is quantized already: weights of few bits",
        ),
    ] {
        let ability = quantizable(name);
        let reason = ability.reason.as_deref().unwrap_or_default();
        assert!(!ability.can && ability.count == 0 && reason.contains(place), "{name}: {reason}");
        // As the stages say it.
        let mut model = onnx::read(&file(name)).unwrap();
        passes::inference_form(&mut model).unwrap();
        let error = prepare(&mut model).expect_err(name);
        assert!(
            error.message == reason && error.help.unwrap().contains("start from the float model"),
            "{name}"
        );
    }
    let text = summary("dynamic_linear").text();
    assert!(text.contains("\n  quantized already: dynamic quantization: "), "{text}");
    let trainable = summary("QDQ_channels").abilities.trainable.reason.unwrap();
    assert!(trainable.starts_with("its weights are int8: training"), "{trainable}");
}

#[test]
fn what_cannot_be_calibrated_is_told_before_images_are_read() {
    let lstm = "node \"lstm1\" (LSTM), opset 17: this operator cannot be executed";
    let two = "the model has 2 inputs (a, b): calibration feeds images to one";
    // Ranges of its own are enough for the second.
    for (name, expected, answer, count) in [("lstm", lstm, "no", 0), ("two", two, "partly", 2)] {
        let ability = quantizable(name);
        let reason = ability.reason.as_deref().unwrap_or_default();
        assert!(!ability.can && reason.contains(expected), "{name}: {reason}");
        assert_eq!(ability.count, count, "{name}");
        let text = summary(name).text();
        assert!(text.contains(&format!("\n  quantizable for tensorrt: {answer}, ")), "{text}");
        let mut model = onnx::read(&file(name)).unwrap();
        prepare(&mut model).unwrap();
        let error = check_calibration(&model).expect_err(name);
        assert!(error.message.contains(expected) && error.help.is_some(), "{name}: {error}");
    }
    for name in ["half", "half_inside"] {
        let ability = quantizable(name);
        let reason = ability.reason.unwrap();
        assert!(
            !ability.can && reason == "node \"conv1\" (Conv): its weight `w1` is float16",
            "{name}: {reason}"
        );
    }
    assert!(quantizable("branches").reason.unwrap().contains("node \"if\" (If), opset 17"));
    assert!(quantizable("float").can);
    let trainable = summary("half").abilities.trainable.reason.unwrap();
    assert_eq!(trainable, "its weights are float16: training starts from float");
    let executable = summary("text").abilities.executable;
    assert!(!executable.can && executable.reason.unwrap().contains("`s`"));
}

#[test]
fn a_file_whose_nodes_stand_in_no_order_is_executed() {
    let mut model = onnx::read(&file("half_inside")).unwrap();
    assert_eq!(model.graph.nodes[0].op_type, "Cast", "it stands behind all others in the file");
    let summary = summary("half_inside");
    assert!(summary.abilities.executable.can && summary.cost.unknown.is_empty(), "{summary:?}");
    passes::inference_form(&mut model).unwrap();
    assert_eq!(model.graph.nodes.len(), summary.nodes);
    let input = Tensor::rand([2, 3, 8, 8], (Kind::Float, tch::Device::Cpu));
    let run = |name: &str| {
        let model = onnx::read(&file(name)).unwrap();
        let mut program = Program::compile(&model, &Options::default()).unwrap();
        let inputs = std::slice::from_ref(&input);
        program.forward(inputs, Mode::Eval, &mut |_, _| Ok(())).unwrap().swap_remove(0)
    };
    let apart = (run("half_inside") - run("float")).abs().max().double_value(&[]);
    assert!(apart < 0.05, "{apart}");
}

#[test]
fn multiply_adds_of_quantized_operators_are_counted_or_their_layers_named() {
    let float = summary("float").cost.multiply_adds;
    for name in ["QDQ_channels", "dynamic_float"] {
        let cost = summary(name).cost;
        assert!(cost.multiply_adds == float && cost.unknown.is_empty(), "{name}: {cost:?}");
    }
    // 4 steps meet weights of 32 × 6 and 32 × 8; what an LSTM gives has no known shape here.
    let lstm = summary("lstm").cost;
    assert_eq!(
        (lstm.multiply_adds.as_str(), &lstm.unknown[..]),
        ("1792 n", &["fc".to_owned()][..])
    );
    assert_eq!(summary("branches").cost.unknown, ["if"]);
    let packed = summary("nbits_QOperator").cost;
    assert_eq!((packed.multiply_adds.as_str(), packed.unknown.len()), ("4096 n", 1), "{packed:?}");
}
