//! The ONNX standard's own tests of single operators, as the `onnx` package ships them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use qpipe_worker::graph::{Attribute, DType, Model, Node};
use qpipe_worker::interp::{Mode, Options, Program};
use qpipe_worker::{onnx, ops, torch};
use tch::{Device, Tensor};

use crate::python::packages;
use crate::shapes::{self, Known};

/// Cases of operators in the table that are refused, by a part of their name or of the reason, and why; all others
/// must pass.
const REFUSED: &[(&str, &str)] = &[
    ("uint64", "libtorch cannot compute with it"),
    ("float8e8m0", "libtorch does not have it"),
    ("element type 8", "strings"),
    ("identity_opt", "optional values"),
    ("identity_sequence", "sequences"),
];

/// Cases of chance.
const RANDOM: [&str; 4] = [
    "test_training_dropout",
    "test_training_dropout_mask",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
];

enum Outcome {
    Passed(Known),
    Refused(String),
}

fn run(folder: &Path) -> Result<Outcome, String> {
    let model = match onnx::read(&folder.join("model.onnx")) {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::Refused(error.message)),
    };
    let watch = shapes::values(&model);
    let options = Options { watch: watch.clone(), ..Options::default() };
    let mut program = match Program::compile(&model, &options) {
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
    let mut made = HashMap::new();
    let mut observe = |index: usize, tensor: &Tensor| {
        made.insert(watch[index].clone(), shapes::made(tensor));
        Ok(())
    };
    let found = tch::no_grad(|| program.forward(&inputs, Mode::Eval, &mut observe));
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ok(Outcome::Refused(error.message)),
    };
    if found.len() < expected.len() {
        return Err(format!("{} outputs, expected {}", found.len(), expected.len()));
    }
    for (found, expected) in found.iter().zip(&expected) {
        if found.size() != expected.size() {
            return Err(format!("shape {:?}, expected {:?}", found.size(), expected.size()));
        }
        if found.kind() != expected.kind() {
            return Err(format!("{:?}, expected {:?}", found.kind(), expected.kind()));
        }
        let double = |t: &Tensor| t.to_kind(tch::Kind::Double);
        let half = matches!(torch::dtype_of(expected.kind()), Ok(DType::F16 | DType::BF16));
        let (relative, absolute) = if half { (1e-2, 1e-3) } else { (1e-3, 1e-7) };
        if !double(found).allclose(&double(expected), relative, absolute, true) {
            let worst = (double(found) - double(expected)).abs().max().double_value(&[]);
            return Err(format!("differs by {worst}"));
        }
    }
    Ok(Outcome::Passed(shapes::compare(&model, &inputs, &made)?))
}

/// Cases that pass and that are refused.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    refused: usize,
}

/// What a case is counted under, if it is ours: all of its nodes are operators of the table.
fn label(kind: &str, model: &Model) -> Option<String> {
    let known = |node: &&Node| {
        let here = node.op_type == "Constant" || ops::first_version(&node.op_type).is_some();
        here && node.domain.is_empty()
            && !node.attributes.values().any(|a| matches!(a, Attribute::Opaque(_)))
    };
    let nodes = &model.graph.nodes;
    if nodes.is_empty() || nodes.iter().filter(known).count() < nodes.len() {
        return None;
    }
    Some(match &nodes[..] {
        [node] if kind == "node" => node.op_type.clone(),
        // Functions of the standard, written out.
        _ if kind == "node" => "(several nodes)".to_owned(),
        _ => format!("({kind})"),
    })
}

fn print(counts: &BTreeMap<String, Count>, total: Count) {
    println!("{:24} passed refused", "operator");
    for (label, count) in counts {
        println!("{label:24} {:6} {:7}", count.passed, count.refused);
    }
    let share = 100.0 * total.passed as f64 / (total.passed + total.refused) as f64;
    println!("{:24} {:6} {:7}, {share:.1} % pass", "all", total.passed, total.refused);
}

#[test]
fn the_standards_own_cases_pass() {
    let root = packages().join("onnx/backend/test/data");
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::<String, Count>::new());
    let mut reasons_met = BTreeSet::new();
    let mut known = Known::default();
    for kind in ["node", "pytorch-converted", "pytorch-operator", "simple"] {
        let mut folders: Vec<_> = std::fs::read_dir(root.join(kind))
            .expect("onnx ships its tests")
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        for folder in folders {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let Ok(model) = onnx::read(&folder.join("model.onnx")) else { continue };
            let Some(label) = label(kind, &model) else { continue };
            // Which elements are dropped is chance.
            if RANDOM.contains(&name.as_str()) {
                continue;
            }
            // Values that wrap round at the end of int8, where the standard's text, and ONNX Runtime, saturate.
            if name.starts_with("test_qlinearmatmul") && name.contains("_int8") {
                continue;
            }
            let count = counts.entry(label).or_default();
            match run(&folder) {
                Ok(Outcome::Passed(some)) => {
                    count.passed += 1;
                    known += some;
                }
                Ok(Outcome::Refused(reason)) => {
                    count.refused += 1;
                    let fits = |row: &&(&str, _)| name.contains(row.0) || reason.contains(row.0);
                    match REFUSED.iter().find(fits) {
                        Some(row) => drop(reasons_met.insert(row.0)),
                        None => wrong.push(format!("{name} is refused: {reason}")),
                    }
                }
                Err(difference) => wrong.push(format!("{name}: {difference}")),
            }
        }
    }
    let total = counts.values().fold(Count::default(), |sum, count| Count {
        passed: sum.passed + count.passed,
        refused: sum.refused + count.refused,
    });
    print(&counts, total);
    println!("shapes said before the run: {known:?}");
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    // Of GlobalLpPool the standard has no case.
    let passes = |name: &&str| {
        *name == "GlobalLpPool" || counts.get(*name).is_some_and(|count| count.passed > 0)
    };
    let without: Vec<&str> = ops::all().map(|op| op.name).filter(|name| !passes(name)).collect();
    assert!(without.is_empty(), "no case passed for {without:?}");
    assert_eq!(reasons_met.len(), REFUSED.len(), "only {reasons_met:?} are met");
    assert!(total.passed > 1350, "{} cases passed", total.passed);
}
