//! Layers that are named by `include` and `exclude`.

use super::draft::Draft;
use super::*;
use crate::quant::placement::matches;

#[test]
fn layers_can_be_named_and_left_out() {
    let model = resnet18();
    let exclude = ["layer1.*".to_owned(), "op:Gemm".to_owned()];
    let all = request(Target::Tensorrt);
    let plan = planned(&model, &Request { exclude: &exclude, ..all });
    assert_eq!(plan.weights.len(), 21 - 4 - 1);
    assert_eq!(layer(&plan, "layer1.0.conv1").reason.as_deref(), Some("excluded by \"layer1.*\""));
    assert!(tensor(&plan, "layer1.1.add").is_empty());

    let include = ["op:Conv".to_owned()];
    let exclude = ["conv1".to_owned()];
    let plan = planned(&model, &Request { include: Some(&include), exclude: &exclude, ..all });
    assert_eq!(plan.weights.len(), 19);
    assert_eq!(layer(&plan, "fc").reason.as_deref(), Some("`include` does not name it"));
    assert_eq!(layer(&plan, "conv1").reason.as_deref(), Some("excluded by \"conv1\""));

    // With ONNX Runtime a layer that is left in float reads what the layers round it made.
    let exclude = ["layer1.0.conv2".to_owned()];
    let plan = planned(&model, &Request { exclude: &exclude, ..request(Target::Onnxruntime) });
    assert_eq!(plan.weights.len(), 20);
    assert_eq!(tensor(&plan, "layer1.0.conv2").len(), 1);
}

#[test]
fn a_pattern_that_names_nothing_is_refused_with_the_nearest_name() {
    let model = resnet18();
    let refused = |pattern: &str| {
        let exclude = [pattern.to_owned()];
        let request = Request { exclude: &exclude, ..request(Target::Tensorrt) };
        plan(&model.graph, &rising(&model.graph), &request).expect_err("refused")
    };
    let error = refused("layer1.0.conv3");
    assert_eq!(error.message, "`exclude`: no node of the model matches \"layer1.0.conv3\"");
    assert_eq!(error.key, Some("exclude"), "the runner shows its line");
    let help = error.help.expect("a help");
    assert!(help.starts_with("did you mean \"layer1.0.conv"), "{help}");
    assert!(refused("op:Convv").help.expect("a help").starts_with("did you mean \"op:Conv\"?"));
}

/// Two branches of convolutions behind a stem, joined, and two heads.
fn branches() -> Model {
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("stem", "x", 1);
    draft.conv("left", "stem", 1);
    draft.node("relu", "Relu", &["left"]);
    draft.conv("left2", "relu", 1);
    draft.conv("right", "stem", 1);
    draft.node("add", "Add", &["left2", "right"]);
    draft.conv("scores", "add", 1);
    draft.node("probabilities", "Sigmoid", &["scores"]);
    draft.conv("boxes", "add", 1);
    draft.end(&["probabilities", "boxes"])
}

fn named(model: &Model, pattern: &str) -> Vec<String> {
    let found = matches(&model.graph, pattern).expect(pattern);
    let nodes = model.graph.nodes.iter().zip(found).filter(|(_, found)| *found);
    nodes.map(|(node, _)| node.label().to_owned()).collect()
}

fn refused(model: &Model, pattern: &str) -> (String, String) {
    let error = matches(&model.graph, pattern).expect_err(pattern);
    (error.message, error.help.unwrap_or_default())
}

#[test]
fn a_part_of_the_graph_is_named_by_its_edges() {
    let model = branches();
    assert_eq!(named(&model, "between:left:add"), ["left", "relu", "left2", "add"]);
    assert_eq!(named(&model, "between:stem:right"), ["stem", "right"], "not the other branch");
    assert_eq!(named(&model, "between:right:right"), ["right"]);
    let (message, help) = refused(&model, "between:add:left");
    assert_eq!(message, "no way leads from \"add\" to \"left\"");
    assert_eq!(help, "one leads back: \"between:left:add\"");
    let (message, _) = refused(&model, "between:left2:right");
    assert_eq!(message, "no way leads from \"left2\" to \"right\"");
    let (message, help) = refused(&model, "between:left:adds");
    assert!(message.ends_with("no node of the model matches \"adds\""), "{message}");
    assert!(help.starts_with("did you mean \"add\"?"), "{help}");
    let (message, _) = refused(&model, "between:left");
    assert_eq!(message, "\"between:left\" names one node");

    let mut colons = branches();
    colons.graph.nodes[0].name = "net:0/stem".to_owned();
    assert_eq!(named(&colons, "between:net:0/stem:right"), ["net:0/stem", "right"]);
}

