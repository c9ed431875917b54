//! TensorRT-RTX's verdict on each rule of placement: `docs/tensorrt-rtx.md` has the table.
//!
//! Its integer convolutions and products write floats; the scale, the bias, what stands behind them and the next layer's rounding are
//! one generated kernel. What is left alone of pairs is the rounding of the network's input, and what a test says.

use qpipe::stages::build_engine::Precision;

use super::graphs::*;
use super::verdict::{Verdict, verdict, verdict_for};

/// The rounding of the network's input, what a graph has in between, and the scale and bias of its last layer.
fn between(found: &Verdict) -> Vec<&str> {
    let mut kernels = found.generated();
    assert_eq!(kernels.first(), Some(&"MulMinMaxRounCast"), "{:#?}", found.lines);
    let last = kernels.pop().unwrap_or_default();
    assert!(["MulAddMove", "MulAdd"].contains(&last), "{last}");
    kernels.split_off(1)
}

const RELU: &str = "MulAddReluMulMinMaxRounCast";

#[test]
fn layer_normalization_and_activation_leave_no_pair_between_them() {
    let found = verdict(chain());
    found.agrees(&[]);
    assert_eq!(between(&found), [RELU; 2]);
    for (activation, kernel) in [
        ("Relu", RELU),
        ("relu6", "MulAddMaxMinMulMinMaxRounCast"),
        ("silu", "MulAddSiluMulMinMaxRounCast"),
        ("HardSwish", "MulAddMulAddMinMaxMulMulMinMaxRounCast"),
        ("hard-swish-written-out", "MulAddMulAddMinMaxMulMulMinMaxRounCast"),
    ] {
        let found = verdict(activated(activation));
        found.agrees(&[]);
        assert_eq!(between(&found), [kernel, RELU], "{activation}");
    }
}

#[test]
fn a_residual_addition_reads_the_identity_as_integers_and_a_convolution_beside_it_as_floats() {
    let found = verdict(residual());
    found.agrees(&[]);
    let identity = "CastMulMulAddAddReluMulMinMaxRounCast";
    // The pair of the down-sampling convolution is rounding within the kernel.
    let down = "MulAddMulMinMaxRounCastCastMulMulAddAddReluMulMinMaxRounCast";
    assert_eq!(between(&found), [RELU, RELU, identity, RELU, down]);
    let of = |kernel: &str| {
        let line = found.lines.iter().find(|line| line.name.contains(kernel));
        let mut reads = line.expect("a kernel").reads.clone();
        reads.sort();
        reads
    };
    assert_eq!(of("__myl_CastMulMulAddAdd"), ["float", "int8"]);
    assert_eq!(of("__myl_MulAddMulMinMax"), ["float", "float"]);
}

#[test]
fn depthwise_and_grouped_convolutions_compute_in_int8() {
    let found = verdict(grouped());
    found.agrees(&[]);
    // A depthwise convolution is one with padded groups.
    let depthwise = format!("{RELU}ReshConcResh");
    assert_eq!(between(&found), [&depthwise, RELU, RELU, RELU]);
}

#[test]
fn transposed_convolutions_and_average_poolings_are_float_and_cost_a_rounding_alone() {
    for channels in [[32, 32], [64, 128]] {
        let found = verdict(transposed(channels));
        found.agrees(&[]);
        assert_eq!(found.types("deconv").0[0], "float");
        assert!(
            between(&found).iter().all(|kernel| !kernel.contains("CastMul")),
            "{:?}",
            found.lines
        );
    }
    let found = verdict(pooled("AveragePool"));
    found.agrees(&[]);
    assert_eq!(found.types("avgpool"), (vec!["float"], vec!["float"]));
    assert_eq!(between(&found), ["MulAddRelu", "MulMinMaxRounCast"]);
}

#[test]
fn poolings_and_changes_of_shape_move_integers() {
    let found = verdict(pooled("MaxPool"));
    found.agrees(&[]);
    assert_eq!(found.types("maxpool"), (vec!["int8"], vec!["int8"]));
    assert_eq!(between(&found), [RELU]);
    let found = verdict(shuffled());
    found.agrees(&[]);
    assert_eq!(between(&found), [format!("{RELU}ReshTran")]);
}

#[test]
fn a_global_pooling_is_one_kernel_with_what_is_before_and_behind_it() {
    let mean = format!("{RELU}CastMulMeanMulMinMaxRounCast");
    let max = format!("{RELU}Maxr");
    for (operator, kernel) in
        [("GlobalAveragePool", &mean), ("ReduceMean", &mean), ("GlobalMaxPool", &max)]
    {
        let found = verdict(classifier(operator));
        found.agrees(&[]);
        assert_eq!(between(&found), [kernel, RELU], "{operator}");
    }
}

#[test]
fn inputs_of_a_concatenation_are_written_into_it() {
    let found = verdict(concat());
    found.agrees(&[]);
    assert_eq!(between(&found), [RELU, &format!("{RELU}{RELU}Conc")]);
    let found = verdict(split());
    found.agrees(&[]);
    // One rounding for both halves, which the second convolution and the concatenation read.
    let halves = "MulAddSiluMulMinMaxRounCastSlicSlic";
    let joined = "CastMulMulAddSiluAddMulMinMaxRounCastConc";
    assert_eq!(between(&found), [halves, "MulAddSiluMulMinMaxRounCast", joined]);
}

#[test]
fn squeeze_and_excite_gates_in_float() {
    let found = verdict(excited());
    found.agrees(&[]);
    // The gate reads the convolution's output rounded and as floats; the mean's rounding is a kernel of its own.
    let squeezed = format!("{RELU}CastMulMean");
    let gated = "MulAddSigmMulMulMinMaxRounCast";
    assert_eq!(between(&found), [&squeezed, "MulMinMaxRounCast", RELU, gated]);
}

#[test]
fn products_and_attention_compute_in_int8() {
    let found = verdict(products());
    found.agrees(&[]);
    assert_eq!(between(&found), [RELU]);
    let found = verdict(attention());
    found.agrees(&["scores", "mixed"]);
    let fused = found.lines.iter().find(|line| line.name.starts_with("_gemm_mha")).expect("one");
    assert_eq!(
        (fused.reads.as_slice(), fused.writes.as_slice()),
        (&["int8"; 3].map(str::to_owned)[..], &["int8".to_owned()][..])
    );
    let gelu = "MulAddDivErfAddMulMulMulMinMaxRounCast";
    assert!(found.generated().contains(&gelu), "{:?}", found.lines);
    let alone = found.generated().into_iter().filter(|kernel| *kernel == "MulMinMaxRounCast");
    assert_eq!(alone.count(), 1, "of the input");
}

/// Float parts in FP16 and other GPUs: the same kernels of integers.
#[test]
fn the_verdict_does_not_depend_on_the_gpu_from_ampere_on() {
    for capability in [80, 86, 120] {
        for model in [residual(), grouped(), attention()] {
            let attention: &[&str] = &["scores", "mixed"];
            verdict_for(capability, None, model).agrees(attention);
        }
        let half = verdict_for(capability, Some(Precision::Int8), transposed([32, 32]));
        assert_eq!(half.types("deconv").1, ["half"]);
        let half = verdict_for(capability, Some(Precision::Int8), pooled("AveragePool"));
        assert_eq!(half.types("avgpool"), (vec!["half"], vec!["half"]));
    }
}
