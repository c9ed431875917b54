//! Engines of several runtimes of one file compute the same.

use std::path::{Path, PathBuf};

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe::stages::formats::Weights;
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::engine::{self, Build, Threads};
use qpipe_worker::graph::{Dim, Model};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::finalize;
use qpipe_worker::quant::formats::Formats;
use qpipe_worker::{Error, onnx, passes};

pub fn network() -> Model {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut model = onnx::read(&fixtures.join("tiny_resnet_torchscript.onnx")).unwrap();
    passes::inference_form(&mut model).unwrap();
    passes::fold_batch_norm(&mut model).unwrap();
    let shape = model.graph.inputs[0].shape.as_mut().unwrap();
    shape[0] = Dim::Named("batch".to_owned());
    model
}

fn build(
    model: &Model,
    folder: &Path,
    backend: Backend,
    precision: Option<Precision>,
) -> Result<PathBuf, Error> {
    Ok(built(model, folder, backend, precision)?.0)
}

/// The engine's folder, and the advice that its builder gives.
fn built(
    model: &Model,
    folder: &Path,
    backend: Backend,
    precision: Option<Precision>,
) -> Result<(PathBuf, Option<String>), Error> {
    let folder = folder.join(format!("{backend:?}{precision:?}"));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("exported.onnx");
    onnx::write_one_file(model, &path).unwrap();
    let request = Build {
        path: &path,
        model,
        folder: &folder,
        batch: 1,
        compute_capability: None,
        threads: 2,
        precision,
        saturate: false,
        tensorrt: Default::default(),
        tell: &|_| (),
    };
    let built = engine::build(backend, &request)?;
    std::fs::remove_file(&path).unwrap();
    Ok((folder, built.metrics.get("advice").map(ToString::to_string)))
}

/// Logits that an engine of the model gives for three images of noise; it is built in `folder`.
pub fn logits(
    model: &Model,
    folder: &Path,
    backend: Backend,
    precision: Option<Precision>,
) -> Vec<f32> {
    let folder = build(model, folder, backend, precision).unwrap();
    let (note, mut engine) = engine::load(&folder, &Threads::Free(2)).unwrap();
    let images = qpipe_worker::bench::noise(3 * note.input.iter().product::<usize>());
    let logits = engine.run(&images, 3).unwrap().remove(0);
    assert_eq!(logits.len(), 3 * note.classes);
    logits
}

#[test]
fn libtorchs_engine_gives_onnxruntimes_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = network();
    let logits = |backend, precision| logits(&model, folder.path(), backend, precision);
    let expected = logits(Backend::Onnxruntime, None);
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.01, "{expected:?}");
    for precision in [None, Some(Precision::Tf32)] {
        for (found, expected) in logits(Backend::Torch, precision).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4 * largest, "{found} and {expected}");
        }
    }
}

/// Where there is a GPU, it is built.
#[test]
fn float16_is_for_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&network(), folder.path(), Backend::Torch, Some(Precision::Fp16));
    if tch::Cuda::is_available() {
        built.unwrap();
    } else {
        let error = built.unwrap_err();
        assert!(error.message.contains("on the CPU"), "{error}");
        assert_eq!(error.key, Some("precision"));
    }
}

/// Signal to noise of a model that was cast to float16 against itself, dB: by our interpreter, and by ONNX Runtime.
fn noise_of_half(model: &Model, folder: &Path) -> [f64; 2] {
    let mut half = model.clone();
    assert!(passes::to_half(&mut half).unwrap() > 5);
    let shape = half.graph.inputs[0].shape.clone().unwrap();
    let extents = shape[1..].iter().map(|dim| match dim {
        Dim::Fixed(extent) => *extent,
        other => panic!("{other:?}"),
    });
    let shape: Vec<i64> = std::iter::once(3).chain(extents).collect();
    let images = qpipe_worker::bench::noise(shape.iter().product::<i64>() as usize);
    let images = tch::Tensor::from_slice(&images).view(&shape[..]);
    let run = |model: &Model| {
        let mut program = Program::compile(model, &Options::default()).unwrap();
        let images = [images.shallow_clone()];
        tch::no_grad(|| program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))).unwrap().remove(0)
    };
    let expected = run(model);
    let engine = build(&half, folder, Backend::Onnxruntime, None).unwrap();
    let (note, mut engine) = engine::load(&engine, &Threads::Free(2)).unwrap();
    let pixels = Vec::<f32>::try_from(images.view([-1])).unwrap();
    let logits = tch::Tensor::from_slice(&engine.run(&pixels, 3).unwrap()[0]);
    [run(&half), logits.view([3, note.classes as i64])].map(|found| {
        let noise = (&found - &expected).square().sum(tch::Kind::Double).double_value(&[]);
        10.0 * (expected.square().sum(tch::Kind::Double).double_value(&[]) / noise).log10()
    })
}

