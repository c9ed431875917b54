//! The table of operators for the documentation.

use std::fmt::Write;

use super::{Gradient, OPSETS, all};

/// `docs/operators.md`: every operator, the definitions of it that are executed, what is refused.
pub fn document() -> String {
    let mut text = String::from(
        "# Operators\n\n\
         Generated from `worker/src/ops/standard`: `QPIPE_BLESS=1 cargo test -p qpipe-worker --lib document`.\n\n\
         What `qpipe` executes, trains and writes back of ONNX's own operators. A definition is named by the opset that brought it; it \
         holds until the next one. A node of another opset is refused with its name before anything runs. Pairs of TensorRT's own and of `com.microsoft` are read as the standard's. Operators of other domains, and those that are not here, are kept as they are when a model is read and written.\n\n",
    );
    let mut operators: Vec<_> = all().collect();
    operators.sort_by_key(|op| op.name);
    let _ = writeln!(
        text,
        "{} operators, opsets {} to {}.\n",
        operators.len(),
        OPSETS.start(),
        OPSETS.end()
    );
    text.push_str("| Operator | Definitions of opset | Gradient | Refused |\n|---|---|---|---|\n");
    for op in operators {
        let since: Vec<String> = op.since.iter().map(i64::to_string).collect();
        let until = op.until.map_or(String::new(), |until| format!(" (until {until})"));
        let gradient = match op.gradient {
            Gradient::Flows => "flows",
            Gradient::Stops => "none",
        };
        let (name, address, limits) = (op.name, op.address(), op.limits);
        let since = since.join(", ");
        let _ = writeln!(text, "| [{name}]({address}) | {since}{until} | {gradient} | {limits} |");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operators.md");
        let text = super::document();
        if std::env::var_os("QPIPE_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == text,
            "docs/operators.md is not current: run QPIPE_BLESS=1 cargo test -p qpipe-worker --lib document"
        );
    }
}
