//! Why a request came to nothing, and what follows from it.

use crate::cache::CacheError;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is nothing of that name.
    Missing,
    /// There is something of that name already.
    Exists,
    /// The service has no such operation, or does not accept the request.
    Refused(String),
    /// The credentials are not accepted, or not for this.
    Denied {
        /// What the service says.
        reason: String,
        /// Whether it does not know who asks: then it never answers.
        identity: bool,
    },
    /// What arrived is not what was asked for.
    Wrong(String),
    /// The network or the service failed; another attempt may succeed.
    Transient(String),
    /// The remote is switched off.
    Off,
    /// This machine's cache or disk.
    Local(CacheError),
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Local(error)
    }
}

impl Failure {
    /// What a client's error means.
    pub(super) fn of(error: &object_store::Error) -> Self {
        use object_store::Error;
        let reason = innermost(error);
        match error {
            Error::NotFound { .. } => Self::Missing,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => Self::Exists,
            Error::NotImplemented { .. } | Error::NotSupported { .. } => Self::Refused(reason),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                let identity =
                    matches!(error, Error::Unauthenticated { .. }) || is_of_who_asks(&reason);
                Self::Denied { reason, identity }
            }
            // Of a folder that may only be read.
            _ if system_error(error).is_some_and(is_forbidden) => {
                Self::Denied { reason, identity: false }
            }
            // S3 says it with status 400.
            _ if is_of_who_asks(&reason) => Self::Denied { reason, identity: true },
            _ if RANGES.iter().any(|words| reason.starts_with(words)) => Self::Refused(reason),
            _ => match status(&reason) {
                Some(408 | 425 | 429 | 500 | 502..=599) | None => Self::Transient(reason),
                Some(_) => Self::Refused(reason),
            },
        }
    }

    /// In words, for a warning.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Missing => "it is not there".to_owned(),
            Self::Exists => "it is there already".to_owned(),
            Self::Off => "the remote is switched off".to_owned(),
            Self::Refused(reason)
            | Self::Wrong(reason)
            | Self::Transient(reason)
            | Self::Denied { reason, .. } => reason.clone(),
            Self::Local(error) => error.to_string(),
        }
    }
}

/// Whether a service refuses who asks, not what is asked: codes of S3 (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
fn is_of_who_asks(reason: &str) -> bool {
    const CODES: [&str; 6] = [
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    ];
    CODES.iter().any(|code| reason.contains(code))
}

/// What the operating system said.
fn system_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<std::io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn is_forbidden(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&error.kind())
}

/// What the client says of a server that does not do what a request for a range asks for.
const RANGES: &[&str] = &["Received non-partial response", "Wanted range", "Requested "];

/// The status in `503 Service Unavailable: …`.
fn status(reason: &str) -> Option<u16> {
    let (digits, rest) = reason.split_at_checked(3)?;
    rest.starts_with(' ').then(|| digits.parse().ok()).flatten()
}

const SERVER: &str = "Server returned non-2xx status code: ";

/// What is at the bottom of an error, short: the system's or the server's own words.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        let text = last.to_string();
        if let Some(answer) = text.strip_prefix(SERVER) {
            return answered(answer);
        }
        match last.source() {
            Some(source) => last = source,
            None => return printable(&text, 200),
        }
    }
}

/// `403 Forbidden: SignatureDoesNotMatch, The request signature …` of a status and an XML body.
fn answered(answer: &str) -> String {
    let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0)
    };
    let words: Vec<&str> = ["Code", "Message"].into_iter().filter_map(element).collect();
    let status = status.trim_end_matches(':').trim();
    if words.is_empty() {
        return printable(status, 80);
    }
    printable(&format!("{status}: {}", words.join(", ")), 200)
}

/// A text of a server's, cut and without control characters: it is shown in a terminal.
pub(super) fn printable(text: &str, most: usize) -> String {
    let clean = |character: char| if character.is_control() { ' ' } else { character };
    text.trim().chars().take(most).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Text(&'static str);

    fn generic(text: &'static str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: Box::new(Text(text)) }
    }

    #[test]
    fn the_servers_own_words_are_found_and_nothing_of_its_page() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <?xml?><Error><Code>SignatureDoesNotMatch</Code>\
                    <Message>No\u{1b}[2J.</Message><StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(innermost(&generic(body)), "403 Forbidden: SignatureDoesNotMatch, No [2J.");
        let page = "Server returned non-2xx status code: 404 Not Found: <html>long</html>";
        assert_eq!(innermost(&generic(page)), "404 Not Found");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let of = |text| Failure::of(&generic(text));
        let busy = "Server returned non-2xx status code: 503 Service Unavailable: ";
        assert!(matches!(of(busy), Failure::Transient(_)));
        assert!(matches!(of("connection reset"), Failure::Transient(_)));
        for refused in ["501 Not Implemented: ", "400 Bad Request: ", "405 Method Not Allowed: "] {
            let text: &'static str = format!("{SERVER}{refused}").leak();
            assert!(matches!(of(text), Failure::Refused(_)), "{refused}");
        }
        for kind in [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::ReadOnlyFilesystem] {
            let source = Box::new(std::io::Error::from(kind));
            let forbidden = object_store::Error::Generic { store: "LocalFileSystem", source };
            assert!(matches!(Failure::of(&forbidden), Failure::Denied { identity: false, .. }));
        }
        let expired = "400 Bad Request: <Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        let expired: &'static str = format!("{SERVER}{expired}").leak();
        assert!(matches!(of(expired), Failure::Denied { identity: true, .. }));
        let denied = object_store::Error::PermissionDenied {
            path: "x".to_owned(),
            source: Box::new(Text("AccessDenied")),
        };
        assert!(matches!(Failure::of(&denied), Failure::Denied { identity: false, .. }));
    }
}
