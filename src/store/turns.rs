//! Turns: each claims events and ends with one terminal reply.

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::Value;

use super::{Conversation, FIRST_BOT, NewOutbox, Store, StoreError, answerer, journal, outbox};
use crate::ids::{Address, BotName, EventId, TurnId};

/// How far a turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnState {
    /// It is being worked on.
    Open,
    /// Its answer is in the outbox.
    Answered,
    /// Its answer was sent.
    Closed,
}

impl TurnState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Answered => "answered",
            Self::Closed => "closed",
        }
    }
}

/// A turn that a crash interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTurn {
    /// The turn.
    pub turn: TurnId,
    /// The bot that works on it.
    pub bot: BotName,
    /// When it was opened, in milliseconds since 1970.
    pub opened: i64,
}

/// The end of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When its answer was written, in milliseconds since 1970.
    pub at: i64,
    /// The bot that worked on it.
    pub bot: BotName,
}

impl Store {
    /// Opens a turn in one transaction: claims its events, of which the first asks, and appends `message` to the
    /// conversation. Returns `false`, without a change, if the first event waits no more.
    pub async fn open_turn(
        &self,
        at: &Conversation,
        turn: &TurnId,
        events: Vec<EventId>,
        message: Value,
    ) -> Result<bool, StoreError> {
        let (at, turn, now) = (at.clone(), turn.clone(), self.clock.millis());
        self.write(move |tx| {
            let address = &at.address;
            if let Some(asked) = events.first()
                && !journal::waits(tx, address, asked)?
            {
                return Ok(false);
            }
            let row = params![
                turn.as_str(),
                address.account,
                address.room.as_str(),
                TurnState::Open.as_str(),
                now,
                answerer(&at.bot)
            ];
            tx.execute(
                "INSERT INTO turns (turn, bot, room, state, opened, answerer) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                row,
            )?;
            claim(tx, address, &turn, &events)?;
            append(tx, address, &turn, &message, now)?;
            Ok(true)
        })
        .await
    }

    /// Lets a running turn claim an event, and appends `message` to the conversation.
    pub async fn steer_turn(
        &self,
        address: &Address,
        turn: &TurnId,
        event: EventId,
        message: Value,
    ) -> Result<(), StoreError> {
        let (address, turn, now) = (address.clone(), turn.clone(), self.clock.millis());
        self.write(move |tx| {
            claim(tx, &address, &turn, &[event])?;
            append(tx, &address, &turn, &message, now)?;
            Ok(())
        })
        .await
    }

    /// Lets a turn claim events that the model is not told of (`!stop`); the turn's answer answers them.
    pub async fn claim(&self, address: &Address, turn: &TurnId, events: Vec<EventId>) -> Result<(), StoreError> {
        let (address, turn) = (address.clone(), turn.clone());
        self.write(move |tx| claim(tx, &address, &turn, &events)).await
    }

