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
        for quantized in &self.quantized {
            let (about, counts) = (quantized.form.about(), quantized.counts());
            line(&mut text, "quantized already", &format!("{about}: {counts}"));
        }
        let yes_or_no = |ability: &Ability| if ability.can { "yes" } else { "no" };
        for (name, ability, what) in [
            ("executable", &self.abilities.executable, "nodes"),
            ("trainable", &self.abilities.trainable, "parameters"),
        ] {
            tell(&mut text, name, yes_or_no(ability), ability, what);
        }
        for (target, ability) in &self.abilities.quantizable {
            // Layers that could be, but no ranges.
            let partly = !ability.can && ability.count > 0;
            let answer = if partly { "partly" } else { yes_or_no(ability) };
            tell(&mut text, &format!("quantizable for {target}"), answer, ability, "nodes");
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

fn tell(text: &mut String, name: &str, answer: &str, ability: &Ability, what: &str) {
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
