//! A network's files beside what another runtime made of them: outputs, gradients, what is written back.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qpipe_worker::graph::Model;
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, passes};
use tch::{Kind, Reduction, Tensor};

use crate::shapes;

/// Largest difference of outputs, relative to the largest value.
const FORWARD: f64 = 1e-4;

/// Norm of the difference of a parameter's gradients, relative to that of PyTorch's.
const BACKWARD: f64 = 1e-4;

/// The arrays of a `.npz` file, by name.
pub fn arrays(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_npz(path).unwrap().into_iter().collect()
}

/// Largest difference, relative to the largest value expected.
fn worst(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (found - &expected).abs().max().double_value(&[]);
    difference / expected.abs().max().double_value(&[]).max(1e-12)
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.square().sum(Kind::Double).sqrt().double_value(&[])
}

/// Runs a program that writes `model.onnx` and `case.npz` into a folder, prints a line and waits for one, again and
/// again; `check` is given the folder and the line. The lines.
///
/// # Panics
/// If the program fails, or any check; with all that failed.
pub fn each_case(
    exporter: &mut Command,
    folder: &Path,
    mut check: impl FnMut(&Path, &str) -> Result<(), String>,
) -> Vec<String> {
    let mut exporter = exporter.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut next = exporter.stdin.take().unwrap();
    let (mut failed, mut lines) = (Vec::new(), Vec::new());
    for line in BufReader::new(exporter.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let checked = check(folder, &line);
        println!("{line}: {}", checked.as_ref().map_or_else(String::as_str, |()| "compared"));
        failed.extend(checked.err().map(|error| format!("{line}: {error}")));
        lines.push(line);
        next.write_all(b"\n").unwrap();
    }
    let ended = exporter.wait().unwrap();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), lines.len(), failed.join("\n"));
    assert!(ended.success(), "the exporter failed after {} files", lines.len());
    lines
}

/// Compares all outputs, and what is known of shapes beforehand; as read, and in the form in which models are quantized, which is given
/// back.
pub fn compare(folder: &Path) -> Result<Model, String> {
    let case = arrays(&folder.join("case.npz"));
    let mut model = onnx::read(&folder.join("model.onnx")).map_err(|error| error.to_string())?;
    for step in ["as read", "simplified"] {
        if step == "simplified" {
            passes::inference_form(&mut model).map_err(|error| error.message)?;
            passes::fold_batch_norm(&mut model).map_err(|error| error.message)?;
            passes::simplify(&mut model).map_err(|error| error.message)?;
        }
        // A value that is watched is not written over: once with watching, once as it is run.
        same_outputs(&model, &case, step == "as read")
            .map_err(|error| format!("{step}: {error}"))?;
    }
    Ok(model)
}

fn same_outputs(
    model: &Model,
    case: &HashMap<String, Tensor>,
    watched: bool,
) -> Result<(), String> {
    let watch = if watched { shapes::values(model) } else { Vec::new() };
    let options = Options { watch: watch.clone(), ..Options::default() };
    let mut program = Program::compile(model, &options).map_err(|error| error.to_string())?;
    let input = [case["input"].shallow_clone()];
    let mut values = HashMap::new();
    let mut observe = |index: usize, tensor: &Tensor| {
        values.insert(watch[index].clone(), shapes::made(tensor));
        Ok(())
    };
    let made = tch::no_grad(|| program.forward(&input, Mode::Eval, &mut observe))
        .map_err(|error| error.to_string())?;
    shapes::compare(model, &input, &values)?;
    for (index, found) in made.iter().enumerate() {
        let expected = &case[&format!("output_{index}")];
        if found.size() != expected.size() {
            let (found, expected) = (found.size(), expected.size());
            return Err(format!("output {index} is {found:?}, expected {expected:?}"));
        }
        let error = worst(found, expected);
        if error.is_nan() || error >= FORWARD {
            return Err(format!("output {index} differs by {error:.1e}"));
        }
    }
    Ok(())
}

/// Reads a file and writes it again, and reads that: nothing may differ. The folder is filled with what was read
/// (`before`) and written (`after`), under a name, for a comparison by Python's onnx.
pub fn write_back(folder: &Path, name: &str) -> Result<(), String> {
    let place = |part: &str| -> PathBuf {
        let place = folder.join(part);
        std::fs::create_dir_all(&place).unwrap();
        place.join(format!("{}.onnx", name.replace(' ', "_")))
    };
    let (before, after) = (place("before"), place("after"));
    std::fs::copy(folder.join("model.onnx"), &before).unwrap();
    let model = onnx::read(&before).map_err(|error| error.to_string())?;
    onnx::write(&model, &after).map_err(|error| error.to_string())?;
    let again = onnx::read(&after).map_err(|error| error.to_string())?;
    if again == model { Ok(()) } else { Err("another model is written than was read".to_owned()) }
}

