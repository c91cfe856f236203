//! Reads the journal for the machine: each event with what its rule needs besides.

use super::{
    super::{
        event::{CutOff, Turn},
        meaning::{Change, Entry, Found, Meaning, Target, Work, thread, with_text, words},
    },
    Driver,
};
use crate::{
    hub::to_json,
    ids::EventId,
    store::{OpenTurn, Standing, StoreError, StoredInbound},
};

/// Waiting events that are read at a time.
const BATCH: usize = 64;

impl Driver {
    /// Returns the turns that a crash interrupted, oldest first.
    pub(super) async fn cut_off(&self) -> Result<Vec<CutOff>, StoreError> {
        let store = &self.hub.inner.store;
        let mut all = vec![];
        for OpenTurn { turn: id, bot, opened } in store.open_turns(&self.address).await? {
            let claimed: Vec<_> = store.claimed(&id).await?.iter().map(|event| self.entry(event)).collect();
            let Some(first) = claimed.first() else { continue };
            let (asked, sender, thread) = (first.event.clone(), first.sender.clone(), first.thread.clone());
            let turn = Turn { id, asked, sender, thread, what: first.words.clone(), opened };
            let served = self.bot(&bot).is_some();
            all.push(CutOff { turn, bot, served, claimed });
        }
        Ok(all)
    }

    /// Returns the event that a room without a turn handles next: the oldest change, else the oldest of all that
    /// wait.
    pub(super) async fn next(&self) -> Result<Option<Entry>, StoreError> {
        match self.hub.inner.store.next_waiting(&self.address).await? {
            Some(event) => self.whole_entry(&event).await.map(Some),
            None => Ok(None),
        }
    }

    /// Returns the oldest event that waits and came after `seq`.
    pub(super) async fn next_after(&self, seq: i64) -> Result<Option<Entry>, StoreError> {
        match self.hub.inner.store.waiting(&self.address, seq, 1).await?.first() {
            Some(event) => self.whole_entry(event).await.map(Some),
            None => Ok(None),
        }
    }

    /// Like [`Self::next_after`], but without what only stops and changes need.
    pub(super) async fn next_work_after(&self, seq: i64) -> Result<Option<Entry>, StoreError> {
        let waiting = self.hub.inner.store.waiting(&self.address, seq, 1).await?;
        Ok(waiting.first().map(|event| self.entry(event)))
    }

    fn entry(&self, event: &StoredInbound) -> Entry {
        let local = self.hub.inner.ports.is_local(&self.address.room);
        Entry::read(event, &self.hub.inner.bots, local)
    }

    async fn whole_entry(&self, event: &StoredInbound) -> Result<Entry, StoreError> {
        let mut entry = self.entry(event);
        match &mut entry.meaning {
            Meaning::Stop { before } => *before = self.work_before(event.seq).await?,
            Meaning::Change(change) => {
                change.found = self.find(&event.sender, change).await?;
                self.withdraw(event, change);
                if let Some((thread, work)) = self.missed(event, change).await? {
                    let words = change.text.take().unwrap_or_default();
                    return Ok(Entry { thread, words, meaning: Meaning::Work(work), ..entry });
                }
            }
            _ => {}
        }
        Ok(entry)
    }

    /// Takes an edit whose new words are for none of the bots, so that somebody else is meant now, for a message that is taken back.
    fn withdraw(&self, event: &StoredInbound, change: &mut Change) {
        let Found::Message(target) = &mut change.found else { return };
        let Some(body) = &target.edited else { return };
        let edited = StoredInbound { body: body.clone(), ..event.clone() };
        if matches!(self.entry(&edited).meaning, Meaning::Nothing) {
            (change.text, target.edited) = (None, None);
        }
    }

    /// Returns what is to be done about an edit that came before its message was answered and that the turn has not
    /// read: the answer is to the old text, so the bot is asked about the new one. `None` for every other change, such as
    /// a stop that came too late.
    async fn missed(
        &self,
        event: &StoredInbound,
        change: &Change,
    ) -> Result<Option<(Option<EventId>, Work)>, StoreError> {
        let (Some(new), Found::Message(target)) = (&change.text, &change.found) else { return Ok(None) };
        if change.stops {
            return Ok(None);
        }
        let Standing::Claimed(turn) = &target.standing else { return Ok(None) };
        let answered = self.hub.inner.store.answered(turn).await?;
        let missed = answered.filter(|answered| event.received <= answered.at && new.trim() != target.words.trim());
        Ok(missed.map(|answered| {
            let text = change.told(&event.sender, &target.words);
            (target.thread.clone(), Work { bot: answered.bot, text, file: None, about: None })
        }))
    }

    /// Returns the work that was sent before `seq` and that nobody has acted on.
    async fn work_before(&self, seq: i64) -> Result<Vec<EventId>, StoreError> {
        let (mut events, mut after) = (vec![], 0);
        loop {
            let page = self.hub.inner.store.waiting(&self.address, after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.seq;
            for event in page {
                if event.seq >= seq {
                    return Ok(events);
                }
                if self.entry(&event).meaning.is_work() {
                    events.push(event.event);
                }
            }
        }
    }

    /// Returns what the journal knows of the message that `sender` changes.
    async fn find(&self, sender: &str, change: &Change) -> Result<Found, StoreError> {
        let (store, account) = (&self.hub.inner.store, &self.address.account);
        let found = store.find(account, &change.target).await?;
        let own = found.filter(|found| found.room == self.address.room && found.inbound.sender == sender);
        let Some(found) = own else {
            let locked = store.locked_event(account, &change.target).await?;
            let own = locked.is_some_and(|(_, whose)| whose == sender);
            return Ok(if own { Found::Locked } else { Found::Nothing });
        };
        let body = &found.inbound.body;
        let edited = change.text.as_ref().and_then(|text| with_text(body, text, &change.addressed));
        Ok(Found::Message(Target {
            standing: found.standing,
            thread: thread(body),
            words: words(body),
            edited: edited.map(|body| to_json(&body)).transpose()?,
        }))
    }
}
