//! Whether the exported file computes what the simulation does, and that what does not is named.

use std::collections::HashMap;
use std::path::Path;

use qpipe::stages::build_engine::Backend;
use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::analysis::{Budget, Comparison, Found, Seen, common};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::engine::{self, Build, Note, Tapped, Value};
use qpipe_worker::graph::{Dim, Graph, Model, Node, TensorData, ValueInfo};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::{Error, onnx};
use tch::Tensor;

use crate::quant::{dataset, ranges, small_resnet};

const BUDGET: Budget = Budget { sqnr_db: 20.0, agreement: 0.9, sudden_db: f64::NEG_INFINITY };

pub fn quantized(dataset: &Dataset, target: Target) -> Model {
    quantized_in(dataset, target, Formats::default())
}

pub fn quantized_in(dataset: &Dataset, target: Target, formats: Formats) -> Model {
    let mut model = small_resnet();
    prepare(&mut model).unwrap();
    let ranges = ranges(&model, dataset);
    let request = Request { target, method: Method::Max, include: None, exclude: &[], formats };
    let plan = plan(&model.graph, &ranges, &request).unwrap();
    insert(&mut model, &plan).unwrap();
    model
}

fn exported(model: &Model) -> Model {
    let mut exported = model.clone();
    finalize(&mut exported, None).unwrap();
    exported
}

fn images(dataset: &Dataset) -> Tensor {
    Loader::new(dataset, 32, Order::Sequential, false, 1).next().unwrap().unwrap().images
}

/// Values on libtorch and on ONNX Runtime without fusion against the simulation's.
fn compare(
    reference: &Model,
    exported: &Model,
    dataset: &Dataset,
    folder: &Path,
) -> [Result<Comparison, String>; 2] {
    let names = common(reference, exported);
    let images = images(dataset);
    let expected = Seen::new(reference, &names).unwrap().run(&images).unwrap().1;
    let on_libtorch = Seen::new(exported, &names).unwrap().run(&images).unwrap().1;
    let floats = Vec::<f32>::try_from(images.contiguous().view(-1)).unwrap();
    let mut unfused = Tapped::unfused(exported, &names, folder, 2).unwrap();
    let on_onnxruntime = tensors(unfused.run(&floats, &images.size()).unwrap());
    [("libtorch", on_libtorch), ("ONNX Runtime", on_onnxruntime)].map(|(of, found)| {
        let mut comparison = Comparison::new(of);
        comparison.add(&expected, &found.into()).map_err(|error| error.message)?;
        comparison.hold(exported, BUDGET).map_err(|error| error.message)?;
        Ok(comparison)
    })
}

fn tensors(values: Vec<Value>) -> HashMap<String, Tensor> {
    let tensor = |value: &Value| Tensor::from_slice(&value.elements).reshape(&value.shape);
    values.iter().map(|value| (value.name.clone(), tensor(value))).collect()
}

#[test]
fn the_exported_file_computes_what_the_simulation_does() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let model = quantized(&dataset, target);
        for comparison in compare(&model, &exported(&model), &dataset, folder.path()) {
            let comparison = comparison.unwrap();
            println!("{target:?}, {}: worst {:?} dB", comparison.of, comparison.worst_sqnr());
            let layers = model.graph.nodes.iter().filter(|node| node.op_type == "Conv").count();
            assert!(comparison.values.iter().filter(|step| step.op == "Conv").count() == layers);
        }
    }
}

#[test]
fn the_first_value_that_is_lost_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let model = quantized(&dataset, Target::Onnxruntime);
    let mut broken = exported(&model);
    let convolutions: Vec<_> =
        broken.graph.nodes.iter().filter(|node| node.op_type == "Conv").cloned().collect();
    // Its bias, as if it had overflowed.
    let layer = &convolutions[3];
    let producers = broken.graph.producers();
    let dequantize = &broken.graph.nodes[producers[layer.inputs[2].as_str()]];
    let bias = dequantize.inputs[0].clone();
    let data = &broken.graph.initializers[&bias];
    let values: Vec<i32> = (0..data.len()).map(|_| 1 << 20).collect();
    let shape = data.shape.clone();
    broken.graph.initializers.insert(bias, TensorData::i32(&shape, &values));
    for comparison in compare(&model, &broken, &dataset, folder.path()) {
        let message = comparison.unwrap_err();
        assert!(message.starts_with(&format!("node \"{}\" (Conv)", layer.name)), "{message}");
        assert!(
            message.contains("at least 20 are wanted") && message.contains("before it has"),
            "{message}"
        );
    }
}

