//! Patterns that name layers: `layer1.0.conv1`, `layer1.*`, `op:Conv`.

use crate::graph::Graph;
use crate::{Error, Result};

/// For each node whether `pattern` names it. A node without a name goes by that of its first output.
///
/// # Errors
/// A pattern that names nothing, with the nearest name.
pub fn matches(graph: &Graph, pattern: &str) -> Result<Vec<bool>> {
    let (op, glob) = match pattern.strip_prefix("op:") {
        Some(op) => (true, op),
        None => (false, pattern),
    };
    let names: Vec<&str> = graph
        .nodes
        .iter()
        .map(|node| if op { node.op_type.as_str() } else { node.label() })
        .collect();
    let found: Vec<bool> =
        names.iter().map(|name| covers(glob.as_bytes(), name.as_bytes())).collect();
    if found.contains(&true) {
        return Ok(found);
    }
    let what = if op { "operator" } else { "node" };
    let likeness = |name: &str| strsim::jaro_winkler(name, glob);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let error = Error::user(format!("no {what} of the model matches \"{pattern}\""));
    Err(match nearest {
        Some(name) => error.help(format!(
            "did you mean \"{}{name}\"? Names are those after BatchNormalization is folded; `*` stands for any text",
            if op { "op:" } else { "" }
        )),
        None => error,
    })
}

/// Whether a glob covers the whole text: `*` any text, `?` any character.
fn covers(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            covers(rest, text) || (!text.is_empty() && covers(glob, &text[1..]))
        }
        (Some((b'?', glob)), Some((_, text))) => covers(glob, text),
        (Some((expected, glob)), Some((found, text))) => expected == found && covers(glob, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_cover_whole_names() {
        let covers = |glob: &str, text: &str| covers(glob.as_bytes(), text.as_bytes());
        assert!(covers("layer1.*", "layer1.0.conv1"));
        assert!(covers("*.conv?", "layer1.0.conv1"));
        assert!(covers("conv1", "conv1"));
        assert!(!covers("conv1", "layer1.0.conv1"));
        assert!(!covers("layer1.*", "layer10"));
        assert!(!covers("conv", "conv1"));
    }
}
