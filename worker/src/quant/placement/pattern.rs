//! Patterns that name layers.
//!
//! | pattern | nodes |
//! | --- | --- |
//! | `layer1.0.conv1` | of that name |
//! | `layer1.*` | whose name the glob covers: `*` any text, `?` any character |
//! | `op:Conv` | of that operator, also a glob |
//! | `between:A:B` | on a way from node A to node B, both included |
//! | `output:NAME` | that compute an output of the graph, back to the nearest layers, these included |
//! | `output:GLOB:N` | the same back to the N-th layer, of all outputs that the glob covers |
//! | `first`, `last` | the layers before, and behind, which there is no other |

use super::{View, region};
use crate::graph::Graph;
use crate::{Error, Result};

/// The nodes that what stands behind a prefix names.
type Find = fn(&View, &str) -> Result<Vec<bool>>;

const FORMS: &[(&str, Find)] =
    &[("op:", operators), ("between:", region::between), ("output:", region::output)];

/// Which nodes of a graph a word names.
type Named = fn(&View) -> Vec<bool>;

const WORDS: &[(&str, Named)] = &[("first", region::first), ("last", region::last)];

/// For each node whether `pattern` names it. A node without a name goes by that of its first output; one that is
/// called like a word goes before the word.
///
/// # Errors
/// A pattern that names nothing, with the nearest name.
pub fn matches(graph: &Graph, pattern: &str) -> Result<Vec<bool>> {
    let view = View::of(graph);
    let form = FORMS.iter().find_map(|(prefix, find)| Some((find, pattern.strip_prefix(prefix)?)));
    if let Some((find, rest)) = form {
        return find(&view, rest);
    }
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.label()).collect();
    let found = covered(&names, pattern);
    if found.contains(&true) {
        return Ok(found);
    }
    if let Some((_, find)) = WORDS.iter().find(|(word, _)| *word == pattern) {
        let found = find(&view);
        if !found.contains(&true) {
            return Err(Error::user(format!("\"{pattern}\": the model has no layer"))
                .help("layers are Conv, ConvTranspose, Gemm and MatMul"));
        }
        return Ok(found);
    }
    Err(unknown("node", "", pattern, &names))
}

fn operators(view: &View, glob: &str) -> Result<Vec<bool>> {
    let names: Vec<&str> = view.graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
    let found = covered(&names, glob);
    if found.contains(&true) { Ok(found) } else { Err(unknown("operator", "op:", glob, &names)) }
}

/// For each name whether the glob covers it.
pub(super) fn covered(names: &[&str], glob: &str) -> Vec<bool> {
    names.iter().map(|name| covers(glob.as_bytes(), name.as_bytes())).collect()
}

/// That none of `names` is meant by `given`, with the nearest of them.
pub(super) fn unknown(what: &str, prefix: &str, given: &str, names: &[&str]) -> Error {
    let likeness = |name: &str| strsim::jaro_winkler(name, given);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let error = Error::user(format!("no {what} of the model matches \"{prefix}{given}\""));
    match nearest {
        Some(name) => error.help(format!(
            "did you mean \"{prefix}{name}\"? Names are those after BatchNormalization and constants are folded; `*` stands for any text"
        )),
        None => error,
    }
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
