//! What is folded into layers, and the plain form of products.

use super::*;

fn operators(model: &Model) -> Vec<&str> {
    model.graph.nodes.iter().map(|node| node.op_type.as_str()).collect()
}

/// A model of one input of that shape, and nodes of which each reads the one before: operator and constants, of which one that is
/// marked comes first.
fn chain(shape: &[i64], nodes: &[(&str, &[&str])], constants: &[(&str, TensorData)]) -> Model {
    let mut from = "x".to_owned();
    let mut made = Vec::new();
    for (index, (operator, names)) in nodes.iter().enumerate() {
        let to = if index + 1 == nodes.len() { "y".to_owned() } else { format!("v{index}") };
        let first = names.first().is_some_and(|name| name.starts_with('<'));
        let names = names.iter().map(|name| name.trim_start_matches('<'));
        let mut inputs: Vec<&str> = names.collect();
        inputs.insert(usize::from(first), &from);
        made.push(Node::new(&format!("n{index}"), operator, &inputs, &[&to]));
        from = to;
    }
    let mut model = graph(made, constants.to_vec());
    model.graph.inputs[0].shape = Some(shape.iter().map(|&extent| Dim::Fixed(extent)).collect());
    model
}

fn of(shape: &[i64]) -> Tensor {
    tch::manual_seed(3);
    Tensor::randn(shape, (Kind::Float, tch::Device::Cpu))
}

/// Folds; what is left computes the same.
fn folded(model: &Model, input: &[i64], fold: fn(&mut Model) -> crate::Result<usize>) -> Model {
    let mut after = model.clone();
    fold(&mut after).unwrap();
    crate::onnx::check(&after).unwrap();
    let [before, now] = [model, &after].map(|model| run(model, &of(input)));
    assert_eq!(before.size(), now.size(), "{:?}", operators(&after));
    assert!(worst(&before, &now) < 2e-5, "{:?}: {}", operators(&after), worst(&before, &now));
    after
}

const IMAGES: [i64; 4] = [2, 2, 8, 8];

#[test]
fn constants_behind_a_layer_fold_into_its_weight_and_bias() {
    let constants = [
        ("w", numbers(&[3, 2, 3, 3], 0.0)),
        ("t", numbers(&[2, 3, 3, 3], 0.0)),
        ("c", numbers(&[3], 0.2)),
        ("scale", numbers(&[3, 1, 1], 1.5)),
        ("shift", numbers(&[1, 3, 1, 1], 0.3)),
        ("two", TensorData::f32(&[], &[2.0])),
        ("g", numbers(&[3], 1.5)),
        ("b", numbers(&[3], 0.1)),
        ("m", numbers(&[3], -0.4)),
        ("v", numbers(&[3], 2.0)),
    ];
    for layer in [("Conv", &["w"][..]), ("Conv", &["w", "c"]), ("ConvTranspose", &["t", "c"])] {
        // Caffe's Scale, a bias of its own, and what is the same written otherwise.
        for behind in [
            &[("Mul", &["scale"][..]), ("Add", &["shift"])][..],
            &[("Add", &["<shift"])],
            &[("Sub", &["shift"]), ("Div", &["scale"])],
            &[("Sub", &["<shift"]), ("Mul", &["two"])],
        ] {
            let end = [("Relu", &[][..]), ("Sigmoid", &[][..])];
            let nodes = [&[layer], behind, &end].concat();
            let after = folded(&chain(&IMAGES, &nodes, &constants), &IMAGES, fold_affine);
            assert_eq!(operators(&after), [layer.0, "Relu", "Sigmoid"], "{behind:?}");
        }
    }
    // Normalizations take them, so that they can be put back behind their layers.
    let norm = ("BatchNormalization", &["g", "b", "m", "v"][..]);
    let nodes = [("Conv", &["w"][..]), norm, ("Mul", &["scale"]), ("Add", &["shift"])];
    let before = chain(&IMAGES, &nodes, &constants);
    let mut after = folded(&before, &IMAGES, fold_affine);
    assert_eq!(operators(&after), ["Conv", "BatchNormalization"]);
    let norms = fold_and_tell(&mut after).unwrap();
    unfold_batch_norm(&mut after, &norms).unwrap();
    assert!(worst(&run(&before, &of(&IMAGES)), &run(&after, &of(&IMAGES))) < 2e-5);
}

#[test]
fn constants_behind_products_fold_and_a_bias_makes_a_gemm() {
    let constants = [
        ("w", numbers(&[4, 3], 0.0)),
        ("c", numbers(&[1, 3], 0.2)),
        ("bias", numbers(&[3], 0.4)),
        ("gamma", numbers(&[3], 1.5)),
        ("root", TensorData::f32(&[1], &[2.0])),
    ];
    let rows = [5, 4];
    let nodes =
        [("MatMul", &["w"][..]), ("Add", &["bias"]), ("Mul", &["gamma"]), ("Div", &["root"])];
    let model = chain(&rows, &nodes, &constants);
    let after = folded(&model, &rows, fold_affine);
    assert_eq!(operators(&after), ["MatMul", "Add"]);
    let after = folded(&after, &rows, biases_to_gemm);
    assert_eq!(operators(&after), ["Gemm"]);
    assert_eq!(
        (after.graph.nodes[0].name.as_str(), &after.graph.nodes[0].outputs[0][..]),
        ("n0", "y")
    );
    for bias in ["c", "<c", "root"] {
        let model = chain(&rows, &[("MatMul", &["w"][..]), ("Add", &[bias])], &constants);
        let after = folded(&model, &rows, biases_to_gemm);
        assert_eq!(operators(&after), ["Gemm"], "{bias}");
        let bias = &after.graph.initializers[&after.graph.nodes[0].inputs[2]];
        assert_eq!(bias.shape, [3]);
    }
    // Gemm takes values of two dimensions.
    let tokens = [2, 5, 4];
    let model = chain(&tokens, &[("MatMul", &["w"][..]), ("Add", &["bias"])], &constants);
    assert_eq!(operators(&folded(&model, &tokens, biases_to_gemm)), ["MatMul", "Add"]);
    let nodes = [("Gemm", &["w", "c"][..]), ("Mul", &["gamma"]), ("Add", &["c"])];
    let after = folded(&chain(&rows, &nodes, &constants), &rows, fold_affine);
    assert_eq!(operators(&after), ["Gemm"]);
}

