//! The tables, and the migrations that bring an older database up to date.
//!
//! Migrations only expand, so that version N of the program runs on the schema of N+1, and going back to an older
//! binary needs no backup. Add tables and nullable columns; never rename or drop.

use rusqlite::{Connection, OptionalExtension};

/// One step a version; `PRAGMA user_version` counts those that were applied.
const MIGRATIONS: &[&str] =
    &[FIRST, ROOMS, FILES, CIPHERTEXTS, ENCRYPTED, BOTS, PRUNING, AGENTS, BUDGETS, STATES, LEDGER, GRANTS, TASKS, ASKS];

/// The schema version of this program.
const CURRENT: usize = MIGRATIONS.len();

const FIRST: &str = r"
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- What people said, before anything acts on it. `turn` is set when a turn has claimed the event.
CREATE TABLE inbound (
    seq INTEGER PRIMARY KEY,
    bot TEXT NOT NULL, room TEXT NOT NULL, event TEXT NOT NULL,
    sender TEXT NOT NULL, body TEXT NOT NULL, received INTEGER NOT NULL,
    turn TEXT, done INTEGER NOT NULL DEFAULT 0,
    UNIQUE (bot, event)
);
CREATE INDEX inbound_waiting ON inbound (bot, room, seq) WHERE turn IS NULL AND done = 0;
CREATE INDEX inbound_turn ON inbound (turn) WHERE turn IS NOT NULL;

-- How far a chat protocol's stream was admitted.
CREATE TABLE positions (bot TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;

-- state: open (works), answered (its answer is in the outbox), closed (the answer was sent).
CREATE TABLE turns (
    turn TEXT PRIMARY KEY, bot TEXT NOT NULL, room TEXT NOT NULL,
    state TEXT NOT NULL, outcome TEXT, opened INTEGER NOT NULL, closed INTEGER
) WITHOUT ROWID;
CREATE INDEX turns_unfinished ON turns (opened) WHERE state <> 'closed';

-- The conversation, append-only. Results of tool calls are not here: they are made from `calls`.
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    bot TEXT NOT NULL, room TEXT NOT NULL, turn TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX messages_room ON messages (bot, room, seq);

-- What the model is shown instead of all messages up to `upto`: after a compaction, or after `!new`.
CREATE TABLE contexts (
    bot TEXT NOT NULL, room TEXT NOT NULL, upto INTEGER NOT NULL, messages TEXT NOT NULL,
    PRIMARY KEY (bot, room)
) WITHOUT ROWID;

-- One row a tool call: asked (stored with the model's message), started (the intent, with sandboxd's boot id), ended.
CREATE TABLE calls (
    call TEXT PRIMARY KEY, turn TEXT NOT NULL, message INTEGER NOT NULL, position INTEGER NOT NULL,
    boot TEXT, started INTEGER, ended INTEGER, result TEXT, details TEXT
) WITHOUT ROWID;
CREATE INDEX calls_message ON calls (message, position);
CREATE INDEX calls_turn ON calls (turn);

-- What must reach the room exactly once. `payload` is frozen; `data` holds a file until it was sent.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    txn TEXT NOT NULL UNIQUE, bot TEXT NOT NULL, room TEXT NOT NULL, turn TEXT,
    payload TEXT NOT NULL, data BLOB, created INTEGER NOT NULL, sent TEXT
);
CREATE INDEX outbox_unsent ON outbox (bot, room, seq) WHERE sent IS NULL;
CREATE INDEX outbox_turn ON outbox (turn);

CREATE TABLE usage (
    bot TEXT NOT NULL, room TEXT NOT NULL, day TEXT NOT NULL,
    input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (bot, room, day)
) WITHOUT ROWID;
";

/// Rooms that are joined and left, and messages that are edited, redacted or locked.
const ROOMS: &str = r"
-- Rooms in which a bot is, or was a while ago. `joined` is the event by which it came last; `missed` is set once
-- nobody was left, and with `cleared` the conversation is gone and only the sandbox still has to be removed.
CREATE TABLE rooms (
    bot TEXT NOT NULL, room TEXT NOT NULL, joined TEXT NOT NULL, missed INTEGER, cleared INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (bot, room)
) WITHOUT ROWID;

