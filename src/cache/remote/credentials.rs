//! Credentials that the services' clients do not look for themselves: the files of AWS's command
//! line, and the password or token of a server of HTTP.

use std::path::PathBuf;

use super::RemoteSpec;

/// What AWS's files say of a profile, where the environment does not say it already.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<String>,
    pub(super) session_token: Option<String>,
    pub(super) region: Option<String>,
    pub(super) endpoint_url: Option<String>,
}

impl Profile {
    /// Reads `~/.aws/credentials` and `~/.aws/config`, or the files that
    /// `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name, for the profile `AWS_PROFILE`.
    pub(super) fn of(spec: &RemoteSpec) -> Self {
        let name = spec.variable("AWS_PROFILE").unwrap_or("default");
        let file = |variable: &str, usual: &str| {
            let path = spec.variable(variable).map(PathBuf::from).or_else(|| {
                spec.variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(usual))
            });
            path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let secrets = file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = file("AWS_CONFIG_FILE", "config");
        let heading = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let of = |key: &str| value(&secrets, name, key).or_else(|| value(&config, &heading, key));
        let mut profile = Self::default();
        // Other means that the environment names win over the files.
        let named = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"];
        if named.iter().all(|name| spec.variable(name).is_none()) {
            profile.access_key_id = of("aws_access_key_id");
            profile.secret_access_key = of("aws_secret_access_key");
            profile.session_token = of("aws_session_token");
        }
        if ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().all(|name| spec.variable(name).is_none()) {
            profile.region = of("region");
        }
        profile.endpoint_url = of("endpoint_url");
        profile
    }
}

/// The value of a key below a heading of an INI file.
fn value(text: &str, heading: &str, key: &str) -> Option<String> {
    let mut here = false;
    for line in text.lines() {
        let line = line.trim_end();
        if let Some(name) = line.trim_start().strip_prefix('[').and_then(|it| it.strip_suffix(']'))
        {
            here = name.trim() == heading;
        } else if here && let Some((name, value)) = line.split_once('=')
            // An indented line belongs to a nested setting.
            && name.trim_end() == key
        {
            return Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    None
}

/// The header `Authorization` for a server of HTTP: `QPIPE_REMOTE_TOKEN`, or `QPIPE_REMOTE_USER`
/// and `QPIPE_REMOTE_PASSWORD`.
pub(super) fn authorization(spec: &RemoteSpec) -> Option<String> {
    if let Some(token) = spec.variable("QPIPE_REMOTE_TOKEN") {
        return Some(format!("Bearer {token}"));
    }
    let user = spec.variable("QPIPE_REMOTE_USER")?;
    let password = spec.variable("QPIPE_REMOTE_PASSWORD").unwrap_or_default();
    Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let part = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for digit in 0..4 {
            let six = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { DIGITS[six as usize] as char } else { '=' });
        }
    }
    text
}

/// Values that must never be shown, the longest first.
pub(super) fn secrets(spec: &RemoteSpec) -> Vec<String> {
    let secret = |name: &str| {
        ["SECRET", "PASSWORD", "TOKEN", "KEY", "SIGNATURE", "SAS", "CREDENTIALS"]
            .iter()
            .any(|word| name.contains(word))
    };
    let environment = spec.environment.iter().filter(|(name, _)| secret(name));
    let mut values: Vec<String> = environment.map(|(_, value)| value.clone()).collect();
    let profile = Profile::of(spec);
    values.extend(profile.secret_access_key);
    values.extend(profile.session_token);
    values.extend(authorization(spec).and_then(|it| Some(it.split_once(' ')?.1.to_owned())));
    values.retain(|value| value.len() >= 4);
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cache::remote::Limits;
    use crate::config::RemoteMode;

    fn spec(variables: &[(&str, &str)]) -> RemoteSpec {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: BTreeMap<String, String> = variables.iter().map(own).collect();
        let (mode, limits) = (RemoteMode::ReadWrite, Limits::default());
        RemoteSpec { url: "s3://b".to_owned(), mode, environment, limits }
    }

    #[test]
    fn aws_files_are_read_by_profile_and_the_environment_wins() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "[default]\naws_access_key_id = A\naws_secret_access_key=sa\n\n\
                           [ci]\naws_access_key_id = C\naws_secret_access_key = s=c\n";
        let config = "[default]\nregion = eu-central-1\n[profile ci]\ns3 =\n  region = x\nregion = us-west-2\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let home = ("HOME", home.path().to_str().unwrap());
        let profile = Profile::of(&spec(&[home]));
        assert_eq!(profile.access_key_id.as_deref(), Some("A"));
        assert_eq!(profile.region.as_deref(), Some("eu-central-1"));
        let profile = Profile::of(&spec(&[home, ("AWS_PROFILE", "ci")]));
        assert_eq!(profile.secret_access_key.as_deref(), Some("s=c"));
        assert_eq!(profile.region.as_deref(), Some("us-west-2"));
        let named = [home, ("AWS_ACCESS_KEY_ID", "E"), ("AWS_REGION", "r")];
        assert_eq!(Profile::of(&spec(&named)), Profile::default());
    }

    #[test]
    fn passwords_are_encoded_and_are_secrets_in_every_form() {
        let coded: Vec<String> =
            ["", "f", "fo", "foo", "foob"].map(|it| base64(it.as_bytes())).into();
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
        let spec = spec(&[("QPIPE_REMOTE_USER", "me"), ("QPIPE_REMOTE_PASSWORD", "geheim")]);
        assert_eq!(authorization(&spec).unwrap(), "Basic bWU6Z2VoZWlt");
        assert_eq!(secrets(&spec), ["bWU6Z2VoZWlt", "geheim"]);
    }
}
