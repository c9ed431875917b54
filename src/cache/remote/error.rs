//! What is wrong with a remote's address or settings: found before anything is asked of it.

/// What is wrong with a remote's address or settings. It never contains a secret.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RemoteError {
    /// Not an address of a remote.
    #[error("`{url}` is no remote cache: {reason}")]
    #[diagnostic(code(qpipe::remote::address))]
    Address {
        /// The address, without passwords.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        #[help]
        help: String,
    },
}
