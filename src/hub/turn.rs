//! A turn as its room's actor sees it: what is said meanwhile steers it, a stop ends it, and its answer goes into the
//! outbox together with its end.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Ending, Live, Outbound,
    actor::{Actor, BATCH},
    bringing::{Bringing, Brought},
    doing::Doing,
    meaning::Meaning,
    side::txn,
    to_json,
};
use crate::{
    bots::{Bot, Outcome, Progress, Start, TurnJob, UserMessage},
    crash,
    ids::{EventId, TurnId},
    store::{NewOutbox, Standing, StoreError, StoredInbound},
    strings,
};

/// Steering messages that may wait for the running turn; more stay in the journal.
const STEER: usize = 16;
/// Progress that may wait to be shown.
const PROGRESS: usize = 256;

/// A turn as the actor knows it.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) id: TurnId,
    /// The event that asked, and who asked, in which thread, what.
    pub(super) asked: EventId,
    pub(super) sender: String,
    pub(super) thread: Option<EventId>,
    pub(super) what: String,
    /// When it was opened, in milliseconds since 1970.
    pub(super) opened: i64,
}

/// A turn at work, or about to be.
pub(super) struct Running {
    pub(super) turn: Turn,
    /// The bot that works on it.
    pub(super) bot: Arc<dyn Bot>,
    steer: mpsc::Sender<UserMessage>,
    /// What was handed to it.
    offered: HashSet<EventId>,
    /// Up to here messages were handed to it.
    offered_to: i64,
    /// What a message brings along, being fetched to be handed to it, and the message's thread; what came after it waits.
    bringing: Option<(Bringing, Option<EventId>)>,
    stop: CancellationToken,
}

impl Running {
    /// Returns whether the turn was handed an event.
    pub(super) fn has(&self, event: &EventId) -> bool {
        self.offered.contains(event)
    }

    /// Hands a message to the turn. One for which there is no room waits in the journal, to be looked at when the turn
    /// has ended; `false`.
    pub(super) fn tell(&mut self, event: &StoredInbound, message: UserMessage) -> bool {
        let told = self.steer.try_send(message).is_ok();
        if told {
            self.offered.insert(event.event.clone());
        }
        told
    }

    /// Waits for the end of what is being fetched; for ever if that is nothing.
    async fn brought(&mut self) -> (EventId, Option<EventId>, Result<Brought, String>) {
        let ended = match &mut self.bringing {
            Some((bringing, _)) => bringing.ended().await,
            None => std::future::pending().await,
        };
        match self.bringing.take() {
            Some((bringing, thread)) => (bringing.event, thread, ended),
            None => std::future::pending().await,
        }
    }
}

