//! Roundings learned for a residual block at once.

use qpipe::stages::calibrate::Method;
use qpipe::stages::formats::{WeightType, Weights};
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::data::Dataset;
use qpipe_worker::graph::{DType, Model};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::ladder::{Adaround, Reconstructed, Unit, reconstruct};
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use tch::Kind;

use crate::ladder::{LEARN, options, sqnr, unequal, values};
use crate::quant::{dataset, ranges, small_resnet};

const BLOCKS: Adaround = Adaround { unit: Unit::Block, drop: 0.5, ..LEARN };

/// A residual network with weights of 4 bits and a scale for each channel, and itself without pairs.
fn quantized(target: Target, dataset: &Dataset) -> (Model, Model) {
    let mut model = small_resnet();
    unequal(&mut model);
    prepare(&mut model).unwrap();
    let weights = Weights { dtype: WeightType::Int4, ..Weights::default() };
    let request = Request {
        target,
        method: Method::Max,
        include: None,
        exclude: &[],
        formats: Formats::of(Some(weights), None, true),
    };
    let plan = plan(&model.graph, &ranges(&model, dataset), &request).unwrap();
    let mut quantized = model.clone();
    insert(&mut quantized, &plan).unwrap();
    (model, quantized)
}

fn learn(
    model: &Model,
    dataset: &Dataset,
    adaround: Adaround,
    seed: u64,
) -> (Model, Vec<Reconstructed>) {
    let options = qpipe_worker::quant::ladder::Options {
        bias_correction: false,
        seed,
        ..options(Some(adaround))
    };
    reconstruct(model.clone(), dataset, &options, &|_, _, _| ()).unwrap()
}

/// What residual blocks of the float model give: values behind the Relu behind an Add.
fn exits(float: &Model) -> Vec<String> {
    let producers = float.graph.producers();
    let relus = float.graph.nodes.iter().filter(|node| node.op_type == "Relu");
    relus
        .filter(|relu| float.graph.nodes[producers[relu.inputs[0].as_str()]].op_type == "Add")
        .map(|relu| relu.outputs[0].clone())
        .collect()
}

/// Mean squared error of each of those, relative to the float values.
fn errors(float: &Model, quantized: &Model, dataset: &Dataset) -> Vec<f64> {
    let watch = exits(float);
    let (expected, found) = (values(float, &watch, dataset), values(quantized, &watch, dataset));
    let square = |value: tch::Tensor| value.square().mean(Kind::Double).double_value(&[]);
    expected.iter().zip(&found).map(|(x, q)| square(x - q) / square(x.shallow_clone())).collect()
}

#[test]
fn blocks_are_nearer_to_the_float_model_than_layers_alone() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let (float, nearest) = quantized(target, &dataset);
        let (layers, _) = learn(&nearest, &dataset, LEARN, 4);
        let (blocks, report) = learn(&nearest, &dataset, BLOCKS, 4);
        let undropped = learn(&nearest, &dataset, Adaround { drop: 0.0, ..BLOCKS }, 4).0;
        let held: Vec<(&str, Option<&str>)> =
            report.iter().map(|layer| (layer.node.as_str(), layer.block.as_deref())).collect();
        println!("{target:?} {held:?}");
        let all =
            [&nearest, &layers, &blocks, &undropped].map(|model| errors(&float, model, &dataset));
        let logits = [float.graph.outputs[0].name.clone()];
        let expected = values(&float, &logits, &dataset).remove(0);
        let db = [&nearest, &layers, &blocks, &undropped]
            .map(|model| sqnr(&expected, &values(model, &logits, &dataset).remove(0)));
        println!("{target:?}: nearest, layers, blocks, without drop: {all:?}, logits {db:?} dB");
    }
    let _ = (DType::I4, finalize);
    panic!("x");
}
