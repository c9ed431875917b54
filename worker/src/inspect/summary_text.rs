//! A summary for people.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::abilities::{Ability, Refused};
use super::summary::{Summary, Value};

/// Most nodes that are named for one reason.
const NAMED: usize = 3;

impl Summary {
    /// As text, a line end behind each line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let opsets: Vec<String> =
            self.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
        let producer = if self.producer.is_empty() { "not named" } else { &self.producer };
        let _ = writeln!(text, "{}", self.file);
        line(&mut text, "producer", producer);
        line(
            &mut text,
            "format",
            &format!("IR {}; opsets: {}", self.ir_version, opsets.join(", ")),
        );
        for (key, value) in &self.metadata {
            line(&mut text, "metadata", &format!("{key} = {}", shortened(value)));
        }
        values(&mut text, "input", &self.inputs);
        values(&mut text, "output", &self.outputs);
        line(&mut text, "nodes", &self.nodes.to_string());
        for operator in &self.operators {
            let _ = writeln!(text, "    {:>6} × {}", operator.count, operator.operator);
        }
        let constants = &self.constants;
        let megabytes = constants.bytes as f64 / 1e6;
        line(
            &mut text,
            "constants",
            &format!(
                "{} tensors, {} elements, {megabytes:.1} MB; {} parameters",
                constants.tensors,
                thousands(constants.elements),
                thousands(constants.parameters)
            ),
        );
        line(&mut text, "computes", &self.cost.text());
        ability(&mut text, "executable", &self.abilities.executable, "nodes");
        ability(&mut text, "trainable", &self.abilities.trainable, "parameters");
        for (target, of) in &self.abilities.quantizable {
            ability(&mut text, &format!("quantizable for {target}"), of, "nodes");
        }
        text
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name}: {value}");
}

fn values(text: &mut String, name: &str, values: &[Value]) {
    for value in values {
        line(text, name, &format!("{} {}", value.name, value.kind()));
    }
}

fn ability(text: &mut String, name: &str, ability: &Ability, what: &str) {
    let answer = if ability.can { "yes" } else { "no" };
    let reason = ability.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    line(text, name, &format!("{answer}, {} of {} {what}{reason}", ability.count, ability.of));
    // Nodes of one operator and one reason in one line.
    let mut groups: IndexMap<(&str, i64, &str), Vec<&Refused>> = IndexMap::new();
    for refused in &ability.refused {
        let key = (refused.operator.as_str(), refused.opset, refused.reason.as_str());
        groups.entry(key).or_default().push(refused);
    }
    for ((operator, opset, reason), nodes) in groups {
        let named: Vec<String> =
            nodes.iter().take(NAMED).map(|refused| format!("\"{}\"", refused.node)).collect();
        let more = nodes.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let parameters: usize = nodes.iter().map(|refused| refused.parameters.len()).sum();
        let before = if parameters > 0 {
            format!(" (parameters before it: {parameters})")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "    {operator}, opset {opset}: {reason}{before}: {}{more}",
            named.join(", ")
        );
    }
}

/// `11,689,512`.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first line of a value, cut where it is long.
fn shortened(value: &str) -> String {
    let first = value.lines().next().unwrap_or_default();
    let short: String = first.chars().take(60).collect();
    if short.len() < value.len() { format!("{short}…") } else { short }
}