#[test]
fn casting_to_float16_costs_rounding_alone() {
    let folder = tempfile::tempdir().unwrap();
    let float = noise_of_half(&network(), folder.path());
    assert!(float.iter().all(|&sqnr| sqnr > 45.0), "{float:?} dB");
    let folder = tempfile::tempdir().unwrap();
    let dataset = crate::quant::dataset(folder.path(), 28);
    let mut model = crate::verify::quantized(&dataset, Target::Tensorrt);
    passes::raise_opset(&mut model, 19).unwrap();
    finalize::store_weights(&mut model).unwrap();
    model.graph.outputs[0].shape = Some(vec![Dim::Named("batch".to_owned()), Dim::Fixed(10)]);
    // Values beside a step of an activation's grid fall to its other side.
    let pairs = noise_of_half(&model, folder.path());
    assert!(pairs.iter().all(|&sqnr| sqnr > 30.0), "{pairs:?} dB");
    println!("float {float:?} dB, with pairs {pairs:?} dB");
}

/// Without VNNI, kernels of uint8 and int8 add in 16 bits: weights of 8 bits become uint8 there, for slower kernels; those of a reduced range need not.
#[test]
fn weights_of_a_reduced_range_keep_the_fast_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = crate::quant::dataset(folder.path(), 28);
    for reduce_range in [false, true] {
        let weights = Weights { reduce_range, ..Weights::default() };
        let formats = Formats::of(Some(weights), None, true);
        let simulated = crate::verify::quantized_in(&dataset, Target::Onnxruntime, formats);
        let mut model = simulated.clone();
        finalize::finalize(&mut model, None).unwrap();
        model.graph.outputs[0].shape = Some(vec![Dim::Named("batch".to_owned()), Dim::Fixed(10)]);
        let own = folder.path().join(format!("{reduce_range}"));
        std::fs::create_dir(&own).unwrap();
        let (path, advice) = built(&model, &own, Backend::Onnxruntime, None).unwrap();
        let slower = engine::saturates() && !reduce_range;
        assert_eq!(advice.is_some_and(|advice| advice.contains("reduce_range = true")), slower);

        let optimized = onnx::read(&path.join("model.onnx")).unwrap().graph;
        let kernels = optimized.nodes.iter().filter(|node| node.op_type == "QLinearConv");
        let types: Vec<&str> =
            kernels.map(|node| optimized.initializers[&node.inputs[3]].dtype.name()).collect();
        let expected = if slower { "uint8" } else { "int8" };
        assert!(types.len() > 4 && types.iter().all(|name| *name == expected), "{types:?}");

        let (note, mut engine) = engine::load(&path, &Threads::Free(2)).unwrap();
        assert!(!engine::may_saturate(&path, &note).unwrap());
        // All that a network reads is as large as it gets, where sums are at their largest.
        let images = vec![3.0_f32; note.input.iter().product()];
        let logits = engine.run(&images, 1).unwrap().remove(0);
        let input = tch::Tensor::from_slice(&images).view([1, 1, 28, 28]);
        let mut program = Program::compile(&simulated, &Options::default()).unwrap();
        let expected = program.forward(&[input], Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0);
        let off = (tch::Tensor::from_slice(&logits) - expected.view([-1])).abs().max();
        let largest = expected.abs().max().double_value(&[]);
        assert!(off.double_value(&[]) < 0.05 * largest, "{reduce_range}: {off:?} of {largest}");
    }
}