-- Whose sandbox and conversation an upgraded room uses. Every other table has the home, never the room.
CREATE TABLE homes (
    seq INTEGER PRIMARY KEY, bot TEXT NOT NULL, room TEXT NOT NULL, home TEXT NOT NULL, UNIQUE (bot, room)
);

-- Events whose key has not come. They move to `inbound` when it does. `room` is the room itself, not its home.
CREATE TABLE locked (
    seq INTEGER PRIMARY KEY, bot TEXT NOT NULL, room TEXT NOT NULL, event TEXT NOT NULL,
    sender TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (bot, event)
);

-- The event that an event changes (an edit, a redaction): those are looked at before others.
ALTER TABLE inbound ADD COLUMN target TEXT;
-- Tells whether more than one person speaks.
CREATE INDEX inbound_senders ON inbound (bot, room, sender);

-- What the chat protocol wants to find again after a restart.
CREATE TABLE notes (
    bot TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, noted INTEGER NOT NULL, PRIMARY KEY (bot, key)
) WITHOUT ROWID;

-- The first attempt to send a row: by which device, and when.
ALTER TABLE outbox ADD COLUMN tried_by TEXT;
ALTER TABLE outbox ADD COLUMN tried_at INTEGER;
";

/// Files that are to be sent lie beside the database instead of in it.
const FILES: &str = r"
-- The file's name in STATE_DIR/outgoing; removed there once the row is sent. `data` is older.
ALTER TABLE outbox ADD COLUMN file TEXT;
";

/// Each ciphertext is taken once.
const CIPHERTEXTS: &str = r"
-- The place of each message that was read in the session of its key, and the event that brought it. Never pruned.
CREATE TABLE ciphertexts (
    bot TEXT NOT NULL, session TEXT NOT NULL, place INTEGER NOT NULL, event TEXT NOT NULL,
    PRIMARY KEY (bot, session, place)
) WITHOUT ROWID;
";

/// Once encrypted, a room counts as encrypted for ever.
const ENCRYPTED: &str = r"
-- The rooms, and the homes that they use, in which all was encrypted once. Never pruned.
CREATE TABLE encrypted (bot TEXT NOT NULL, room TEXT NOT NULL, PRIMARY KEY (bot, room)) WITHOUT ROWID;
";

/// Several bots on one account. The column `bot` of every table is older and names the account; `answerer` names the
/// bot.
const BOTS: &str = r"
-- The bot whose turn and whose line it is; null: the coding bot, which was the only one.
ALTER TABLE turns ADD COLUMN answerer TEXT;
ALTER TABLE messages ADD COLUMN answerer TEXT;

-- As `contexts`, which stays the coding bot's.
CREATE TABLE contexts_of_bots (
    bot TEXT NOT NULL, room TEXT NOT NULL, answerer TEXT NOT NULL, upto INTEGER NOT NULL, messages TEXT NOT NULL,
    PRIMARY KEY (bot, room, answerer)
) WITHOUT ROWID;
";

/// Pruning in steps, and what is kept for ever in few bytes.
const PRUNING: &str = r"
-- The events whose rows in `inbound` or `locked` are gone, by a digest of account and id: none is taken again. Never
-- pruned.
CREATE TABLE known (event BLOB PRIMARY KEY) WITHOUT ROWID;

-- The places of ciphertexts whose rows are gone, a bit each, by a digest of account and session, in pieces of 4096
-- places. Never pruned.
CREATE TABLE places (
    session BLOB NOT NULL, piece INTEGER NOT NULL, taken BLOB NOT NULL, PRIMARY KEY (session, piece)
) WITHOUT ROWID;

-- Conversations that were given up: what was said until then is deleted by and by, whatever its age. The numbers are
-- the last `seq` of each table that goes. `whole`: the room with all its bots; else the conversation of `answerer`.
CREATE TABLE forgotten (
    seq INTEGER PRIMARY KEY, bot TEXT NOT NULL, room TEXT NOT NULL, answerer TEXT, whole INTEGER NOT NULL,
    at INTEGER NOT NULL, messages INTEGER NOT NULL, inbound INTEGER NOT NULL, outbox INTEGER NOT NULL
);
CREATE INDEX forgotten_room ON forgotten (bot, room);

