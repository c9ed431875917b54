//! Engines of several runtimes of one file compute the same.

use std::path::{Path, PathBuf};

use qpipe::stages::build_engine::{Backend, Precision};
use qpipe_worker::engine::{self, Build, Threads};
use qpipe_worker::graph::{Dim, Model};
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
        let logits = engine.run(&images, 3).unwrap();
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
