//! A model that is read and written says the same: to Python's `onnx`, message for message.

use std::path::{Path, PathBuf};

use qpipe_worker::onnx;

use crate::python;

/// Compares pairs of model files (a folder each). What may differ: typed elements are written as raw ones, initializers
/// that are not understood come behind the others, and a domain may be empty or left out.
const COMPARE: &str = r#"
import sys, pathlib, onnx
from onnx import external_data_helper, numpy_helper
RAW = {1,2,3,4,5,6,7,9,10,11,12,13,16,17,18,19,20,21,22,23,24,25,26}
def tensor(t):
    if not t.HasField("raw_data") and t.data_type in RAW:
        raw = numpy_helper.from_array(numpy_helper.to_array(t)).raw_data
        for f in ("float_data","int32_data","int64_data","double_data","uint64_data"): t.ClearField(f)
        t.raw_data = raw
def normal(path):
    m = onnx.load(path)
    for t in external_data_helper._get_all_tensors(m):
        if t.data_location == 0: t.ClearField("data_location")
    for t in m.graph.initializer: tensor(t)
    ordered = sorted(m.graph.initializer, key=lambda t: t.name)
    del m.graph.initializer[:]
    m.graph.initializer.extend(ordered)
    for s in m.opset_import:
        if s.domain in ("", "ai.onnx"): s.ClearField("domain")
    for n in m.graph.node:
        if n.domain == "ai.onnx": n.ClearField("domain")
    for e in m.metadata_props:
        if not e.value: e.ClearField("value")
    return m
before, after = map(pathlib.Path, sys.argv[1:])
names = sorted(after.iterdir())
names = [n.name for n in names if n.suffix == ".onnx"]
wrong = [n for n in names if normal(before / n) != normal(after / n)]
print(len(names), *wrong)
"#;

/// Reads and writes the models, and compares; how many were compared.
fn compared(before: &Path, models: &[PathBuf]) -> usize {
    let after = tempfile::tempdir().unwrap();
    for path in models {
        let model = onnx::read(path).unwrap_or_else(|error| panic!("{error}"));
        onnx::write(&model, &after.path().join(path.file_name().unwrap())).unwrap();
    }
    same(before, after.path())
}

/// Compares the models of two folders; how many there are.
///
/// # Panics
/// If any differ.
pub fn same(before: &Path, after: &Path) -> usize {
    let said = python::run(COMPARE, &[before, after]);
    let (count, wrong) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
    assert!(wrong.is_empty(), "{wrong}");
    count.parse().unwrap()
}

#[test]
fn the_standards_own_models_come_back_the_same() {
    let root = python::packages().join("onnx/backend/test/data/node");
    let before = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for case in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap()) {
        let path = before.path().join(case.file_name()).with_extension("onnx");
        let name = case.file_name().into_string().unwrap();
        let path = path.with_file_name(format!("{name}.onnx"));
        std::fs::copy(case.path().join("model.onnx"), &path).unwrap();
        models.push(path);
    }
    assert_eq!(compared(before.path(), &models), models.len());
    assert!(models.len() > 1600, "{}", models.len());
}

/// Those of the fuzz corpus that are models: documentation everywhere, functions, sub-graphs, sparse tensors,
/// quantization annotations, IR version 3, unknown types and domains.
#[test]
fn what_is_rare_in_a_model_comes_back() {
    let corpus = python::project().join("fuzz/corpus/onnx");
    let before = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for name in [
        "documented",
        "function",
        "if",
        "loop",
        "sparse",
        "typed",
        "unknown_types",
        "ir3",
        "overridable",
        "sequence",
        "optional",
        "training",
        "qdq",
    ] {
        let path = before.path().join(format!("{name}.onnx"));
        std::fs::copy(corpus.join(name), &path).unwrap();
        models.push(path);
    }
    assert_eq!(compared(before.path(), &models), models.len());
}

/// Makes `model.onnx` with a weight, a weight of a sub-graph and a constant of a function in `weights/all`.
const EXTERNAL: &str = r#"
import sys, pathlib, numpy, onnx
from onnx import helper, numpy_helper
folder = pathlib.Path(sys.argv[1])
V, N = helper.make_tensor_value_info, helper.make_node
t = lambda name, start: numpy_helper.from_array(numpy.arange(start, start + 1000, dtype=numpy.float32), name)
sub = helper.make_graph([N("Add", ["x", "inner"], ["z"])], "then", [], [V("z", 1, [1000])], [t("inner", 1)])
f = helper.make_function("my", "F", ["a"], ["b"], [N("Constant", [], ["k"], value=t("k", 2)), N("Add", ["a", "k"], ["b"])], [helper.make_opsetid("", 17)])
g = helper.make_graph([N("Mul", ["x", "w"], ["m"]), N("If", ["c"], ["i"], then_branch=sub, else_branch=sub), N("F", ["m"], ["n"], domain="my"), N("Add", ["n", "i"], ["y"])],
    "g", [V("x", 1, [1000]), V("c", 9, [])], [V("y", 1, [1000])], [t("w", 3), numpy_helper.from_array(numpy.float32(1), "small")])
m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my", 1)], functions=[f])
m.ir_version = 8
(folder / "weights").mkdir()
onnx.save(m, folder / "model.onnx", save_as_external_data=True, location="weights/all", convert_attribute=True)
"#;

#[test]
fn external_data_comes_back_as_external_data() {
    let before = tempfile::tempdir().unwrap();
    python::run(EXTERNAL, &[before.path()]);
    assert_eq!(compared(before.path(), &[before.path().join("model.onnx")]), 1);

    let model = onnx::read(&before.path().join("model.onnx")).unwrap();
    assert!(model.external_data);
    let after = tempfile::tempdir().unwrap();
    let path = after.path().join("m.onnx");
    let files = || std::fs::read_dir(after.path()).unwrap().count();
    onnx::write(&model, &path).unwrap();
    assert_eq!(files(), 2, "the model, and its weights beside it");
    // Its own file is replaced while it is mapped; weights of before are removed, others' stay.
    let mut changed = onnx::read(&path).unwrap();
    std::fs::write(after.path().join("m.onnx.other.data"), b"of somebody else").unwrap();
    let weights = changed.graph.initializers["w"].bytes.to_vec();
    let data: bytes::Bytes = weights.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>().into();
    changed.graph.initializers["w"].bytes = data.clone();
    onnx::write(&changed, &path).unwrap();
    assert_eq!(files(), 3);
    assert_eq!(onnx::read(&path).unwrap().graph.initializers["w"].bytes, data);
    onnx::write_one_file(&changed, &path).unwrap();
    assert!(!onnx::read(&path).unwrap().external_data);
}
