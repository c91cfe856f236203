//! Writes a room's answers: each reply is put into the outbox in the transaction that marks its event done.

use std::time::Duration;

use super::{
    super::{
        brought::Brought,
        event::{Enclosed, End, Turn},
        meaning::Entry,
        side::{self, txn},
    },
    Driver,
};
use crate::{
    bots::{Enclosure, Outcome, Taken},
    crash,
    hub::{Ending, Features, Live, Outbound, message::CardPlace, to_json},
    ids::{BotName, EventId, TurnId},
    metrics,
    store::{NewOutbox, StoreError},
    strings,
};

impl Driver {
    /// Stores a turn's end with all that must be sent for it, in one transaction.
    pub(super) async fn answer(&mut self, turn: Turn, bot: &BotName, end: End) -> Result<(), StoreError> {
        let bot_served = self.bot(bot);
        let outcome = match (end, &bot_served) {
            (End::Outcome(outcome), _) => outcome,
            (End::Stopped, Some(bot)) => bot.stopped(),
            (End::Stopped | End::BotGone, _) => Outcome::plain(Ending::Failed, strings::rooms::bot_gone(bot.as_str())),
            (End::NoOutcome, _) => Outcome::plain(Ending::Failed, strings::rooms::INTERNAL),
        };
        let ending = outcome.ending;
        let features = self.features();
        let streamed = features.edits && bot_served.as_ref().is_some_and(|bot| bot.streams());
        let row = |part: &str, outbound: &Outbound| {
            let payload = to_json(outbound)?;
            Ok::<_, StoreError>(NewOutbox { txn: txn(&self.address, &turn.asked, part), payload, file: None })
        };
        let mut text = outcome.text;
        if ending == Ending::Stopped
            && let Some(bot) = &bot_served
            && let Some(left) = bot.left_running(&self.address).await
        {
            text = format!("{text}\n\n{left}");
        }
        let claimed = self.hub.inner.store.claimed(&turn.id).await?;
        let others = claimed.into_iter().map(|event| event.event).filter(|event| *event != turn.asked).collect();
        let silent = text.is_empty();
        let answer = Outbound::Answer {
            text,
            footer: outcome.footer,
            ending,
            asked: turn.asked.clone(),
            others,
            sender: turn.sender,
            thread: turn.thread.clone(),
            streamed,
            thoughts: outcome.thoughts,
        };
        let closing =
            Outbound::Closing { asked: turn.asked.clone(), ending, footer: outcome.brief, thread: turn.thread };
        // An outcome without words is none for the room; it ends what was shown of the turn.
        let mut rows = if silent { vec![] } else { vec![row("answer", &answer)?] };
        // An answer that was shown as it came ends the message in which it was.
        if features.edits && (!streamed || silent) {
            rows.push(row("closing", &closing)?);
        }
        let message = outcome.line;
        let (store, address) = (&self.hub.inner.store, &self.address);
        let answered = store.answer_turn(address, &turn.id, ending.as_str(), message.clone(), rows).await?;
        let took = store.clock().millis().saturating_sub(turn.opened);
        let took = Duration::from_millis(u64::try_from(took).unwrap_or_default());
        metrics::turn_ended(bot.as_str(), ending.as_str(), took);
        if answered {
            crash::point("queued");
        } else {
            // Nobody is left in the room. Should somebody come back, the model is to know that it ended.
            store.drop_unsent(address).await?;
            if let Some(message) = message {
                store.append_message(address, &turn.id, message).await?;
            }
        }
        self.close();
        if !answered {
            // The turn's last call may have started the left room's container again; the sweep removes it.
            self.hub.inner.sweep.notify_one();
        }
        self.hub.show(&self.address, Some(turn.id), Live::Ended { ending });
        self.wake_outbox().await;
        Ok(())
    }

    /// Replies to an event and marks it done.
    pub(super) async fn reply(&self, event: EventId, thread: Option<EventId>, text: String) -> Result<(), StoreError> {
        side::reply(&self.hub, &self.address, event, thread, text).await
    }

