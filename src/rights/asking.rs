//! Asks people: a card in the room, its answer, its end. All of it is durable, and each card ends once.
//!
//! A room has one open card at a time; whoever wants to ask meanwhile waits, within their own time. A card ends by an answer of
//! somebody who may, by its time, or because nobody needs it any more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answerer, Lasts, Question, Rights,
    card::{Card, name},
    granted::Grant,
    role::Role,
};
use crate::{
    audit::Deed,
    crash,
    ids::{self, Address, EventId, TurnId},
    store::{CardState, NewOutbox, StoreError, StoredCard},
    strings::rights,
    text,
};

/// How often it is looked for cards whose time is over and that nobody waits for.
const LOOK: Duration = Duration::from_secs(2);
/// How long an account's board may take to come after what asks.
const STARTING: Duration = Duration::from_secs(5);
/// Codes that are tried until one is free.
const TRIES: usize = 8;

/// Where an account's cards are shown: its hub.
pub trait Board: Send + Sync {
    /// Returns whether people can answer by a reaction there. Where all is encrypted they cannot: reactions are not.
    fn reactions(&self, at: &Address) -> bool;

    /// Returns the row of the outbox that shows a card, or that tells, in its place, what became of the one with the
    /// transaction id `replaces`.
    fn row(
        &self,
        txn: String,
        text: String,
        thread: Option<EventId>,
        replaces: Option<String>,
    ) -> Result<NewOutbox, StoreError>;

    /// Lets the rows of a room be sent.
    fn wake<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, ()>;
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The card has ended by it; the sentence says how.
    Ended(String),
    /// The room has no such card, or it has ended already.
    NotOpen,
    /// Somebody of a higher role has to answer.
    NotYours(Role),
    /// The question is not for this person.
    NotFor(Answerer),
}

/// The cards that are open, and where they are shown.
#[derive(Default)]
pub(super) struct Desk {
    boards: Mutex<HashMap<String, Arc<dyn Board>>>,
    /// Tells that another board is there.
    attached: Notify,
    cards: Mutex<HashMap<String, Arc<Open>>>,
    /// For each room, leave to have a card open.
    places: Mutex<HashMap<Address, Arc<Semaphore>>>,
}

/// An open card.
struct Open {
    card: Card,
    ended: Notify,
}

impl Desk {
    fn board(&self, account: &str) -> Option<Arc<dyn Board>> {
        lock(&self.boards).get(account).cloned()
    }