impl Actor {
    /// Runs a turn to its end, which `stop` brings about at once, and puts its answer into the outbox.
    pub(super) async fn turn(
        &mut self,
        bot: Arc<dyn Bot>,
        turn: Turn,
        start: Start,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let (steer, steering) = mpsc::channel(STEER);
        let mut running = Running {
            turn: turn.clone(),
            bot: Arc::clone(&bot),
            steer,
            offered: HashSet::new(),
            offered_to: 0,
            bringing: None,
            stop: stop.clone(),
        };
        // Whatever came with the message that asks steers the turn at once.
        self.mail.notify.notify_one();
        if !self.admitted(&mut running).await? {
            return Ok(());
        }
        self.show(Live::Started { asked: turn.asked.clone(), thread: turn.thread.clone() });
        self.doing = Doing::Working { what: turn.what.clone(), since: turn.opened, tools: 0, now: None };
        let (progress, mut seen) = mpsc::channel(PROGRESS);
        let job = TurnJob {
            at: self.conversation(&*bot),
            turn: turn.id.clone(),
            start,
            steering,
            progress,
            stop,
            abandon: self.hub.inner.cancel.child_token(),
        };
        let working = Arc::clone(&bot);
        // Should the database fail below, the work ends with this call, and is resumed from what is stored.
        let mut work = AbortOnDropHandle::new(tokio::spawn(async move { working.turn(job).await }));
        let outcome = loop {
            tokio::select! {
                ended = &mut work => break ended,
                Some(progress) = seen.recv() => {
                    let taken_in = matches!(progress, Progress::Seen(_));
                    self.progress(&turn, progress).await?;
                    if taken_in {
                        // There is room for another message.
                        self.offer(&mut running).await?;
                    }
                }
                () = self.mail.notify.notified() => self.heed(&mut running).await?,
                ended = self.side.ended() => ended?,
                (event, thread, brought) = running.brought() => {
                    self.hand_over(&mut running, event, thread, brought).await?;
                    self.offer(&mut running).await?;
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
                Outcome::plain(Ending::Failed, strings::INTERNAL)
            }
        };
        self.doing = Doing::Nothing;
        let answered = self.answer(Some(&*bot), turn, outcome).await;
        self.permit = None;
        answered
    }

    /// Waits for a permit, which one that is to end does not need. `false`: the program ends.
    async fn admitted(&mut self, running: &mut Running) -> Result<bool, StoreError> {
        while !running.stop.is_cancelled() {
            let bot = Arc::clone(&running.bot);
            let Some(before) = self.permit(&*bot).before() else { return Ok(true) };
            let turn = running.turn.clone();
            self.show_queue(&turn.asked, turn.thread.clone(), &turn.what, before);
            let (cancel, mail) = (self.hub.inner.cancel.clone(), self.mail.clone());
            let permit = self.permit(&*bot);
            tokio::select! {
                () = cancel.cancelled() => return Ok(false),
                () = running.stop.cancelled() => {}
                () = permit.moved() => {}
                () = mail.notify.notified() => self.heed(running).await?,
            }
        }
        Ok(true)
    }

    /// Looks at what was said meanwhile.
    async fn heed(&mut self, running: &mut Running) -> Result<(), StoreError> {
        while let Some(stop) = self.look(Some(running)).await? {
            let mut events = vec![stop.event.clone()];
            if matches!(self.meaning(&stop).0, Meaning::Stop) {
                // What was said before it is stopped, too.
                events.extend(self.work_before(stop.seq).await?);
            }
            self.hub.inner.store.claim(&self.address, &running.turn.id, events.clone()).await?;
            crash::point("stopped");
            self.show_taken(events);
            running.bringing = None;
            running.stop.cancel();
        }
        self.offer(running).await
    }

    /// Hands what people say to the turn's bot, in order, as much as it takes. What they say to another one waits.
    async fn offer(&mut self, running: &mut Running) -> Result<(), StoreError> {
        while running.bringing.is_none() && running.steer.capacity() > 0 && !running.stop.is_cancelled() {
            let page = self.hub.inner.store.waiting(&self.address, running.offered_to, BATCH).await?;
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                match self.meaning(&event) {
                    (Meaning::Ask(ask), _) if ask.bot.name() != running.bot.name() => {}
                    (Meaning::Ask(ask), _) if ask.is_plain() => {
                        if running.steer.capacity() == 0 {
                            return Ok(());
                        }
                        let message = self.message(&event.event, &event.sender, ask.text, vec![]).await?;
                        if running.tell(&event, message) {
                            self.show(Live::Heard { said: event.event });
                        }
                    }
                    (Meaning::Ask(ask), thread) => {
                        let bringing = Bringing::begin(&self.hub, &self.address, &event.event, ask);
                        running.bringing = Some((bringing, thread));
                        running.offered_to = event.seq;
                        return Ok(());
                    }
                    _ => {}
                }
                running.offered_to = event.seq;
            }
        }
        Ok(())
    }

