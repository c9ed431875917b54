//! Whether the exported file computes what the simulation does, and that what does not is named.

use std::collections::HashMap;
use std::path::Path;

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::analysis::{Budget, Comparison, Seen, common};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::engine::Unfused;
use qpipe_worker::graph::{Model, TensorData};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, plan};
use qpipe_worker::quant::prepare::prepare;
use tch::Tensor;

use crate::quant::{dataset, ranges, small_resnet};

const BUDGET: Budget = Budget { sqnr_db: 20.0, agreement: 0.9 };

fn quantized(dataset: &Dataset, target: Target) -> Model {
    let mut model = small_resnet();
    prepare(&mut model).unwrap();
    let ranges = ranges(&model, dataset);
    let request =
        Request { target, method: Method::Max, include: None, exclude: &[], per_channel: true };
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
    let values =
        Unfused::load(exported, &names, folder, 2).unwrap().run(&floats, &images.size()).unwrap();
    let tensors = names.iter().zip(&values);
    let on_onnxruntime: HashMap<String, Tensor> = tensors
        .map(|(name, (shape, values))| (name.clone(), Tensor::from_slice(values).reshape(shape)))
        .collect();
    [("libtorch", on_libtorch), ("ONNX Runtime", on_onnxruntime)].map(|(of, found)| {
        let mut comparison = Comparison::new(of);
        comparison.add(&expected, &found).map_err(|error| error.message)?;
        comparison.hold(exported, BUDGET).map_err(|error| error.message)?;
        Ok(comparison)
    })
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
