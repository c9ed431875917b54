//! Definitions of operators that the standard's own tests do not have: those of older opsets, and what is refused.

use qpipe_worker::graph::{Attribute, DType, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::interp::{Mode, Options, Program};
use tch::{Kind, Tensor};

fn run(node: &Node, opset: i64, inputs: &[TensorData]) -> Result<Vec<Tensor>, String> {
    let info = |name: &String| ValueInfo { dtype: None, ..ValueInfo::f32(name, vec![]) };
    let graph = Graph {
        nodes: vec![node.clone()],
        outputs: node.outputs.iter().map(info).collect(),
        initializers: node.inputs.iter().cloned().zip(inputs.iter().cloned()).collect(),
        ..Graph::default()
    };
    let program = Program::compile(&Model::new(graph, opset), &Options::default());
    let forward = program.and_then(|mut p| p.forward(&[], Mode::Eval, &mut |_, _| Ok(())));
    forward.map_err(|error| error.message)
}

/// Runs a node on constants and compares its outputs, row by row, with what is expected.
#[track_caller]
fn check(node: &Node, opset: i64, inputs: &[TensorData], expected: &[&[f64]]) -> Vec<Tensor> {
    let found = run(node, opset, inputs).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let found = found.to_kind(Kind::Double).flatten(0, -1);
        let expected = Tensor::from_slice(expected);
        assert_eq!(found.size(), expected.size(), "{}", node.op_type);
        assert!(
            found.allclose(&expected, 0.0, 2e-5, false),
            "{} (opset {opset}): {found} instead of {expected}",
            node.op_type
        );
    }
    found
}

#[track_caller]
fn refused(node: &Node, opset: i64, inputs: &[TensorData], reason: &str) {
    let error = run(node, opset, inputs).map(|_| "nothing").unwrap_err();
    let named = format!("({}), opset {opset}", node.op_type);
    assert!(error.contains(reason) && error.contains(&named), "{error}");
}

fn node(op: &str, inputs: usize, outputs: usize) -> Node {
    let names = ["a", "b", "c", "d", "e"];
    let made = ["y", "z", "u", "v", "w"];
    Node::new("under test", op, &names[..inputs], &made[..outputs])
}

fn f(shape: &[i64], values: &[f32]) -> TensorData {
    TensorData::f32(shape, values)
}

