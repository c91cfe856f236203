//! One call from its intent to its result: the sandbox's boot id is stored before it runs, its files reach the room's
//! outbox before its result is stored, and whatever happens becomes a result.
//!
//! Knows the tools and the journal, nothing of the turn's rules. Called by the driver.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Deed,
    coding_agents::CodingAgents,
    environments::Environments,
    github::GitHub,
    ids,
    ledger::Tokens,
    llm::{ToolSpec, Usage},
    metrics,
    rights::Rights,
    sandbox::Sandboxes,
    store::StoreError,
    tools::{
        self, Attachment, Facts, GuidesSeen, JobsSeen, LargeFiles, Steering, Take, TestsSeen, ToolContext, ToolLimits,
        ToolProgress, ToolResult,
    },
    updates::Updates,
};

use super::{
    batch::{CallResult, CallToRun, KnownTool},
    journal::Journal,
    line::{CallFacts, Edit, ModelUse},
    progress::{Enclosure, Outflow, Progress, Taken},
    words,
};

/// Lines of output that may wait to be shown.
const LINES: usize = 8;
/// The most bytes of files that one turn hands to the room.
const FILES: u64 = 100 * 1024 * 1024;
/// How long a file may take until it is stored.
const STORING: Duration = Duration::from_secs(30);

/// What every call of a turn is run with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) tools: Toolbox,
    pub(super) journal: Journal,
    pub(super) outflow: Arc<Outflow>,
    pub(super) progress: mpsc::Sender<Progress>,
    /// Cancelled when somebody has spoken: calls that only wait end then, so that the model is shown what was said.
    pub(super) heard: CancellationToken,
    /// How many messages wait for the model, or for a call that takes them.
    pub(super) words: watch::Receiver<usize>,
    /// Takes a call's request for the next of them.
    pub(super) take: mpsc::Sender<Take>,
    /// What the model has seen of background jobs.
    pub(super) jobs: JobsSeen,
    /// The guides of repositories that the model has seen.
    pub(super) guides: GuidesSeen,
    /// What was tested.
    pub(super) tests: TestsSeen,
    /// Bytes of files that the turn has handed to the room.
    pub(super) sent: Arc<AtomicU64>,
}

/// Where calls are run.
#[derive(Clone)]
pub(super) enum Toolbox {
    /// In the room's sandbox.
    Sandbox {
        sandboxes: Sandboxes,
        agents: CodingAgents,
        environments: Option<Environments>,
        github: GitHub,
        updates: Option<Updates>,
        rights: Rights,
        limits: ToolLimits,
        vision: bool,
        large: LargeFiles,
    },
    /// By a test's own function.
    #[cfg(test)]
    Scripted(super::tests::driver::Script),
}

impl Toolbox {
    /// Returns what the model is told of the tools.
    pub(super) fn specs(&self) -> Vec<ToolSpec> {
        match self {
            Self::Sandbox { github, updates, limits, vision, .. } => {
                tools::specs(limits, *vision, github.has_key(), updates.is_some())
            }
            #[cfg(test)]
            Self::Scripted(_) => tools::specs(&ToolLimits::default(), false, false, false),
        }
    }
}

/// Returns the tools with the rules by which they may run beside each other.
pub(super) fn known(specs: &[ToolSpec]) -> Vec<KnownTool> {
    specs.iter().map(|spec| KnownTool { name: spec.name, access: tools::access(spec.name) }).collect()
}

impl Hands {
    /// Runs a call, or finds out what became of it. Fails only when the store does.
    pub(super) async fn run(self, call: CallToRun, cancel: CancellationToken) -> Result<CallResult, StoreError> {
        let begun = Instant::now();
        let result = match self.boot(&call, &cancel).await {
            Err(refusal) => refusal,
            Ok(boot) => {
                if call.resumed.is_none() {
                    self.journal.intend(&call.id, &boot).await?;
                }
                self.work(&call, &boot, cancel).await
            }
        };
        let result = self.hand_over(&call, result).await;
        self.note(&call, result.ok);
        metrics::call_ended(tools::known(&call.name), result.ok, begun.elapsed());
        let ended = Progress::ToolEnded { call: call.id, summary: result.summary, ok: result.ok };
        self.outflow.push(ended);
        let (mut text, mut pictures) = (result.text, Vec::new());
        for image in result.images {
            match self.journal.keep_picture(&image.mime, image.data).await {
                Ok(picture) => pictures.push(picture),
                Err(error) => {
                    tracing::error!(%error, "a picture is not kept");
                    text.push_str(words::PICTURE_LOST);
                }
            }
        }
        let facts = facts(result.facts);
        Ok(CallResult { text, ok: result.ok, facts, pictures })
    }

    /// Notes the call in the audit log.
    fn note(&self, call: &CallToRun, ok: bool) {
        match &self.tools {
            Toolbox::Sandbox { rights, .. } => {
                let digest = ids::digest(&[&call.arguments], 16);
                let deed = Deed::new("tool", call.name.as_str(), if ok { "done" } else { "failed" });
                rights.note(&self.journal.at.address, Deed { digest, ..deed.by(&self.journal.person) });
            }
            #[cfg(test)]
            Toolbox::Scripted(_) => {}
        }
    }

    /// Ends what the turn's calls have left running for each other.
    pub(super) async fn turn_ended(&self) {
        match &self.tools {
            Toolbox::Sandbox { sandboxes, .. } => tools::turn_ended(sandboxes, &self.journal.at.address).await,
            #[cfg(test)]
            Toolbox::Scripted(_) => {}
        }
    }

