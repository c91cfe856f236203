//! Grants, and what is not allowed.

use std::fmt::Display;

/// Nothing is granted to a room.
pub(crate) const NONE: &str = "Nothing is granted to this room beyond what the server's settings open. `!grant owner/repo 2h` opens a repository, \
    `!grant example.org 2h` a host.";

/// The first line of the reply to `!grants`.
pub(crate) const GRANTED: &str = "Granted to this room:\n\n";

/// A line of the reply to `!grants`; `left` is what is left of its time.
pub(crate) fn granted(what: &dyn Display, writes: bool, by: &str, left: &str) -> String {
    let may = if writes { " with pushes, pull requests and comments" } else { "" };
    format!("- `{what}`{may}, by `{by}`, {left}\n")
}

/// A question that is open in a room.
pub(crate) fn open(what: &str, code: &str) -> String {
    format!("❓ This waits for an answer: {what}? Write `!yes {code}` or `!no {code}`.\n\n")
}

/// How long a grant still lasts.
pub(crate) fn left(time: &str) -> String {
    format!("for another {time}")
}

/// A grant ends with the turn.
pub(crate) const LEFT_OF_TURN: &str = "until the work under way is done";

/// A grant ends when it is taken back.
pub(crate) const LEFT_FOR_EVER: &str = "until `!revoke`";

/// The reply to `!grant`.
pub(crate) fn grant(what: &dyn Display, writes: bool, left: &str) -> String {
    let may = if writes { ", with pushes to `agent/…`, pull requests and comments" } else { "" };
    format!("This room's sandbox may reach `{what}`{may}, {left}. `!revoke {what}` takes it back.")
}

/// The reply to a `!grant` or `!revoke` that cannot be read.
pub(crate) const UNCLEAR: &str = "Write `!grant owner/repo 2h` for a repository, `!grant owner/repo push 2h` to let it be pushed to as well, or \
    `!grant example.org 2h` for a host; `room` in place of the time lasts until `!revoke`. `!grants` shows them.";

/// The reply to a `!grant` of somebody else.
pub(crate) fn not_yours(admins: &[String]) -> String {
    match admins {
        [] => "Only whoever runs this server may grant something here.".to_owned(),
        [only] => format!("Only `{only}` may grant something here."),
        [first, ..] => format!("Only `{first}` or another administrator may grant something here."),
    }
}

/// A room has as many grants as it may have.
pub(crate) const TOO_MANY: &str =
    "This room has as many grants as a room may have. Take one back with `!revoke`, or `!revoke all`.";

/// The reply to `!revoke`.
pub(crate) fn revoked(count: usize) -> String {
    match count {
        0 => "No such thing is granted to this room; `!grants` shows what is.".to_owned(),
        1 => "Taken back: one grant. What is open already ends by itself.".to_owned(),
        _ => format!("Taken back: {count} grants. What is open already ends by itself."),
    }
}

/// Somebody without the right has spoken in the turn.
pub(crate) fn not_for_guests(what: &str) -> String {
    format!(
        "Not allowed: {what}. Somebody took part in this work who may not ask for that. Let one who may ask for it alone."
    )
}

/// Something in the sandbox wants what nobody asks for.
pub(crate) fn nobody_asks(what: &str) -> String {
    format!(
        "Not allowed: {what}. Nobody asks for that now. Send a message that asks for it, or grant it with `!grant`."
    )
}

/// Somebody has to say yes, and cannot be asked.
pub(crate) fn unasked(what: &str) -> String {
    format!("Not allowed: {what}. Somebody who may has to allow that first, with `!grant`.")
}

/// Somebody was asked and said no; for the model and the sandbox.
pub(crate) fn refused(what: &str) -> String {
    format!("Not allowed: {what}. Somebody in the room was asked and said no. Go on without it.")
}

/// Nobody has answered in time; for the model and the sandbox.
pub(crate) fn unanswered(what: &str) -> String {
    format!(
        "Not allowed: {what}. The room was asked, and nobody answered in time. Go on without it; `!grant` can allow it later."
    )
}

/// It was stopped before anybody answered.
pub(crate) fn stopped(what: &str) -> String {
    format!("Not done: {what}. It was stopped before anybody answered. Ask again if it is still wanted.")
}

/// Somebody lesser has spoken after the yes.
pub(crate) fn overtaken(what: &str) -> String {
    format!(
        "Not allowed: {what}. After the yes somebody took part who may not allow that. Let one who may ask for it again."
    )
}

