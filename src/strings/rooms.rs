//! What is said to a room that is no answer of a turn: greetings, and what cannot be done there.

/// What the bot says when it has joined a room.
pub(crate) const GREETING: &str =
    "Hello. Tell me what to do: I work in this room's own sandbox. `!help` shows what else there is.";

/// The reply to messages whose key has not come.
pub(crate) const UNREADABLE: &str = "I cannot read this message, because your client has not sent me its key. Please send it again; \
    if I still cannot read it, sign out of your client and in again.";

/// Why a request to verify the bot is cancelled.
pub(crate) const CANNOT_VERIFY: &str = "I am a program, and cannot compare emoji or scan codes with you.";

/// Said to a room in which more was said while the bot was away than it reads.
pub(crate) const GAP: &str = "So much was said here while I was away that I have not read the oldest of it. If something of that was for me, please say it again.";

/// Says how far the audit log has come.
pub(crate) fn audit_head(head: &str) -> String {
    format!(
        "The audit log has come to this line: `{head}`. `matrix-agent audit verify --head \"…\"` shows whether it still holds it."
    )
}

/// The answer when the program itself failed; the log has the cause.
pub(crate) const INTERNAL: &str = "Something went wrong on my side, and I could not finish this. The log of the server has the cause; ask again to go on.";

/// The answer of a turn whose bot is not set up any more.
pub(crate) fn bot_gone(name: &str) -> String {
    format!("The bot `{name}` that worked on this is not set up here any more. Ask again, and another one answers.")
}

/// The reply to something that nobody here can work with.
pub(crate) fn unsupported(what: &str) -> String {
    format!("I cannot work with {what}. Please write it, or send it as a file.")
}
