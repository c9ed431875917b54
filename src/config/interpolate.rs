//! `${params.x}`, `${env.X}`, `${env.X:-default}`, `${matrix.v}` and `${secret.X}`.
//!
//! A string that is exactly one reference takes the value with its type; inside a longer string, and
//! where only a string fits, the value is written out. `$${` is a plain `${`.

use std::collections::{BTreeMap, HashMap};

use super::mistakes::{Mistake, Sources};
use super::secrets;
use super::suggest::{did_you_mean, list, nearest};
use super::tree::{Entry, Node, Place, Table, Value};

/// Puts values in for references, and remembers mistakes.
pub(super) struct Interpolator<'a> {
    sources: &'a Sources,
    env: &'a BTreeMap<String, String>,
    params: Vec<(String, Place, State)>,
    /// Positions of parameters by name.
    by_name: HashMap<String, usize>,
    /// The cell's variables; `None` outside of a stage with a matrix.
    pub matrix: Option<Vec<(String, Node)>>,
    /// Names of secrets, while values are read that may hold them.
    pub secrets: Option<Vec<String>>,
    pub mistakes: Vec<Mistake>,
    /// About how many bytes parameters have put in so far.
    put_in: usize,
}

/// More than this is put in by no honest file: parameters that name others twice, which name others
/// twice again, would fill any memory.
const PUT_IN: usize = 128 << 20;

enum State {
    Raw(Node),
    Active,
    Done(Node),
}

