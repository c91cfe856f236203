//! One actor owns a bot in a room: it claims what was said, one turn at a time, and lets what is said meanwhile steer
//! the running turn.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Body, Ending, Hub, Live, LiveIn, Outbound};
use crate::{
    bots::{Command, Intent, TurnJob},
    crash,
    ids::{self, EventId, TurnId},
    orchestrator::{Outcome, Progress, Start, Status, UserMessage},
    store::{Address, NewOutbox, StoreError, StoredInbound},
    strings,
};

/// An actor with nothing to do ends after this long; the next event starts it again.
const IDLE: Duration = Duration::from_mins(1);
/// Waiting events that are looked at together.
const BATCH: usize = 64;
/// Steering messages that may wait for the running turn; more stay in the journal.
const STEER: usize = 16;
/// Progress that may wait to be shown.
const PROGRESS: usize = 256;
/// The pause after the database failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs the actor until it has nothing to do, or the program ends.
pub(super) async fn run(hub: Hub, address: Address, notify: Arc<Notify>) {
    let mut actor = Actor { hub, address, notify };
    loop {
        match actor.work().await {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(room = %actor.address.room, %error, "the room's work stands still; it is tried again");
                tokio::select! {
                    () = actor.hub.inner.cancel.cancelled() => return,
                    () = time::sleep(PAUSE) => continue,
                }
            }
        }
        tokio::select! {
            () = actor.hub.inner.cancel.cancelled() => return,
            () = actor.notify.notified() => {}
            () = time::sleep(IDLE) => if actor.hub.retire(&actor.address, &actor.notify) { return },
        }
    }
}

struct Actor {
    hub: Hub,
    address: Address,
    /// Something new was said.
    notify: Arc<Notify>,
}

/// A turn as the actor knows it.
struct Turn {
    id: TurnId,
    /// The event that asked, and who asked.
    asked: EventId,
    sender: String,
}

impl Actor {
    /// Does all that waits: turns that a crash has cut off, then what was said since.
    async fn work(&mut self) -> Result<(), StoreError> {
        let store = self.hub.inner.store.clone();
        for open in store.open_turns(&self.address).await? {
            let claimed = store.claimed(&open.turn).await?;
            let stopped = CancellationToken::new();
            // It was told to stop, and the process died before it had said so.
            if claimed.iter().any(|event| intent(event) == Intent::Command(Command::Stop)) {
                stopped.cancel();
            }
            let Some(first) = claimed.into_iter().next() else { continue };
            let turn = Turn { id: open.turn, asked: first.event, sender: first.sender };
            self.turn(turn, Start::Resumed { opened: open.opened }, stopped).await?;
        }
        while !self.hub.inner.cancel.is_cancelled() {
            let waiting = store.waiting(&self.address, 1).await?;
            let Some(first) = waiting.into_iter().next() else { break };
            match intent(&first) {
                Intent::Command(command) => self.command(&first, command).await?,
                Intent::Ask(text) => self.ask(first, text).await?,
            }
        }
        Ok(())
    }

    async fn command(&self, asked: &StoredInbound, command: Command) -> Result<(), StoreError> {
        let text = self.hub.inner.coder.command(&self.address, command).await;
        let outbound = Outbound::Reply { text, asked: asked.event.clone(), thread: None };
        let reply = NewOutbox { txn: self.txn(&asked.event, "reply"), payload: to_json(&outbound)?, data: None };
        self.hub.inner.store.reply(&self.address, vec![asked.event.clone()], vec![reply]).await?;
        self.hub.inner.outbox.wake(&self.address).await;
        Ok(())
    }

    async fn ask(&mut self, asked: StoredInbound, text: String) -> Result<(), StoreError> {
        let id = TurnId(self.txn(&asked.event, "turn"));
        let message = UserMessage { event: asked.event.clone(), sender: asked.sender.clone(), text };
        let stored = to_json(&message.to_message())?;
        self.hub.inner.store.open_turn(&self.address, &id, vec![asked.event.clone()], stored).await?;
        crash::point("claimed");
        self.turn(Turn { id, asked: asked.event, sender: asked.sender }, Start::New, CancellationToken::new()).await
    }

