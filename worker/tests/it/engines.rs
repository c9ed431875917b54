//! Engines of several runtimes of one file compute the same.

use std::path::{Path, PathBuf};

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe::stages::insert_qdq::Target;
use qpipe_worker::engine::{self, Build, Threads};
use qpipe_worker::graph::{Dim, Model};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::quant::finalize;
use qpipe_worker::{Error, onnx, passes};

fn network() -> Model {
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
    engine::build(backend, &request)?;
    std::fs::remove_file(&path).unwrap();
    Ok(folder)
}

#[test]
fn libtorchs_engine_gives_onnxruntimes_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = network();
    let logits = |backend, precision| {
        let folder = build(&model, folder.path(), backend, precision).unwrap();
        let (note, mut engine) = engine::load(&folder, &Threads::Free(2)).unwrap();
        let images = qpipe_worker::bench::noise(3 * note.input.iter().product::<usize>());
        let logits = engine.run(&images, 3).unwrap().remove(0);
        assert_eq!(logits.len(), 3 * note.classes);
        logits
    };
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
