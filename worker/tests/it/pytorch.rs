//! Networks that PyTorch exported compute here what they compute there: logits, gradients, running statistics.

use std::path::{Path, PathBuf};

use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes, zoo};
use safetensors::SafeTensors;
use tch::{Kind, Reduction, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

struct Expected(Vec<u8>);

impl Expected {
    fn of(network: &str) -> Self {
        Self(std::fs::read(fixture(&format!("{network}_expected.safetensors"))).unwrap())
    }

    fn get(&self, name: &str) -> Tensor {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
        let kind = match view.dtype() {
            safetensors::Dtype::F32 => Kind::Float,
            safetensors::Dtype::I64 => Kind::Int64,
            other => panic!("{name}: {other:?}"),
        };
        Tensor::from_data_size(view.data(), &shape, kind)
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors
            .names()
            .iter()
            .filter_map(|n| n.strip_prefix(prefix))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }
}

/// Puts the state dict's running statistics back: exporting in training mode moves those of the file.
fn restore(model: &mut Model, network: &str) {
    let state = Expected(std::fs::read(fixture(&format!("{network}.safetensors"))).unwrap());
    for (name, data) in &mut model.graph.initializers {
        if name.contains("running_") {
            *data = qpipe_worker::torch::tensor_data(&state.get(name)).unwrap();
        }
    }
}

/// Largest difference, relative to the largest value expected.
fn worst(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let difference = (found - expected).abs().max().double_value(&[]);
    difference / expected.abs().max().double_value(&[]).max(1e-6)
}

fn logits(model: &Model, images: &Tensor) -> Tensor {
    let mut program = Program::compile(model, &Options::default()).unwrap();
    let images = [images.shallow_clone()];
    tch::no_grad(|| program.forward(&images, Mode::Eval, &mut |_, _| Ok(()))).unwrap().remove(0)
}

#[test]
fn both_exporters_files_give_pytorchs_logits_also_folded_and_rewritten() {
    for network in ["tiny_resnet", "tiny_mobilenet"] {
        let expected = Expected::of(network);
        let images = expected.get("images");
        for exporter in ["torchscript", "dynamo", "training"] {
            let mut model = onnx::read(&fixture(&format!("{network}_{exporter}.onnx"))).unwrap();
            passes::inference_form(&mut model).unwrap();
            restore(&mut model, network);
            let reference = expected.get("eval_logits");
            let check = |model: &Model, step: &str| {
                let error = worst(&logits(model, &images), &reference);
                assert!(error < 2e-5, "{network} of {exporter}, {step}: {error:.2e}");
            };
            check(&model, "as read");
            passes::fold_batch_norm(&mut model).unwrap();
            check(&model, "normalization folded");
            passes::simplify(&mut model).unwrap();
            check(&model, "simplified");
            let kinds: Vec<&str> =
                model.graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
            assert!(!kinds.contains(&"BatchNormalization"), "{network} of {exporter}");
            assert!(!kinds.contains(&"Identity"), "{network} of {exporter}");
        }
    }
}

#[test]
fn a_training_step_gives_pytorchs_loss_gradients_and_statistics() {
    for network in ["tiny_resnet", "tiny_mobilenet"] {
        let expected = Expected::of(network);
        let mut model = onnx::read(&fixture(&format!("{network}_training.onnx"))).unwrap();
        assert!(passes::inference_form(&mut model).unwrap() > 0);
        restore(&mut model, network);
        let mut program = Program::compile(&model, &Options::default()).unwrap();
        program.train(true);
        let images = [expected.get("images")];
        let made = program.forward(&images, Mode::Train, &mut |_, _| Ok(())).unwrap().remove(0);
        let error = worst(&made.detach(), &expected.get("train_logits"));
        assert!(error < 1e-4, "{network} logits: {error:.2e}");
        let loss = made.cross_entropy_loss::<Tensor>(
            &expected.get("labels"),
            None,
            Reduction::Mean,
            -100,
            0.0,
        );
        assert!((loss.double_value(&[]) - expected.get("loss").double_value(&[])).abs() < 1e-5);
        loss.backward();
        let names = expected.names("grad.");
        let largest =
            |name: &String| expected.get(&format!("grad.{name}")).abs().max().double_value(&[]);
        // Beside the largest of all: a shift before another normalization has no gradient but rounding.
        let scale = 1e-3 * names.iter().map(largest).fold(0.0, f64::max);
        assert_eq!(program.parameters().len(), names.len(), "{network}");
        for name in names {
            let parameter = program.parameters().iter().find(|p| p.name == name);
            let parameter = parameter.unwrap_or_else(|| panic!("{network} has no {name}"));
            let expected = expected.get(&format!("grad.{name}"));
            let difference = (parameter.tensor.grad() - &expected).abs().max().double_value(&[]);
            let error = difference / expected.abs().max().double_value(&[]).max(scale);
            assert!(error < 2e-3, "{network} {name}: {error:.2e}");
        }
        program.train(false);
        program.write_back(&mut model).unwrap();
        for name in expected.names("after.") {
            let data = &model.graph.initializers[&name];
            let found = Tensor::from_slice(&data.to_f32().unwrap());
            let error = worst(&found, &expected.get(&format!("after.{name}")));
            assert!(error < 1e-5, "{network} {name}: {error:.2e}");
        }
    }
}

#[test]
fn the_zoos_mobilenet_and_resnet_have_torchvisions_names() {
    let names = |arch: &str| {
        let config =
            serde_json::json!({ "arch": arch, "in_channels": 1, "classes": 3, "image_size": 32 });
        let model = zoo::build(&serde_json::from_value(config).unwrap(), None, 0).unwrap();
        model.graph.initializers.into_keys().collect::<std::collections::HashSet<_>>()
    };
    // The fixture has one block a layer: all its names are in the deeper network.
    let resnet = names("resnet18");
    for name in Expected::of("tiny_resnet").names("grad.") {
        assert!(resnet.contains(&name), "{name}");
    }
    // Another depth has other numbers, but the first layers and the head are the same.
    let mobilenet = names("mobilenetv2");
    let shared = ["features.0.", "features.1.", "features.2.", "classifier."];
    let names = Expected::of("tiny_mobilenet").names("grad.");
    let names = names.iter().filter(|name| shared.iter().any(|start| name.starts_with(start)));
    assert_eq!(names.map(|name| assert!(mobilenet.contains(name), "{name}")).count(), 20);
}