/// The largest relative differences of gradients by which a case's `grad.NAME` were missed; `NAME: error`.
pub fn wrong_gradients(program: &Program, case: &HashMap<String, Tensor>) -> Vec<String> {
    let expected = || case.iter().filter_map(|(name, v)| Some((name.strip_prefix("grad.")?, v)));
    // Beside the largest of all: some, such as those of a bias before a normalization, are nothing but rounding.
    let scale = 1e-3 * expected().map(|(_, value)| norm(value)).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    for (name, value) in expected() {
        let Some(parameter) = program.parameters().iter().find(|p| p.name == name) else {
            wrong.push(format!("{name}: no parameter"));
            continue;
        };
        let error = norm(&(parameter.tensor.grad() - value)) / norm(value).max(scale);
        if error.is_nan() || error >= BACKWARD {
            wrong.push(format!("{name}: {error:.1e}"));
        }
    }
    wrong
}

/// Subtracts the parameters' gradients, times `rate`, and forgets them. Those that `trained` leaves out stay.
pub fn descend(program: &Program, rate: f64, trained: impl Fn(&str) -> bool) {
    let _no_grad = tch::no_grad_guard();
    for parameter in program.parameters() {
        let mut tensor = parameter.tensor.shallow_clone();
        if trained(&parameter.name) && tensor.grad().defined() {
            let _ = tensor.f_sub_(&(tensor.grad() * rate)).unwrap();
        }
        tensor.zero_grad();
    }
}

/// Mean squared difference of the first output from a target.
pub fn squared(program: &mut Program, images: &Tensor, target: &Tensor, mode: Mode) -> Tensor {
    let made = program.forward(&[images.shallow_clone()], mode, &mut |_, _| Ok(()));
    made.unwrap_or_else(|error| panic!("{error}")).remove(0).mse_loss(target, Reduction::Mean)
}

/// Trains a case's model for a few steps towards a target that is not its output. A step along the gradient takes
/// from the loss what the gradient says, so that no gradient of a parameter is missing or of another size.
///
/// # Errors
/// Parameters that no gradient reaches; the elements of weights, where the case says another number (`weights`); a loss
/// that does not follow its gradient.
pub fn train(folder: &Path) -> Result<(), String> {
    let case = arrays(&folder.join("case.npz"));
    let mut model = onnx::read(&folder.join("model.onnx")).map_err(|error| error.to_string())?;
    passes::inference_form(&mut model).map_err(|error| error.to_string())?;
    qpipe_worker::interp::check_trainable(&model).map_err(|error| error.to_string())?;
    let mut program =
        Program::compile(&model, &Options::default()).map_err(|error| error.to_string())?;
    if let Some(expected) = case.get("weights") {
        let of =
            |p: &&qpipe_worker::interp::Parameter| p.role == qpipe_worker::interp::Role::Weight;
        let found: usize = program.parameters().iter().filter(of).map(|p| p.tensor.numel()).sum();
        if found as i64 != expected.int64_value(&[]) {
            return Err(format!("{found} elements of weights, the network has {expected:?}"));
        }
    }
    program.train(true);
    let (images, made) = (&case["input"], &case["output_0"]);
    let target = made + made.std(false) * made.sin();
    let mut before = f64::NAN;
    for step in 0..4 {
        let loss = squared(&mut program, images, &target, Mode::Eval);
        let value = loss.double_value(&[]);
        if step > 0 && !(0.5..1.5).contains(&((before - value) / (0.02 * before))) {
            return Err(format!("step {step}: loss {before} became {value}, not 2 % less"));
        }
        before = value;
        loss.backward();
        let gradients = || program.parameters().iter().map(|p| (p, p.tensor.grad()));
        if let Some((parameter, _)) = gradients().find(|(_, gradient)| !gradient.defined()) {
            return Err(format!("no gradient reaches `{}`", parameter.name));
        }
        let square: f64 = gradients().map(|(_, gradient)| norm(&gradient).powi(2)).sum();
        descend(&program, 0.02 * value / square, |_| true);
    }
    Ok(())
}
