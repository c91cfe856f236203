//! The source of a setting's value, as `config` and the mistakes show it.

use std::{fmt, path::PathBuf};

use serde::{Serialize, Serializer};

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The default: nobody set it.
    Default,
    /// Another setting, from which it follows.
    Follows(&'static str),
    /// `matrix-agent.toml`, or the file that replaces it.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// `.env`, or the file that replaces it.
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The environment.
    Environment,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Follows(key) => write!(f, "from {key}"),
            Self::File { path, line } | Self::EnvFile { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment => f.write_str("environment"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
