//! What whoever looks on from outside is told: the dashboard, and Prometheus. All of it is read on the connection of those who look
//! on, so no turn waits for it.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::{FIRST_BOT, History, Store, StoreError, StoredGrant, context, grants};
use crate::ids::{Address, RoomKey, TurnId};

/// How much waits, over all accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Messages that no turn has claimed and nobody has answered.
    pub(crate) messages: u64,
    /// Rows of the outbox that were not sent.
    pub(crate) answers: u64,
}

/// A turn as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShownTurn {
    /// The turn.
    pub(crate) turn: TurnId,
    /// Where it is, or was.
    pub(crate) at: Address,
    /// The bot's name.
    pub(crate) bot: String,
    /// How it ended, in a word; `None` while it is open.
    pub(crate) outcome: Option<String>,
    /// When it was opened, in milliseconds since 1970.
    pub(crate) opened: i64,
    /// When its answer was sent.
    pub(crate) closed: Option<i64>,
    /// Who asked, by their chat protocol's name; `None` once the question is deleted.
    pub(crate) asker: Option<String>,
    /// What they asked: the hub's JSON.
    pub(crate) asked: Option<Value>,
}

/// A room as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownRoom {
    /// The account and the room.
    pub(crate) at: Address,
    /// How many turns it had, as far as they are kept.
    pub(crate) turns: u64,
    /// Its newest turn, and when that was opened.
    pub(crate) newest: Option<(TurnId, i64)>,
}

/// In how many rooms each account is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomCounts(BTreeMap<String, usize>);

impl RoomCounts {
    /// Returns the number of an account's rooms.
    pub(crate) fn of(&self, account: &str) -> usize {
        self.0.get(account).copied().unwrap_or_default()
    }
}

/// A day's tokens of a room, or of a person over all rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownDay {
    /// The room; `None` for a person's.
    pub(crate) at: Option<Address>,
    /// The person; `None` for a room's.
    pub(crate) person: Option<String>,
    /// Tokens that were used.
    pub(crate) used: u64,
    /// Tokens that requests under way hold.
    pub(crate) held: u64,
    /// The day's limit, where it was changed for this day.
    pub(crate) allowed: Option<u64>,
}

/// What a dashboard shows of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overview {
    /// What waits.
    pub(crate) queued: Queued,
    /// Turns that are worked on, the oldest first.
    pub(crate) open: Vec<ShownTurn>,
    /// Turns that came to nothing, the newest first.
    pub(crate) failed: Vec<ShownTurn>,
    /// Rooms, those with the newest turns first.
    pub(crate) rooms: Vec<ShownRoom>,
    /// In how many rooms each account is.
    pub(crate) joined: RoomCounts,
    /// Today's tokens, the most used first.
    pub(crate) days: Vec<ShownDay>,
    /// What is granted.
    pub(crate) grants: Vec<StoredGrant>,
}

impl Overview {
    /// Returns the rooms that it shows, some of them more than once.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Address> {
        let turns = self.open.iter().chain(&self.failed).map(|turn| &turn.at);
        let rooms = self.rooms.iter().map(|room| &room.at);
        let days = self.days.iter().filter_map(|day| day.at.as_ref());
        turns.chain(rooms).chain(days).chain(self.grants.iter().map(|grant| &grant.at))
    }
}

/// The columns of [`turn`], and the tables from which they are.
const TURN: &str =
    "SELECT t.turn, t.bot, t.room, t.answerer, t.outcome, t.opened, t.closed, i.sender, i.body FROM turns t
     LEFT JOIN inbound i ON i.seq = (SELECT min(seq) FROM inbound WHERE turn = t.turn)";

impl Store {
    /// Returns how much waits.
    pub(crate) async fn queued(&self) -> Result<Queued, StoreError> {
        self.look(|tx| Ok(queued(tx)?)).await
    }

    /// Returns in how many rooms each account is.
    pub(crate) async fn room_counts(&self) -> Result<RoomCounts, StoreError> {
        self.look(|tx| Ok(room_counts(tx)?)).await
    }