fn i(values: &[i64]) -> TensorData {
    TensorData::i64(&[values.len() as i64], values)
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

#[test]
fn arguments_that_became_inputs_are_attributes_before() {
    let clip = node("Clip", 1, 1).with("min", Attribute::Float(-1.0));
    check(&clip, 1, &[f(&[2], &[-3.0, 0.5])], &[&[-1.0, 0.5]]);
    let x = || f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let reshape = node("Reshape", 1, 1).with("shape", ints(&[3, -1]));
    assert_eq!(check(&reshape, 1, &[x()], &[&[1., 2., 3., 4., 5., 6.]])[0].size(), [3, 2]);
    let slice = node("Slice", 1, 1).with("starts", ints(&[1])).with("ends", ints(&[9]));
    check(&slice.clone().with("axes", ints(&[1])), 1, &[x()], &[&[2., 3., 5., 6.]]);
    check(&slice, 9, &[x()], &[&[4., 5., 6.]]);
    let split = |inputs| node("Split", inputs, 2).with("axis", Attribute::Int(1));
    check(&split(2), 1, &[x(), i(&[1, 2])], &[&[1., 4.], &[2., 3., 5., 6.]]);
    let parts = split(1).with("split", ints(&[2, 1]));
    check(&parts, 2, &[x()], &[&[1., 2., 4., 5.], &[3., 6.]]);
    let sum = node("ReduceSum", 1, 1).with("axes", ints(&[0]));
    check(&sum, 11, &[x()], &[&[5., 7., 9.]]);
    check(&node("ReduceSum", 2, 1), 13, &[x(), i(&[0])], &[&[5., 7., 9.]]);
    let squeeze = node("Squeeze", 1, 1).with("axes", ints(&[1]));
    assert_eq!(check(&squeeze, 1, &[f(&[1, 1, 2], &[1., 2.])], &[&[1., 2.]])[0].size(), [1, 2]);
    let cast = node("Cast", 1, 1).with("to", Attribute::String(b"INT32".to_vec()));
    let cast = check(&cast, 1, &[f(&[2], &[1.7, -1.7])], &[&[1.0, -1.0]]);
    assert_eq!(cast[0].kind(), Kind::Int);
}

#[test]
fn before_opset_7_broadcasting_is_asked_for() {
    let x = || f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let at = |axis| {
        let equal = node("Equal", 2, 1).with("broadcast", Attribute::Int(1));
        equal.with("axis", Attribute::Int(axis))
    };
    check(&at(0), 1, &[x(), f(&[2], &[2.0, 6.0])], &[&[0., 1., 0., 0., 0., 1.]]);
    check(&at(1), 1, &[x(), f(&[3], &[1.0, 5.0, 0.0])], &[&[1., 0., 0., 0., 1., 0.]]);
    refused(&at(1), 1, &[x(), f(&[2, 2], &[0.0; 4])], "at axis 1");
    let sum = node("Add", 2, 1);
    refused(&sum, 6, &[x(), f(&[3], &[1.0; 3])], "without `broadcast`");
    check(&sum, 7, &[x(), f(&[3], &[1.0; 3])], &[&[2., 3., 4., 5., 6., 7.]]);
    let slopes = [f(&[1, 2, 2], &[-1.0, 1.0, -1.0, -2.0]), f(&[2], &[0.5, 0.1])];
    check(&node("PRelu", 2, 1), 6, &slopes, &[&[-0.5, 1.0, -0.1, -0.2]]);
    check(&node("PRelu", 2, 1), 7, &slopes, &[&[-0.5, 1.0, -0.5, -0.2]]);
}

#[test]
fn defaults_that_changed_are_those_of_the_opset() {
    let zeros = || f(&[1, 2, 2], &[0.0; 4]);
    check(&node("Softmax", 1, 1), 11, &[zeros()], &[&[0.25; 4]]);
    check(&node("Softmax", 1, 1), 13, &[zeros()], &[&[0.5; 4]]);
    let pair = || [f(&[1, 1], &[1.0]), f(&[1, 1], &[2.0])];
    assert_eq!(check(&node("Concat", 2, 1), 1, &pair(), &[&[1.0, 2.0]])[0].size(), [1, 2]);
    refused(&node("Concat", 2, 1), 4, &pair(), "`axis` is missing");
    check(&node("Selu", 1, 1), 1, &[f(&[1], &[-1000.0])], &[&[-1.758_031]]);
    check(&node("Selu", 1, 1), 6, &[f(&[1], &[-1000.0])], &[&[-1.758_099]]);
}

#[test]
fn batch_normalization_trains_where_the_node_says_so() {
    let one = |value| f(&[1], &[value]);
    let inputs = || [f(&[2, 1], &[0.0, 2.0]), one(1.0), one(0.5), one(0.0), one(3.0)];
    let norm = |outputs| node("BatchNormalization", 5, outputs);
    let (trained, running) = ([-0.499_995, 1.499_995], [[0.1], [2.8]]);
    let by_the_batch: [&[f64]; 3] = [&trained, &running[0], &running[1]];
    let with_batch = [by_the_batch[0], by_the_batch[1], by_the_batch[2], &[1.0], &[1.0]];
    check(&norm(5), 7, &inputs(), &with_batch);
    check(&norm(5), 9, &inputs(), &with_batch);
    check(&norm(3).with("training_mode", Attribute::Int(1)), 14, &inputs(), &by_the_batch);
    let by_running: &[f64] = &[0.5, 0.5 + 2.0 / 3.000_01_f64.sqrt()];
    check(&norm(1), 15, &inputs(), &[by_running]);
    check(&norm(1), 7, &inputs(), &[by_running]);
    check(&norm(1), 6, &inputs(), &[&trained]);
    check(&norm(1).with("is_test", Attribute::Int(1)), 6, &inputs(), &[by_running]);
    refused(&norm(1).with("spatial", Attribute::Int(0)), 7, &inputs(), "`spatial` = 0");
}

#[test]
fn groups_were_scaled_whole_before_opset_21() {
    let x = || f(&[1, 4, 1], &[0.0, 20.0, 100.0, 140.0]);
    let norm = node("GroupNormalization", 3, 1).with("num_groups", Attribute::Int(2));
    let per_group = [x(), f(&[2], &[2.0, 3.0]), f(&[2], &[0.0, 1.0])];
    check(&norm, 18, &per_group, &[&[-2.0, 2.0, -2.0, 4.0]]);
    let each = [x(), f(&[4], &[2.0, 2.0, 3.0, 1.0]), f(&[4], &[0.0, 0.0, 1.0, 1.0])];
    check(&norm, 21, &each, &[&[-2.0, 2.0, -2.0, 2.0]]);
}

#[test]
fn statistics_of_halves_are_taken_in_float32() {
    let halves = |shape: &[i64], words: &[u16]| TensorData {
        dtype: DType::F16,
        shape: shape.to_vec(),
        bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into(),
    };
    // 300, whose square is beyond a half's greatest, and 1.
    let x = || halves(&[1, 4], &[0x5CB0, 0xDCB0, 0x5CB0, 0xDCB0]);
    let (ones, zeros) = (|| halves(&[4], &[0x3C00; 4]), || halves(&[4], &[0; 4]));
    let signs: &[f64] = &[1.0, -1.0, 1.0, -1.0];
    let layer = node("LayerNormalization", 3, 3);
    let layer = check(&layer, 17, &[x(), ones(), zeros()], &[signs, &[0.0], &[1.0 / 300.0]]);
    assert_eq!([0, 1, 2].map(|at| layer[at].kind()), [Kind::Half, Kind::Float, Kind::Float]);
    let group = node("GroupNormalization", 3, 1).with("num_groups", Attribute::Int(2));
    let group = check(&group, 21, &[x(), ones(), zeros()], &[signs]);
    let rms = check(&node("RMSNormalization", 2, 1), 23, &[x(), ones()], &[signs]);
    assert_eq!([group[0].kind(), rms[0].kind()], [Kind::Half; 2]);
    let bad = node("RMSNormalization", 2, 1).with("stash_type", Attribute::Int(7));
    refused(&bad, 23, &[x(), ones()], "`stash_type` = 7");
}

#[test]
fn masks_of_dropout_became_truth_values() {
    let dropout = node("Dropout", 1, 2);
    let kind = |opset| check(&dropout, opset, &[f(&[2], &[1.0, 2.0])], &[&[1., 2.], &[1., 1.]]);
    assert_eq!(kind(7)[1].kind(), Kind::Float);
    assert_eq!(kind(10)[1].kind(), Kind::Bool);
}

#[test]
fn unsigned_integers_wrap_where_their_type_does() {
    let u16s = |values: &[u16]| TensorData {
        dtype: DType::U16,
        shape: vec![values.len() as i64],
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
    };
    let u32s = |values: &[u32]| TensorData {
        dtype: DType::U32,
        shape: vec![values.len() as i64],
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
    };
    let last = f64::from(u32::MAX);
    check(&node("Sub", 2, 1), 14, &[u16s(&[1, 5]), u16s(&[2, 3])], &[&[65535.0, 2.0]]);
    check(&node("Sub", 2, 1), 14, &[u32s(&[1, 5]), u32s(&[2, 3])], &[&[last, 2.0]]);
    check(&node("Mul", 2, 1), 14, &[u16s(&[65535]), u16s(&[65535])], &[&[1.0]]);
    check(&node("Mul", 2, 1), 14, &[u32s(&[u32::MAX]), u32s(&[u32::MAX])], &[&[1.0]]);
    let shift = node("BitShift", 2, 1).with("direction", Attribute::String(b"LEFT".to_vec()));
    check(&shift, 11, &[u32s(&[3 << 30]), u32s(&[1])], &[&[f64::from(1_u32 << 31)]]);
    let less = node("Less", 2, 1);
    check(&less, 13, &[u32s(&[u32::MAX]), u32s(&[1])], &[&[0.0]]);
    refused(&node("Sqrt", 1, 1), 13, &[u16s(&[4])], "uint16 cannot be computed with");
}

#[test]
fn what_is_not_defined_is_refused() {
    let x = || f(&[2], &[1.0, 2.0]);
    refused(&node("Gelu", 1, 1), 19, &[x()], "opsets 20 to 25");
    refused(&node("Mod", 2, 1), 13, &[x(), x()], "without `fmod`");
    let scalar = |value| f(&[], &[value]);
    let range = |delta| [scalar(0.0), scalar(1e18), scalar(delta)];
    refused(&node("Range", 3, 1), 11, &range(1.0), "elements");
    refused(&node("Range", 3, 1), 11, &range(0.0), "`delta` is 0");
    check(&node("Range", 3, 1), 11, &range(-1.0), &[&[]]);
    let to = |number| node("Cast", 1, 1).with("to", Attribute::Int(number));
    refused(&to(13), 21, &[x()], "uint64");
    refused(&to(8), 21, &[x()], "not a type of numbers");
    let lrn = node("LRN", 1, 1).with("size", Attribute::Int(1));
    refused(&lrn, 13, &[x()], "no channels");
}
