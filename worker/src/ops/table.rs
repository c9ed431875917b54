//! The table of operators.

use std::ops::RangeInclusive;

use super::kernel::Op;
use super::standard;
use crate::Error;

/// Operators with a weight, their second input: layers whose inputs are what a network is made of.
pub const WEIGHTED: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// Operator sets whose models are executed: up to the newest that the histories of the operators know.
pub const OPSETS: RangeInclusive<i64> = 1..=25;

/// All operators of the standard's own domain that are executed, except `Constant`, which the
/// interpreter takes for an initializer.
pub fn all() -> impl Iterator<Item = &'static Op> {
    standard::ALL.iter().copied()
}

/// The operator, if it is executed as `opset` defines it.
pub fn find(op_type: &str, opset: i64) -> Option<&'static Op> {
    all().find(|op| op.name == op_type && op.is_in(opset))
}

/// The opset from which `op_type` is executed; `None` where it is not in the table.
pub fn first_version(op_type: &str) -> Option<i64> {
    all().find(|op| op.name == op_type).map(|op| op.since[0])
}

/// Why [`find`] has no operator.
pub fn not_found(op_type: &str, opset: i64) -> Error {
    Error::user(match all().find(|op| op.name == op_type) {
        None => "this operator cannot be executed".to_owned(),
        Some(op) => {
            let last = op.until.unwrap_or(*OPSETS.end());
            format!(
                "{op_type} is executed as opsets {} to {last} define it, not as opset {opset} does",
                op.since[0]
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted_and_versions_ascend() {
        // As `sort` sorts the lines.
        assert!(standard::FILES.is_sorted());
        for (index, op) in all().enumerate() {
            assert!(all().take(index).all(|other| other.name != op.name), "{}", op.name);
            assert!(op.since.is_sorted_by(|a, b| a < b), "{}", op.name);
            assert!(op.until.is_none_or(|until| op.since.iter().all(|&since| since <= until)));
        }
    }

    #[test]
    fn an_operator_is_found_only_in_its_opsets() {
        assert!(find("Gelu", 19).is_none());
        assert!(find("Gelu", 20).is_some());
        assert!(find("NoSuchOp", 20).is_none());
        assert!(not_found("Gelu", 19).message.contains("opsets 20 to 25"));
        assert!(not_found("NoSuchOp", 19).message.contains("cannot be executed"));
    }

    #[test]
    fn an_operator_that_ends_is_not_found_behind() {
        let op = Op::new("Ends", &[7, 9], |_| unreachable!()).until(9);
        assert!(op.is_in(7) && op.is_in(9) && !op.is_in(10) && !op.is_in(6));
    }
}
