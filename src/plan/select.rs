//! Choosing targets: the stages that were named, and what they need.

use super::Plan;

/// No stage has that name.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("no stage is named `{name}`")]
#[diagnostic(code(qpipe::plan::unknown_stage))]
pub struct UnknownTarget {
    /// What was asked for.
    pub name: String,
    /// What to do about it: the nearest name, or all names.
    #[help]
    pub help: String,
}

impl Plan<'_> {
    /// Keeps only the named stages and all that they need; nothing named: all stages.
    ///
    /// A name is that of a cell (`onnx[fp32,1]`) or of a stage with all its cells (`onnx`).
    pub fn select(&mut self, targets: &[String]) -> Result<(), UnknownTarget> {
        if targets.is_empty() {
            self.selected.fill(true);
            return Ok(());
        }
        let mut open = Vec::new();
        for target in targets {
            open.extend(self.named(target)?);
        }
        self.selected.fill(false);
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut self.selected[index], true) {
                open.extend(self.producers(index));
            }
        }
        Ok(())
    }

    /// Positions of the stage or cells of that name.
    pub fn named(&self, target: &str) -> Result<Vec<usize>, UnknownTarget> {
        // `onnx[fp32, 1]` is the same cell as `onnx[fp32,1]`.
        let name: String = target.chars().filter(|c| !c.is_whitespace()).collect();
        let stages = self.pipeline.stages.iter().enumerate();
        let found = stages.filter(|(_, cell)| cell.id == name || cell.name == name);
        let found: Vec<usize> = found.map(|(index, _)| index).collect();
        if found.is_empty() { Err(self.unknown(target)) } else { Ok(found) }
    }

    fn unknown(&self, target: &str) -> UnknownTarget {
        let mut names: Vec<&str> = Vec::new();
        for cell in &self.pipeline.stages {
            for name in [cell.name.as_str(), cell.id.as_str()] {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let distance = |name: &&str| strsim::damerau_levenshtein(name, target);
        let nearest = names.iter().copied().min_by_key(|name| distance(name));
        let help = match nearest {
            Some(name) if distance(&name) <= 1 + target.len() / 3 => {
                format!("did you mean `{name}`?")
            }
            _ => {
                let mut stages: Vec<&str> = Vec::new();
                for cell in &self.pipeline.stages {
                    if stages.last() != Some(&cell.name.as_str()) {
                        stages.push(&cell.name);
                    }
                }
                format!("stages: {}", stages.join(", "))
            }
        };
        UnknownTarget { name: target.to_owned(), help }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dag::tests::{ids, pipeline};
    use super::*;

    fn select(targets: &[&str]) -> Result<Vec<String>, String> {
        let pipeline = pipeline(&["a", "m[x] < a", "m[y] < a", "u < m[y]", "other"]);
        let mut plan = Plan::new(&pipeline);
        let targets: Vec<String> = targets.iter().map(|&target| target.to_owned()).collect();
        plan.select(&targets).map_err(|error| format!("{error}; {}", error.help))?;
        Ok(ids(&plan).into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn a_target_brings_what_it_needs_and_no_more() {
        assert_eq!(select(&["u"]).unwrap(), ["a", "m[y]", "u"]);
        assert_eq!(select(&["m"]).unwrap(), ["a", "m[x]", "m[y]"]);
        assert_eq!(select(&["m[x]", "other"]).unwrap(), ["a", "m[x]", "other"]);
        assert_eq!(select(&[]).unwrap().len(), 5);
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
            "no stage is named `benchmark`; stages: a, m, u, other"
        );
    }
}
