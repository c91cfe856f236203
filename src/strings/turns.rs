//! How a turn ends when the model did not say it, and what is shown meanwhile.

/// The answer of a turn that was stopped before it had begun.
pub(crate) const STOPPED_BEFORE: &str = "Stopped before I had begun.";

/// The answer of a turn that was stopped.
pub(crate) const STOPPED: &str = "Stopped. What was done so far stays in the workspace.";

/// Shown while the conversation is summarised.
pub(crate) const SUMMARISING: &str = "Summarising the conversation so far, to make room.";

/// Shown when the model is told to come to an end.
pub(crate) const WRAPPING_UP: &str = "A limit is reached; wrapping up.";

/// The answer when the model has none.
pub(crate) const NO_ANSWER: &str =
    "The model gave no answer, even when asked again. Please try once more, perhaps in other words.";

/// The answer when the model writes tool calls that its provider cannot read.
pub(crate) const BAD_CALLS: &str = "The model's tool calls cannot be read by its provider, even when asked again. Please try once \
    more, or choose another model with LLM_MODEL.";

/// The answer when the model's provider takes the model's away.
pub(crate) const FILTERED: &str =
    "The model's provider withheld the answer (its content filter). Please put it in other words.";

/// Stands before the model's thoughts where they are all that it gave.
pub(crate) const ONLY_THOUGHT: &str = "(The model gave no answer, only its reasoning:)\n\n";

/// Stands behind an answer that is not whole.
pub(crate) const ANSWER_CUT: &str = "\n\n(The answer was cut off at the model's output limit.)";

/// The answer when the model writes its calls as text again; `model` may be empty.
pub(crate) fn calls_no_tools(model: &str) -> String {
    let model = if model.is_empty() { "The model".to_owned() } else { format!("The model `{model}`") };
    format!(
        "{model}, or the server that runs it, calls no tools: it writes the calls as text, which is never run. Set LLM_MODEL \
        to a model that calls tools, or turn tool calls on in its server."
    )
}

/// How the answer of a turn begins that has reached a limit.
pub(crate) const STOPPED_AT: &str = "I stopped at ";

/// The answer of a turn that has reached a limit, when the model did not even wrap up.
pub(crate) fn limit_reached(limit: &str, next: &str) -> String {
    format!("{STOPPED_AT}{limit}. What was done so far stays in the workspace; {next}.")
}

/// A limit: requests to the model.
pub(crate) fn limit_of_rounds(rounds: u32) -> String {
    format!("the limit of {rounds} turns")
}

/// A limit: time.
pub(crate) fn limit_of_time(time: &str) -> String {
    format!("the time limit of {time}")
}

/// A limit: tokens.
pub(crate) fn limit_of_tokens(tokens: &str) -> String {
    format!("the limit of {tokens} tokens")
}

/// A limit: nothing changes.
pub(crate) const LIMIT_STUCK: &str = "the point where the same calls keep giving the same results";

/// A limit: calls that cannot run.
pub(crate) const LIMIT_BAD_CALLS: &str = "the limit of calls in a row that could not run";

/// A limit: the length of the conversation.
pub(crate) const LIMIT_CONTEXT: &str = "the end of the model's context window";

/// What to do after a limit that the next turn does not have yet.
pub(crate) const NEXT_GO_ON: &str = "write “go on” to continue";

/// What to do after a limit that the next turn would reach, too.
pub(crate) const NEXT_OTHER_WAY: &str = "tell me another way, or split the task";

/// What to do with a conversation that is too long.
pub(crate) const NEXT_AFRESH: &str = "start afresh with `!new`";

/// The answer when the model could not be reached or refused; `worked`: something was done before.
pub(crate) fn failed(why: &str, worked: bool) -> String {
    if worked { format!("{why}\n\nWhat was done so far stays in the workspace.") } else { why.to_owned() }
}