/// Two classes nearly alike: the error is small, and the largest element another.
#[test]
fn outputs_that_are_nearly_alike_are_told_as_such() {
    let outputs = vec![ValueInfo::f32("y", Vec::new())];
    let graph =
        Graph { nodes: vec![Node::new("n", "Relu", &["x"], &["y"])], outputs, ..Graph::default() };
    let model = Model::new(graph, 17);
    let of = |elements: [f32; 2]| {
        HashMap::from([("y".to_owned(), Tensor::from_slice(&elements).reshape([1, 2]))])
    };
    let mut comparison = Comparison::new("the engine");
    comparison.add(&of([1.0, 1.01]), &of([1.01, 1.0]).into()).unwrap();
    let help = comparison.hold(&model, BUDGET).unwrap_err().help.unwrap();
    assert!(
        help.starts_with("its SQNR is within the budget") && help.contains("min_agreement"),
        "{help}"
    );
}

/// Channels of a chain.
const WIDTH: i64 = 16;

/// A chain of layers with these weights `[WIDTH, WIDTH]`.
fn chain(weights: &[Tensor]) -> Model {
    let shape = vec![Dim::Named("batch".to_owned()), Dim::Fixed(WIDTH)];
    let mut graph = Graph {
        inputs: vec![ValueInfo::f32("y0", shape.clone())],
        outputs: vec![ValueInfo::f32(&format!("y{}", weights.len()), shape)],
        ..Graph::default()
    };
    for (index, weight) in weights.iter().enumerate() {
        let (layer, name) = (index + 1, format!("w{index}"));
        let values = Vec::<f32>::try_from(weight.contiguous().view(-1)).unwrap();
        graph.initializers.insert(name.clone(), TensorData::f32(&[WIDTH, WIDTH], &values));
        let (from, to) = (format!("y{index}"), format!("y{layer}"));
        graph.nodes.push(Node::new(&format!("layer{layer}"), "MatMul", &[&from, &name], &[&to]));
    }
    Model::new(graph, 17)
}

/// 24 layers whose weights are off by a tenth of themselves: 20 dB of noise at each, which adds up to 20 − 10 lg n dB behind n of them. Layer
/// `broken` computes something else.
fn hold_chain(broken: Option<usize>, budget: Budget) -> (Comparison, Result<(), Error>) {
    let normal = |rows| Tensor::randn([rows, WIDTH], (tch::Kind::Float, tch::Device::Cpu));
    // Rotations: signal and noise keep their power, so that only what a layer adds counts.
    let weights: Vec<Tensor> =
        (0..24).map(|_| Tensor::linalg_qr(&normal(WIDTH), "reduced").0).collect();
    let off = |(index, weight): (usize, &Tensor)| match broken {
        Some(layer) if layer == index + 1 => -weight,
        _ => weight + normal(WIDTH) * 0.1 / (WIDTH as f64).sqrt(),
    };
    let other: Vec<Tensor> = weights.iter().enumerate().map(off).collect();
    let (reference, other) = (chain(&weights), chain(&other));
    let names = common(&reference, &other);
    let images = normal(64);
    let values = |model: &Model| Seen::new(model, &names).unwrap().run(&images).unwrap().1;
    let mut comparison = Comparison::new("the exported file");
    comparison.add(&values(&reference), &values(&other).into()).unwrap();
    let held = comparison.hold(&other, budget);
    (comparison, held)
}

