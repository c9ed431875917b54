//! The file as a tree in which every key and value knows its place.

/// A place in one of the source texts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Index among the sources: 0 is the file; files that it extends and overrides follow.
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    /// Where it stands, or where the `${…}` stands that it was put in for.
    pub place: Place,
    /// Where it was defined, if it came through a `${…}`.
    pub from: Option<Place>,
    /// The source that it was written in, or begins with a value of: a path is relative to that
    /// source's folder.
    pub home: usize,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Not known because of a mistake that is already reported; fits everywhere.
    Broken,
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Date(String),
    List(Vec<Node>),
    Table(Table),
}

/// A table, entries in file order.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    pub node: Node,
}

impl Table {
    /// The entry of that key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The keys, in file order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }
}

impl Node {
    /// A value at its own place.
    pub fn new(value: Value, place: Place) -> Self {
        Self { value, place, from: None, home: place.source }
    }

    /// The same value, put in at another place; where it came from is kept.
    pub fn moved_to(&self, place: Place) -> Self {
        let value = match &self.value {
            Value::List(nodes) => {
                Value::List(nodes.iter().map(|node| node.moved_to(place)).collect())
            }
            Value::Table(table) => {
                let entries = table.entries.iter().map(|entry| Entry {
                    key: entry.key.clone(),
                    place,
                    node: entry.node.moved_to(place),
                });
                Value::Table(Table { entries: entries.collect() })
            }
            other => other.clone(),
        };
        Self { value, place, from: Some(self.from.unwrap_or(self.place)), home: self.home }
    }

    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Whether a mistake was found anywhere in it.
    pub fn is_broken(&self) -> bool {
        match &self.value {
            Value::Broken => true,
            Value::List(nodes) => nodes.iter().any(Self::is_broken),
            Value::Table(table) => table.entries.iter().any(|entry| entry.node.is_broken()),
            _ => false,
        }
    }

    /// The node at a path of keys and indices, or its nearest ancestor that exists.
    pub fn nearest(&self, path: &[String]) -> &Self {
        let Some((first, rest)) = path.split_first() else { return self };
        let next = match &self.value {
            Value::Table(table) => table.get(first).map(|entry| &entry.node),
            Value::List(nodes) => first.parse().ok().and_then(|index: usize| nodes.get(index)),
            _ => None,
        };
        next.map_or(self, |node| node.nearest(rest))
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Broken => "nothing",
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Date(_) => "a date",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The text of a scalar, as it is put into longer strings and cell names.
    pub fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) | Value::Date(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(format!("{number:?}")),
            Value::Boolean(truth) => Some(truth.to_string()),
            Value::Broken | Value::List(_) | Value::Table(_) => None,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Broken => serde_json::Value::Null,
            Value::Text(text) | Value::Date(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(truth) => (*truth).into(),
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Table(table) => {
                table.entries.iter().map(|e| (e.key.clone(), e.node.to_json())).collect()
            }
        }
    }

    /// As plain TOML, for serde.
    pub fn to_toml(&self) -> toml::Value {
        match &self.value {
            Value::Broken => toml::Value::String(String::new()),
            Value::Text(text) | Value::Date(text) => toml::Value::String(text.clone()),
            Value::Integer(number) => toml::Value::Integer(*number),
            Value::Float(number) => toml::Value::Float(*number),
            Value::Boolean(truth) => toml::Value::Boolean(*truth),
            Value::List(nodes) => toml::Value::Array(nodes.iter().map(Self::to_toml).collect()),
            Value::Table(table) => toml::Value::Table(
                table.entries.iter().map(|e| (e.key.clone(), e.node.to_toml())).collect(),
            ),
        }
    }
}
