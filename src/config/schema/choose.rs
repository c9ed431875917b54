//! Which variant of an untagged enum the user evidently meant.

use super::check::{Path, check_node};
use super::shape::{Schema, Shape};
use crate::config::tree::{Node, Value};

/// The variant whose type fits and that shares most keys with the value; among equals the one with
/// the fewest mistakes. `None`: no variant is of the value's type.
pub(super) fn choose<'s>(schemas: &'s [Schema], node: &Node) -> Option<&'s Schema> {
    let fitting = || schemas.iter().filter(|schema| fits(&schema.shape, node));
    let (first, second) = (fitting().next(), fitting().nth(1));
    if second.is_none() {
        return first;
    }
    fitting().min_by_key(|schema| {
        let mut mistakes = Vec::new();
        check_node(schema, node, Path::Root(""), &mut mistakes);
        (std::cmp::Reverse(shared_keys(&schema.shape, node)), mistakes.len())
    })
}

/// Whether the value is of the right type, whatever it holds.
fn fits(shape: &Shape, node: &Node) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Text { .. } | Shape::Words(_) | Shape::Reference | Shape::Path => {
            matches!(node.value, Value::Text(_))
        }
        Shape::Integer(_) => matches!(node.value, Value::Integer(_)),
        Shape::Number(_) => matches!(node.value, Value::Integer(_) | Value::Float(_)),
        Shape::Boolean => matches!(node.value, Value::Boolean(_)),
        Shape::List { .. } => matches!(node.value, Value::List(_)),
        Shape::Table(_) | Shape::Tagged { .. } | Shape::Keyed(_) => node.table().is_some(),
        Shape::Either(schemas) => schemas.iter().any(|schema| fits(&schema.shape, node)),
    }
}

fn shared_keys(shape: &Shape, node: &Node) -> usize {
    let Some(table) = node.table() else { return 0 };
    match shape {
        Shape::Table(fields) => table.keys().filter(|key| fields.get(key).is_some()).count(),
        Shape::Tagged { tag, .. } => usize::from(table.get(tag).is_some()),
        Shape::Keyed(keys) => keys.iter().filter(|key| table.get(&key.name).is_some()).count(),
        _ => 0,
    }
}
