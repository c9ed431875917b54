//! Networks of torchvision as PyTorch's exporters write them, with random weights: outputs beside ONNX Runtime's,
//! gradients and steps of a training beside PyTorch's own.

use std::process::Stdio;

use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program, take_apart};
use qpipe_worker::{onnx, passes};
use tch::{Reduction, Tensor};

use crate::parity::{arrays, compare, each_case, wrong_gradients};
use crate::python;

/// Exporters compute shapes. Of images of one size nothing is left to compute but sizes of Resize, which hold the batch.
fn no_shapes_are_computed(model: &Model) -> Result<(), String> {
    let count = |op: &str| model.graph.nodes.iter().filter(|node| node.op_type == op).count();
    let (shapes, resizes) = (count("Shape"), count("Resize"));
    if shapes > resizes { Err(format!("{shapes} nodes Shape are left")) } else { Ok(()) }
}

fn files_give_onnxruntimes_outputs(networks: &str, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("QPIPE_TEST_NETWORKS").ok();
    let mut exporter = python::torch("export.py");
    exporter.arg(folder.path()).args(only.as_deref().unwrap_or(networks).split_whitespace());
    let files = each_case(&mut exporter, folder.path(), |folder, _| {
        no_shapes_are_computed(&compare(folder)?)
    });
    assert!(only.is_some() || files.len() == count, "{} files", files.len());
}

/// In halves, beside each other: exporting takes minutes of one processor.
#[test]
fn both_exporters_files_of_every_family_give_onnxruntimes_outputs() {
    files_give_onnxruntimes_outputs("1/2", 26);
}

#[test]
fn both_exporters_files_of_every_other_family_give_onnxruntimes_outputs() {
    files_give_onnxruntimes_outputs("2/2", 26);
}

#[test]
fn gradients_and_ten_steps_of_five_families_are_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let made = python::torch("gradients.py").arg(folder.path()).stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    for network in ["resnet", "mobilenet_v3", "efficientnet", "convnext", "vit"] {
        let case = arrays(&folder.path().join(format!("{network}.npz")));
        let mut model = onnx::read(&folder.path().join(format!("{network}.onnx"))).unwrap();
        passes::inference_form(&mut model).unwrap();
        // PyTorch's own layout: another one adds up in another order.
        let options = Options { channels_last: false, ..Options::default() };
        let mut program = Program::compile(&model, &options).unwrap();
        program.train(true);
        let mut losses = Vec::new();
        for step in 0..10 {
            let images = [case["images"].shallow_clone()];
            let made = program.forward(&images, Mode::Train, &mut |_, _| Ok(())).unwrap().remove(0);
            let labels = &case["labels"];
            let loss = made.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
            losses.push(loss.double_value(&[]));
            loss.backward();
            if step == 0 {
                let wrong = wrong_gradients(&program, &case);
                assert!(wrong.is_empty(), "{network}:\n{}", wrong.join("\n"));
                let expected = case.keys().filter(|name| name.starts_with("grad.")).count();
                assert_eq!(program.parameters().len(), expected, "{network}");
            }
            let _no_grad = tch::no_grad_guard();
            for parameter in program.parameters() {
                let mut tensor = parameter.tensor.shallow_clone();
                let _ = tensor.f_sub_(&(tensor.grad() * 0.001)).unwrap();
                tensor.zero_grad();
            }
        }
        let expected = Vec::<f64>::try_from(&case["losses"]).unwrap();
        for (step, (found, expected)) in losses.iter().zip(&expected).enumerate() {
            // PyTorch with one thread or another layout differs from itself by half of that: normalization
            // over few pixels makes much of the last bit.
            let error = (found - expected).abs() / losses[0];
            assert!(error < 1e-3, "{network}, step {step}: loss {found}, PyTorch's {expected}");
        }
        println!("{network}: losses {losses:.4?}");
    }
}

/// Both exporters write one constant for all scales of a network that was not trained yet, and one for all shifts.
#[test]
fn a_network_that_was_not_trained_yet_is_trained_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    let made = python::torch("fresh.py").arg(folder.path()).stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    let case = arrays(&folder.path().join("fresh.npz"));
    for file in ["fresh_old.onnx", "fresh_new.onnx"] {
        let mut model = onnx::read(&folder.path().join(file)).unwrap();
        passes::inference_form(&mut model).unwrap();
        let apart = take_apart(&mut model);
        assert!(apart.made.len() >= 4 && apart.tied.is_empty(), "{file}: {apart:?}");
        let options = Options { channels_last: false, ..Options::default() };
        let mut program = Program::compile(&model, &options).unwrap();
        program.train(true);
        assert_eq!(program.parameters().len(), 18, "{file}");
        let images = [case["images"].shallow_clone()];
        let expected = Vec::<f64>::try_from(&case["losses"]).unwrap();
        for (step, expected) in expected.iter().enumerate() {
            let made = program.forward(&images, Mode::Train, &mut |_, _| Ok(())).unwrap().remove(0);
            let labels = &case["labels"];
            let loss = made.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
            let found = loss.double_value(&[]);
            assert!(
                (found - expected).abs() < 1e-4,
                "{file}, step {step}: {found}, PyTorch's {expected}"
            );
            loss.backward();
            let _no_grad = tch::no_grad_guard();
            for parameter in program.parameters() {
                let mut tensor = parameter.tensor.shallow_clone();
                let _ = tensor.f_sub_(&(tensor.grad() * 0.1)).unwrap();
                tensor.zero_grad();
            }
        }
        let _no_grad = tch::no_grad_guard();
        let found = program.forward(&images, Mode::Eval, &mut |_, _| Ok(())).unwrap().remove(0);
        let far = (found - &case["logits"]).abs().max().double_value(&[]);
        assert!(far < 1e-3, "{file}: logits differ by {far}");
    }
}