    /// Returns what a dashboard shows, `most` rows of each kind.
    pub(crate) async fn overview(&self, most: usize) -> Result<Overview, StoreError> {
        let (day, most) = (self.clock().day(), most as i64);
        self.look(move |tx| {
            let turns = |condition: &str| {
                let mut select = tx.prepare_cached(&format!("{TURN} WHERE {condition} LIMIT ?1"))?;
                let rows = select.query_map([most], turn)?;
                rows.collect::<Result<Vec<_>, _>>()
            };
            let mut rooms = tx.prepare_cached(
                "SELECT bot, room, count(turn), max(opened), turn FROM (
                     SELECT bot, room, turn, opened FROM turns
                     UNION ALL SELECT bot, room, NULL, NULL FROM rooms WHERE missed IS NULL
                 ) GROUP BY bot, room ORDER BY max(opened) DESC LIMIT ?1",
            )?;
            let rooms = rooms.query_map([most], |row| {
                let (turn, opened): (Option<String>, Option<i64>) = (row.get(4)?, row.get(3)?);
                let turns = row.get::<_, i64>(2)? as u64;
                Ok(ShownRoom { at: address(row, 0)?, turns, newest: turn.map(TurnId).zip(opened) })
            })?;
            let mut days = tx.prepare_cached(
                "SELECT bot, room, person, used, held, allowed FROM spent
                 WHERE day = ?1 AND (person = '' OR bot = '') ORDER BY used DESC LIMIT ?2",
            )?;
            let days = days.query_map(params![day, most], |row| {
                let (bot, person): (String, String) = (row.get(0)?, row.get(2)?);
                let at = if bot.is_empty() { None } else { Some(address(row, 0)?) };
                let number = |column| row.get::<_, i64>(column).map(|number| number.max(0) as u64);
                let allowed = row.get::<_, Option<i64>>(5)?.map(|allowed| allowed.max(0) as u64);
                let person = (!person.is_empty()).then_some(person);
                Ok(ShownDay { at, person, used: number(3)?, held: number(4)?, allowed })
            })?;
            Ok(Overview {
                queued: queued(tx)?,
                open: turns("t.state = 'open' ORDER BY t.opened")?,
                failed: turns("t.state <> 'open' AND t.outcome IN ('failed', 'limit') ORDER BY t.opened DESC")?,
                rooms: rooms.collect::<Result<_, _>>()?,
                joined: room_counts(tx)?,
                days: days.collect::<Result<_, _>>()?,
                grants: grants::all(tx)?,
            })
        })
        .await
    }

    /// Returns a turn with all that is kept of what it said and did, oldest first; `None` if it is not known any more.
    pub(crate) async fn shown_turn(&self, id: &TurnId) -> Result<Option<(ShownTurn, Vec<History>)>, StoreError> {
        let id = id.clone();
        self.look(move |tx| {
            let mut select = tx.prepare_cached(&format!("{TURN} WHERE t.turn = ?1"))?;
            let Some(shown) = select.query_row([id.as_str()], turn).optional()? else { return Ok(None) };
            let mut history = Vec::new();
            let key = params![shown.at.account, shown.at.room.as_str(), id.as_str()];
            context::read(tx, "m.turn = ?3", key, &mut history)?;
            Ok(Some((shown, history)))
        })
        .await
    }

    /// Returns the newest turn of a room that this bot has opened.
    pub(crate) async fn newest_turn(&self, at: &Address) -> Result<Option<TurnId>, StoreError> {
        let at = at.clone();
        self.look(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT turn FROM turns WHERE bot = ?1 AND room = ?2 AND answerer IS NULL ORDER BY opened DESC LIMIT 1",
            )?;
            let turn = select.query_row(params![at.account, at.room.as_str()], |row| row.get(0)).optional()?;
            Ok(turn.map(TurnId))
        })
        .await
    }
}

fn room_counts(tx: &Transaction<'_>) -> rusqlite::Result<RoomCounts> {
    let mut select = tx.prepare_cached("SELECT bot, count(*) FROM rooms WHERE missed IS NULL GROUP BY bot")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))?;
    Ok(RoomCounts(rows.collect::<Result<_, _>>()?))
}

fn queued(tx: &Transaction<'_>) -> rusqlite::Result<Queued> {
    let count = |query: &str| tx.prepare_cached(query)?.query_row([], |row| row.get::<_, i64>(0));
    Ok(Queued {
        messages: count("SELECT count(*) FROM inbound WHERE turn IS NULL AND done = 0")? as u64,
        answers: count("SELECT count(*) FROM outbox WHERE sent IS NULL")? as u64,
    })
}

fn address(row: &Row<'_>, first: usize) -> rusqlite::Result<Address> {
    Ok(Address { account: row.get(first)?, room: RoomKey(row.get(first + 1)?) })
}

fn turn(row: &Row<'_>) -> rusqlite::Result<ShownTurn> {
    let (answerer, asked): (Option<String>, Option<String>) = (row.get(3)?, row.get(8)?);
    Ok(ShownTurn {
        turn: TurnId(row.get(0)?),
        at: address(row, 1)?,
        bot: answerer.unwrap_or_else(|| FIRST_BOT.to_owned()),
        outcome: row.get(4)?,
        opened: row.get(5)?,
        closed: row.get(6)?,
        asker: row.get(7)?,
        asked: asked.and_then(|asked| serde_json::from_str(&asked).ok()),
    })
}
