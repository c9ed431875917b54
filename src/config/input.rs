//! What beside the file decides about a pipeline: overrides and the environment.

use std::collections::BTreeMap;

/// Overrides of a pipeline file's values, and the environment that `${env.X}` reads.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `KEY=VALUE` of each `--set`, in order; later ones win.
    pub set: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

impl Overrides {
    /// With this process's environment. Variables that are not Unicode are left out.
    pub fn from_process(set: &[String]) -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { set: set.to_vec(), env: std::env::vars_os().filter_map(unicode).collect() }
    }
}
