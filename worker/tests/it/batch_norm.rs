//! BatchNormalization that stays during quantization-aware training.

use qpipe::stages::insert_qdq::Target;
use qpipe_worker::data::{Dataset, Loader, Order};
use qpipe_worker::graph::{Model, TensorData};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::finalize::finalize;
use qpipe_worker::quant::insert::insert;
use qpipe_worker::quant::placement::plan;
use qpipe_worker::quant::prepare::prepare_and_tell;
use qpipe_worker::train::{Classifier, Fit};
use qpipe_worker::{onnx, passes};

use crate::finetuning::{fit, trained};
use crate::quant::{dataset, ranges, request, small_resnet};

/// The largest difference of two models' logits, and the largest logit.
fn apart(one: &Model, other: &Model, dataset: &Dataset) -> (f64, f64) {
    let images = Loader::new(dataset, 32, Order::Sequential, false, 1).next().unwrap().unwrap();
    let logits = |model: &Model| {
        let images = [images.images.shallow_clone()];
        let mut program = Program::compile(model, &Options::default()).unwrap();
        tch::no_grad(|| program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))).unwrap().remove(0)
    };
    let (one, other) = (logits(one), logits(other));
    ((&one - &other).abs().max().double_value(&[]), one.abs().max().double_value(&[]))
}

/// BatchNormalization that stays behind quantized weights computes what the folded model computes, is trained, and folds into the scales
/// with the integers as they are, also where its factor is negative or 0.
#[test]
fn batch_normalization_is_kept_trained_and_folded_into_scales() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 28);
    let float = {
        let mut float = small_resnet();
        passes::simplify(&mut float).unwrap();
        // Statistics of some training, and factors of every kind.
        let norms = float.graph.nodes.iter().filter(|node| node.op_type == "BatchNormalization");
        let names: Vec<[String; 4]> =
            norms.map(|norm| [1, 2, 3, 4].map(|index| norm.inputs[index].clone())).collect();
        for (place, names) in names.iter().flatten().enumerate() {
            let data = float.graph.initializers.get_mut(names).unwrap();
            let values: Vec<f32> = (0..data.len())
                .map(|index| match (place % 4, index % 7) {
                    (0, 0) => -0.7,
                    (0, 1) => 0.0,
                    (0 | 3, step) => 0.5 + 0.1 * step as f32,
                    (_, step) => 0.03 * step as f32 - 0.1,
                })
                .collect();
            *data = TensorData::f32(&data.shape.clone(), &values);
        }
        float
    };
    let norms = |model: &Model| {
        model.graph.nodes.iter().filter(|node| node.op_type == "BatchNormalization").count()
    };
    for target in [Target::Tensorrt, Target::Onnxruntime] {
        let mut folded = float.clone();
        let told = prepare_and_tell(&mut folded).unwrap();
        let ranges = ranges(&folded, &dataset);
        let plan = plan(&folded.graph, &ranges, &request(target)).unwrap();
        insert(&mut folded, &plan).unwrap();
        let mut kept = folded.clone();
        passes::unfold_batch_norm(&mut kept, &told).unwrap();
        onnx::check(&kept).unwrap();
        assert_eq!((norms(&folded), norms(&kept)), (0, norms(&float)));
        let (apart_before, largest) = apart(&folded, &kept, &dataset);
        // Ties of rounding may fall the other way.
        assert!(apart_before < 0.02 * largest, "{apart_before} of {largest}");
        for frozen_statistics in [true, false] {
            let options = Options { frozen_statistics, ..Options::default() };
            let own = Classifier::with(kept.clone(), &dataset, &options).unwrap();
            let checkpoints = tempfile::tempdir().unwrap();
            let fit = Fit { epochs: 1, epoch_zero: false, ..fit(&dataset, checkpoints.path()) };
            let (_, trained) = trained(&fit, own, None);
            let variance = |model: &Model| {
                let norm = model.graph.nodes.iter().find(|n| n.op_type == "BatchNormalization");
                let norm = norm.unwrap();
                [1, 4].map(|index| model.graph.initializers[&norm.inputs[index]].bytes.to_vec())
            };
            let ([gamma, running], [gamma_before, running_before]) =
                (variance(&trained), variance(&kept));
            assert_ne!(gamma, gamma_before, "it is trained");
            assert_eq!(running == running_before, frozen_statistics);
            let mut exported = trained.clone();
            assert_eq!(passes::fold_batch_norm(&mut exported).unwrap(), norms(&kept));
            let (folded_apart, largest) = apart(&trained, &exported, &dataset);
            assert!(folded_apart < 0.02 * largest, "{folded_apart} of {largest}");
            finalize(&mut exported, Some(target)).unwrap();
            onnx::check(&exported).unwrap();
            let (exported_apart, _) = apart(&trained, &exported, &dataset);
            assert!(exported_apart < 0.02 * largest, "{exported_apart} of {largest}");
        }
    }
}
