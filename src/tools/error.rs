//! Why a call did not do what was asked, as sentences for the model: what failed, the value, the next call.
//!
//! Called by every tool; `mod.rs` makes results of them.

use crate::{github::GitHubError, sandbox::SandboxError};

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// The call cannot be carried out as it was made.
    #[error("{0}")]
    Refused(String),
    /// The turn was stopped.
    #[error("Stopped by the person. Do not repeat it unless they ask for it.")]
    Stopped,
    /// After a crash: the sandbox has not restarted and does not know the call, so it did not begin.
    #[error("Did not run: the server was restarted before it began. Make the call again if it is still wanted.")]
    NotRun,
    /// After a crash or a lost sandbox: whether the call ran cannot be told.
    #[error(
        "unknown: the sandbox was restarted meanwhile; whether it ran, and how far, cannot be told. Check before repeating it."
    )]
    Unknown,
    /// After a crash: the sandbox has run too much since to remember the result.
    #[error("It ran to its end, but its result is no longer kept. Look at what it did before repeating it.")]
    Forgotten,
    /// GitHub did not do what was asked.
    #[error(transparent)]
    GitHub(#[from] GitHubError),
    /// The sandbox did not do its part.
    #[error("The sandbox failed: {0}.")]
    Sandbox(#[from] SandboxError),
}

impl ToolError {
    /// Returns the error as a few words for the room.
    pub(super) fn brief(&self) -> String {
        match self {
            // The first sentence says what; the rest tells the model how to go on.
            Self::Refused(text) => text.split_inclusive(['.', '\n']).next().unwrap_or_default().trim().to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::NotRun => "did not run".to_owned(),
            Self::Unknown => "unknown outcome".to_owned(),
            Self::Forgotten => "result no longer known".to_owned(),
            Self::GitHub(error) => error.to_string(),
            Self::Sandbox(error) => error.to_string(),
        }
    }
}
