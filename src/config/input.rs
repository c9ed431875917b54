//! What beside the file decides about a pipeline: overrides, profiles and the environment.

use std::collections::BTreeMap;

/// Overrides of a pipeline file's values, its profiles, and the environment that `${env.X}` reads.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `KEY=VALUE` of each `--set`, in order; later ones win.
    pub set: Vec<String>,
    /// Names of the `[profiles.NAME]` tables that are put over the file, in order.
    pub profiles: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

impl Overrides {
    /// The arguments of a command line that say the same, but for the environment.
    pub fn arguments(&self) -> Vec<String> {
        let pair = |name: &str, value: &String| [name.to_owned(), value.clone()];
        let set = self.set.iter().flat_map(|set| pair("--set", set));
        set.chain(self.profiles.iter().flat_map(|name| pair("--profile", name))).collect()
    }

    /// With this process's environment. Variables that are not Unicode are left out. Where no
    /// profile is given, `QPIPE_PROFILE` names them, with commas between them.
    pub fn from_process(set: &[String], profiles: &[String]) -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let env: BTreeMap<String, String> = std::env::vars_os().filter_map(unicode).collect();
        let mut profiles = profiles.to_vec();
        if let (true, Some(names)) = (profiles.is_empty(), env.get("QPIPE_PROFILE")) {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            profiles.extend(names.map(str::to_owned));
        }
        Self { set: set.to_vec(), profiles, env }
    }
}
