//! What a call is given and what it gives back.
//!
//! Knows neither the model's messages nor the room's protocol: the orchestrator turns a result into both.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    error::ToolError, guides_seen::GuidesSeen, jobs_seen::JobsSeen, steering::Steering, tests_seen::TestsSeen,
};
use crate::{
    coding_agents::CodingAgents,
    environments::Environments,
    github::GitHub,
    ids::{Address, CallId, TurnId},
    ledger::Tokens,
    rights::{Answerer, Rights},
    sandbox::Sandboxes,
    store::Store,
    updates::Updates,
};

/// The most large files that are in memory at the same time, over all rooms.
const LARGE: usize = 2;

/// What a call runs with.
#[derive(Clone)]
pub struct ToolContext {
    /// Where the room's sandbox comes from.
    pub sandboxes: Sandboxes,
    /// The account and room whose sandbox it is.
    pub address: Address,
    /// The turn that it is a part of.
    pub turn: TurnId,
    /// Who gave the message that began the turn, by their chat protocol's name.
    pub person: String,
    /// The call; also its command's id in the sandbox.
    pub call: CallId,
    /// The coding agents.
    pub agents: CodingAgents,
    /// What repositories need to be worked on; `None`: nothing is set up for them.
    pub environments: Option<Environments>,
    /// The way to GitHub.
    pub github: GitHub,
    /// Where a newer version of the program is asked for; `None` where nobody in this turn may.
    pub updates: Option<Updates>,
    /// Who may allow what.
    pub rights: Rights,
    /// Where a call keeps how far it has come, for the server that takes it up after a crash.
    pub store: Store,
    /// Cancelled to end the call, and whatever it started, within a second.
    pub cancel: CancellationToken,
    /// Cancelled when somebody has spoken in the room: a call that only waits ends with what there is.
    pub heard: CancellationToken,
    /// What people say meanwhile, for a call that passes it on.
    pub steering: Steering,
    /// What the model has seen of background jobs.
    pub jobs: JobsSeen,
    /// The guides of repositories that the model has seen.
    pub guides: GuidesSeen,
    /// What was tested in this turn.
    pub tests: TestsSeen,
    /// Where a file that may be large waits until there is memory for it.
    pub large: LargeFiles,
    /// Takes what the room may see meanwhile. If it is full, nothing waits for it, and what is shown is dropped.
    pub progress: mpsc::Sender<ToolProgress>,
    /// The limits that the operator has set.
    pub limits: ToolLimits,
    /// Whether the model sees pictures.
    pub vision: bool,
}

/// The limits that an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// How long a command may take that names no time (`COMMAND_TIMEOUT_SECONDS`).
    pub command: Duration,
    /// The longest time that a command may ask for (`COMMAND_LONGEST_SECONDS`).
    pub longest: Duration,
    /// How long a coding agent may take (`CODING_TIMEOUT_SECONDS`).
    pub coding: Duration,
    /// How long a coding agent may be silent (`CODING_IDLE_SECONDS`).
    pub coding_idle: Duration,
    /// Who has to approve a plan before it is carried out (`PLAN_APPROVAL`); `None`: nobody.
    pub approval: Option<Answerer>,
}

impl Default for ToolLimits {
    fn default() -> Self {
        let (longest, coding_idle) = (Duration::from_mins(30), Duration::from_mins(5));
        Self { command: Duration::from_mins(2), longest, coding: longest, coding_idle, approval: None }
    }
}

/// The permits for files that may be large to be in memory, over all rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LargeFiles(Arc<Semaphore>);

/// A permit for one large file to be in memory, held until its last copy is dropped.
#[derive(Clone, Debug)]
pub struct LargeFilePermit {
    /// Given back when it is dropped.
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Default for LargeFiles {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LARGE)))
    }
}

impl LargeFiles {
    /// Waits for a permit, or for the call's end.
    async fn permit(&self, cancel: &CancellationToken) -> Result<LargeFilePermit, ToolError> {
        let permit = Arc::clone(&self.0).acquire_owned();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ToolError::Stopped),
            permit = permit => Ok(LargeFilePermit { _permit: permit.ok().map(Arc::new) }),
        }
    }
}

impl ToolContext {
    /// Waits until a file that may be large may be in memory.
    pub(super) async fn large_file_permit(&self) -> Result<LargeFilePermit, ToolError> {
        self.large.permit(&self.cancel).await
    }
}

/// Whether a tool may run beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only looks.
    Shared,
    /// It may change things.
    Exclusive,
}

/// News of a running call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolProgress {
    /// The last line of its output, clean; a coding agent's may be two.
    Output(String),
    /// A plain sentence that people should read now.
    Notice(String),
}

/// The result of a call.
#[derive(Clone, Debug, Default)]
pub struct ToolResult {
    /// The text for the model, cut to size.
    pub text: String,
    /// One line for the room.
    pub summary: String,
    /// Whether it did what was asked.
    pub ok: bool,
    /// Pictures for the model.
    pub images: Vec<Image>,
    /// Files for the room.
    pub attachments: Vec<Attachment>,
    /// Details of what it did, for whoever in the room wants to read them: plain lines under a title.
    pub log: Option<String>,
    /// What the room is told of it by the server itself, in a message that stays: Markdown.
    pub told: Option<String>,
    /// Held as long as the files are in memory.
    pub large: Option<LargeFilePermit>,
    /// The facts by which a later claim of "done" is checked.
    pub facts: Facts,
}

/// A picture for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its media type, such as `image/png`.
    pub mime: String,
    /// The file.
    pub data: Bytes,
}

/// A file for the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, without a path.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// The file.
    pub data: Bytes,
}

/// Facts about a call, by which a later claim of "done" is checked, and what it used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Files that it changed.
    pub edits: Vec<Edit>,
    /// Whether the tests passed, if it was a test run.
    pub tests: Option<bool>,
    /// Whether it only waited for something that runs on: doing the same again is no repetition then.
    pub waits: bool,
    /// Tokens that were used of models for it, by model, as far as they were seen.
    pub used: Vec<(String, Tokens)>,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Its path, relative to the workspace if it is in it.
    pub path: String,
    /// The number of lines added.
    pub added: u32,
    /// The number of lines removed.
    pub removed: u32,
}

impl ToolResult {
    /// Returns a result that did what was asked.
    pub(super) fn good(summary: impl Into<String>, text: impl Into<String>) -> Self {
        Self { text: text.into(), summary: summary.into(), ok: true, ..Self::default() }
    }

    /// Returns a result that did not do what was asked.
    pub(super) fn bad(summary: impl Into<String>, text: impl Into<String>) -> Self {
        Self { text: text.into(), summary: summary.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn two_large_files_are_in_memory_at_a_time_and_a_stop_ends_the_wait_for_a_permit() {
        let (large, cancel) = (LargeFiles::default(), CancellationToken::new());
        let [first, _second] = [large.permit(&cancel).await.unwrap(), large.permit(&cancel).await.unwrap()];
        let result = ToolResult { large: Some(first.clone()), ..ToolResult::default() };
        drop(first);
        let mut third = Box::pin(large.permit(&cancel));
        assert!(third.as_mut().now_or_never().is_none(), "its result still holds the first one");
        drop(result);
        let _third = third.await.unwrap();
        let fourth = large.permit(&cancel);
        cancel.cancel();
        assert!(matches!(fourth.await, Err(ToolError::Stopped)));
    }
}
