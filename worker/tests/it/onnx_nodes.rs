//! The ONNX standard's own tests of single operators, as the `onnx` package ships them.

use std::collections::BTreeMap;
use std::path::Path;

use qpipe_worker::graph::{Attribute, DType};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, ops, torch};
use tch::{Device, Tensor};

use crate::python::packages;

/// Cases of operators in the table that are refused, and why; all others must pass.
const REFUSED: &[(&str, &str)] = &[
    ("uint16", "libtorch cannot compute with it"),
    ("uint32", "libtorch cannot compute with it"),
    ("uint64", "libtorch cannot compute with it"),
    ("identity_opt", "optional values"),
    ("identity_sequence", "sequences"),
    ("reduce_max_empty_set", "the maximum of nothing"),
    ("training", "training mode is the caller's choice"),
    ("dropout_default_mask", "the mask as an output"),
];

enum Outcome {
    Passed,
    Refused(String),
}

fn run(folder: &Path) -> Result<Outcome, String> {
    let model = match onnx::read(&folder.join("model.onnx")) {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::Refused(error.message)),
    };
    let mut program = match Program::compile(&model, &Options::default()) {
        Ok(program) => program,
        Err(error) => return Ok(Outcome::Refused(error.message)),
    };
    let data = folder.join("test_data_set_0");
    let load = |file: String| -> Option<Result<Tensor, String>> {
        let bytes = std::fs::read(data.join(file)).ok()?;
        let tensor =
            onnx::parse_tensor(bytes.into()).and_then(|(_, t)| torch::to_tensor(&t, Device::Cpu));
        Some(tensor.map_err(|error| error.message))
    };
    let all = |kind: &str| {
        (0..).map_while(|index| load(format!("{kind}_{index}.pb"))).collect::<Result<Vec<_>, _>>()
    };
    let (inputs, expected) = match (all("input"), all("output")) {
        (Ok(inputs), Ok(expected)) => (inputs, expected),
        (Err(error), _) | (_, Err(error)) => return Ok(Outcome::Refused(error)),
    };
    let found = tch::no_grad(|| program.forward(&inputs, Mode::Eval, &mut |_, _| Ok(())));
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ok(Outcome::Refused(error.message)),
    };
    for (found, expected) in found.iter().zip(&expected) {
        if found.size() != expected.size() {
            return Err(format!("shape {:?}, expected {:?}", found.size(), expected.size()));
        }
        let double = |t: &Tensor| t.to_kind(tch::Kind::Double);
        let half = matches!(torch::dtype_of(expected.kind()), Ok(DType::F16 | DType::BF16));
        let tolerance = if half { 2e-2 } else { 1e-4 };
        if !double(found).allclose(&double(expected), tolerance, tolerance, true) {
            let worst = (double(found) - double(expected)).abs().max().double_value(&[]);
            return Err(format!("differs by {worst}"));
        }
    }
    Ok(Outcome::Passed)
}

#[test]
fn the_standards_own_cases_pass() {
    let root = packages().join("onnx/backend/test/data/node");
    let mut folders: Vec<_> = std::fs::read_dir(&root)
        .expect("onnx 1.20.1 ships its node tests")
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    let (mut wrong, mut passed) = (Vec::new(), BTreeMap::<String, usize>::new());
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(model) = onnx::read(&folder.join("model.onnx")) else { continue };
        // Graphs of other operators, or of several nodes that define an operator, are not looked at.
        let [node] = &model.graph.nodes[..] else { continue };
        let ours = ops::find(&node.op_type, model.opset()).is_some() && node.domain.is_empty();
        if !ours || node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_))) {
            continue;
        }
        // Whether dropout drops is the caller's choice, and so is its mask.
        if name.contains("training_dropout") {
            continue;
        }
        match run(&folder) {
            Ok(Outcome::Passed) => *passed.entry(node.op_type.clone()).or_default() += 1,
            Ok(Outcome::Refused(reason)) => {
                if !REFUSED.iter().any(|row| name.contains(row.0) || reason.contains(row.0)) {
                    wrong.push(format!("{name} is refused: {reason}"));
                }
            }
            Err(difference) => wrong.push(format!("{name}: {difference}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    // Of this one the standard has no case.
    let without: Vec<&str> = ops::all()
        .map(|op| op.name)
        .filter(|&name| !passed.contains_key(name) && name != "GlobalLpPool")
        .collect();
    assert!(without.is_empty(), "no case passed for {without:?}");
    assert!(passed.values().sum::<usize>() > 200, "{passed:?}");
}
