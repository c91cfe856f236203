//! Every sentence that the orchestrator says, to people and to the model, in one place and one voice.
//!
//! Texts only; no decisions.

use crate::text;

use super::limits::{CALLS_AT_ONCE, Limit, Limits};

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

pub(super) const SUMMARISING: &str = "Summarising the conversation so far, to make room.";
pub(super) const WRAPPING_UP: &str = "A limit is reached; wrapping up.";
pub(super) const STOPPED: &str = "Stopped. What was done so far stays in the workspace.";
pub(super) const NO_ANSWER: &str =
    "The model gave no answer, even when asked again. Please try once more, perhaps in other words.";
pub(super) const BAD_CALLS: &str = "The model's tool calls cannot be read by its provider, even when asked again. Please try once \
    more, or choose another model with LLM_MODEL.";
pub(super) const ONLY_THOUGHT: &str = "(The model gave no answer, only its reasoning:)\n\n";
pub(super) const FILTERED: &str =
    "The model's provider withheld the answer (its content filter). Please put it in other words.";
pub(super) const ANSWER_CUT: &str = "\n\n(The answer was cut off at the model's output limit.)";

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

/// Returns what the person reads when the model writes its calls as text again.
pub(super) fn calls_no_tools(model: &str) -> String {
    let model = if model.is_empty() { "The model".to_owned() } else { format!("The model `{model}`") };
    format!(
        "{model}, or the server that runs it, calls no tools: it writes the calls as text, which is never run. Set LLM_MODEL \
        to a model that calls tools, or turn tool calls on in its server."
    )
}

/// Returns what is added to a result whose file did not reach the room.
pub(super) fn file_lost(name: &str) -> String {
    format!("\n\nThe file `{name}` could not be handed to the room: the people do not see it.")
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

/// Returns what stands in place of an old output.
pub(super) fn masked(characters: usize) -> String {
    format!("{MASKED} ({characters} characters). Make the call again if you need it.]")
}

/// How a masked output begins.
pub(super) const MASKED: &str = "[old output removed to save space";

/// Returns what a limit is, to be read after "reached".
fn named(limit: Limit, limits: &Limits) -> String {
    match limit {
        Limit::Rounds => format!("the limit of {} turns", limits.rounds),
        Limit::Time => format!("the time limit of {}", text::human_duration(limits.time)),
        Limit::Tokens => format!("the limit of {} tokens", text::short(limits.tokens)),
        Limit::Stuck => "the point where the same calls keep giving the same results".to_owned(),
        Limit::BadCalls => "the limit of calls in a row that could not run".to_owned(),
        Limit::Context => "the end of the model's context window".to_owned(),
    }
}

/// Returns the last order to the model.
pub(super) fn wrap_up(limit: Limit, limits: &Limits) -> String {
    format!(
        "[matrix-agent] You have reached {}: no more calls run in this turn. Answer the person now, without calling a \
         tool: what is done, what is still open, and what to do next.",
        named(limit, limits)
    )
}

/// How the next sentence begins.
pub(super) const STOPPED_AT: &str = "I stopped at ";

/// Returns what the person reads when the model did not even wrap up.
pub(super) fn limit_reached(limit: Limit, limits: &Limits) -> String {
    let next = match limit {
        Limit::Rounds | Limit::Time | Limit::Tokens => "write “go on” to continue",
        Limit::Stuck | Limit::BadCalls => "tell me another way, or split the task",
        Limit::Context => "start afresh with `!new`",
    };
    format!("{STOPPED_AT}{}. What was done so far stays in the workspace; {next}.", named(limit, limits))
}

/// Returns what the person reads when the model could not be reached or refused.
pub(super) fn failed(why: &str, worked: bool) -> String {
    if worked { format!("{why}\n\nWhat was done so far stays in the workspace.") } else { why.to_owned() }
}