    /// Runs a turn to its end, which `stopped` brings about at once, and puts its answer into the outbox.
    async fn turn(&mut self, turn: Turn, start: Start, stopped: CancellationToken) -> Result<(), StoreError> {
        self.show(Live::Started { asked: turn.asked.clone(), thread: None });
        let (steer, steering) = mpsc::channel(STEER);
        let (progress, mut seen) = mpsc::channel(PROGRESS);
        let job = TurnJob {
            address: self.address.clone(),
            turn: turn.id.clone(),
            start,
            steering,
            progress,
            stop: stopped.clone(),
            abandon: self.hub.inner.cancel.child_token(),
        };
        let coder = self.hub.inner.coder.clone();
        // Should the database fail below, the work ends with this call, and is resumed from what is stored.
        let mut work = AbortOnDropHandle::new(tokio::spawn(async move { coder.turn(job).await }));
        let mut offered = HashSet::new();
        let outcome = loop {
            tokio::select! {
                ended = &mut work => break ended,
                Some(progress) = seen.recv() => self.progress(&turn, progress).await?,
                () = self.notify.notified() => {
                    for event in self.hub.inner.store.waiting(&self.address, BATCH).await? {
                        if offered.contains(&event.event) {
                            continue;
                        }
                        match intent(&event) {
                            Intent::Command(Command::Stop) => {
                                self.hub.inner.store.claim(&self.address, &turn.id, event.event.clone()).await?;
                                crash::point("stopped");
                                self.show(Live::Seen { said: event.event.clone() });
                                stopped.cancel();
                            }
                            Intent::Command(Command::New) => {}
                            Intent::Command(command) => self.command(&event, command).await?,
                            Intent::Ask(text) => {
                                let message = UserMessage { event: event.event.clone(), sender: event.sender, text };
                                if steer.try_send(message).is_err() {
                                    continue;
                                }
                            }
                        }
                        offered.insert(event.event);
                    }
                }
            }
        };
        while let Ok(progress) = seen.try_recv() {
            self.progress(&turn, progress).await?;
        }
        let outcome = match outcome {
            Ok(Some(outcome)) => outcome,
            // The program ends: the turn stays open and is resumed at the next start.
            Ok(None) => return Ok(()),
            Err(panic) => {
                tracing::error!(room = %self.address.room, turn = %turn.id, error = %panic, "a turn ended by a panic");
                Outcome::failed(strings::INTERNAL)
            }
        };
        self.answer(turn, outcome).await
    }

    async fn answer(&self, turn: Turn, outcome: Outcome) -> Result<(), StoreError> {
        let ending = match outcome.status {
            Status::Done => Ending::Done,
            Status::Stopped => Ending::Stopped,
            Status::Failed => Ending::Failed,
            Status::Limit => Ending::Limit,
        };
        let txn = self.txn(&turn.asked, "answer");
        let answer = Outbound::Answer {
            text: outcome.text,
            footer: outcome.footer,
            ending,
            asked: turn.asked,
            sender: turn.sender,
            thread: None,
        };
        let message = outcome.message.map(|message| to_json(&message)).transpose()?;
        let row = NewOutbox { txn, payload: to_json(&answer)?, data: None };
        let name = to_json(&ending)?;
        let name = name.as_str().unwrap_or_default();
        self.hub.inner.store.answer_turn(&self.address, &turn.id, name, message, vec![row]).await?;
        crash::point("queued");
        self.show(Live::Ended { ending });
        self.hub.inner.outbox.wake(&self.address).await;
        Ok(())
    }

    async fn progress(&self, turn: &Turn, progress: Progress) -> Result<(), StoreError> {
        let live = match progress {
            Progress::Thinking => Live::Thinking,
            Progress::Text(delta) => Live::Text { delta },
            Progress::Seen(said) => Live::Seen { said },
            Progress::ToolStarted { call, name, detail } => Live::ToolStarted { call: call.0, name, detail },
            Progress::ToolOutput { call, line } => Live::ToolOutput { call: call.0, line },
            Progress::ToolEnded { call, summary, ok } => Live::ToolEnded { call: call.0, summary, ok },
            Progress::Notice(text) => Live::Notice { text },
            Progress::Attachment { key, name, mime, data, stored } => {
                let file = Outbound::File { name, mime, thread: None };
                let row = NewOutbox { txn: self.txn(&turn.asked, &key), payload: to_json(&file)?, data: Some(data) };
                self.hub.inner.store.post(&self.address, Some(&turn.id), row).await?;
                // The turn may have been stopped while the file was stored.
                let _ = stored.send(());
                self.hub.inner.outbox.wake(&self.address).await;
                return Ok(());
            }
        };
        self.show(live);
        Ok(())
    }

    fn show(&self, live: Live) {
        // Live events are worth nothing later: what does not fit is dropped.
        let _ = self.hub.inner.live.try_send(LiveIn { address: self.address.clone(), live });
    }

    /// The same part of the same answer always has the same transaction id.
    fn txn(&self, asked: &EventId, part: &str) -> String {
        ids::digest(&[&self.address.bot, self.address.room.as_str(), asked.as_str(), part], 16)
    }
}

fn intent(event: &StoredInbound) -> Intent {
    match serde_json::from_value(event.body.clone()) {
        Ok(Body::Said { text, .. }) => Intent::of(&text),
        Ok(
            Body::File { .. }
            | Body::Unsupported { .. }
            | Body::Edited { .. }
            | Body::Redacted { .. }
            | Body::Locked { .. },
        ) => Intent::Command(Command::Unknown(String::new())),
        Ok(Body::Stop) => Intent::Command(Command::Stop),
        Err(error) => {
            tracing::error!(event = %event.event, %error, "a journaled event cannot be read");
            Intent::Command(Command::Unknown(String::new()))
        }
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    Ok(serde_json::to_value(value)?)
}
