//! Attributes that became inputs.
//!
//! A file that names one opset and holds a node as another has it (a converter that changed the number alone) has its `axes` or lengths
//! where the definition does not look: left out, they would have a default, and the model would compute something else.

use crate::graph::Node;
use crate::{Error, Result};

/// An operator, the opset in which its attribute became an input, the attribute, the input's index.
/// <https://github.com/onnx/onnx/blob/main/docs/Changelog.md>
const MOVED: &[(&str, i64, &str, usize)] = &[
    ("Clip", 11, "min", 1),
    ("Clip", 11, "max", 2),
    ("Dropout", 12, "ratio", 1),
    ("Pad", 11, "pads", 1),
    ("Pad", 11, "value", 2),
    ("ReduceL1", 18, "axes", 1),
    ("ReduceL2", 18, "axes", 1),
    ("ReduceLogSum", 18, "axes", 1),
    ("ReduceLogSumExp", 18, "axes", 1),
    ("ReduceMax", 18, "axes", 1),
    ("ReduceMean", 18, "axes", 1),
    ("ReduceMin", 18, "axes", 1),
    ("ReduceProd", 18, "axes", 1),
    ("ReduceSum", 13, "axes", 1),
    ("ReduceSumSquare", 18, "axes", 1),
    ("Reshape", 5, "shape", 1),
    ("Slice", 10, "starts", 1),
    ("Slice", 10, "ends", 2),
    ("Slice", 10, "axes", 3),
    ("Split", 13, "split", 1),
    ("Squeeze", 13, "axes", 1),
    ("TopK", 10, "k", 1),
    ("Unsqueeze", 13, "axes", 1),
    ("Upsample", 9, "scales", 1),
];

/// Refuses a node of the standard's own domain that has an attribute which is an input in `opset`, or the other way round.
///
/// # Errors
/// Such a node, with the opset that it seems to be of.
pub fn check_moved(node: &Node, opset: i64) -> Result<()> {
    if !node.domain.is_empty() {
        return Ok(());
    }
    for &(_, since, name, index) in MOVED.iter().filter(|moved| moved.0 == node.op_type) {
        let op = &node.op_type;
        let misplaced = if opset >= since {
            node.attributes.contains_key(name).then(|| {
                format!("its `{name}` is an attribute, as {op} had it before opset {since}")
            })
        } else {
            // Opset 1 had lengths of Split in both places.
            let is_either = op == "Split" && opset == 1;
            (node.input(index).is_some() && !is_either)
                .then(|| format!("its `{name}` is an input, as {op} has it from opset {since} on"))
        };
        if let Some(what) = misplaced {
            return Err(Error::user(format!("{what}; the model imports opset {opset}")).help(
                "export the model anew, or convert it with onnx.version_converter: a changed number of the opset alone makes another model",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attribute;

    #[test]
    fn what_stands_where_another_opset_has_it_is_refused() {
        let axes = Attribute::Ints(vec![2, 3]);
        let mean = Node::new("m", "ReduceMean", &["x"], &["y"]).with("axes", axes.clone());
        assert!(check_moved(&mean, 17).is_ok());
        let error = check_moved(&mean, 18).unwrap_err();
        assert!(error.message.contains("before opset 18"), "{error}");
        let split = Node::new("s", "Split", &["x", "lengths"], &["a", "b"]);
        assert!(check_moved(&split, 13).is_ok());
        assert!(check_moved(&split, 1).is_ok());
        let error = check_moved(&split, 11).unwrap_err();
        assert!(error.message.contains("from opset 13 on"), "{error}");
        let own = Node { domain: "own".to_owned(), ..mean };
        assert!(check_moved(&own, 18).is_ok());
    }

    #[test]
    fn the_table_is_of_opsets_in_which_the_operators_changed() {
        for (name, since, ..) in MOVED {
            let op = crate::ops::all().find(|op| op.name == *name).expect(name);
            assert!(op.since.contains(since), "{name} {since}: {:?}", op.since);
        }
    }
}