#[test]
fn an_output_is_kept_in_float() {
    let model = branches();
    assert_eq!(named(&model, "output:boxes"), ["boxes"]);
    assert_eq!(named(&model, "output:probabilities"), ["scores", "probabilities"]);
    let (message, help) = refused(&model, "output:box");
    assert_eq!(message, "no output of the model matches \"output:box\"");
    assert!(help.starts_with("did you mean \"output:boxes\"?"), "{help}");

    let exclude = ["output:probabilities".to_owned()];
    let request = Request { exclude: &exclude, ..request(Target::Tensorrt) };
    let plan = planned(&model, &request);
    let reason = layer(&plan, "scores").reason.as_deref();
    assert_eq!(reason, Some("excluded by \"output:probabilities\""));
    assert!(layer(&plan, "boxes").quantized);
    let [sum] = tensor(&plan, "boxes")[..] else { panic!("one input") };
    assert_eq!(sum.readers, ["boxes"], "the float layer reads the float value");
}

#[test]
fn outputs_are_kept_in_float_back_to_the_nth_layer() {
    let model = branches();
    assert_eq!(named(&model, "output:*"), ["scores", "probabilities", "boxes"]);
    assert_eq!(named(&model, "output:prob*:1"), ["scores", "probabilities"]);
    let second = ["left2", "right", "add", "boxes"];
    assert_eq!(named(&model, "output:boxes:2"), second);
    assert_eq!(named(&model, "output:boxes:9").len(), 7, "all but the other head");
    let (message, _) = refused(&model, "output:boxes:0");
    assert_eq!(message, "no output of the model matches \"output:boxes:0\"");
    // Of two ways that with fewer layers counts; who asks for a shape computes nothing.
    let mut draft = Draft::new(&[1, 4, 8, 8]);
    draft.conv("stem", "x", 1);
    draft.conv("far", "stem", 1);
    draft.conv("near", "far", 1);
    draft.node("join", "Concat", &["far", "near"]);
    draft.node("shape", "Shape", &["stem"]);
    draft.node("out", "Reshape", &["join", "shape"]);
    let model = draft.end(&["out"]);
    assert_eq!(named(&model, "output:*"), ["far", "near", "join", "shape", "out"]);
    assert_eq!(named(&model, "output:out:2"), ["stem", "far", "near", "join", "shape", "out"]);
}

#[test]
fn first_and_last_layers_are_named_by_a_word() {
    let mut model = branches();
    assert_eq!(named(&model, "first"), ["stem"]);
    assert_eq!(named(&model, "last"), ["scores", "boxes"]);
    model.graph.nodes[2].name = "last".to_owned();
    assert_eq!(named(&model, "last"), ["last"], "a node of that name goes first");

    let resnet = resnet18();
    assert_eq!(named(&resnet, "first"), ["conv1"]);
    assert_eq!(named(&resnet, "last"), ["fc"]);
    let exclude = ["first".to_owned(), "last".to_owned()];
    let plan = planned(&resnet, &Request { exclude: &exclude, ..request(Target::Tensorrt) });
    assert_eq!(plan.weights.len(), 21 - 2);

    let mut draft = Draft::new(&[1, 4]);
    draft.node("relu", "Relu", &["x"]);
    let (message, _) = refused(&draft.end(&["relu"]), "first");
    assert_eq!(message, "\"first\": the model has no layer");
}

/// Whatever a pattern names may be left out alone, and no other layer loses its pairs.
#[test]
fn each_layer_is_switched_off_by_itself() {
    for target in Target::ALL {
        let model = branches();
        let whole = planned(&model, &request(target));
        let quantized = whole.layers.iter().filter(|layer| layer.quantized);
        for name in quantized.map(|layer| layer.node.clone()) {
            let exclude = [name.clone()];
            let plan = planned(&model, &Request { exclude: &exclude, ..request(target) });
            for (layer, before) in plan.layers.iter().zip(&whole.layers) {
                let expected = before.quantized && layer.node != name;
                assert_eq!(layer.quantized, expected, "{target:?}: {} without {name}", layer.node);
            }
            let include = [name.clone()];
            let alone = Request { include: Some(&include), ..request(target) };
            let plan = planned(&model, &alone);
            let names: Vec<&str> =
                plan.layers.iter().filter(|l| l.quantized).map(|l| l.node.as_str()).collect();
            assert_eq!(names, [name.as_str()], "{target:?}");
        }
    }
}
