//! Choosing stages by patterns, in the syntax that dbt's users know.
//!
//! | Pattern | Stages |
//! | --- | --- |
//! | `qat` | the stage, or all cells of that name |
//! | `onnx[fp32,1]` | one cell; in a sweep, that cell of all points |
//! | `onnx[fp32,1]@lr=0.1`, `@lr=0.1` | one cell of a sweep's point, all that belongs to the point |
//! | `ptq*`, `onnx[*,1]` | all whose name or cell fits: `*` is any text, `?` any character |
//! | `kind:benchmark` | all of that kind |
//! | `qat+` | it, and all that depends on it |
//! | `+qat` | the same as `qat`: what a stage needs always comes with it |
//!
//! `[` and `]` stand for themselves: cells are written with them.

use std::collections::BTreeSet;

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use wildmatch::WildMatch;

use super::Plan;
use crate::config::StageCell;

/// Names that a help lists at most.
const LISTED: usize = 20;

/// A selection that cannot be made: a pattern fits no stage, or nothing is left.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{message}")]
#[diagnostic(code(qpipe::plan::unknown_stage))]
pub struct UnknownTarget {
    /// What is wrong.
    pub message: String,
    /// What to do about it: the nearest name, or all names.
    #[help]
    pub help: String,
}

/// A pattern, taken apart.
struct Pattern<'t> {
    /// Without `kind:` and `+`.
    text: &'t str,
    kind: bool,
    /// With all that depends on what fits.
    users: bool,
}

impl<'t> Pattern<'t> {
    fn new(target: &'t str) -> Self {
        let text = target.trim();
        // What a stage needs comes with it anyway.
        let text = text.strip_prefix('+').unwrap_or(text);
        // A cell's value may end with `+`, but stands in brackets.
        let (text, users) = text.strip_suffix('+').map_or((text, false), |text| (text, true));
        match text.strip_prefix("kind:") {
            Some(kind) => Self { text: kind, kind: true, users },
            None => Self { text, kind: false, users },
        }
    }

    fn has_wildcard(&self) -> bool {
        self.text.contains(['*', '?'])
    }
}

