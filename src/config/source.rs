//! Where a setting's value comes from, as `config` and the mistakes tell it.

use std::{fmt, path::PathBuf};

use serde::{Serialize, Serializer};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// It follows from another setting.
    Follows(&'static str),
    /// `matrix-agent.toml` or the file named instead.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// `.env` or the file named instead.
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
