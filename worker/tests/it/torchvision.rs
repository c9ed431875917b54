//! Networks of torchvision as PyTorch's exporters write them, with random weights: outputs beside ONNX Runtime's,
//! gradients and steps of a training beside PyTorch's own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes};
use tch::{Kind, Reduction, Tensor};

use crate::python;
use crate::shapes::{self, Known};

/// Largest difference of outputs, relative to the largest value.
const FORWARD: f64 = 1e-4;

/// Norm of the difference of a parameter's gradients, relative to that of PyTorch's.
const BACKWARD: f64 = 1e-4;

fn arrays(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_npz(path).unwrap().into_iter().collect()
}

/// Largest difference, relative to the largest value expected.
fn worst(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (found - &expected).abs().max().double_value(&[]);
    difference / expected.abs().max().double_value(&[]).max(1e-12)
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.square().sum(Kind::Double).sqrt().double_value(&[])
}

/// Compares all outputs; as read, and in the form in which models are quantized.
fn compare(folder: &Path) -> Result<Known, String> {
    let case = arrays(&folder.join("case.npz"));
    let mut known = Known::default();
    let mut model = onnx::read(&folder.join("model.onnx")).map_err(|error| error.message)?;
    for step in ["as read", "simplified"] {
        if step == "simplified" {
            passes::inference_form(&mut model).map_err(|error| error.message)?;
            passes::fold_batch_norm(&mut model).map_err(|error| error.message)?;
            passes::simplify(&mut model).map_err(|error| error.message)?;
            // Exporters compute shapes. Of images of one size nothing is left to compute but sizes of Resize, which hold the batch.
            let count =
                |op: &str| model.graph.nodes.iter().filter(|node| node.op_type == op).count();
            if count("Shape") > count("Resize") {
                return Err(format!("{} nodes Shape are left", count("Shape")));
            }
        }
        let watch = shapes::values(&model);
        let program =
            Program::compile(&model, &Options { watch: watch.clone(), ..Options::default() });
        let mut program = program.map_err(|error| format!("{step}: {error}"))?;
        let input = [case["input"].shallow_clone()];
        let mut values = HashMap::new();
        let mut observe = |index: usize, tensor: &Tensor| {
            values.insert(watch[index].clone(), shapes::made(tensor));
            Ok(())
        };
        let made = tch::no_grad(|| program.forward(&input, Mode::Eval, &mut observe));
        let made = made.map_err(|error| format!("{step}: {error}"))?;
        known =
            shapes::compare(&model, &input, &values).map_err(|error| format!("{step}: {error}"))?;
        for (index, found) in made.iter().enumerate() {
            let error = worst(found, &case[&format!("output_{index}")]);
            if error.is_nan() || error >= FORWARD {
                return Err(format!("{step}: output {index} differs by {error:.1e}"));
            }
        }
    }
    Ok(known)
}

#[test]
fn both_exporters_files_of_every_family_give_onnxruntimes_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let only = std::env::var("QPIPE_TEST_NETWORKS").unwrap_or_default();
    let mut exporter = python::torch("export.py")
        .arg(folder.path())
        .args(only.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut next = exporter.stdin.take().unwrap();
    let (mut failed, mut count) = (Vec::new(), 0);
    for line in BufReader::new(exporter.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match compare(folder.path()) {
            Ok(known) => println!("{line}: compared, {known:?}"),
            Err(error) => failed.push(format!("{line}: {error}")),
        }
        count += 1;
        next.write_all(b"\n").unwrap();
    }
    assert!(exporter.wait().unwrap().success(), "the exporter failed after {count} files");
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), failed.join("\n"));
    assert!(!only.is_empty() || count == 52, "{count} files");
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
                let expected = case
                    .iter()
                    .filter_map(|(name, value)| Some((name.strip_prefix("grad.")?, value)));
                // Beside the largest of all: some, such as those of a bias before a normalization, are nothing but rounding.
                let scale = expected.clone().map(|(_, value)| norm(value));
                let scale = 1e-3 * scale.fold(0.0, f64::max);
                let mut bad = Vec::new();
                for (name, value) in expected.clone() {
                    let parameter = program.parameters().iter().find(|p| p.name == name);
                    let parameter = parameter.unwrap_or_else(|| panic!("{network} has no {name}"));
                    let difference = norm(&(parameter.tensor.grad() - value));
                    let error = difference / norm(value).max(scale);
                    if error.is_nan() || error >= BACKWARD {
                        bad.push(format!("{name}: {error:.1e}"));
                    }
                }
                assert!(bad.is_empty(), "{network}:\n{}", bad.join("\n"));
                assert_eq!(program.parameters().len(), expected.count(), "{network}");
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
