//! The address of a remote: which service, which bucket, below what.

use std::path::PathBuf;

use object_store::path::Path;
use url::Url;

use super::RemoteError;

/// Where a remote is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// S3, or a service that speaks its protocol.
    S3 { bucket: String, prefix: Path },
    /// Google Cloud Storage.
    Google { bucket: String, prefix: Path },
    /// Azure Blob Storage; the address names the container, and may name the account.
    Azure { url: String, prefix: Path },
    /// A server of HTTP; WebDAV for writing.
    Http { url: Url },
    /// A folder.
    Folder(PathBuf),
}

impl Location {
    /// Reads an address; what has no `://` is a folder's path.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Address`].
    pub(super) fn parse(text: &str) -> Result<Self, RemoteError> {
        let wrong = |reason: &str, help: &str| RemoteError::Address {
            url: public(text),
            reason: reason.to_owned(),
            help: help.to_owned(),
        };
        if !text.contains("://") {
            return match std::path::absolute(text) {
                Ok(folder) => Ok(Self::Folder(folder)),
                Err(_) => Err(wrong("it is empty", KINDS)),
            };
        }
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string(), KINDS))?;
        let azure = matches!(url.scheme(), "az" | "azure" | "abfs" | "abfss");
        if url.password().is_some() || !(azure || url.username().is_empty()) {
            let help = "credentials come from the environment, see docs/remote-cache.md";
            return Err(wrong("a user or password stands in it", help));
        }
        if url.query().is_some() || url.fragment().is_some() {
            let help = "write only service, bucket and path; settings and credentials come from the environment";
            return Err(wrong("it has a part behind `?` or `#`", help));
        }
        let prefix =
            || Path::from_url_path(url.path()).map_err(|error| wrong(&error.to_string(), KINDS));
        let host = || match url.host_str().filter(|host| !host.is_empty()) {
            Some(host) => Ok(host.to_owned()),
            None => Err(wrong("it names no bucket or server", KINDS)),
        };
        Ok(match url.scheme() {
            "s3" | "s3a" => Self::S3 { bucket: host()?, prefix: prefix()? },
            "gs" => Self::Google { bucket: host()?, prefix: prefix()? },
            _ if azure => {
                host()?;
                Self::Azure { url: url.to_string(), prefix: prefix()? }
            }
            "http" | "https" => {
                host()?;
                Self::Http { url }
            }
            "file" => match url.to_file_path() {
                Ok(folder) => Self::Folder(folder),
                Err(()) => return Err(wrong("it is no path of this machine", KINDS)),
            },
            scheme => return Err(wrong(&format!("`{scheme}` is no service that is known"), KINDS)),
        })
    }
}

const KINDS: &str = "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, https://server/path, \
     file:///folder or the path of a folder";

/// An address as it may be shown: without user, password and query.
pub(super) fn public(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = match host.rsplit_once('@') {
        // In Azure's addresses the container stands before the account.
        Some((container, _)) if scheme.starts_with("abfs") && !container.contains(':') => host,
        Some((_, host)) => host,
        None => host,
    };
    match path {
        // A password with a slash in it: nothing before the last `@` is shown.
        Some(path) if path.contains('@') => {
            format!("{scheme}://…@{}", path.rsplit_once('@').map_or("", |(_, end)| end))
        }
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let s3 = Location::S3 { bucket: "my_bucket".to_owned(), prefix: Path::from("a/b c") };
        assert_eq!(Location::parse("s3://my_bucket/a/b%20c/").unwrap(), s3);
        let google = Location::Google { bucket: "bucket".to_owned(), prefix: Path::default() };
        assert_eq!(Location::parse("gs://bucket").unwrap(), google);
        let folder = Location::Folder(PathBuf::from("/srv/cache"));
        assert_eq!(Location::parse("/srv/cache").unwrap(), folder);
        assert_eq!(Location::parse("file:///srv/cache").unwrap(), folder);
        let azure = Location::parse("abfss://box@account.dfs.core.windows.net/p").unwrap();
        assert!(matches!(azure, Location::Azure { prefix, .. } if prefix == Path::from("p")));
        assert!(matches!(Location::parse("https://host/dav/"), Ok(Location::Http { .. })));
    }

    #[test]
    fn wrong_ones_are_refused_and_never_show_a_password() {
        for (text, part) in [
            ("https://me:pass@host/x", "a user or password stands in it"),
            ("https://me:pa/pass@host/x", "invalid port"),
            ("s3://key:pass@bucket/x", "a user or password stands in it"),
            ("https://host/x?sig=pass", "it has a part behind `?`"),
            ("ftp://host/x", "`ftp` is no service that is known"),
            ("s3:///x", "it names no bucket or server"),
            ("s3://b/../x%00pass\0", ""),
        ] {
            let error = match Location::parse(text) {
                Err(error) => format!("{error} {error:?}"),
                Ok(location) => {
                    assert_eq!(part, "", "{location:?}");
                    continue;
                }
            };
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("pass@") && !error.contains("=pass"), "{error}");
        }
    }
}
