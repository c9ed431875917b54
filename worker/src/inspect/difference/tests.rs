use super::*;
use crate::graph::{Dim, ValueInfo};

fn model() -> Model {
    let value = |name| ValueInfo::f32(name, vec![Dim::Named("n".to_owned()), Dim::Fixed(3)]);
    let graph = Graph {
        nodes: vec![
            Node::new("one", "Gemm", &["x", "w"], &["a"]).with("alpha", Attribute::Float(1.0)),
            Node::new("", "Relu", &["a"], &["b"]),
            Node::new("three", "Relu", &["b"], &["y"]),
        ],
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        initializers: [("w".to_owned(), TensorData::f32(&[3, 3], &[0.5; 9]))].into_iter().collect(),
        ..Graph::default()
    };
    Model::new(graph, 17)
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let difference = Difference::of(&model(), &model());
    assert!(difference.same, "{}", difference.text());
    assert_eq!(difference.text(), "no difference\n");
}

#[test]
fn everything_that_differs_is_told() {
    let (old, mut new) = (model(), model());
    new.opsets[0].version = 18;
    new.metadata.insert("k".to_owned(), "v".to_owned());
    new.graph.inputs[0].shape = Some(vec![Dim::Unknown, Dim::Fixed(4)]);
    new.graph.outputs.clear();
    new.graph.nodes[0].attributes.insert("alpha".to_owned(), Attribute::Float(2.0));
    new.graph.nodes[0].attributes.insert("transB".to_owned(), Attribute::Int(1));
    new.graph.nodes[1].op_type = "Tanh".to_owned();
    new.graph.nodes[2] = Node::new("four", "Relu", &["b"], &["z"]);
    let mut weight = vec![0.5; 9];
    weight[4] = 0.75;
    new.graph.initializers.insert("w".to_owned(), TensorData::f32(&[3, 3], &weight));
    new.graph.initializers.insert("v".to_owned(), TensorData::i64(&[1], &[7]));
    let difference = Difference::of(&old, &new);
    assert!(!difference.same);
    assert_eq!(
        difference.text(),
        "\
~ opset ai.onnx: 17 → 18
+ metadata k: v
~ input x: float [n, 3] → float [?, 4]
- output y: float [n, 3]
- node three (Relu)
+ node four (Relu)
~ node one (Gemm)
    ~ attribute alpha: 1 → 2
    + attribute transB: 1
~ node b (Relu)
    ~ operator: Relu → Tanh
+ initializer v int64 [1]
~ initializer w float [3, 3]: differs by up to 2.500e-1
"
    );
}

#[test]
fn another_order_is_told() {
    let (old, mut new) = (model(), model());
    new.graph.nodes.swap(0, 1);
    assert!(Difference::of(&old, &new).reordered);
    let mut more = model();
    more.graph.inputs.push(ValueInfo::f32("z", vec![]));
    let mut swapped = more.clone();
    swapped.graph.inputs.swap(0, 1);
    let text = Difference::of(&more, &swapped).text();
    assert_eq!(text, "~ order of inputs: input x, input z → input z, input x\n");
}

#[test]
fn attributes_that_show_the_same_still_differ() {
    let constant = |value: f32| Attribute::Tensor(TensorData::f32(&[], &[value]));
    let (mut old, mut new) = (model(), model());
    old.graph.nodes[0].attributes.insert("t".to_owned(), constant(1.0));
    new.graph.nodes[0].attributes.insert("t".to_owned(), constant(2.0));
    assert!(!Difference::of(&old, &new).same);
}