impl Plan<'_> {
    /// Keeps only the stages that any of the patterns fits, and all that they need; no pattern: all
    /// stages. See the module for patterns.
    ///
    /// # Errors
    ///
    /// A pattern that fits nothing.
    pub fn select(&mut self, targets: &[String]) -> Result<(), UnknownTarget> {
        self.select_without(targets, &[])
    }

    /// Keeps only the stage with exactly this id and all that it needs; `false` if there is none.
    pub fn select_stage(&mut self, id: &str) -> bool {
        let Some(index) = self.position(id) else { return false };
        self.selected = self.reached(vec![index], Direction::Incoming);
        true
    }

    /// Like [`Plan::select`], without the stages that any of `exclude` fits and all that needs them.
    ///
    /// # Errors
    ///
    /// A pattern that fits nothing, or patterns that leave nothing.
    pub fn select_without(
        &mut self,
        targets: &[String],
        exclude: &[String],
    ) -> Result<(), UnknownTarget> {
        let mut wanted = self.all_named(targets)?;
        if targets.is_empty() {
            wanted.extend(0..self.selected.len());
        }
        let out = self.reached(self.all_named(exclude)?, Direction::Outgoing);
        wanted.retain(|&index| !out[index]);
        if wanted.is_empty() && !exclude.is_empty() {
            let message =
                "nothing is left: every stage that was asked for is excluded, or needs one that is";
            let help = "--exclude leaves out a stage together with all that needs it";
            return Err(UnknownTarget { message: message.to_owned(), help: help.to_owned() });
        }
        self.selected = self.reached(wanted, Direction::Incoming);
        Ok(())
    }

    fn all_named(&self, patterns: &[String]) -> Result<Vec<usize>, UnknownTarget> {
        let mut found = Vec::new();
        for pattern in patterns {
            found.extend(self.named(pattern)?);
        }
        Ok(found)
    }

    /// Positions of the stages that a pattern fits, in file order.
    ///
    /// # Errors
    ///
    /// A pattern that fits nothing.
    pub fn named(&self, target: &str) -> Result<Vec<usize>, UnknownTarget> {
        let pattern = Pattern::new(target);
        let found = self.fitting(&pattern);
        if found.is_empty() {
            return Err(self.unknown(target.trim(), &pattern));
        }
        if !pattern.users {
            return Ok(found);
        }
        let reached = self.reached(found, Direction::Outgoing);
        Ok((0..reached.len()).filter(|&index| reached[index]).collect())
    }

    /// Positions of the stages that fit, users aside.
    fn fitting(&self, pattern: &Pattern<'_>) -> Vec<usize> {
        let all = self.pipeline.stages.iter().enumerate();
        if pattern.kind {
            let glob = WildMatch::new(pattern.text);
            let fit = all.filter(|(_, cell)| glob.matches(cell.kind.name));
            return fit.map(|(index, _)| index).collect();
        }
        // `onnx[fp32, 1]` is the same cell as `onnx[fp32,1]`.
        let tight: String = pattern.text.chars().filter(|c| !c.is_whitespace()).collect();
        for name in [pattern.text, &tight] {
            if let Some(index) = self.position(name) {
                return vec![index];
            }
            if !self.cells(name).is_empty() {
                return self.cells(name).to_vec();
            }
        }
        let points = self.pipeline.sweep.is_some();
        if !points && !pattern.has_wildcard() {
            return Vec::new();
        }
        // Without wildcards it fits what is equal. A point's values may hold spaces.
        let globs = [WildMatch::new(&tight), WildMatch::new(pattern.text)];
        let fits = |name: &str| globs.iter().any(|glob| glob.matches(name));
        let point = |cell: &StageCell| {
            let point = cell.point.as_ref();
            point.is_some_and(|it| fits(cell.base_id()) || fits(&format!("@{}", it.label)))
        };
        let fit = all.filter(|(_, cell)| fits(&cell.id) || fits(&cell.name) || point(cell));
        fit.map(|(index, _)| index).collect()
    }

    /// Which stages are reached from some, themselves among them.
    fn reached(&self, mut open: Vec<usize>, direction: Direction) -> Vec<bool> {
        let mut reached = vec![false; self.selected.len()];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut reached[index], true) {
                let around = self.graph.neighbors_directed(NodeIndex::new(index), direction);
                open.extend(around.map(NodeIndex::index));
            }
        }
        reached
    }

    fn unknown(&self, target: &str, pattern: &Pattern<'_>) -> UnknownTarget {
        let stages = &self.pipeline.stages;
        if pattern.kind {
            let kinds: BTreeSet<&str> = stages.iter().map(|cell| cell.kind.name).collect();
            let help = nearest(pattern.text, kinds.iter().copied())
                .map_or_else(|| listed("kinds", &kinds), |kind| did_you_mean("kind:", kind));
            let message = format!("no stage is of the kind `{}`", pattern.text);
            return UnknownTarget { message, help };
        }
        // The first of equally near names is offered: a stage before its cells, in file order.
        let mut names: Vec<&str> = Vec::with_capacity(2 * stages.len());
        names.extend(stages.iter().map(|cell| cell.name.as_str()));
        names.dedup();
        let groups = names.clone();
        names.extend(stages.iter().map(|cell| cell.id.as_str()));
        let plain = pattern.text.replace(['*', '?'], "");
        let help = nearest(&plain, names)
            .map_or_else(|| listed("stages", &groups), |name| did_you_mean("", name));
        let message = if pattern.has_wildcard() {
            format!("no stage fits the pattern `{target}`")
        } else {
            format!("no stage is named `{target}`")
        };
        UnknownTarget { message, help }
    }
}