    fn place(&self, at: &Address) -> Arc<Semaphore> {
        Arc::clone(lock(&self.places).entry(at.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    fn add(&self, card: Card) -> Arc<Open> {
        let mut cards = lock(&self.cards);
        let open = cards.entry(card.code.clone()).or_insert_with(|| Arc::new(Open { card, ended: Notify::new() }));
        Arc::clone(open)
    }

    fn of(&self, which: impl Fn(&Card) -> bool) -> Vec<Card> {
        lock(&self.cards).values().map(|open| &open.card).filter(|card| which(card)).cloned().collect()
    }

    /// Takes a card that has ended off, and tells who waits for it.
    fn remove(&self, code: &str) {
        if let Some(open) = lock(&self.cards).remove(code) {
            open.ended.notify_waiters();
        }
    }
}

impl Rights {
    /// Shows an account's cards on a board from now on. Cards of turns that are over end.
    pub async fn attach(&self, account: &str, board: Arc<dyn Board>) -> Result<(), StoreError> {
        lock(&self.inner.desk.boards).insert(account.to_owned(), board);
        for card in self.inner.store.open_cards(account).await?.into_iter().filter_map(Card::stored) {
            let open = self.inner.desk.add(card);
            if !self.inner.store.is_open(&open.card.turn).await? {
                self.end(&open.card, CardState::Withdrawn, None, None).await?;
            }
        }
        self.inner.desk.attached.notify_waiters();
        Ok(())
    }

    /// Ends cards whose time is over, and keeps the latest time, until the program ends.
    pub async fn watch(self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(time::sleep(LOOK)).await.is_some() {
            let now = self.inner.time.now();
            for card in self.inner.desk.of(|card| card.until <= now) {
                if let Err(error) = self.end(&card, CardState::Expired, None, None).await {
                    tracing::warn!(%error, "a card whose time is over cannot be ended");
                }
            }
        }
    }

    /// Returns the open cards of a room: the event of each in the room, once it was sent, and its code.
    pub async fn cards_at(&self, at: &Address) -> Result<Vec<(EventId, String)>, StoreError> {
        let mut found = Vec::new();
        for card in self.inner.desk.of(|card| card.at == *at) {
            if let Some(event) = self.inner.store.sent_as(&card.txn("card")).await? {
                found.push((event, card.code));
            }
        }
        Ok(found)
    }

    /// Returns the questions that are open in a room: what may be done, and the code.
    pub fn questions_at(&self, at: &Address) -> Vec<(String, String)> {
        let open = self.inner.desk.of(|card| card.at == *at).into_iter();
        open.map(|card| (card.what().to_owned(), card.code)).collect()
    }

    /// Takes a person's answer to the card with this code in a room. `lasts` is how long a yes is to count for all that a
    /// grant can cover; `None`: for the question alone, and for a host or for reading until the turn ends.
    pub async fn answer(
        &self,
        at: &Address,
        code: &str,
        person: &str,
        yes: bool,
        lasts: Option<Lasts>,
    ) -> Result<Answered, StoreError> {
        let code = code.to_uppercase();
        let open = self.inner.store.open_cards(&at.account).await?.into_iter();
        let Some(card) = open.filter(|card| card.code == code && card.at == *at).find_map(Card::stored) else {
            return Ok(Answered::NotOpen);
        };
        if self.roles().of(at, person) < card.needed() {
            return Ok(Answered::NotYours(card.needed()));
        }
        if let Some(answerer) = card.excludes(person) {
            return Ok(Answered::NotFor(answerer));
        }
        let now = self.inner.time.now();
        if card.until <= now {
            self.end(&card, CardState::Expired, None, None).await?;
            return Ok(Answered::NotOpen);
        }
        let lasts = lasts.or_else(|| card.opens().then(|| Lasts::Turn(card.turn.clone())));
        let grant = card
            .subject()
            .zip(lasts.filter(|_| yes))
            .map(|((subject, writes), lasts)| Grant::new(subject, writes, person, now, lasts));
        let state = if yes { CardState::Yes } else { CardState::No };
        let ended = self.end(&card, state, Some(person), grant).await?;
        if ended.is_some() {
            let digest = ids::digest(&[card.what()], 16);
            let deed = Deed::new("answer", code, if yes { "yes" } else { "no" }).by(person);
            self.note(at, Deed { digest, ..deed });
        }
        Ok(ended.map_or(Answered::NotOpen, Answered::Ended))
    }

    /// Asks a question that needs the yes of a role, unless it was asked before. Returns what became of it; it is open where
    /// nobody can be asked.
    pub(super) async fn ask(
        &self,
        at: &Address,
        turn: &TurnId,
        question: &Question,
        needed: Role,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<CardState, StoreError> {
        let Some(board) = self.board(&at.account).await else { return Ok(CardState::Open) };
        let millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let until = self.inner.time.now().saturating_add(millis);
        let (thread, asks) = self.who_asks(turn).await?;
        let mut asked = None;
        for _ in 0..TRIES {
            let card = Card::new(at, turn, question, needed, asks.clone(), thread.clone(), until);
            let text = card.text(self.roles().admins(&at.account), board.reactions(at), limit);
            let row = board.row(card.txn("card"), text, thread.clone().map(EventId), None)?;
            let stored = StoredCard {
                code: card.code.clone(),
                question: card.question.clone(),
                at: at.clone(),
                turn: turn.clone(),
                body: serde_json::to_value(&card.body)?,
                txn: card.txn("card"),
                until,
                state: CardState::Open,
                by: None,
                closed: None,
            };
            asked = self.inner.store.open_card(stored, row).await?;
            if asked.is_some() {
                break;
            }
        }
        crash::point("card_asked");
        let Some(asked) = asked else { return Ok(CardState::Open) };
        if asked.state != CardState::Open {
            return Ok(asked.state);
        }
        let Some(card) = Card::stored(asked) else { return Ok(CardState::Open) };
        let open = self.inner.desk.add(card);
        board.wake(at).await;
        self.wait(&open, cancel).await
    }

    /// Returns where an account's cards are shown; at a start it may come a moment after what asks.
    async fn board(&self, account: &str) -> Option<Arc<dyn Board>> {
        let attached = async {
            loop {
                let attached = self.inner.desk.attached.notified();
                tokio::pin!(attached);
                attached.as_mut().enable();
                if let Some(board) = self.inner.desk.board(account) {
                    return board;
                }
                attached.await;
            }
        };
        time::timeout(STARTING, attached).await.ok()
    }

    /// Waits until a card has ended, and ends it when its time is over or nobody needs it any more.
    async fn wait(&self, open: &Open, cancel: &CancellationToken) -> Result<CardState, StoreError> {
        let card = &open.card;
        loop {
            let ended = open.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let state = self.inner.store.card(&card.question).await?.map_or(CardState::Withdrawn, |card| card.state);
            if state != CardState::Open {
                // It may have ended before it was on the desk.
                self.inner.desk.remove(&card.code);
                return Ok(state);
            }
            let left = card.until.saturating_sub(self.inner.time.now()).max(0);
            tokio::select! {
                () = ended => {}
                () = cancel.cancelled() => { self.end(card, CardState::Withdrawn, None, None).await?; }
                () = time::sleep(Duration::from_millis(left as u64)), if left > 0 => {}
                () = std::future::ready(()), if left == 0 => { self.end(card, CardState::Expired, None, None).await?; }
            }
        }
    }

    /// Ends a card, and tells it in the room; returns the sentence, or `None` if it had ended before.
    async fn end(
        &self,
        card: &Card,
        state: CardState,
        by: Option<&str>,
        grant: Option<Grant>,
    ) -> Result<Option<String>, StoreError> {
        let Some(board) = self.inner.desk.board(&card.at.account) else { return Ok(None) };
        let now = self.inner.time.now();
        let lasting = grant.as_ref().map(|grant| match grant.until {
            _ if grant.turn.is_some() => rights::LEFT_OF_TURN.to_owned(),
            Some(until) => {
                rights::left(&text::human_duration(Duration::from_millis(until.saturating_sub(now).max(0) as u64)))
            }
            None => rights::LEFT_FOR_EVER.to_owned(),
        });
        let text = match (state, by) {
            (CardState::Yes, Some(by)) => rights::allowed(card.what(), by, lasting.as_deref()),
            (CardState::No, Some(by)) => rights::denied(card.what(), by),
            (CardState::Expired, _) => rights::expired(card.what()),
            _ => rights::withdrawn(card.what()),
        };
        let thread = card.thread().map(EventId::from);
        let row = board.row(card.txn("end"), text.clone(), thread, Some(card.txn("card")))?;
        let stored = grant.as_ref().map(|grant| grant.stored(&card.at));
        let by = by.map(str::to_owned);
        let ended = self.inner.store.close_card(&card.code, state, by, stored, row, now).await?;
        crash::point("card_ended");
        if let Some(grant) = grant.filter(|_| ended) {
            self.inner.granted.add(&card.at, grant, now);
        }
        self.inner.desk.remove(&card.code);
        tracing::info!(code = %card.code, ?state, "a question to the room has ended");
        if ended {
            board.wake(&card.at).await;
        }
        Ok(ended.then_some(text))
    }

    /// Ends the cards of a turn that is over.
    pub(super) async fn withdraw(&self, at: &Address, turn: &TurnId) {
        // The store knows one, too, that was asked just now and is not on the desk yet.
        let open = match self.inner.store.open_cards(&at.account).await {
            Ok(open) => open,
            Err(error) => return tracing::warn!(%error, "cards that nobody needs any more cannot be found"),
        };
        for card in open.into_iter().filter(|card| card.turn == *turn).filter_map(Card::stored) {
            if let Err(error) = self.end(&card, CardState::Withdrawn, None, None).await {
                tracing::warn!(%error, "a card that nobody needs any more cannot be ended");
            }
        }
    }

    /// Returns the thread of a turn, and who has spoken in it.
    async fn who_asks(&self, turn: &TurnId) -> Result<(Option<String>, Vec<String>), StoreError> {
        let said = self.inner.store.claimed(turn).await?;
        let thread = said.first().and_then(|first| first.body["thread"].as_str()).map(str::to_owned);
        let mut asks: Vec<String> = Vec::new();
        for said in said {
            if !asks.contains(&said.sender) {
                asks.push(said.sender);
            }
        }
        Ok((thread, asks))
    }

    /// Returns leave to have a card open in a room.
    pub(super) fn place(&self, at: &Address) -> Arc<Semaphore> {
        self.inner.desk.place(at)
    }

    /// Returns what is stored of a question of a turn.
    pub(super) async fn asked(
        &self,
        at: &Address,
        turn: &TurnId,
        question: &Question,
    ) -> Result<Option<StoredCard>, StoreError> {
        self.inner.store.card(&name(at, turn, question)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
