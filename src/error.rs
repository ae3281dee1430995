//! What can go wrong before a logger runs. Once it runs, nothing is an error of the caller's: see [`Outcome`](crate::Outcome).

use std::fmt;

/// What went wrong, with the values, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Correct the configuration.
    Config,
    /// See to the directory: permissions, space, another program's files.
    Storage,
    /// See to the object store: credentials, bucket, network.
    Upload,
    /// See to the address that the server was to listen on.
    Server,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Config => "config",
            ErrorKind::Storage => "storage",
            ErrorKind::Upload => "upload",
            ErrorKind::Server => "server",
        })
    }
}

impl Error {
    /// An error whose message names the values and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
