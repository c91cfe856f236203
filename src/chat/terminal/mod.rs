//! The terminal as a chat protocol: rooms named `terminal:NAME`, with people who sit at this machine.
//!
//! Clients speak JSON, one frame a line, over the server's control socket. The server admits their messages to the
//! hub and passes them the hub's deliveries. A client confirms what it has shown, so that an answer is kept until
//! somebody has read it, and is shown once.

mod client;
mod frame;
mod reach;
mod server;

pub(crate) use client::{Client, Shown};
pub(crate) use frame::{Hello, ServerFrame};
pub(crate) use reach::{Incoming, Outgoing, Unreached, connect, reach};
pub(crate) use server::Terminal;

use crate::{
    hub::{Features, Rooms},
    ids::RoomKey,
};

/// The prefix of a terminal room's key.
const PREFIX: &str = "terminal:";

/// The rooms of terminals: whoever sits in one sits at this machine.
pub(crate) const ROOMS: Rooms = Rooms {
    prefix: PREFIX,
    local: true,
    features: Features { edits: false, files: true, threads: false, reactions: false, rooms: false },
};

/// Returns the key of a terminal's room: its name without control characters, since keys stand in logs and on terminals.
pub(crate) fn room(name: &str) -> RoomKey {
    let seen: String = name.chars().filter(|c| !c.is_control()).collect();
    RoomKey(format!("{PREFIX}{seen}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rooms_key_has_no_control_characters() {
        assert_eq!(room("a\0b\x1b[31m\nc d").as_str(), "terminal:ab[31mc d");
    }
}
