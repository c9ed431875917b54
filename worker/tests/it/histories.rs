//! Histories of operators against the standard's own, as the `onnx` package states them.

use std::collections::BTreeMap;

use qpipe_worker::ops;

use crate::python;

const VERSIONS: &str = "
import onnx.defs
print(onnx.defs.onnx_opset_version())
for schema in onnx.defs.get_all_schemas_with_history():
    if not schema.domain:
        print(schema.name, schema.since_version)
";

/// An operator whose list lacks a version would be executed as an older opset defines it, silently.
#[test]
fn histories_are_those_of_the_standard() {
    let printed = python::run(VERSIONS, &[]);
    let mut lines = printed.lines();
    let newest: i64 = lines.next().expect("the newest opset").parse().expect("a number");
    assert!(*ops::OPSETS.end() <= newest, "the package knows opsets up to {newest}");
    let mut standard = BTreeMap::<&str, Vec<i64>>::new();
    for line in lines {
        let (name, since) = line.split_once(' ').expect("name and version");
        standard.entry(name).or_default().push(since.parse().expect("a number"));
    }
    for op in ops::all() {
        let mut expected = standard.remove(op.name).unwrap_or_default();
        let last = op.until.unwrap_or(*ops::OPSETS.end());
        expected.retain(|&since| op.since[0] <= since && since <= last);
        expected.sort_unstable();
        assert_eq!(op.since, expected, "opsets in which {} changed", op.name);
    }
}
