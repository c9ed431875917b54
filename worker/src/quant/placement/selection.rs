//! Which layers the user wants quantized.

use super::pattern::matches;
use crate::Result;
use crate::graph::Graph;

/// For each node of a graph whether it may be quantized, and why not.
#[derive(Clone, Debug)]
pub struct Selection {
    left_out: Vec<Option<String>>,
}

impl Selection {
    /// All nodes.
    pub fn all(graph: &Graph) -> Self {
        Self { left_out: vec![None; graph.nodes.len()] }
    }

    /// What `include` names (all, if it is not given) and `exclude` does not.
    ///
    /// # Errors
    /// A pattern that names nothing.
    pub fn of(graph: &Graph, include: Option<&[String]>, exclude: &[String]) -> Result<Self> {
        let mut selection = Self::all(graph);
        if let Some(include) = include {
            let reason = "`include` does not name it".to_owned();
            selection.left_out = vec![Some(reason); graph.nodes.len()];
            for pattern in include {
                let found = matches(graph, pattern)
                    .map_err(|error| error.at("`include`").key("include"))?;
                let left_out = selection.left_out.iter_mut().zip(found);
                left_out.filter(|(_, found)| *found).for_each(|(reason, _)| *reason = None);
            }
        }
        for pattern in exclude {
            let found =
                matches(graph, pattern).map_err(|error| error.at("`exclude`").key("exclude"))?;
            let left_out = selection.left_out.iter_mut().zip(found);
            left_out
                .filter(|(_, found)| *found)
                .for_each(|(reason, _)| *reason = Some(format!("excluded by \"{pattern}\"")));
        }
        Ok(selection)
    }

    /// Of these nodes that one only.
    #[must_use]
    pub fn only(&self, index: usize) -> Self {
        let other = |(at, reason): (usize, &Option<String>)| {
            if at == index { reason.clone() } else { Some("another layer is looked at".to_owned()) }
        };
        Self { left_out: self.left_out.iter().enumerate().map(other).collect() }
    }

    /// These nodes without that one.
    #[must_use]
    pub fn without(&self, index: usize) -> Self {
        let mut others = self.clone();
        others.left_out[index] = Some("it is left in float".to_owned());
        others
    }

    /// These nodes without those that `why_not` gives a reason for.
    #[must_use]
    pub(super) fn unless(&self, why_not: impl Fn(usize) -> Option<String>) -> Self {
        let left_out = self.left_out.iter().enumerate();
        let reason = |(at, known): (usize, &Option<String>)| known.clone().or_else(|| why_not(at));
        Self { left_out: left_out.map(reason).collect() }
    }

    /// Whether node `index` may be quantized.
    pub fn has(&self, index: usize) -> bool {
        self.left_out[index].is_none()
    }

    /// Why node `index` is left out.
    pub fn why_not(&self, index: usize) -> Option<&str> {
        self.left_out[index].as_deref()
    }
}