/// What a sandbox wants: to reach a host.
pub(crate) fn reach(host: &str) -> String {
    format!("let the sandbox reach `{host}`")
}

/// What a sandbox wants: to read a private repository.
pub(crate) fn read(repository: &dyn Display) -> String {
    format!("let the sandbox read the private repository `{repository}`")
}

/// Who may answer a card: any user.
pub(crate) const ANY_USER: &str = "anybody who may give me work";

/// Who may answer a card: who has asked for the work.
pub(crate) const ASKER: &str = "whoever asked for this work";

/// Who may answer a card: who has not asked for the work.
pub(crate) const ANOTHER: &str = "somebody else who may give me work";

/// Who may answer a card: administrators.
pub(crate) fn admins(admins: &[String]) -> String {
    match admins {
        [] => "whoever runs this server".to_owned(),
        [only] => format!("`{only}`"),
        [first, ..] => format!("`{first}` or another administrator"),
    }
}

/// A card: `what` is to be done, and `why`, for those who `asked`, with `details`; `who` may answer, with this code, for as long as `left`.
#[expect(clippy::too_many_arguments, reason = "it is one message")]
pub(crate) fn card(
    what: &str,
    why: &str,
    asked: &[String],
    details: &str,
    code: &str,
    who: &str,
    reactions: bool,
    lasting: bool,
    left: &str,
) -> String {
    let asked = asked.iter().map(|person| format!("`{person}`")).collect::<Vec<_>>().join(", ");
    let wanted = if why.is_empty() { String::new() } else { format!("\nWanted by: `{}`", why.replace('`', "'")) };
    let details = if details.is_empty() { String::new() } else { format!("\n\n{}", quoted(details)) };
    let react = if reactions { "👍 or 👎, or " } else { "" };
    let longer =
        if lasting { format!(" `!yes {code} 1h` and `!yes {code} room` allow it for longer.") } else { String::new() };
    format!(
        "🔐 **May I? {what}**\n\nIn the work for {asked}.{wanted}{details}\n\nAnswer with {react}`!yes {code}` or `!no {code}`, within {left}.{longer} \
         Who may answer: {who}."
    )
}

/// Returns text as a quotation, so that it cannot be taken for the bot's own words.
fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What became of a card: yes.
pub(crate) fn allowed(what: &str, by: &str, lasting: Option<&str>) -> String {
    let lasting = lasting.map(|lasting| format!(", {lasting}")).unwrap_or_default();
    format!("✅ Allowed by `{by}`{lasting}: {what}")
}

/// What became of a card: no.
pub(crate) fn denied(what: &str, by: &str) -> String {
    format!("❌ Refused by `{by}`: {what}")
}

/// What became of a card: nobody answered.
pub(crate) fn expired(what: &str) -> String {
    format!("⌛ Nobody answered in time, so it is not allowed: {what}")
}

/// What became of a card: nobody needs it.
pub(crate) fn withdrawn(what: &str) -> String {
    format!("⚪ No answer is needed any more: {what}")
}

/// The reply to an answer without a code, or with more than a code and a time.
pub(crate) const UNREADABLE_ANSWER: &str = "That answers no question. Write the code that stands in it, as in `!yes K7QFB`, `!yes K7QFB 2h`, `!yes K7QFB room` or `!no K7QFB`.";

/// The reply to an answer to a card that is not open.
pub(crate) fn not_open(code: &str) -> String {
    format!(
        "No question with the code `{code}` is open here: it was answered, its time is over, or it was never asked. `!grants` shows what is allowed."
    )
}

/// The reply to the answer of somebody who is no administrator.
pub(crate) fn not_yours_to_answer(list: &[String]) -> String {
    format!("Only {} can answer that.", admins(list))
}

/// The reply to the answer of somebody who has asked for the work, or has not.
pub(crate) fn not_for_you(another: bool) -> &'static str {
    if another {
        "Somebody else has to answer that: you asked for this work."
    } else {
        "Only whoever asked for this work can answer that."
    }
}

/// What is done with a plan.
pub(crate) fn carry_out(plan: &str) -> String {
    format!("carry out the plan “{plan}”")
}

/// The reply to the answer of a guest.
pub(crate) const GUESTS_ANSWER_NOTHING: &str = "Only somebody who may give me work can answer that.";

/// What a right depends on cannot be read.
pub(crate) const UNKNOWN: &str = "Not allowed: the server cannot find out now whether it may be done. Try again later.";