-- When a row was written, in milliseconds since 1970. Those of older versions do not say.
ALTER TABLE messages ADD COLUMN said INTEGER;
ALTER TABLE locked ADD COLUMN received INTEGER;
ALTER TABLE ciphertexts ADD COLUMN taken INTEGER;

-- By these, what is to go is found without looking at what stays.
CREATE INDEX turns_open ON turns (bot, room, opened) WHERE state = 'open';
CREATE INDEX turns_room ON turns (bot, room);
CREATE INDEX turns_closed ON turns (closed) WHERE state = 'closed';
CREATE INDEX outbox_sent ON outbox (bot, room, seq) WHERE sent IS NOT NULL;
CREATE INDEX locked_received ON locked (received);
CREATE INDEX notes_noted ON notes (noted);
";

/// Usage of the coding agents.
const AGENTS: &str = r"
-- Their models' tokens, beside `usage`. `person` is empty where nobody's word was followed.
CREATE TABLE agent_usage (
    bot TEXT NOT NULL, room TEXT NOT NULL, day TEXT NOT NULL,
    person TEXT NOT NULL, agent TEXT NOT NULL, model TEXT NOT NULL,
    input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (bot, room, day, person, agent, model)
) WITHOUT ROWID;
";

/// An index for the sums of one person over all rooms.
const BUDGETS: &str = "CREATE INDEX agent_usage_person ON agent_usage (person, day);";

/// Where a call under way stands, for the server that takes it up after a crash; null when it has ended.
const STATES: &str = "ALTER TABLE calls ADD COLUMN state TEXT;";

/// One ledger for all who ask models.
const LEDGER: &str = r"
-- A day's tokens, one row for each room (`person` is empty), for each person over all rooms (`bot` and `room` are empty), and
-- for each person in a room. `held`: what requests under way may use at most. `allowed`: in place of the setting, for this
-- day. `warned`: the room was told that it, or the person, comes near the limit.
CREATE TABLE spent (
    day TEXT NOT NULL, bot TEXT NOT NULL, room TEXT NOT NULL, person TEXT NOT NULL,
    used INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, allowed INTEGER,
    warned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, bot, room, person)
) WITHOUT ROWID;

-- Requests under way: who uses their tokens, about how many their prompts have, and how many they use at most.
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, bot TEXT NOT NULL, room TEXT NOT NULL,
    person TEXT NOT NULL, agent TEXT NOT NULL, model TEXT NOT NULL, asked INTEGER NOT NULL, most INTEGER NOT NULL
);

-- What was used before.
INSERT INTO spent (day, bot, room, person, used)
    SELECT day, bot, room, '', sum(tokens) FROM (
        SELECT day, bot, room, input + output AS tokens FROM usage
        UNION ALL SELECT day, bot, room, input + output FROM agent_usage
    ) GROUP BY day, bot, room;
INSERT INTO spent (day, bot, room, person, used)
    SELECT day, '', '', person, sum(input + output) FROM agent_usage WHERE person > '' GROUP BY day, person;

-- By these, what is old is found. From now on the orchestrator's tokens stand in `agent_usage`, too.
CREATE INDEX usage_day ON usage (day);
CREATE INDEX agent_usage_day ON agent_usage (day);
";

/// What people have granted to rooms, and what they are asked.
const GRANTS: &str = r"
-- `kind`: host, repository. `turn`: with which it ends; empty: with none. `until`: null without an end.
CREATE TABLE grants (
    bot TEXT NOT NULL, room TEXT NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL, turn TEXT NOT NULL,
    writes INTEGER NOT NULL, granter TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
    PRIMARY KEY (bot, room, kind, what, turn)
) WITHOUT ROWID;

