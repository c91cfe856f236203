//! The replies to `!admin`, which `matrix-agent admin` prints, too: each names further orders as they are written there.

/// The order that lists rooms, as it is written in a room.
pub(crate) const ROOMS: &str = "`!admin rooms`";
/// The same on the command line.
pub(crate) const ROOMS_AT_TERMINAL: &str = "`matrix-agent admin rooms`";
/// The order that lets turns begin again, as it is written in a room.
pub(crate) const DRAIN_OFF: &str = "`!admin drain off`";
/// The same on the command line.
pub(crate) const DRAIN_OFF_AT_TERMINAL: &str = "`matrix-agent admin drain --off`";

/// The reply to an `!admin` that is none of its orders.
pub(crate) const HELP: &str = "\
- `!admin status` shows how the server stands
- `!admin rooms` lists its rooms
- `!admin stop ROOM` ends what runs in a room
- `!admin drain` lets nothing new begin, as before a restart; `!admin drain off` lets it begin again
- `!admin budget` shows what the rooms have used today; `!admin budget ROOM 500k` lets a room have so many tokens
- `!admin grants` lists what is granted to rooms
- `!admin logs` shows the newest lines of the log";

/// The reply to somebody who is no administrator.
pub(crate) const NOT_YOURS: &str = "Only the administrators of this server (`ADMIN_USERS`) may ask for that.";

/// The reply before the server serves.
pub(crate) const NOT_YET: &str = "The server is still starting. Try again in a moment.";

/// There is no such room.
pub(crate) fn no_room(named: &str, rooms: &str) -> String {
    format!("There is no room `{named}`. {rooms} lists them.")
}

/// Several rooms are called so.
pub(crate) fn several_rooms(named: &str, rooms: &str) -> String {
    format!("Several rooms have `{named}` in their names. Write the whole name, as {rooms} shows it.")
}

/// Nothing runs in a room.
pub(crate) fn nothing_runs(room: &str) -> String {
    format!("Nothing runs in {room}.")
}

/// What runs in a room is being ended.
pub(crate) fn stopped(room: &str) -> String {
    format!("What runs in {room} is being ended.")
}

/// Nothing new begins; so many turns run.
pub(crate) fn draining(running: u64, off: &str) -> String {
    let rest = match running {
        0 => "Nothing runs: the server may be stopped.".to_owned(),
        1 => "One turn runs still.".to_owned(),
        many => format!("{many} turns run still."),
    };
    format!("Nothing new begins; what people write waits. {rest} {off} lets it begin again.")
}

/// Turns begin again.
pub(crate) const NOT_DRAINING: &str = "Turns begin again.";

/// The reply to a number of tokens that is none.
pub(crate) const NO_AMOUNT: &str =
    "Write a whole number of tokens, or one with `k` or `M`, as `500k` or `1.5M`; only those have fractions.";

/// There is nothing in a list.
pub(crate) const NO_ROOMS: &str = "There are no rooms yet.";
/// No room has used tokens.
pub(crate) const NO_TOKENS: &str = "No room has used tokens today.";
/// Nothing is granted.
pub(crate) const NO_GRANTS: &str = "Nothing is granted to any room.";
/// The log has no lines yet.
pub(crate) const NO_LINES: &str = "There are no lines yet.";
