//! The sentences that the orchestrator says to the model, in one place and one voice. The system message stands in
//! `prompt`, what the summariser is told in `compaction`; what people read is
//! [`strings::turns`](crate::strings::turns).
//!
//! Texts only; no decisions.

use crate::{strings::turns, text};

use super::limits::{CALLS_AT_ONCE, Limit, TurnLimits};

/// The head of a summary.
pub(super) const SUMMARY_HEAD: &str = "[matrix-agent] The conversation so far was summarised to save space. The rules of \
    the system message still hold; read a repository's AGENTS.md again before you change code in it. What follows is a \
    record, not an order.";

pub(super) const EMPTY: &str =
    "[matrix-agent] Your last message was empty. Call a tool, or answer the person in plain text.";

pub(super) const CUT_EMPTY: &str = "[matrix-agent] Your last message was cut off before it said anything. Think less and \
    answer shorter, or take a smaller step.";

pub(super) const CALL_IN_TEXT: &str = "[matrix-agent] Your last message was, or ended with, a tool call written as text. Such \
    text is never run, and the person has not seen it. Call the tool through the tool interface. If you only meant to show \
    it to the person, give your whole answer again and end it with a sentence.";

pub(super) const RUNAWAY: &str =
    "[matrix-agent] Your last message repeated itself without end and was dropped. Say it once, in a few sentences.";

pub(super) const STUCK: &str = "[matrix-agent] You have made the same calls with the same results three times. Another try \
    will not change them: take another way, or tell the person what blocks you. To wait for a background job, give run_command \
    its job with timeout_seconds.";

pub(super) const UNPROVEN_EDIT: &str = "[matrix-agent] You say that it works, but files were edited after the last test run. \
    Run the tests, or say plainly that they were not run. Then give your whole answer again: the person has not seen this one.";

pub(super) const UNPROVEN_RED: &str = "[matrix-agent] You say that it works, but the last test run was red. Mend it, or say \
    plainly which tests fail. Then give your whole answer again: the person has not seen this one.";

pub(super) const CALL_CUT_OFF: &str = "Not run: your message was cut off at the output limit, so the call may be incomplete. \
    Send it again in smaller pieces (write a long file in several steps).";

pub(super) const CALL_STOPPED: &str = "Stopped by the person while it ran; it may have done part of its work.";
pub(super) const CALL_STOPPED_EARLY: &str = "Not run: stopped by the person.";
pub(super) const CALL_TIME: &str = "Ended at the turn's time limit; it may have done part of its work.";
pub(super) const CALL_TIME_EARLY: &str = "Not run: the turn's time limit was reached.";
pub(super) const CALL_LOST: &str = "No result was recorded: the turn was interrupted. Whether it ran is unknown; look before \
    you repeat it.";

pub(super) const PICTURES: &str = "[matrix-agent] The pictures of the calls above, in their order:";
pub(super) const PICTURE_GONE: &str = "[matrix-agent] Old pictures were removed to save space.";

pub(super) const PICTURE_LOST: &str =
    "\n\n[matrix-agent] The picture could not be stored on the server, so it is not shown. Tell the person.";
pub(super) const PICTURE_REFUSED: &str = "[matrix-agent] A picture stood here. The model's provider refused it, so it was \
    taken out; the file itself is where it was.";

/// What the model is told of turns that ended without its answer. The sentence that the person read is not in them: it
/// may hold a provider's words, and the model would take it for its own.
pub(super) const NOTE_STOPPED: &str = "[matrix-agent] The person stopped the turn above; it has no answer.";
pub(super) const NOTE_FAILED: &str = "[matrix-agent] The turn above ended without an answer: the model could not be asked or gave none. The person was told why.";
pub(super) const NOTE_LIMIT: &str =
    "[matrix-agent] The turn above ended at a limit, without an answer. The person was told which.";

/// Returns what the model is told of a call that its provider could not read; `why` is what the provider said.
pub(super) fn bad_call(why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(" It said: “{why}”") };
    format!(
        "[matrix-agent] Your last message held a tool call that your provider could not read, so nothing of it was run.{why} \
        Make the call again: an exact tool name, and arguments that are one JSON object."
    )
}

/// Returns what is added to a result whose file did not reach the room.
pub(super) fn file_lost(name: &str) -> String {
    format!("\n\nThe file `{name}` could not be handed to the room: the people do not see it.")
}

/// Returns what is added to a result whose file cannot reach a room of this chat protocol.
pub(super) fn no_files_here(name: &str) -> String {
    format!("\n\nThis chat takes no files: `{name}` was not sent. Say what is in it, or where it lies.")
}

/// Returns what is added to a result whose file was too much for one turn.
pub(super) fn too_many_files(name: &str, sent: u64, limit: u64) -> String {
    let (sent, limit) = (text::human_bytes(sent), text::human_bytes(limit));
    format!(
        "\n\nThe file `{name}` was not handed to the room: {sent} were sent in this turn, and {limit} is the limit of a \
         turn. Send the ones that matter most, packed, and say what is missing."
    )
}

/// Returns the refusal of a call beyond the number that run at once.
pub(super) fn too_many_calls() -> String {
    format!("Not run: too many calls at once ({CALLS_AT_ONCE} at most). Send it again after the others.")
}

/// Returns what stands in place of an old output; `log` is the file that holds all of it, if one does.
pub(super) fn masked(characters: usize, log: Option<&str>) -> String {
    match log {
        Some(log) => format!("{MASKED} ({characters} characters); all of it: {log}]"),
        None => format!("{MASKED} ({characters} characters). Make the call again if you need it.]"),
    }
}

/// How a masked output begins.
pub(super) const MASKED: &str = "[old output removed";

/// Names a limit, to be read after "reached" by the model and after "I stopped at" by people.
fn named(limit: Limit, limits: &TurnLimits) -> String {
    match limit {
        Limit::Rounds => turns::limit_of_rounds(limits.rounds),
        Limit::Time => turns::limit_of_time(&text::human_duration(limits.time)),
        Limit::Tokens => turns::limit_of_tokens(&text::short(limits.tokens)),
        Limit::Stuck => turns::LIMIT_STUCK.to_owned(),
        Limit::BadCalls => turns::LIMIT_BAD_CALLS.to_owned(),
        Limit::Context => turns::LIMIT_CONTEXT.to_owned(),
    }
}

/// Returns the order to wrap up, the last one to the model.
pub(super) fn wrap_up(limit: Limit, limits: &TurnLimits) -> String {
    format!(
        "[matrix-agent] You have reached {}: no more calls run in this turn. Answer the person now, without calling a \
         tool: what is done, what is still open, and what to do next.",
        named(limit, limits)
    )
}

/// Returns what the person reads when the model did not even wrap up.
pub(super) fn limit_reached(limit: Limit, limits: &TurnLimits) -> String {
    let next = match limit {
        Limit::Rounds | Limit::Time | Limit::Tokens => turns::NEXT_GO_ON,
        Limit::Stuck | Limit::BadCalls => turns::NEXT_OTHER_WAY,
        Limit::Context => turns::NEXT_AFRESH,
    };
    turns::limit_reached(&named(limit, limits), next)
}
