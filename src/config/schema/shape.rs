//! The part of JSON Schema that our contracts use, in the form that checks need.

use serde_json::Value as Json;

/// A schema with its documentation.
#[derive(Clone, Debug)]
pub(in crate::config) struct Schema {
    /// Name of its Rust type, where it has one.
    pub name: Option<String>,
    /// The doc comment of the field, or of its type.
    pub doc: String,
    /// What holds where the key is not given.
    pub default: Option<Json>,
    pub shape: Shape,
}

/// What a value may be.
#[derive(Clone, Debug)]
pub(in crate::config) enum Shape {
    Any,
    Text {
        min_length: usize,
    },
    /// A reference to an output or a data set.
    Reference,
    /// A path of the user's.
    Path,
    /// One of these words.
    Words(Vec<Word>),
    Integer(Range),
    Number(Range),
    Boolean,
    List {
        items: Box<Schema>,
        min: usize,
        max: usize,
    },
    Table(Fields),
    /// A table whose key `tag` chooses the other keys.
    Tagged {
        tag: String,
        variants: Vec<Variant>,
    },
    /// A table with exactly one of these keys.
    Keyed(Vec<Field>),
    /// Any of these.
    Either(Vec<Schema>),
}

/// A word that a value may be.
#[derive(Clone, Debug)]
pub(in crate::config) struct Word {
    pub word: String,
    /// Its meaning.
    #[cfg_attr(not(test), expect(dead_code, reason = "the generated reference shows it"))]
    pub doc: String,
}

/// A table's keys.
#[derive(Clone, Debug)]
pub(in crate::config) struct Fields {
    pub known: Vec<Field>,
    /// What other keys may hold; `None`: there are no others.
    pub rest: Option<Box<Schema>>,
}

/// A key.
#[derive(Clone, Debug)]
pub(in crate::config) struct Field {
    pub name: String,
    pub required: bool,
    pub schema: Schema,
}

/// A table that a tag chooses.
#[derive(Clone, Debug)]
pub(in crate::config) struct Variant {
    /// The tag's word.
    pub word: String,
    /// Its meaning.
    #[cfg_attr(not(test), expect(dead_code, reason = "the generated reference shows it"))]
    pub doc: String,
    /// The other keys.
    pub fields: Fields,
}

/// Bounds of a number.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::config) struct Range {
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// The number must be greater than this.
    pub above: Option<f64>,
}

impl Schema {
    /// Without a name, documentation and default.
    pub fn of(shape: Shape) -> Self {
        Self { name: None, doc: String::new(), default: None, shape }
    }
}

impl Fields {
    /// The key of that name.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.known.iter().find(|field| field.name == name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|field| field.name.as_str())
    }
}

impl Range {
    /// Whether a number is within the bounds.
    pub fn contains(self, number: f64) -> bool {
        self.min.is_none_or(|min| number >= min)
            && self.max.is_none_or(|max| number <= max)
            && self.above.is_none_or(|above| number > above)
    }
}
