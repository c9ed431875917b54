//! What the schema alone knows of a table: its references and paths, and where strings are expected.

use super::choose::choose;
use super::shape::{Field, Fields, Schema, Shape};
use crate::config::tree::{Node, Table, Value};

/// A value that names something else.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum Link<'t> {
    Reference(&'t str, &'t Node),
    Path(&'t str, &'t Node),
}

/// All references and paths of a table, in file order: for tables with mistakes, from which no
/// configuration can be made.
pub(in crate::config) fn links<'t>(fields: &Fields, table: &'t Table) -> Vec<Link<'t>> {
    let mut links = Vec::new();
    in_table(fields, table, &mut links);
    links
}

fn in_table<'t>(fields: &Fields, table: &'t Table, links: &mut Vec<Link<'t>>) {
    for entry in &table.entries {
        let schema = fields.get(&entry.key).map(|field| &field.schema);
        if let Some(schema) = schema.or(fields.rest.as_deref()) {
            in_node(schema, &entry.node, links);
        }
    }
}

fn in_keyed<'t>(keys: &[Field], table: &'t Table, links: &mut Vec<Link<'t>>) {
    for entry in &table.entries {
        if let Some(key) = keys.iter().find(|key| key.name == entry.key) {
            in_node(&key.schema, &entry.node, links);
        }
    }
}

fn in_node<'t>(schema: &Schema, node: &'t Node, links: &mut Vec<Link<'t>>) {
    match (&schema.shape, &node.value) {
        (Shape::Reference, Value::Text(text)) => links.push(Link::Reference(text, node)),
        (Shape::Path, Value::Text(text)) => links.push(Link::Path(text, node)),
        (Shape::List { items, .. }, Value::List(nodes)) => {
            nodes.iter().for_each(|node| in_node(items, node, links));
        }
        (Shape::Table(fields), Value::Table(table)) => in_table(fields, table, links),
        (Shape::Keyed(keys), Value::Table(table)) => in_keyed(keys, table, links),
        (Shape::Either(schemas), _) => {
            if let Some(schema) = choose(schemas, node) {
                in_node(schema, node, links);
            }
        }
        _ => {}
    }
}

/// Writes out numbers and booleans that came through a `${…}` to where a string is expected, such
/// as an argument of a command.
pub(in crate::config) fn write_out(fields: &Fields, table: &mut Table) {
    for entry in &mut table.entries {
        let schema = fields.get(&entry.key).map(|field| &field.schema);
        if let Some(schema) = schema.or(fields.rest.as_deref()) {
            write_out_node(schema, &mut entry.node);
        }
    }
}

fn write_out_node(schema: &Schema, node: &mut Node) {
    if let Shape::Either(schemas) = &schema.shape {
        let text = || schemas.iter().find(|schema| matches!(schema.shape, Shape::Text { .. }));
        if let Some(schema) = choose(schemas, node).or_else(text) {
            write_out_node(schema, node);
        }
        return;
    }
    match (&schema.shape, &mut node.value) {
        (Shape::Text { .. }, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) => {
            if let Some(text) = node.from.and_then(|_| node.scalar()) {
                node.value = Value::Text(text);
            }
        }
        (Shape::List { items, .. }, Value::List(nodes)) => {
            nodes.iter_mut().for_each(|node| write_out_node(items, node));
        }
        (Shape::Table(fields), Value::Table(table)) => write_out(fields, table),
        _ => {}
    }
}
