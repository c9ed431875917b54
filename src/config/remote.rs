//! `[remote]`: a cache that is shared with other machines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::interpolate::Interpolator;
use super::mistakes::{Mistake, Sources};
use super::schema;
use super::suggest::nearest;
use super::tree::{Entry, Node, Value};

/// The remote cache of a pipeline; only its text was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// `s3://bucket/prefix` and the like, or the absolute path of a folder.
    pub url: String,
    /// Whether results are also put there.
    pub mode: RemoteMode,
}

/// What may be done with a remote cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteMode {
    /// Results are taken from it and put into it.
    #[default]
    ReadWrite,
    /// Results are only taken from it.
    ReadOnly,
}

/// The `[remote]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteTable {
    /// Where it is: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`,
    /// `https://SERVER/PATH` (WebDAV), `file:///FOLDER`, or the path of a folder. Users and passwords
    /// come from the environment, by each service's usual variables.
    #[schemars(length(min = 1))]
    url: String,
    /// Whether results are also put there.
    #[serde(default)]
    mode: RemoteMode,
}

/// What can stand before `://`.
const SCHEMES: &[&str] =
    &["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "https", "http", "file"];

const FORMS: &str = "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, \
                     https://server/path, file:///folder or the path of a folder";

/// Reads the table; `None` where it is not given, or has mistakes.
pub(super) fn read(
    entry: Option<&Entry>,
    sources: &Sources,
    reader: &mut Interpolator<'_>,
) -> Option<Remote> {
    let entry = entry?;
    let start = reader.mistakes.len();
    let mut table = reader.table(entry.node.table()?);
    schema::write_out(schema::remote(), &mut table);
    schema::check(schema::remote(), &table, &entry.node, "remote", &mut reader.mistakes);
    let tree = Node::new(Value::Table(table), entry.node.place);
    if reader.mistakes.len() > start || tree.is_broken() {
        return None;
    }
    let table = match RemoteTable::deserialize(tree.to_toml()) {
        Ok(table) => table,
        Err(error) => {
            reader.mistakes.push(super::stage::from_serde(&tree, &error));
            return None;
        }
    };
    let node = tree.nearest(&["url".to_owned()]);
    match address(&table.url) {
        Ok(true) => Some(Remote { url: table.url, mode: table.mode }),
        Ok(false) => {
            let url = sources.folder(node.home).join(&table.url).display().to_string();
            Some(Remote { url, mode: table.mode })
        }
        Err(wrong) => {
            // The address itself is not repeated: a password may stand in it.
            let mistake = Mistake::new("remote", node.place, wrong.message, wrong.label);
            reader
                .mistakes
                .push(mistake.also(node.from, "the value comes from here").help(wrong.help));
            None
        }
    }
}

struct Wrong {
    message: String,
    label: String,
    help: &'static str,
}

/// Whether the text is an address (else it is a path of a folder).
fn address(text: &str) -> Result<bool, Wrong> {
    let wrong =
        |message: String, label: &str, help| Err(Wrong { message, label: label.to_owned(), help });
    if text.trim().is_empty() {
        return wrong("the remote's address is empty".to_owned(), "expected an address", FORMS);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(false) };
    if !SCHEMES.contains(&scheme) {
        let label = match scheme {
            "webdav" | "dav" | "webdavs" | "davs" => "write https:// for WebDAV".to_owned(),
            _ => nearest(scheme, SCHEMES.iter().copied())
                .map_or_else(|| "not known".to_owned(), |near| format!("did you mean {near}://?")),
        };
        let message = format!("no remote can be at an address of the kind `{scheme}://`");
        return wrong(message, &label, FORMS);
    }
    if scheme == "file" {
        return match rest.strip_prefix('/') {
            Some(_) => Ok(true),
            None => wrong(
                "after file:// comes an absolute path".to_owned(),
                "write file:///folder",
                "a path relative to the pipeline file is written without file://",
            ),
        };
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password may hold any of these characters itself.
    if let Some((user, _)) = rest.rsplit_once('@') {
        // In Azure's long addresses the container stands before the account.
        let container = scheme.starts_with("abfs") && !user.contains([':', '/']);
        let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        let in_path = !authority.contains('@') && is_port;
        if !container && !in_path {
            return wrong(
                "a user or a password stands in the remote's address".to_owned(),
                "credentials do not belong into a file",
                "they come from the service's usual environment variables: AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY",
            );
        }
    }
    if rest.contains(['?', '#']) {
        return wrong(
            "the remote's address has a part behind `?` or `#`".to_owned(),
            "here",
            "write only service, bucket and path; settings and credentials come from the environment",
        );
    }
    if authority.is_empty() {
        let what = if scheme.starts_with("http") { "server" } else { "bucket" };
        return wrong(format!("the remote's address names no {what}"), "incomplete", FORMS);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_folders_are_told_apart() {
        for url in [
            "s3://bucket/prefix",
            "gs://bucket",
            "az://container/p",
            "abfss://container@account.dfs.core.windows.net/p",
            "https://server:8443/dav/user@host/",
            "http://localhost:9000/x",
            "file:///srv/cache",
        ] {
            assert!(address(url).is_ok_and(|known| known), "{url}");
        }
        for path in ["../cache", "/srv/cache", "C", "a@b"] {
            assert!(address(path).is_ok_and(|known| !known), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_never_holds_a_password() {
        for (url, part) in [
            ("s3://key:pass@bucket/x", "a user or a password"),
            ("https://token@host/x", "a user or a password"),
            ("https://me:pa/pass@host/x", "a user or a password"),
            ("abfss://me:pass@account/p", "a user or a password"),
            ("https://host/x?sig=pass", "behind `?`"),
            ("s3:///x", "names no bucket"),
            ("file://x", "an absolute path"),
            ("ftp://host", "`ftp://`"),
            (" ", "is empty"),
        ] {
            let wrong = address(url).unwrap_err();
            assert!(wrong.message.contains(part), "{url}: {}", wrong.message);
            assert!(!format!("{}{}{}", wrong.message, wrong.label, wrong.help).contains("pass@"));
        }
        assert_eq!(address("s4://b").unwrap_err().label, "did you mean s3://?");
        assert_eq!(address("webdav://b").unwrap_err().label, "write https:// for WebDAV");
    }
}