#[test]
fn constants_stay_that_are_no_layers_or_that_others_need() {
    let constants = [
        ("w", numbers(&[3, 2, 3, 3], 0.0)),
        ("three", TensorData::f32(&[], &[3.0])),
        ("six", TensorData::f32(&[], &[6.0])),
        ("zero", TensorData::f32(&[], &[0.0])),
        ("scale", numbers(&[3, 1, 1], 1.5)),
        ("columns", numbers(&[6], 0.3)),
        ("more", numbers(&[1, 1, 3, 1, 1], 0.3)),
        ("nought", TensorData::f32(&[1], &[0.0])),
    ];
    let conv = ("Conv", &["w"][..]);
    for behind in [
        // HardSigmoid written out, in two ways.
        &[("Add", &["three"][..]), ("Clip", &["zero", "six"]), ("Div", &["six"]), ("Relu", &[])][..],
        &[("Mul", &["three"]), ("Add", &["six"]), ("Clip", &["zero", "six"]), ("Relu", &[])],
        // Along another axis; with an axis more; an output that a convolution of integers would be in float for.
        &[("Add", &["columns"]), ("Relu", &[]), ("Sigmoid", &[])],
        &[("Add", &["more"]), ("Relu", &[]), ("Sigmoid", &[])],
        &[("Add", &["scale"])],
        &[("Add", &["scale"]), ("Relu", &[])],
        // What is not linear, and what would not be finite.
        &[("Div", &["<scale"]), ("Relu", &[]), ("Sigmoid", &[])],
        &[("Div", &["nought"]), ("Sigmoid", &[]), ("Relu", &[])],
    ] {
        let mut model = chain(&IMAGES, &[&[conv], behind].concat(), &constants);
        let before = operators(&model).len();
        assert_eq!(fold_affine(&mut model).unwrap(), 0, "{behind:?}");
        assert_eq!(operators(&model).len(), before);
    }
    // Two readers, as HardSwish has and GELU; a weight that another layer reads keeps its values there.
    let nodes = vec![
        Node::new("c", "Conv", &["x", "w"], &["a"]),
        Node::new("add", "Add", &["a", "scale"], &["p"]),
        Node::new("mul", "Mul", &["a", "p"], &["q"]),
        Node::new("d", "Conv", &["x", "w"], &["e"]),
        Node::new("f", "Mul", &["e", "scale"], &["g"]),
        Node::new("s", "Sub", &["g", "q"], &["y"]),
    ];
    let after = folded(&graph(nodes, constants.to_vec()), &IMAGES, fold_affine);
    assert_eq!(operators(&after), ["Conv", "Add", "Mul", "Conv", "Sub"]);
}

#[test]
fn factors_and_biases_of_products_come_into_one_form() {
    let columns = [
        ("w", numbers(&[4, 3], 0.0)),
        ("row", numbers(&[1, 3], 0.2)),
        ("one", TensorData::f32(&[], &[0.5])),
        ("plain", numbers(&[3], 0.1)),
        ("rows", numbers(&[5, 1], 0.1)),
        ("stack", numbers(&[1, 4, 3], 0.1)),
        ("several", numbers(&[2, 4, 3], 0.1)),
    ];
    let rows = [5, 4];
    for (bias, shape) in [("row", &[3][..]), ("one", &[3]), ("plain", &[3]), ("rows", &[5, 1])] {
        let mut model = chain(&rows, &[("Gemm", &["w", bias])], &columns);
        let node = &mut model.graph.nodes[0];
        node.attributes.insert("alpha".to_owned(), Attribute::Float(0.5));
        node.attributes.insert("beta".to_owned(), Attribute::Float(-2.0));
        let after = folded(&model, &rows, plain_products);
        let node = &after.graph.nodes[0];
        assert_eq!(node.float("alpha", 1.0).unwrap(), 1.0);
        assert_eq!(after.graph.initializers[&node.inputs[2]].shape, shape);
        // A value for each row is no bias: it is left whole.
        assert_eq!(node.float("beta", 1.0).unwrap(), if bias == "rows" { -2.0 } else { 1.0 });
    }
    let tokens = [2, 5, 4];
    for (input, weight, rank) in
        [(&tokens[..], "stack", 2), (&tokens, "several", 3), (&rows, "stack", 3)]
    {
        let model = chain(input, &[("MatMul", &[weight])], &columns);
        let after = folded(&model, input, plain_products);
        let weight = &after.graph.initializers[&after.graph.nodes[0].inputs[1]];
        assert_eq!(weight.shape.len(), rank);
    }
}
