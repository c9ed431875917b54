//! `matrix = { a = […], b = […] }`: a stage becomes a cell for each combination.

use super::mistakes::Mistake;
use super::tree::{Node, Place, Value};

/// More cells than this are a slip.
const LIMIT: usize = 10_000;

/// One combination of values.
#[derive(Clone, Debug, Default)]
pub(super) struct Combination {
    /// What stands between the brackets of the cell's id: `fp32,1`.
    pub text: String,
    /// The variables, in file order.
    pub variables: Vec<(String, Node)>,
}

/// All combinations, the last variable changing fastest; `None` where a mistake was found.
pub(super) fn expand(
    stage: &str,
    matrix: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Combination>> {
    const FORM: &str = "write matrix = { variant = [\"fp32\", \"qat\"], batch = [1, 32] }";
    let table = match &matrix.value {
        Value::Table(table) => table,
        Value::Broken => return None,
        _ => {
            let message = format!("the matrix of `{stage}` is {}", matrix.kind());
            mistakes.push(
                Mistake::new("matrix", matrix.place, message, "expected a table of arrays")
                    .also(matrix.from, "the value comes from here")
                    .help(FORM),
            );
            return None;
        }
    };
    if table.entries.is_empty() {
        let message = format!("the matrix of `{stage}` has no variables");
        mistakes.push(Mistake::new("empty-matrix", matrix.place, message, "empty").help(FORM));
        return None;
    }
    let mut combinations = vec![Combination::default()];
    let mut sound = true;
    for entry in &table.entries {
        sound &= super::stage::is_name("matrix variable", &entry.key, entry.place, mistakes);
        let Some(values) = values(stage, &entry.key, &entry.node, mistakes) else {
            sound = false;
            continue;
        };
        // One more than the limit is enough to know.
        combinations = combinations
            .iter()
            .flat_map(|before| values.iter().map(|value| before.and(&entry.key, value)))
            .take(LIMIT + 1)
            .collect();
    }
    if !sound {
        return None;
    }
    if combinations.len() > LIMIT {
        let message = format!("the matrix of `{stage}` has more than {LIMIT} cells");
        let help = "each combination of values is a stage of its own: use fewer variables";
        mistakes.push(Mistake::new("matrix", matrix.place, message, "too many").help(help));
        return None;
    }
    let mut ids: Vec<&str> = combinations.iter().map(|cell| cell.text.as_str()).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("two cells would be called `{stage}[{}]`", twice[0]);
        mistakes.push(
            Mistake::new("duplicate", matrix.place, message, "these values run together")
                .help("values that hold a comma can make two combinations look alike: rename one"),
        );
        return None;
    }
    Some(combinations)
}

impl Combination {
    fn and(&self, variable: &str, (text, node): &(String, Node)) -> Self {
        let mut next = self.clone();
        if !next.variables.is_empty() {
            next.text.push(',');
        }
        next.text.push_str(text);
        next.variables.push((variable.to_owned(), node.clone()));
        next
    }
}

/// The values of a variable and their texts.
fn values(
    stage: &str,
    variable: &str,
    node: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<(String, Node)>> {
    let mut report = |code, place: Place, from, message: String, label: &str, help: &str| {
        mistakes.push(
            Mistake::new(code, place, message, label)
                .also(from, "the value comes from here")
                .help(help),
        );
        None
    };
    let nodes = match &node.value {
        Value::List(nodes) => nodes,
        Value::Broken => return None,
        _ => {
            let message = format!("matrix variable `{variable}` of `{stage}` is {}", node.kind());
            let help = format!("write {variable} = [ … ]");
            return report("matrix", node.place, node.from, message, "expected an array", &help);
        }
    };
    if nodes.is_empty() {
        let message = format!("matrix variable `{variable}` of `{stage}` has no values");
        let help =
            "without a value the stage would not exist: give at least one, or remove the stage";
        return report("empty-matrix", node.place, node.from, message, "empty", help);
    }
    let mut values: Vec<(String, Node)> = Vec::new();
    for node in nodes {
        if node.is_broken() {
            return None;
        }
        let Some(text) = node.scalar() else {
            let message = format!("a value of matrix variable `{variable}` is {}", node.kind());
            let label = "expected a string, a number or a boolean";
            return report(
                "matrix",
                node.place,
                node.from,
                message,
                label,
                "a cell is named after its values: name variants, and look up what they stand for elsewhere",
            );
        };
        if text.is_empty() || !balanced(&text) {
            let message = format!("\"{text}\" cannot name a cell of `{stage}`");
            let help = "a value is not empty, and its brackets come in pairs";
            return report("matrix", node.place, node.from, message, "here", help);
        }
        if values.iter().any(|(other, _)| *other == text) {
            let message = format!("matrix variable `{variable}` of `{stage}` has `{text}` twice");
            return report(
                "duplicate",
                node.place,
                node.from,
                message,
                "again",
                "each value makes a cell of its own: remove one",
            );
        }
        values.push((text, node.clone()));
    }
    Some(values)
}

fn balanced(text: &str) -> bool {
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '[' => depth += 1,
            ']' if depth == 0 => return false,
            ']' => depth -= 1,
            _ => {}
        }
    }
    depth == 0
}
