//! Nodes whose gradients are held to finite differences: activations, reductions, normalizations and sums.

use qpipe_worker::graph::{Attribute, TensorData};

use crate::gradients::{Case, case, f64s, node};

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// All cases of this file.
pub fn cases() -> Vec<Case> {
    [elementwise(), reductions(), normalizations(), sums()].into_iter().flatten().collect()
}

fn elementwise() -> Vec<Case> {
    let mut cases: Vec<Case> =
        ["Softplus", "Sin", "Cos", "Softsign", "Elu", "Selu", "Celu", "Mish", "Swish"]
            .map(|op| Case { opset: 24, ..case(node(op, &["x"]), &[2, 3, 4]) })
            .into();
    for (op, attribute) in [("Elu", "alpha"), ("Celu", "alpha"), ("Selu", "gamma")] {
        let node = node(op, &["x"]).with(attribute, Attribute::Float(0.5));
        cases.push(case(node, &[3, 5]));
    }
    for op in ["Sum", "Mean"] {
        let constants = vec![("c", f64s(&[3, 1, 1], 0.3)), ("d", f64s(&[2], 0.1))];
        cases.push(Case { constants, ..case(node(op, &["x", "c", "d"]), &[2, 3, 2, 2]) });
    }
    let constants = vec![("s", f64s(&[3, 1, 1], 0.3))];
    cases.push(Case { constants, ..case(node("PRelu", &["x", "s"]), &[2, 3, 2, 2]) });
    let constants = vec![("s", f64s(&[3], 0.3))];
    cases.push(Case { opset: 6, constants, ..case(node("PRelu", &["x", "s"]), &[2, 3, 2, 2]) });
    let condition = TensorData {
        dtype: qpipe_worker::graph::DType::Bool,
        shape: vec![4],
        bytes: vec![1, 0, 0, 1].into(),
    };
    let constants = vec![("c", condition), ("d", f64s(&[3, 1], 0.1))];
    cases.push(Case { constants, ..case(node("Where", &["c", "x", "d"]), &[3, 4]) });
    let remainder = node("Mod", &["x", "c"]).with("fmod", Attribute::Int(1));
    cases.push(Case { constants: vec![("c", f64s(&[5], 0.3))], ..case(remainder, &[2, 5]) });
    cases.push(case(node("Cast", &["x"]).with("to", Attribute::Int(11)), &[3]));
    let constants = vec![("c", f64s(&[1], 0.3))];
    cases.push(Case { constants, ..case(node("CastLike", &["x", "c"]), &[3]) });
    // Before opset 7 the axes of the second input are those from `axis` on.
    for op in ["Add", "Sub", "Mul", "Div"] {
        let node = node(op, &["x", "c"])
            .with("broadcast", Attribute::Int(1))
            .with("axis", Attribute::Int(1));
        let constants = vec![("c", f64s(&[3], 0.3))];
        cases.push(Case { opset: 6, constants, ..case(node, &[2, 3, 2]) });
    }
    cases
}

fn reductions() -> Vec<Case> {
    let operators = [
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceProd",
        "ReduceSumSquare",
        "ReduceLogSum",
        "ReduceLogSumExp",
    ];
    let mut cases = Vec::new();
    for op in operators {
        let reduce =
            node(op, &["x"]).with("axes", ints(&[-1, 1])).with("keepdims", Attribute::Int(0));
        cases.push(case(reduce, &[2, 3, 2, 2]));
        // Over no axes what is not a reduction is still done.
        let none = node(op, &["x"]).with("noop_with_empty_axes", Attribute::Int(1));
        cases.push(Case { opset: 18, ..case(none, &[2, 3]) });
        let axes = vec![("a", TensorData::i64(&[1], &[0]))];
        cases.push(Case { opset: 18, constants: axes, ..case(node(op, &["x", "a"]), &[3, 2]) });
    }
    cases
}

fn normalizations() -> Vec<Case> {
    let affine = |extent: i64| vec![("g", f64s(&[extent], 0.3)), ("b", f64s(&[extent], 1.3))];
    let mut cases = Vec::new();
    for size in [1, 2, 3] {
        let lrn = node("LRN", &["x"])
            .with("size", Attribute::Int(size))
            .with("alpha", Attribute::Float(0.5))
            .with("bias", Attribute::Float(2.0));
        cases.push(case(lrn, &[2, 5, 3]));
    }
    for order in [1, 2] {
        let norm = node("LpNormalization", &["x"])
            .with("p", Attribute::Int(order))
            .with("axis", Attribute::Int(0));
        cases.push(case(norm, &[4, 3]));
    }
    let norm = node("InstanceNormalization", &["x", "g", "b"]);
    cases.push(Case { constants: affine(3), ..case(norm, &[2, 3, 2, 2]) });
    for (opset, extent) in [(18, 2), (21, 4)] {
        let norm =
            node("GroupNormalization", &["x", "g", "b"]).with("num_groups", Attribute::Int(2));
        cases.push(Case { opset, constants: affine(extent), ..case(norm, &[2, 4, 2, 2]) });
    }
    let norm = node("RMSNormalization", &["x", "g"]).with("axis", Attribute::Int(1));
    let constants = vec![("g", f64s(&[3, 4], 0.3))];
    cases.push(Case { opset: 23, constants, ..case(norm, &[2, 3, 4]) });
    let constants = ["g", "b", "m", "v"].map(|name| (name, f64s(&[3], 1.0))).into();
    let norm = node("BatchNormalization", &["x", "g", "b", "m", "v"])
        .with("training_mode", Attribute::Int(1));
    cases.push(Case { constants, ..case(norm, &[4, 3, 2, 2]) });
    cases
}

fn sums() -> Vec<Case> {
    let mut cases = Vec::new();
    let einsum = node("Einsum", &["x", "c"])
        .with("equation", Attribute::String(b"...ij, jk -> ...ki".to_vec()));
    cases.push(Case { constants: vec![("c", f64s(&[3, 4], 0.3))], ..case(einsum, &[2, 2, 3]) });
    for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sum = node("CumSum", &["x", "a"])
            .with("exclusive", Attribute::Int(exclusive))
            .with("reverse", Attribute::Int(reverse));
        let constants = vec![("a", TensorData::i64(&[], &[-2]))];
        cases.push(Case { constants, ..case(sum, &[2, 3, 2]) });
    }
    for upper in [0, 1] {
        let triangle = node("Trilu", &["x", "k"]).with("upper", Attribute::Int(upper));
        let constants = vec![("k", TensorData::i64(&[], &[1]))];
        cases.push(Case { constants, ..case(triangle, &[2, 3, 4]) });
    }
    cases
}
