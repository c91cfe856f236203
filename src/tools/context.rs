//! What a call is given and what it gives back.
//!
//! Knows neither the model's messages nor the room's protocol: the orchestrator turns a result into both.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{error::ToolError, guides_seen::GuidesSeen, jobs_seen::JobsSeen, steering::Steering};
use crate::{
    coding_agents::CodingAgents,
    ids::{Address, CallId, TurnId},
    ledger::Tokens,
    sandbox::Sandboxes,
    store::Store,
};

/// Files that may be large and in memory at the same time.
const LARGE: usize = 2;

/// What a call runs with.
#[derive(Clone)]
pub struct ToolContext {
    /// Where the room's sandbox comes from.
    pub sandboxes: Sandboxes,
    /// Whose sandbox.
    pub address: Address,
    /// The turn that it is a part of.
    pub turn: TurnId,
    /// Whose word the turn follows, by their chat protocol's name.
    pub person: String,
    /// The call; also its command's id in the sandbox.
    pub call: CallId,
    /// The coding agents.
    pub agents: CodingAgents,
    /// Where a call keeps how far it has come, for the server that takes it up after a crash.
    pub store: Store,
    /// Ends the call, and whatever it started, within a second.
    pub cancel: CancellationToken,
    /// Somebody has said something in the room: a call that only waits ends with what there is.
    pub heard: CancellationToken,
    /// What people say meanwhile, for a call that passes it on.
    pub steering: Steering,
    /// What the model has seen of background jobs.
    pub jobs: JobsSeen,
    /// What of repositories' guides the model has seen.
    pub guides: GuidesSeen,
    /// Where a file that may be large waits until there is memory for it.
    pub large: LargeFiles,
    /// Takes what the room may see meanwhile. Full means that nobody waits for more: it is dropped.
    pub progress: mpsc::Sender<ToolProgress>,
    /// What the operator set.
    pub limits: ToolLimits,
    /// Whether the model sees pictures.
    pub vision: bool,
}

/// What the operator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// How long a command may take that asks for nothing else (`COMMAND_TIMEOUT_SECONDS`).
    pub command: Duration,
    /// How long one may ask for (`COMMAND_LONGEST_SECONDS`).
    pub longest: Duration,
    /// How long a coding agent may take (`CODING_TIMEOUT_SECONDS`).
    pub coding: Duration,
    /// How long one may be silent (`CODING_IDLE_SECONDS`).
    pub coding_idle: Duration,
}

impl Default for ToolLimits {
    fn default() -> Self {
        let (longest, coding_idle) = (Duration::from_mins(30), Duration::from_mins(5));
        Self { command: Duration::from_mins(2), longest, coding: longest, coding_idle }
    }
}

/// The permits for files that may be large to be in memory, over all rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LargeFiles(Arc<Semaphore>);

/// Leave for one such file to be in memory, until the last copy is dropped.
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

/// What a call came to.
#[derive(Clone, Debug, Default)]
pub struct ToolResult {
    /// For the model, cut to size.
    pub text: String,
    /// For the room: one line.
    pub summary: String,
    /// Whether it did what was asked.
    pub ok: bool,
    /// Pictures for the model.
    pub images: Vec<Image>,
    /// Files for the room.
    pub attachments: Vec<Attachment>,
    /// What it did in detail, for whoever in the room wants to read that: plain lines under a title.
    pub log: Option<String>,
    /// Held as long as the files are in memory.
    pub large: Option<LargeFilePermit>,
    /// What it means for a claim of "done".
    pub facts: Facts,
}

/// A picture for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `image/png` …
    pub mime: String,
    /// The file.
    pub data: Bytes,
}

/// A file for the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, without a path.
    pub name: String,
    /// Its type.
    pub mime: String,
    /// The file.
    pub data: Bytes,
}

/// What a call means for a claim of "done".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Files that it changed.
    pub edits: Vec<Edit>,
    /// The outcome, if it was a test run.
    pub tests: Option<bool>,
    /// It only waited for something that runs on: to do the same again is no repetition.
    pub waits: bool,
    /// What models were used for it, as far as that was seen.
    pub used: Vec<(String, Tokens)>,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Its path, relative to the workspace if it is in it.
    pub path: String,
    /// Lines that came.
    pub added: u32,
    /// Lines that went.
    pub removed: u32,
}

impl ToolResult {
    /// Returns a result that did what was asked.
    pub(super) fn good(summary: impl Into<String>, text: impl Into<String>) -> Self {
        Self { text: text.into(), summary: summary.into(), ok: true, ..Self::default() }
    }

    /// Returns a result that did not.
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