    /// Returns whether a turn is open.
    pub async fn is_open(&self, turn: &TurnId) -> Result<bool, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select =
                tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM turns WHERE turn = ?1 AND state = 'open')")?;
            Ok(select.query_row([turn.as_str()], |row| row.get(0))?)
        })
        .await
    }

    /// Returns when a turn was opened, in milliseconds since 1970, if it is known.
    pub async fn opened(&self, turn: &TurnId) -> Result<Option<i64>, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT opened FROM turns WHERE turn = ?1")?;
            Ok(select.query_row([turn.as_str()], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Appends a message to the turn's conversation.
    pub async fn append_message(&self, address: &Address, turn: &TurnId, message: Value) -> Result<(), StoreError> {
        let (address, turn, now) = (address.clone(), turn.clone(), self.clock.millis());
        self.write(move |tx| append(tx, &address, &turn, &message, now).map(drop)).await
    }

    /// Ends a turn in one transaction: stores its last message, its outcome and the rows to be sent. A second call
    /// changes nothing, so that a turn has one terminal reply. Returns whether the turn was open.
    pub async fn answer_turn(
        &self,
        address: &Address,
        turn: &TurnId,
        outcome: &str,
        message: Option<Value>,
        replies: Vec<NewOutbox>,
    ) -> Result<bool, StoreError> {
        let (address, turn, outcome, now) = (address.clone(), turn.clone(), outcome.to_owned(), self.clock.millis());
        self.write(move |tx| {
            // What has nothing to be sent is closed at once.
            let (state, closed) =
                if replies.is_empty() { (TurnState::Closed, Some(now)) } else { (TurnState::Answered, None) };
            let changed = tx.execute(
                "UPDATE turns SET state = ?2, outcome = ?3, closed = ?4 WHERE turn = ?1 AND state = 'open'",
                params![turn.as_str(), state.as_str(), outcome, closed],
            )?;
            if changed == 0 {
                return Ok(false);
            }
            if let Some(message) = message {
                append(tx, &address, &turn, &message, now)?;
            }
            outbox::put(tx, &address, Some(&turn), &replies, now)?;
            Ok(true)
        })
        .await
    }

    /// Answers events without a turn (commands) in one transaction: marks them done and puts the replies into the
    /// outbox. Does nothing if the first event waits no more.
    pub async fn reply(
        &self,
        address: &Address,
        events: Vec<EventId>,
        replies: Vec<NewOutbox>,
    ) -> Result<(), StoreError> {
        self.reply_and_keep(address, events, replies, None).await
    }

    /// Like [`Store::reply`], and also appends a message to a bot's conversation, under a [`TurnId`] that has no
    /// turn.
    pub async fn reply_and_keep(
        &self,
        address: &Address,
        events: Vec<EventId>,
        replies: Vec<NewOutbox>,
        message: Option<(BotName, TurnId, Value)>,
    ) -> Result<(), StoreError> {
        let (address, now) = (address.clone(), self.clock.millis());
        self.write(move |tx| {
            let Some(first) = events.first() else { return Ok(()) };
            if !journal::waits(tx, &address, first)? {
                return Ok(());
            }
            journal::done(tx, &address.account, &events)?;
            if let Some((bot, turn, message)) = message {
                let at = Conversation { address: address.clone(), bot };
                append_to(tx, &at, &turn, &message, now)?;
            }
            outbox::put(tx, &address, None, &replies, now)
        })
        .await
    }

    /// Returns how a turn ended; `None` if it is open, or gone.
    pub async fn answered(&self, turn: &TurnId) -> Result<Option<Answered>, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT (SELECT max(created) FROM outbox o WHERE o.turn = t.turn), answerer FROM turns t
                 WHERE turn = ?1 AND state <> 'open'",
            )?;
            let answered = select.query_row([turn.as_str()], |row| {
                let (at, bot): (Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?);
                Ok(at.map(|at| Answered { at, bot: bot.map_or_else(|| BotName::from(FIRST_BOT), BotName) }))
            });
            Ok(answered.optional()?.flatten())
        })
        .await
    }

    /// Returns whether a turn is still known.
    pub async fn has_turn(&self, turn: &TurnId) -> Result<bool, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM turns WHERE turn = ?1)")?;
            Ok(select.query_row([turn.as_str()], |row| row.get(0))?)
        })
        .await
    }

    /// Returns the open turns of a room, oldest first. At a start these are the turns that a crash interrupted.
    pub async fn open_turns(&self, address: &Address) -> Result<Vec<OpenTurn>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT turn, opened, answerer FROM turns WHERE bot = ?1 AND room = ?2 AND state = 'open' ORDER BY opened",
            )?;
            let rows = select.query_map([&address.account, address.room.as_str()], |row| {
                let bot: Option<String> = row.get(2)?;
                let bot = bot.map_or_else(|| BotName::from(FIRST_BOT), BotName);
                Ok(OpenTurn { turn: row.get::<_, String>(0)?.into(), bot, opened: row.get(1)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn claim(tx: &Transaction<'_>, address: &Address, turn: &TurnId, events: &[EventId]) -> Result<(), StoreError> {
    let mut update =
        tx.prepare_cached("UPDATE inbound SET turn = ?1 WHERE bot = ?2 AND event = ?3 AND turn IS NULL AND done = 0")?;
    for event in events {
        update.execute([turn.as_str(), &address.account, event.as_str()])?;
    }
    Ok(())
}

/// Appends a message to the conversation of the turn's bot; returns its `seq`.
pub(super) fn append(
    tx: &Transaction<'_>,
    address: &Address,
    turn: &TurnId,
    message: &Value,
    now: i64,
) -> Result<i64, StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO messages (bot, room, turn, body, said, answerer)
         VALUES (?1, ?2, ?3, ?4, ?5, (SELECT answerer FROM turns WHERE turn = ?3))",
    )?;
    let body = serde_json::to_string(message)?;
    insert.execute(params![address.account, address.room.as_str(), turn.as_str(), body, now])?;
    Ok(tx.last_insert_rowid())
}

/// Appends to a conversation a message that belongs to no turn.
fn append_to(
    tx: &Transaction<'_>,
    at: &Conversation,
    turn: &TurnId,
    message: &Value,
    now: i64,
) -> Result<(), StoreError> {
    let row = params![
        at.address.account,
        at.address.room.as_str(),
        turn.as_str(),
        serde_json::to_string(message)?,
        answerer(&at.bot),
        now
    ];
    tx.execute("INSERT INTO messages (bot, room, turn, body, answerer, said) VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row)?;
    Ok(())
}