    /// Tells the person that a file was saved; the model sees it with the next message.
    pub(super) async fn acknowledge(
        &self,
        entry: Entry,
        bot: &BotName,
        saved: String,
        brought: Brought,
    ) -> Result<(), StoreError> {
        let Some(bot) = self.bot(bot) else { return Ok(()) };
        let Entry { event, sender, thread, .. } = entry;
        let message = self.message(&event, &sender, brought.behind(""), brought.pictures, thread.clone()).await?;
        let reply = side::reply_row(&self.address, &event, thread, saved, None)?;
        let line = (bot.name().clone(), TurnId(txn(&self.address, &event, "file")), bot.line(&message));
        self.hub.inner.store.reply_and_keep(&self.address, vec![event], vec![reply], Some(line)).await?;
        self.wake_outbox().await;
        Ok(())
    }

    /// Replies that no turn runs that could be stopped, and what else goes on
    /// ([`Bot::left_running`](crate::bots::Bot)).
    pub(super) async fn nothing_to_stop(&self, event: EventId, thread: Option<EventId>) -> Result<(), StoreError> {
        let mut text = strings::commands::NOTHING_RUNS.to_owned();
        for bot in self.hub.inner.bots.iter() {
            if let Some(left) = bot.left_running(&self.address).await {
                text = format!("{text}\n\n{left}");
            }
        }
        self.reply(event, thread, text).await
    }

    /// Drops a message that waits, and takes back the notice that it waits, if one was shown.
    pub(super) async fn drop_question(
        &self,
        asked: EventId,
        thread: Option<EventId>,
        change: EventId,
    ) -> Result<(), StoreError> {
        let txn = txn(&self.address, &asked, "closing");
        let closing =
            Outbound::Closing { asked: asked.clone(), ending: Ending::Stopped, footer: String::new(), thread };
        let closing = self.features().edits.then(|| to_json(&closing)).transpose()?;
        let rows = closing.map(|payload| NewOutbox { txn, payload, file: None }).into_iter().collect();
        self.hub.inner.store.reply(&self.address, vec![asked, change], rows).await?;
        self.wake_outbox().await;
        Ok(())
    }

    /// Has the bots forget a message that was taken back.
    pub(super) async fn forget(&self, target: EventId, change: EventId) -> Result<(), StoreError> {
        for bot in self.hub.inner.bots.iter() {
            let at = self.conversation(&**bot);
            if let Err(error) = bot.forget(&at, &target).await {
                tracing::warn!(bot = %bot.name(), error, "a message that was taken back could not be forgotten");
            }
        }
        self.hub.inner.store.done(&self.address.account, vec![change]).await
    }

    /// Stores what the turn sends to the room beside its answer.
    pub(super) async fn enclose(&self, turn: &Turn, enclosed: Enclosed) -> Result<(), StoreError> {
        let Enclosed { key, enclosure, stored } = enclosed;
        let (features, thread) = (self.features(), turn.thread.clone());
        let txn = txn(&self.address, &turn.asked, &key);
        let (outbound, file) = match enclosure {
            Enclosure::File { name, mime, data } if features.files => {
                let kept = match self.hub.inner.store.keep_file(&txn, data).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        // Dropping `stored` tells the turn that the file was not stored.
                        tracing::warn!(%error, "a file cannot be sent");
                        return Ok(());
                    }
                };
                (Outbound::File { name, mime, thread }, Some(kept))
            }
            Enclosure::Log(text) if features.threads => {
                (Outbound::Log { text, asked: turn.asked.clone(), thread }, None)
            }
            Enclosure::News(text) => {
                (Outbound::Notice { text, card: Some(CardPlace { thread, replaces: None, calls: None }) }, None)
            }
            Enclosure::File { .. } | Enclosure::Log(_) => {
                let _ = stored.send(Taken::NotHere);
                return Ok(());
            }
        };
        let row = NewOutbox { txn, payload: to_json(&outbound)?, file };
        self.hub.inner.store.post(&self.address, Some(&turn.id), row).await?;
        // The receiver is gone if the turn was stopped meanwhile.
        let _ = stored.send(Taken::Stored);
        self.wake_outbox().await;
        Ok(())
    }

    fn features(&self) -> Features {
        self.hub.inner.ports.features(&self.address.room)
    }

    async fn wake_outbox(&self) {
        self.hub.inner.outbox.wake(&self.address).await;
    }
}
