//! The table of rules for the documentation.

use std::fmt::Write;

use super::POLICIES;

/// The generated part of `docs/placement.md`: every policy's rules, in the order in which they are asked.
pub fn rules() -> String {
    let mut text = String::new();
    let mut described: Vec<(&[&super::Rule], &str)> = Vec::new();
    // Constants have no address of their own: a rule is another's equal where it says the same.
    let same = |a: &super::Rule, b: &super::Rule| {
        (a.name, a.operators, a.about, a.reason) == (b.name, b.operators, b.about, b.reason)
    };
    for policy in POLICIES {
        let _ = writeln!(text, "### `{}`\n", policy.name);
        // One that has most rules of another has that one's, but for those that differ.
        let own = |rules: &[&super::Rule]| -> Vec<&super::Rule> {
            let others = |rule: &&super::Rule| rules.iter().all(|other| !same(rule, other));
            policy.rules.iter().copied().filter(others).collect()
        };
        let like = described.iter().find(|(rules, _)| {
            rules.len() == policy.rules.len() && 2 * own(rules).len() < rules.len()
        });
        let rules = match like {
            Some((rules, name)) => {
                let own = own(rules);
                let but = if own.is_empty() { "." } else { ", but for these:" };
                let _ = writeln!(text, "The rules of `{name}`{but}\n");
                own
            }
            None => policy.rules.to_vec(),
        };
        described.push((policy.rules, policy.name));
        for rule in rules {
            let operators: Vec<String> =
                rule.operators.iter().map(|operator| format!("`{operator}`")).collect();
            let _ = writeln!(
                text,
                "**`{}`** — {}. {}\n\n*Why:* {} *Source:* {}.\n",
                rule.name,
                operators.join(", "),
                rule.about,
                rule.reason,
                rule.source
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BEGIN: &str = "<!-- rules: generated -->\n\n";
    const END: &str = "<!-- end of rules -->\n";

    #[test]
    fn the_document_has_the_rules_as_they_are() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/placement.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let begin = text.find(BEGIN).expect("the mark before the rules") + BEGIN.len();
        let end = text.find(END).expect("the mark behind the rules");
        if std::env::var_os("QPIPE_BLESS").is_some_and(|value| value == "1") {
            let text = format!("{}{}{}", &text[..begin], rules(), &text[end..]);
            std::fs::write(&path, text).unwrap();
            return;
        }
        assert!(
            text[begin..end] == rules(),
            "docs/placement.md is not current: run QPIPE_BLESS=1 cargo test -p qpipe-worker --lib placement::document"
        );
    }

    #[test]
    fn rules_have_names_of_their_own_and_say_why() {
        for policy in POLICIES {
            let names: BTreeSet<&str> = policy.rules.iter().map(|rule| rule.name).collect();
            assert_eq!(names.len(), policy.rules.len(), "{}", policy.name);
            for rule in policy.rules {
                let texts = [rule.about, rule.reason, rule.source];
                assert!(texts.iter().all(|text| !text.is_empty()), "{}", rule.name);
                assert!(!rule.operators.is_empty(), "{}", rule.name);
            }
        }
    }
}
