//! Which remote, and how it may be used.

use std::collections::BTreeMap;
use std::fmt;

use super::Limits;
use super::location::public;
use crate::config::RemoteMode;

/// Which remote, and how it may be used.
#[derive(Clone)]
pub struct RemoteSpec {
    /// `s3://bucket/prefix`, `gs://…`, `az://…`, `http(s)://…`, `file:///…` or the path of a folder.
    pub url: String,
    /// Whether it may be written to.
    pub mode: RemoteMode,
    /// Environment variables that credentials and settings are taken from.
    pub environment: BTreeMap<String, String>,
    /// Bounds of time, memory and patience.
    pub limits: Limits,
}

impl RemoteSpec {
    /// A remote with the credentials that this process's environment has.
    pub fn from_environment(url: &str, mode: RemoteMode) -> Self {
        let ours = |name: &str| {
            ["AWS_", "GOOGLE_", "AZURE_", "QPIPE_REMOTE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                || matches!(name, "HOME" | "SERVICE_ACCOUNT" | "IDENTITY_ENDPOINT")
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| ours(name))
            .collect();
        Self { url: url.to_owned(), mode, environment, limits: Limits::default() }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Values of the environment are secrets: they are not shown.
impl fmt::Debug for RemoteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSpec")
            .field("url", &public(&self.url))
            .field("mode", &self.mode)
            .field("environment", &self.environment.keys())
            .field("limits", &self.limits)
            .finish()
    }
}