/// A piece of a string.
enum Part<'t> {
    Literal(&'t str),
    /// What stands between `${` and `}`.
    Reference(&'t str),
}

impl<'a> Interpolator<'a> {
    /// With the values of `[params]`, which may refer to each other.
    pub fn new(
        sources: &'a Sources,
        env: &'a BTreeMap<String, String>,
        params: Option<&Table>,
    ) -> Self {
        let entries = params.map(|table| table.entries.as_slice()).unwrap_or_default();
        let raw = |entry: &Entry| (entry.key.clone(), entry.place, State::Raw(entry.node.clone()));
        let params = entries.iter().map(raw).collect();
        let numbered = entries.iter().enumerate();
        let by_name = numbered.map(|(index, entry)| (entry.key.clone(), index)).collect();
        let mut interpolator = Self {
            sources,
            env,
            params,
            by_name,
            matrix: None,
            secrets: None,
            mistakes: Vec::new(),
            put_in: 0,
        };
        for index in 0..entries.len() {
            interpolator.param(index);
        }
        interpolator
    }

    /// The tree with all references replaced.
    pub fn node(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::Text(text) if text.contains("${") => return self.text(text, node),
            Value::List(nodes) => Value::List(nodes.iter().map(|node| self.node(node)).collect()),
            Value::Table(table) => Value::Table(self.table(table)),
            other => other.clone(),
        };
        Node { value, place: node.place, from: node.from, home: node.home }
    }

    /// The table with all references in its values replaced.
    pub fn table(&mut self, table: &Table) -> Table {
        let entry = |entry: &Entry| Entry {
            key: entry.key.clone(),
            place: entry.place,
            node: self.node(&entry.node),
        };
        Table { entries: table.entries.iter().map(entry).collect() }
    }

    fn text(&mut self, text: &str, node: &Node) -> Node {
        let broken = Node::new(Value::Broken, node.place);
        let Some(parts) = split(text) else {
            self.mistakes.push(
                Mistake::new("interpolation", node.place, "`${` is never closed", "`}` is missing")
                    .help("write ${params.NAME}, ${env.NAME} or ${matrix.NAME}; `$${` is a plain `${`"),
            );
            return broken;
        };
        if let [Part::Reference(name)] = parts[..]
            && secrets::of_reference(name).is_none()
        {
            return match self.resolve(name, self.find(node.place, name)) {
                Some(value) => value.moved_to(node.place),
                None => broken,
            };
        }
        let mut whole = String::new();
        let (mut from, mut home) = (node.from, node.home);
        for (index, part) in parts.into_iter().enumerate() {
            match part {
                Part::Literal(literal) => whole.push_str(literal),
                Part::Reference(name) => {
                    let place = self.find(node.place, name);
                    if let Some(secret) = secrets::of_reference(name) {
                        if !self.take_secret(secret, place) {
                            return broken;
                        }
                        whole.push_str(&secrets::placeholder(secret));
                        continue;
                    }
                    let Some(value) = self.resolve(name, place) else { return broken };
                    let Some(text) = value.scalar() else {
                        if !value.is_broken() {
                            let message = format!(
                                "`{name}` is {}, which has no place inside a longer string",
                                value.kind()
                            );
                            self.mistakes.push(
                                Mistake::new(
                                    "interpolation",
                                    place,
                                    message,
                                    "expected a string, a number or a boolean",
                                )
                                .also(Some(value.from.unwrap_or(value.place)), "defined here")
                                .help(format!(
                                    "write \"${{{name}}}\" alone to use the whole value"
                                )),
                            );
                        }
                        return broken;
                    };
                    whole.push_str(&text);
                    if index == 0 {
                        home = value.home;
                    }
                    from = from.or(Some(value.from.unwrap_or(value.place)));
                }
            }
        }
        let from = from.filter(|from| *from != node.place);
        Node { value: Value::Text(whole), place: node.place, from, home }
    }

    /// Where `${name}` stands within the string at `place`.
    fn find(&self, place: Place, name: &str) -> Place {
        let reference = format!("${{{name}}}");
        let offset = self.sources.text(place).find(&reference);
        offset.map_or(place, |offset| {
            let start = place.start + offset;
            Place { start, end: start + reference.len(), ..place }
        })
    }

    /// The value of a reference; `None` where a mistake was reported.
    fn resolve(&mut self, name: &str, place: Place) -> Option<Node> {
        let (space, rest) = name.trim().split_once('.').unwrap_or((name.trim(), ""));
        match space {
            "params" => self.resolve_param(rest, place),
            "env" => self.resolve_env(rest, place),
            "matrix" => self.resolve_matrix(rest, place),
            _ => {
                let message = format!("unknown reference `${{{name}}}`");
                let known = self.by_name.contains_key(name);
                let label = match nearest(space, ["params", "env", "matrix", "secret"]) {
                    _ if known => format!("did you mean `params.{name}`?"),
                    Some(near) => format!("did you mean `{near}.{rest}`?"),
                    None => "not known".to_owned(),
                };
                self.mistakes.push(Mistake::new("interpolation", place, message, label).help(
                    "write ${params.NAME}, ${env.NAME} or ${matrix.NAME}; `$${` is a plain `${`",
                ));
                None
            }
        }
    }

    fn resolve_param(&mut self, name: &str, place: Place) -> Option<Node> {
        let Some(index) = self.by_name.get(name).copied() else {
            let names = || self.params.iter().map(|(param, ..)| param.as_str());
            let label = did_you_mean(name, names(), "not defined");
            let help = match self.params.len() {
                0 => format!("add a table [params] with {name} = …"),
                _ => format!("[params] defines {}", list(names(), "and")),
            };
            let message = format!("unknown parameter `{name}`");
            self.mistakes.push(Mistake::new("unknown-param", place, message, label).help(help));
            return None;
        };
        if matches!(self.params[index].2, State::Active) {
            let message = format!("parameter `{name}` is defined by itself");
            self.mistakes.push(
                Mistake::new("param-cycle", place, message, format!("needs `{name}` again"))
                    .also(Some(self.params[index].1), "starts here"),
            );
            return None;
        }
        if self.put_in > PUT_IN {
            return None;
        }
        let node = self.param(index);
        self.put_in = self.put_in.saturating_add(weight(&node));
        if self.put_in > PUT_IN {
            let message = format!("parameters put in more than {} MiB", PUT_IN >> 20);
            let label = "too much from here on";
            self.mistakes.push(Mistake::new("interpolation", place, message, label).help(
                "values grow where parameters name others several times: write less of them",
            ));
            return None;
        }
        (!matches!(node.value, Value::Broken)).then_some(node)
    }

    fn param(&mut self, index: usize) -> Node {
        let node = match std::mem::replace(&mut self.params[index].2, State::Active) {
            State::Raw(node) => self.node(&node),
            State::Done(node) => node,
            State::Active => unreachable!("the caller has refused a cycle"),
        };
        self.params[index].2 = State::Done(node.clone());
        node
    }

    fn resolve_env(&mut self, rest: &str, place: Place) -> Option<Node> {
        let (name, default) = match rest.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (rest, None),
        };
        // As in a shell, the default also stands in for an empty variable.
        let value = self.env.get(name).filter(|value| default.is_none() || !value.is_empty());
        if let Some(text) = value.map(String::as_str).or(default) {
            return Some(Node::new(Value::Text(text.to_owned()), place));
        }
        let label = match nearest(name, self.env.keys().map(String::as_str)) {
            Some(near) if name.len() > 3 => format!("not set; did you mean `{near}`?"),
            _ => "not set".to_owned(),
        };
        self.mistakes.push(
            Mistake::new(
                "missing-env",
                place,
                format!("the environment variable `{name}` is not set"),
                label,
            )
            .help(format!(
                "set it ({name}=… qpipe …), or give a default: ${{env.{name}:-default}}"
            )),
        );
        None
    }

    /// Remembers a secret where it may stand; reports it elsewhere.
    fn take_secret(&mut self, name: &str, place: Place) -> bool {
        let (message, label) = match &mut self.secrets {
            Some(secrets) if secrets::is_name(name) => {
                if secrets.iter().all(|known| known != name) {
                    secrets.push(name.to_owned());
                }
                return true;
            }
            Some(_) => (format!("`{name}` cannot name an environment variable"), "expected a name"),
            None => {
                let message = format!("the secret `{name}` cannot be used here");
                (message, "only in `env` of a command stage")
            }
        };
        self.mistakes.push(Mistake::new("secret", place, message, label).help(
            "a command takes a secret as an environment variable: env = { TOKEN = \"${secret.TOKEN}\" }",
        ));
        false
    }

    fn resolve_matrix(&mut self, name: &str, place: Place) -> Option<Node> {
        let Some(matrix) = &self.matrix else {
            self.mistakes.push(
                Mistake::new(
                    "unknown-matrix",
                    place,
                    format!("there is no matrix here to take `{name}` from"),
                    "only in a stage with `matrix`",
                )
                .help(format!("add matrix = {{ {name} = [ … ] }} to the stage")),
            );
            return None;
        };
        if let Some((_, node)) = matrix.iter().find(|(variable, _)| variable == name) {
            return Some(node.clone());
        }
        let names = || matrix.iter().map(|(variable, _)| variable.as_str());
        let message = format!("unknown matrix variable `{name}`");
        let mistake = Mistake::new(
            "unknown-matrix",
            place,
            message,
            did_you_mean(name, names(), "not in this stage's matrix"),
        )
        .help(format!("the matrix has {}", list(names(), "and")));
        self.mistakes.push(mistake);
        None
    }
}

/// About how many bytes a value takes.
fn weight(node: &Node) -> usize {
    let inner = match &node.value {
        Value::Text(text) | Value::Date(text) => text.len(),
        Value::List(nodes) => nodes.iter().map(weight).sum(),
        Value::Table(table) => {
            table.entries.iter().map(|entry| entry.key.len() + weight(&entry.node)).sum()
        }
        _ => 0,
    };
    size_of::<Node>() + inner
}

/// The pieces of a string; `None` if a `${` is not closed.
fn split(text: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${`: all but the first `$`.
            parts.push(Part::Literal(&rest[..at - 1]));
            parts.push(Part::Literal("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            parts.push(Part::Literal(&rest[..at]));
        }
        let length = rest[at..].find('}')?;
        parts.push(Part::Reference(&rest[at + 2..at + length]));
        rest = &rest[at + length + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Some(parts)
}