    /// Returns the sandbox's boot id, or why nothing can run.
    async fn boot(&self, call: &CallToRun, cancel: &CancellationToken) -> Result<String, ToolResult> {
        if let Some(boot) = &call.resumed {
            return Ok(boot.clone());
        }
        let sandboxes = match &self.tools {
            Toolbox::Sandbox { sandboxes, .. } => sandboxes,
            #[cfg(test)]
            Toolbox::Scripted(_) => return Ok("boot".to_owned()),
        };
        let ready = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(refused(words::CALL_STOPPED_EARLY.to_owned())),
            ready = sandboxes.ensure(&self.journal.at.address) => ready,
        };
        if let Some(loss) = sandboxes.take_loss(&self.journal.at.address).await {
            return Err(refused(loss.to_string()));
        }
        ready.map(|sandbox| sandbox.boot_id().to_owned()).map_err(|error| {
            tracing::error!(%error, "no sandbox");
            refused(error.to_string())
        })
    }

    async fn work(&self, call: &CallToRun, boot: &str, cancel: CancellationToken) -> ToolResult {
        let (lines, mut line) = mpsc::channel(LINES);
        let (taken, words, take) = (call.taken.clone(), self.words.clone(), self.take.clone());
        let steering = Steering::new(call.id.clone(), taken, words, take);
        let work = async {
            match &self.tools {
                Toolbox::Sandbox {
                    sandboxes,
                    agents,
                    environments,
                    github,
                    updates,
                    rights,
                    limits,
                    vision,
                    large,
                } => {
                    let context = ToolContext {
                        sandboxes: sandboxes.clone(),
                        address: self.journal.at.address.clone(),
                        turn: self.journal.turn.clone(),
                        person: self.journal.person.clone(),
                        call: call.id.clone(),
                        agents: agents.clone(),
                        environments: environments.clone(),
                        github: github.clone(),
                        updates: updates.clone(),
                        rights: rights.clone(),
                        store: self.journal.store.clone(),
                        cancel,
                        heard: self.heard.clone(),
                        steering,
                        jobs: self.jobs.clone(),
                        guides: self.guides.clone(),
                        tests: self.tests.clone(),
                        large: large.clone(),
                        progress: lines,
                        limits: *limits,
                        vision: *vision,
                    };
                    // People who are asked for something meanwhile are told what wants it.
                    let line = format!("{} {}", call.name, call.detail);
                    let _running = rights.begin_call(&self.journal.at.address, &call.id, line);
                    if call.resumed.is_some() {
                        tools::resume(&context, &call.name, &call.arguments, boot).await
                    } else {
                        tools::run(&context, &call.name, &call.arguments).await
                    }
                }
                #[cfg(test)]
                Toolbox::Scripted(script) => script(call.clone(), boot.to_owned(), cancel, lines, steering).await,
            }
        };
        tokio::pin!(work);
        let show = |progress| {
            self.outflow.push(match progress {
                ToolProgress::Output(line) => Progress::ToolOutput { call: call.id.clone(), line },
                ToolProgress::Notice(text) => Progress::Notice(text),
            });
        };
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                Some(progress) = line.recv() => show(progress),
            }
        };
        // What it said last.
        while let Ok(progress) = line.try_recv() {
            show(progress);
        }
        result
    }

    /// Hands a call's files to the room; the result says so if one could not be.
    async fn hand_over(&self, call: &CallToRun, mut result: ToolResult) -> ToolResult {
        for (index, Attachment { name, mime, data }) in std::mem::take(&mut result.attachments).into_iter().enumerate()
        {
            let size = data.len() as u64;
            let before = self.sent.fetch_add(size, Ordering::Relaxed);
            if before + size > FILES {
                self.sent.fetch_sub(size, Ordering::Relaxed);
                result.ok = false;
                result.text.push_str(&words::too_many_files(&name, before, FILES));
                continue;
            }
            let key = format!("{}-{index}", call.id);
            let (lost, no_files) = (words::file_lost(&name), words::no_files_here(&name));
            let told = match self.enclose(key, Enclosure::File { name, mime, data }).await {
                Some(Taken::Stored) => continue,
                Some(Taken::NotHere) => &no_files,
                None => &lost,
            };
            result.ok = false;
            result.text.push_str(told);
        }
        if let Some(log) = result.log.take() {
            // The sandbox has it, too: the call is no worse without it.
            let _ = self.enclose(format!("{}-log", call.id), Enclosure::Log(log)).await;
        }
        if let Some(news) = result.told.take() {
            // Where it is not stored, the model knows it.
            let _ = self.enclose(format!("{}-news", call.id), Enclosure::News(news)).await;
        }
        result
    }

    /// Hands something to the room. Returns what became of it, or `None` if it was not stored in time.
    async fn enclose(&self, key: String, enclosure: Enclosure) -> Option<Taken> {
        let (stored, is_stored) = oneshot::channel();
        let handed = async {
            self.progress.send(Progress::Enclosure { key, enclosure, stored }).await.ok()?;
            is_stored.await.ok()
        };
        timeout(STORING, handed).await.ok().flatten()
    }
}

fn facts(facts: Facts) -> CallFacts {
    let edits = facts.edits.into_iter().map(|edit| Edit { path: edit.path, added: edit.added, removed: edit.removed });
    let used = facts.used.into_iter().map(|(model, tokens)| {
        let Tokens { input, cached, output } = tokens;
        ModelUse { model, usage: Usage { input, cached, output } }
    });
    CallFacts { edits: edits.collect(), tests: facts.tests, waits: facts.waits, used: used.collect() }
}

fn refused(text: String) -> ToolResult {
    ToolResult { summary: text.clone(), text, ..ToolResult::default() }
}