-- Questions to people. `question` is the same when it is asked again after a crash, `txn` names its row in the outbox.
-- `state`: open, yes, no, expired, withdrawn.
CREATE TABLE cards (
    code TEXT PRIMARY KEY, question TEXT NOT NULL UNIQUE, bot TEXT NOT NULL, room TEXT NOT NULL, turn TEXT NOT NULL,
    body TEXT NOT NULL, txn TEXT NOT NULL, created INTEGER NOT NULL, until INTEGER NOT NULL,
    state TEXT NOT NULL, answerer TEXT, closed INTEGER
) WITHOUT ROWID;
CREATE INDEX cards_open ON cards (bot, room) WHERE state = 'open';
CREATE INDEX cards_closed ON cards (closed) WHERE state <> 'open';
";

/// Issues that are worked on, and what GitHub tells of them.
const TASKS: &str = r"
-- What GitHub has sent and nobody has acted on yet. The digests of all that ever came are in `known`.
CREATE TABLE hooks (seq INTEGER PRIMARY KEY, event TEXT NOT NULL, received INTEGER NOT NULL);

-- Issues that became tasks, each with its room; never pruned. `told`: the last row of the outbox of which the issue was told.
CREATE TABLE tasks (
    repository TEXT NOT NULL, issue INTEGER NOT NULL, bot TEXT NOT NULL, room TEXT NOT NULL,
    labeller TEXT NOT NULL, since INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (repository, issue)
) WITHOUT ROWID;
CREATE UNIQUE INDEX tasks_room ON tasks (bot, room);

-- Pull requests that were opened from rooms; never pruned. `thread`: null if it was asked for outside of threads. `rounds`: turns
-- that failed checks have begun, the last one over the commit `head`.
CREATE TABLE pulls (
    repository TEXT NOT NULL, number INTEGER NOT NULL, branch TEXT NOT NULL, url TEXT NOT NULL,
    bot TEXT NOT NULL, room TEXT NOT NULL, thread TEXT, opened INTEGER NOT NULL,
    rounds INTEGER NOT NULL DEFAULT 0, head TEXT,
    PRIMARY KEY (repository, number)
) WITHOUT ROWID;
CREATE INDEX pulls_branch ON pulls (repository, branch);
";

/// How often models were asked.
const ASKS: &str = r"
-- One row a request of a bot that chats, for a day. `key`: who shares its ceilings; `failed`: it counts for its minute alone.
CREATE TABLE asks (
    seq INTEGER PRIMARY KEY, key TEXT NOT NULL, person TEXT NOT NULL, at INTEGER NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX asks_key ON asks (key, at);
CREATE INDEX asks_at ON asks (at);
";

/// Where a newer version notes, if it must, the oldest version of the schema whose programs may still use the database.
const OLDEST: &str = "oldest_version";

/// Returns whether this program may use the database. A newer one may be used unless its [`OLDEST`] excludes this
/// program.
pub(super) fn usable(connection: &Connection) -> rusqlite::Result<bool> {
    if version(connection)? <= CURRENT {
        return Ok(true);
    }
    let oldest = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [OLDEST], |row| row.get::<_, String>(0))
        .optional()?;
    // A value that this program cannot parse is meant for newer programs and excludes it.
    Ok(oldest.is_none_or(|oldest| matches!(oldest.parse(), Ok(0..=CURRENT))))
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map(|version| version as usize)
}

/// Brings the database to [`CURRENT`]; returns whether this program may use it. A newer database is left as it is.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<bool> {
    if !usable(connection)? {
        return Ok(false);
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version(connection)?) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an older program does with the tables still works then: it names the columns that it knows.
    #[test]
    fn migrations_only_expand() {
        for (step, text) in MIGRATIONS.iter().enumerate() {
            let bare: Vec<_> = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
            for statement in bare.join("\n").split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
                let adds = statement.starts_with("ALTER TABLE") && statement.contains(" ADD COLUMN ");
                let may_be_left_out = !statement.contains("NOT NULL") || statement.contains("DEFAULT");
                let expands = ["CREATE TABLE ", "CREATE INDEX ", "INSERT INTO "].iter().any(|way| statement.starts_with(way))
                    // It is about a table that is made in the same step.
                    || statement.starts_with("CREATE UNIQUE INDEX tasks_room")
                    || adds && may_be_left_out;
                assert!(expands, "step {step}: {statement}");
            }
        }
    }
}
