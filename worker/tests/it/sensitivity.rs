//! What quantizing each layer costs: the same as of whole models that are quantized so.

use qpipe::stages::calibrate::Method;
use qpipe::stages::insert_qdq::Target;
use qpipe::stages::sensitivity::Measure;
use qpipe::stages::tensorrt_version::TensorrtVersion;
use qpipe_worker::analysis::{Fidelity, Figures, Options, Report, markdown, measure, svg};
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::Model;
use qpipe_worker::interp::{self, Mode, Program};
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::{Request, Selection, plan_selected};
use qpipe_worker::quant::prepare::prepare;
use qpipe_worker::train::Score;

use crate::quant::{IMAGES, dataset, fixture, ranges, small_resnet};

const BATCH: usize = 64;

fn request(target: Target) -> Request<'static> {
    Request {
        target,
        method: Method::Mse,
        include: None,
        exclude: &[],
        formats: Formats::default(),
    }
}

fn options(target: Target, measure: &[Measure]) -> Options<'_> {
    Options {
        request: request(target),
        version: TensorrtVersion::NEWEST,
        measure,
        samples: IMAGES,
        batch_size: BATCH,
        seed: 1,
        threads: 1,
    }
}

/// Whole models against whole models, on all images.
fn naive(float: &Model, variant: &Model, dataset: &Dataset) -> (Figures, f64) {
    let _no_grad = tch::no_grad_guard();
    let compile = |model| Program::compile(model, &interp::Options::default()).unwrap();
    let mut programs = [compile(float), compile(variant)];
    let (mut fidelity, mut score) = (Fidelity::default(), Score::new(10));
    for batch in Loader::new(dataset, BATCH, Order::Sequential, false, 1) {
        let batch = batch.unwrap();
        let [expected, found] = programs.each_mut().map(|program| {
            let images = [batch.images.shallow_clone()];
            program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0)
        });
        fidelity.add(&expected, &found).unwrap();
        score.add(&found, &batch.labels).unwrap();
    }
    (fidelity.figures(), score.figures().loss)
}

fn near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-3,
        (a, b) => a == b,
    }
}

#[test]
fn what_comes_before_a_layer_is_computed_once_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let mut model = small_resnet();
    prepare(&mut model).unwrap();
    let ranges = ranges(&model, &dataset);
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let both = [Measure::Alone, Measure::Without];
        let report =
            measure(&model, &ranges, &dataset, &options(target, &both), &|_, _| ()).unwrap();
        let all = Selection::all(&model.graph);
        let quantized = |selection: &Selection| {
            let mut quantized = model.clone();
            let plan = plan_selected(&model.graph, &ranges, &request(target), selection).unwrap();
            insert(&mut quantized, &plan).unwrap();
            quantized
        };
        let (figures, loss) = naive(&model, &quantized(&all), &dataset);
        assert!(
            near(report.quantized.fidelity.sqnr_db, figures.sqnr_db),
            "{target:?}: {figures:?}"
        );
        assert!((report.quantized.loss.unwrap() - loss).abs() < 1e-4);
        assert_eq!(report.float.fidelity.sqnr_db, None);
        // Every third layer, each with whole models.
        for layer in report.layers.iter().step_by(3) {
            let index =
                model.graph.nodes.iter().position(|node| node.label() == layer.node).unwrap();
            for (outcome, selection) in
                [(layer.alone, all.only(index)), (layer.without, all.without(index))]
            {
                let outcome = outcome.unwrap();
                let (figures, loss) = naive(&model, &quantized(&selection), &dataset);
                let same = near(outcome.fidelity.sqnr_db, figures.sqnr_db)
                    && (outcome.fidelity.cosine - figures.cosine).abs() < 1e-6
                    && (outcome.loss.unwrap() - loss).abs() < 1e-4;
                assert!(
                    same,
                    "{target:?}, {}: {outcome:?}, whole models: {figures:?}, {loss}",
                    layer.node
                );
            }
        }
        let alone = |layer: &qpipe_worker::analysis::Layer| {
            layer.alone.unwrap().fidelity.sqnr_db.unwrap_or(f64::INFINITY)
        };
        assert!(report.layers.iter().map(alone).is_sorted(), "the most sensitive first");
        // The last value along the graph is the output.
        let last = report.accumulation.last().unwrap();
        assert!(near(last.fidelity.sqnr_db, report.quantized.fidelity.sqnr_db), "{last:?}");
        let (table, picture) = (markdown(&report), svg(&report));
        for layer in &report.layers {
            assert!(
                table.contains(&format!("| {} |", layer.node)) && picture.contains(&layer.node)
            );
        }
        let path = folder.path().join("sensitivity.json");
        std::fs::write(&path, serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        std::fs::write(&path, "{}").unwrap();
        assert!(Report::read(&path).unwrap_err().message.contains("not a file of sensitivities"));
    }
}

/// A layer whose weights differ much in size within a channel is the worst; without it the rest is good.
#[test]
fn the_layer_that_quantization_breaks_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 32);
    let mut model = fixture("tiny_resnet_torchscript.onnx");
    prepare(&mut model).unwrap();
    let convolutions: Vec<usize> = (0..model.graph.nodes.len())
        .filter(|&index| model.graph.nodes[index].op_type == "Conv")
        .collect();
    let broken = convolutions[convolutions.len() / 2];
    let weight = model.graph.nodes[broken].inputs[1].clone();
    let data = &model.graph.initializers[&weight];
    let mut values = data.to_f32().unwrap();
    let row = values.len() / data.shape[0] as usize;
    // One weight a channel is so large that the others vanish below half a step; what it reads is a corner, mostly padding.
    values.iter_mut().step_by(row).for_each(|value| *value = 3.0);
    let shape = data.shape.clone();
    let data = qpipe_worker::graph::TensorData::f32(&shape, &values);
    model.graph.initializers.insert(weight, data);
    let ranges = ranges(&model, &dataset);
    let only = [Measure::Alone];
    let mut options = options(Target::Tensorrt, &only);
    options.samples = 64;
    let report = measure(&model, &ranges, &dataset, &options, &|_, _| ()).unwrap();
    let name = model.graph.nodes[broken].label();
    let place = report.layers.iter().position(|layer| layer.node == name).unwrap();
    assert!(
        place == 0 && report.layers.iter().all(|layer| layer.without.is_none()),
        "{name} is number {place}: {report:?}"
    );
    let none = ["op:NoSuchOp".to_owned()];
    options.request.exclude = &none;
    assert!(measure(&model, &ranges, &dataset, &options, &|_, _| ()).is_err());
}
