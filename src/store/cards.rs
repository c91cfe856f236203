//! Questions to people: each is asked once and answered once, through a crash.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::{NewOutbox, Store, StoreError, StoredGrant, grants, outbox};
use crate::ids::{Address, EventId, RoomKey, TurnId};

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardState {
    /// It waits for an answer.
    Open,
    /// Somebody said yes.
    Yes,
    /// Somebody said no.
    No,
    /// Nobody answered in time.
    Expired,
    /// Nobody needs an answer any more.
    Withdrawn,
}

impl CardState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Yes => "yes",
            Self::No => "no",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn of(text: &str) -> Self {
        [Self::Open, Self::Yes, Self::No, Self::Expired]
            .into_iter()
            .find(|state| state.as_str() == text)
            .unwrap_or(Self::Withdrawn)
    }
}

/// A question as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCard {
    /// The short code by which people answer it.
    pub code: String,
    /// Names the question; it is asked once.
    pub question: String,
    /// The account and the room in which it is asked.
    pub at: Address,
    /// The turn for which it is asked.
    pub turn: TurnId,
    /// The JSON of what is asked.
    pub body: Value,
    /// The transaction id of its row in the outbox.
    pub txn: String,
    /// When it ends, in milliseconds since 1970.
    pub until: i64,
    /// What became of it.
    pub state: CardState,
    /// Who answered.
    pub by: Option<String>,
    /// When it was answered, by the clock that stamps what people say.
    pub closed: Option<i64>,
}

const COLUMNS: &str = "code, question, bot, room, turn, body, txn, until, state, answerer, closed";

impl Store {
    /// Stores a question with its row in the outbox, unless it was asked before. Returns it as it is stored; `None` if its
    /// code is another's.
    pub async fn open_card(&self, card: StoredCard, row: NewOutbox) -> Result<Option<StoredCard>, StoreError> {
        let now = self.clock.millis();
        self.write(move |tx| {
            if let Some(asked) = by_question(tx, &card.question)? {
                return Ok(Some(asked));
            }
            let inserted = tx
                .prepare_cached(
                    "INSERT INTO cards (code, question, bot, room, turn, body, txn, created, until, state)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open') ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    card.code,
                    card.question,
                    card.at.account,
                    card.at.room.as_str(),
                    card.turn.as_str(),
                    serde_json::to_string(&card.body)?,
                    card.txn,
                    now,
                    card.until
                ])?;
            if inserted == 0 {
                return Ok(None);
            }
            outbox::put(tx, &card.at, None, &[row], now)?;
            Ok(Some(card))
        })
        .await
    }

    /// Ends a question in one transaction: stores its answer, what it grants, the latest time, and the row that tells of it.
    /// Returns whether it was open; if not, nothing changes.
    pub async fn close_card(
        &self,
        code: &str,
        state: CardState,
        by: Option<String>,
        granted: Option<StoredGrant>,
        row: NewOutbox,
        latest: i64,
    ) -> Result<bool, StoreError> {
        let (code, now) = (code.to_owned(), self.clock.millis());
        self.write(move |tx| {
            let closed: Option<(String, String)> = tx
                .prepare_cached(
                    "UPDATE cards SET state = ?2, answerer = ?3, closed = ?4 WHERE code = ?1 AND state = 'open'
                     RETURNING bot, room",
                )?
                .query_row(params![code, state.as_str(), by, now], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((account, room)) = closed else { return Ok(false) };
            if let Some(granted) = &granted {
                grants::put(tx, granted)?;
            }
            grants::note_latest(tx, latest)?;
            let at = Address { account, room: RoomKey(room) };
            outbox::put(tx, &at, None, &[row], now)?;
            Ok(true)
        })
        .await
    }

    /// Returns the open questions of an account.
    pub async fn open_cards(&self, account: &str) -> Result<Vec<StoredCard>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM cards WHERE bot = ?1 AND state = 'open' ORDER BY code"
            ))?;
            let rows = select.query_map([&account], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns a question by its name.
    pub async fn card(&self, question: &str) -> Result<Option<StoredCard>, StoreError> {
        let question = question.to_owned();
        self.read(move |tx| by_question(tx, &question)).await
    }

    /// Returns the event that the row of a transaction id became, once it was sent.
    pub async fn sent_as(&self, txn: &str) -> Result<Option<EventId>, StoreError> {
        let txn = txn.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT sent FROM outbox WHERE txn = ?1")?;
            let sent: Option<Option<String>> = select.query_row([&txn], |row| row.get(0)).optional()?;
            Ok(sent.flatten().map(EventId))
        })
        .await
    }
}

fn by_question(tx: &Transaction<'_>, question: &str) -> Result<Option<StoredCard>, StoreError> {
    let mut select = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM cards WHERE question = ?1"))?;
    select.query_row([question], read).optional()?.transpose()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<StoredCard, StoreError>> {
    let (body, state): (String, String) = (row.get(5)?, row.get(8)?);
    let card = StoredCard {
        code: row.get(0)?,
        question: row.get(1)?,
        at: Address { account: row.get(2)?, room: RoomKey(row.get(3)?) },
        turn: TurnId(row.get(4)?),
        body: Value::Null,
        txn: row.get(6)?,
        until: row.get(7)?,
        state: CardState::of(&state),
        by: row.get(9)?,
        closed: row.get(10)?,
    };
    Ok(serde_json::from_str(&body).map(|body| StoredCard { body, ..card }).map_err(StoreError::from))
}
