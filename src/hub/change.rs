//! Edits and redactions of what somebody said before. They count only when they come from who said it.

use super::{
    Ending, Outbound,
    actor::Actor,
    meaning::{Change, thread, with_text, words},
    side::txn,
    to_json,
    turn::Running,
};
use crate::{
    bots::UserMessage,
    store::{NewOutbox, Standing, StoreError, StoredInbound},
    strings, text,
};

/// How much of the earlier message is repeated.
const SHOWN: usize = 80;

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is seen to.
    Done,
    /// It took back what the running turn works on: that is to be stopped.
    Stop,
}

impl Actor {
    /// Sees to a change: what waits is changed or dropped, the running turn is told, what was answered stays.
    pub(super) async fn change(
        &mut self,
        event: &StoredInbound,
        change: &Change,
        running: Option<&mut Running>,
    ) -> Result<Told, StoreError> {
        let (store, bot) = (&self.hub.inner.store, &self.address.account);
        let found = store.find(bot, &change.target).await?;
        let own = found.filter(|found| found.room == self.address.room && found.inbound.sender == event.sender);
        let Some(target) = own else {
            let locked = store.locked_event(bot, &change.target).await?;
            if change.text.is_none() && locked.is_some_and(|(_, sender)| sender == event.sender) {
                store.unlock(bot, &change.target, None).await?;
            }
            store.done(bot, vec![event.event.clone()]).await?;
            return Ok(Told::Done);
        };
        let old = &target.inbound;
        match (&target.standing, running) {
            (Standing::Claimed(turn), Some(running)) if *turn == running.turn.id => {
                if change.text.is_none() && old.event == running.turn.asked {
                    return Ok(Told::Stop);
                }
                running.tell(event, tell(event, change, old));
            }
            // The turn has it already, and has only not come to it yet.
            (Standing::Waiting, Some(running)) if running.has(&old.event) => {
                running.tell(event, tell(event, change, old));
            }
            (Standing::Waiting, _) => match &change.text {
                Some(text) => match with_text(&old.body, text) {
                    Some(body) => store.rewrite(bot, &old.event, to_json(&body)?, &event.event).await?,
                    None => store.done(bot, vec![event.event.clone()]).await?,
                },
                None => self.drop_question(event, old).await?,
            },
            (Standing::Claimed(_) | Standing::Done, _) => store.done(bot, vec![event.event.clone()]).await?,
        }
        Ok(Told::Done)
    }

    /// Drops a question that waits. If the room was shown that it does, it is shown that it does no more.
    async fn drop_question(&mut self, event: &StoredInbound, old: &StoredInbound) -> Result<(), StoreError> {
        let closing = Outbound::Closing {
            asked: old.event.clone(),
            ending: Ending::Stopped,
            footer: String::new(),
            thread: thread(&old.body),
        };
        let txn = txn(&self.address, &old.event, "closing");
        let row = NewOutbox { txn, payload: to_json(&closing)?, file: None };
        let events = vec![old.event.clone(), event.event.clone()];
        self.hub.inner.store.reply(&self.address, events, vec![row]).await?;
        self.drop_waiting(&old.event);
        self.hub.inner.outbox.wake(&self.address).await;
        Ok(())
    }
}

/// Returns what the model is told of a change.
fn tell(event: &StoredInbound, change: &Change, old: &StoredInbound) -> UserMessage {
    let old = text::one_line(&words(&old.body), SHOWN);
    let text = match &change.text {
        Some(new) => strings::changed(&event.sender, &old, new),
        None => strings::taken_back(&event.sender, &old),
    };
    UserMessage { event: event.event.clone(), speaker: None, text, pictures: vec![] }
}