/// Each layer loses a little, all together most: `verify` refuses the first value below its budget and says that no node is to blame;
/// `export-onnx` and `build-engine`, which ask for sudden losses, let it pass, but not a layer that is broken behind it.
#[test]
fn a_slow_loss_over_many_layers_is_told_from_a_sudden_one() {
    let (comparison, held) = hold_chain(None, Budget { sqnr_db: 12.0, agreement: 0.0, ..BUDGET });
    let error = held.unwrap_err();
    let sqnr = |index: usize| comparison.values[index].fidelity.sqnr_db.unwrap();
    let first = (0..24).position(|index| sqnr(index) < 12.0).unwrap();
    assert!((4..9).contains(&first), "20 − 10 lg n is 12 at n = 6.3: {first}");
    let name = format!("node \"layer{}\" (MatMul)", first + 1);
    assert!(error.message.starts_with(&name), "{}", error.message);
    assert!(
        error.message.contains(&format!("\"y{first}\" before it has {:.1} dB", sqnr(first - 1)))
    );
    let help = error.help.as_deref().unwrap();
    assert!(
        help.starts_with("no node loses it at once: the loss adds up along the layers"),
        "{help}"
    );
    // Behind the first layer the second loses most, 3 dB.
    assert!(help.contains("in one node, \"layer2\" (MatMul)"), "{help}");
    assert!((sqnr(0) - sqnr(1) - 3.0).abs() < 1.5, "{} {}", sqnr(0), sqnr(1));

    // What an export asks for: the outputs have 6 dB, and no node is to blame.
    let export = Budget { sqnr_db: 10.0, agreement: 0.0, sudden_db: 6.0 };
    let (comparison, held) = hold_chain(None, export);
    held.unwrap();
    let last = comparison.values.last().unwrap().fidelity.sqnr_db.unwrap();
    assert!((3.0..9.0).contains(&last) && comparison.worst_sqnr() < Some(9.0), "{last}");
    assert!(comparison.values.windows(2).all(|two| {
        let sqnr = |index: usize| two[index].fidelity.sqnr_db.unwrap();
        sqnr(0) - sqnr(1) < export.sudden_db
    }));
    let error = hold_chain(Some(16), export).1.unwrap_err();
    assert!(error.message.starts_with("node \"layer16\" (MatMul)"), "{}", error.message);
    assert!(error.help.unwrap().starts_with("the export or the runtime computes something else"));
}

/// Shows the values of the integer kernels of an engine that is built from `built`, under the names of `exported`.
fn engine_values(
    built: &Model,
    exported: &Model,
    images: &Tensor,
    folder: &Path,
) -> HashMap<String, Tensor> {
    let path = folder.join("built.onnx");
    onnx::write_one_file(built, &path).unwrap();
    let request = Build {
        path: &path,
        model: built,
        folder,
        batch: 1,
        compute_capability: None,
        precision: None,
        threads: 2,
        saturate: false,
        tensorrt: Default::default(),
        tell: &|_| (),
    };
    engine::build(Backend::Onnxruntime, &request).unwrap();
    let note = Note::read(folder).unwrap();
    assert!(!engine::may_saturate(folder, &note).unwrap());
    let mut fused = Tapped::fused(folder, &note, exported, folder, 2).unwrap().unwrap();
    let floats = Vec::<f32>::try_from(images.contiguous().view(-1)).unwrap();
    tensors(fused.run(&floats, &images.size()).unwrap())
}

#[test]
fn what_each_integer_kernel_of_an_engine_gives_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let model = quantized(&dataset, Target::Onnxruntime);
    let mut exported = exported(&model);
    // The note of an engine holds the extents of its output.
    exported.graph.outputs[0].shape = Some(vec![Dim::Named("batch".to_owned()), Dim::Fixed(10)]);
    let names = common(&model, &exported);
    let images = images(&dataset);
    let expected = Seen::new(&model, &names).unwrap().run(&images).unwrap().1;
    let compare = |built: &Model| {
        let values = engine_values(built, &exported, &images, folder.path());
        let seen = values.len();
        let found = Found { inner: values.keys().cloned().collect(), values };
        let mut comparison = Comparison::new("the engine");
        comparison.add(&expected, &found).unwrap();
        let held = comparison.hold(&exported, BUDGET).map_err(|error| error.message);
        (seen, comparison.worst_sqnr(), held)
    };
    let (seen, worst, held) = compare(&exported);
    let layers =
        exported.graph.nodes.iter().filter(|node| matches!(&*node.op_type, "Conv" | "Add"));
    println!("{seen} values, worst {worst:?} dB");
    assert!(seen >= layers.count(), "{seen}");
    held.unwrap();
    // An engine of another model than the file: the fourth convolution's weights are turned around.
    let mut broken = exported.clone();
    let convolutions: Vec<_> =
        broken.graph.nodes.iter().filter(|node| node.op_type == "Conv").cloned().collect();
    let producers = broken.graph.producers();
    let dequantize = &broken.graph.nodes[producers[convolutions[3].inputs[1].as_str()]];
    let weight = dequantize.inputs[0].clone();
    let data = broken.graph.initializers.get_mut(&weight).unwrap();
    data.bytes = data.bytes.iter().map(|byte| byte.wrapping_neg()).collect::<Vec<u8>>().into();
    let message = compare(&broken).2.unwrap_err();
    assert!(message.contains("of the engine is not that of the simulation"), "{message}");
    assert_eq!(convolutions[3].name, "layer2.0.conv1");
    // What it gives behind its ReLU; "inf dB" before.
    assert!(message.contains("\"layer2.0.relu1.output_dequantized\" of the engine"), "{message}");
    assert!(message.ends_with("before it has inf dB"), "{message}");
}