    /// Hands a message to the turn together with what it brings along, or says what is wrong with that.
    async fn hand_over(
        &mut self,
        running: &mut Running,
        event: EventId,
        thread: Option<EventId>,
        brought: Result<Brought, String>,
    ) -> Result<(), StoreError> {
        let brought = match brought {
            Ok(brought) => brought,
            Err(sentence) => return self.reply(event, thread, sentence).await,
        };
        // It may have been taken back meanwhile, or have got other words.
        let Some(found) = self.hub.inner.store.find(&self.address.account, &event).await? else { return Ok(()) };
        let (Standing::Waiting, (Meaning::Ask(ask), _)) = (found.standing, self.meaning(&found.inbound)) else {
            return Ok(());
        };
        let text = brought.behind(&ask.text);
        let message = self.message(&event, &found.inbound.sender, text, brought.pictures).await?;
        if running.tell(&found.inbound, message) {
            self.show(Live::Heard { said: event });
        }
        Ok(())
    }

    /// Stores a turn's end with what must be sent, in one transaction. `bot`: who worked on it, if that is known still.
    pub(super) async fn answer(
        &mut self,
        bot: Option<&dyn Bot>,
        turn: Turn,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let ending = outcome.ending;
        let row = |part: &str, outbound: &Outbound| {
            let payload = to_json(outbound)?;
            Ok::<_, StoreError>(NewOutbox { txn: txn(&self.address, &turn.asked, part), payload, file: None })
        };
        let mut text = outcome.text;
        if ending == Ending::Stopped
            && let Some(bot) = bot
            && let Some(left) = bot.left_running(&self.address).await
        {
            text = format!("{text}\n\n{left}");
        }
        let claimed = self.hub.inner.store.claimed(&turn.id).await?;
        let others = claimed.into_iter().map(|event| event.event).filter(|event| *event != turn.asked).collect();
        let answer = Outbound::Answer {
            text,
            footer: outcome.footer,
            ending,
            asked: turn.asked.clone(),
            others,
            sender: turn.sender,
            thread: turn.thread.clone(),
        };
        let closing =
            Outbound::Closing { asked: turn.asked.clone(), ending, footer: outcome.brief, thread: turn.thread };
        let rows = vec![row("answer", &answer)?, row("closing", &closing)?];
        let message = outcome.line;
        let name = to_json(&ending)?;
        let name = name.as_str().unwrap_or_default();
        let (store, address) = (&self.hub.inner.store, &self.address);
        if store.answer_turn(address, &turn.id, name, message.clone(), rows).await? {
            crash::point("queued");
        } else {
            // Nobody is left in the room. Should somebody come back, the model is to know that it ended.
            store.drop_unsent(address).await?;
            if let Some(message) = message {
                store.append_message(address, &turn.id, message).await?;
            }
            self.mail.set_turn(None);
            // What the turn did last may have made the container anew.
            self.hub.inner.sweep.notify_one();
        }
        self.mail.set_turn(None);
        self.show(Live::Ended { ending });
        self.hub.inner.outbox.wake(&self.address).await;
        Ok(())
    }

    async fn progress(&mut self, turn: &Turn, progress: Progress) -> Result<(), StoreError> {
        self.doing.take(&progress);
        let live = match progress {
            Progress::Thinking => Live::Thinking,
            Progress::Text(delta) => Live::Text { delta },
            Progress::Seen(said) => Live::Seen { said },
            Progress::ToolStarted { call, name, detail } => Live::ToolStarted { call: call.0, name, detail },
            Progress::ToolOutput { call, line } => Live::ToolOutput { call: call.0, line },
            Progress::ToolEnded { call, summary, ok } => Live::ToolEnded { call: call.0, summary, ok },
            Progress::Notice(text) => Live::Notice { text },
            Progress::Attachment { key, name, mime, data, stored } => {
                let file = Outbound::File { name, mime, thread: turn.thread.clone() };
                let txn = txn(&self.address, &turn.asked, &key);
                let kept = match self.hub.inner.store.keep_file(&txn, data).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        // Who waits for it is told that it was not stored.
                        tracing::warn!(room = %self.address.room, turn = %turn.id, %error, "a file cannot be sent");
                        return Ok(());
                    }
                };
                let row = NewOutbox { txn, payload: to_json(&file)?, file: Some(kept) };
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
}