/// The name that was most likely meant, if any is near enough.
fn nearest<'n>(target: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = 1 + target.len() / 3;
    let near = names.into_iter().filter(|name| name.len().abs_diff(target.len()) <= allowed);
    near.map(|name| (strsim::damerau_levenshtein(name, target), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn did_you_mean(prefix: &str, name: &str) -> String {
    format!("did you mean `{prefix}{name}`?")
}

fn listed<'n>(what: &str, names: impl IntoIterator<Item = &'n &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().copied().collect();
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { format!("{what}: {shown}") } else { format!("{what}: {shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::super::dag::tests::{ids, pipeline};
    use super::*;

    fn chosen(targets: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        let pipeline = pipeline(&["a", "m[x] < a", "m[y] < a", "u < m[y]", "v < u", "other"]);
        let mut plan = Plan::new(&pipeline);
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        plan.select_without(&owned(targets), &owned(exclude))
            .map_err(|error| format!("{error}; {}", error.help))?;
        Ok(ids(&plan).into_iter().map(str::to_owned).collect())
    }

    fn select(targets: &[&str]) -> Result<Vec<String>, String> {
        chosen(targets, &[])
    }

    #[test]
    fn a_target_brings_what_it_needs_and_no_more() {
        assert_eq!(select(&["u"]).unwrap(), ["a", "m[y]", "u"]);
        assert_eq!(select(&["+u"]).unwrap(), ["a", "m[y]", "u"]);
        assert_eq!(select(&["m"]).unwrap(), ["a", "m[x]", "m[y]"]);
        assert_eq!(select(&["m[x]", "other"]).unwrap(), ["a", "m[x]", "other"]);
        assert_eq!(select(&[" m[ y ] "]).unwrap(), ["a", "m[y]"]);
        assert_eq!(select(&[]).unwrap().len(), 6);
    }

    #[test]
    fn a_plus_behind_brings_what_depends_on_it() {
        assert_eq!(select(&["m[y]+"]).unwrap(), ["a", "m[y]", "u", "v"]);
        assert_eq!(select(&["+m[x]+"]).unwrap(), ["a", "m[x]"]);
        assert_eq!(select(&["a+"]).unwrap(), ["a", "m[x]", "m[y]", "u", "v"]);
    }

    #[test]
    fn wildcards_fit_names_and_cells_and_brackets_are_literal() {
        assert_eq!(select(&["m[*]"]).unwrap(), ["a", "m[x]", "m[y]"]);
        assert_eq!(select(&["m[?]"]).unwrap(), select(&["m*"]).unwrap());
        assert_eq!(select(&["*y]"]).unwrap(), ["a", "m[y]"]);
        assert_eq!(select(&["o*r"]).unwrap(), ["other"]);
        assert_eq!(select(&["*"]).unwrap().len(), 6);
        // A character class in a shell's glob; here, a cell that is not there.
        assert!(select(&["m[xy]"]).is_err());
        assert_eq!(select(&["kind:command"]).unwrap().len(), 6);
    }

    #[test]
    fn what_is_excluded_takes_what_needs_it_along() {
        assert_eq!(chosen(&[], &["m[y]"]).unwrap(), ["a", "m[x]", "other"]);
        // What only an excluded stage needs is not needed.
        assert_eq!(chosen(&["u", "other"], &["u"]).unwrap(), ["other"]);
        assert_eq!(chosen(&["u", "m"], &["u"]).unwrap(), ["a", "m[x]", "m[y]"]);
        assert_eq!(
            chosen(&["v"], &["a"]).unwrap_err(),
            "nothing is left: every stage that was asked for is excluded, or needs one that is; \
             --exclude leaves out a stage together with all that needs it"
        );
        assert!(chosen(&[], &["nothing"]).unwrap_err().starts_with("no stage is named `nothing`"));
    }

    #[test]
    fn an_unknown_target_names_the_nearest() {
        assert_eq!(
            select(&["othr"]).unwrap_err(),
            "no stage is named `othr`; did you mean `other`?"
        );
        assert_eq!(
            select(&["m[z]"]).unwrap_err(),
            "no stage is named `m[z]`; did you mean `m[x]`?"
        );
        assert_eq!(
            select(&["benchmark"]).unwrap_err(),
            "no stage is named `benchmark`; stages: a, m, u, v, other"
        );
        assert_eq!(
            select(&["othr*"]).unwrap_err(),
            "no stage fits the pattern `othr*`; did you mean `other`?"
        );
        assert_eq!(
            select(&["kind:comand"]).unwrap_err(),
            "no stage is of the kind `comand`; did you mean `kind:command`?"
        );
        assert_eq!(
            select(&["kind:train"]).unwrap_err(),
            "no stage is of the kind `train`; kinds: command"
        );
    }

    #[test]
    fn ten_thousand_stages_are_chosen_and_drawn_in_linear_time() {
        // A chain and a fan: what is quadratic in either takes minutes without optimisation.
        let mut lines = vec!["s0".to_owned()];
        lines.extend((1..10_000).map(|index| format!("s{index} < s{} s0", index - 1)));
        let fan: Vec<String> = (0..10_000).map(|index| format!("s{index}")).collect();
        lines.push(format!("end < {}", fan.join(" ")));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let pipeline = pipeline(&lines);
        let mut plan = Plan::new(&pipeline);
        plan.select(&fan).unwrap();
        assert_eq!(plan.order().count(), 10_000);
        plan.select(&["s0+".to_owned()]).unwrap();
        assert_eq!(plan.order().count(), 10_001);
        assert!(plan.select(&["t".to_owned()]).unwrap_err().help.ends_with("and 9981 more"));
        assert!(plan.mermaid().lines().count() > 20_000);
        assert!(plan.dot().lines().count() > 20_000);
        assert!(plan.svg().lines().count() > 30_000);
        // Not even a deep tree's indents may grow with its depth.
        assert!(plan.text().len() < 2_000_000);
    }
}
