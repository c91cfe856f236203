//! What chat bots say besides their models' words. None of it repeats a provider's words.

/// What a bot that chats can be asked; `name` is what it is called.
pub(crate) fn help(name: &str) -> String {
    format!(
        "Mention me and ask: `{name}: why is the sky blue?` I know the last things that were said to me here, in each thread \
         its own; `{name}: reset` lets me forget them. `{name}: stop` ends the answer that I am giving."
    )
}

/// The reply to `reset`.
pub(crate) const RESET: &str = "I have forgotten what was said here.";

/// What it was asked to forget is still there.
pub(crate) const NOT_RESET: &str = "I could not forget what was said here; please try again.";

/// The answer of a turn that was stopped.
pub(crate) const STOPPED: &str = "Stopped.";

/// Stands behind an answer that was stopped.
pub(crate) const STOPPED_BEHIND: &str = "\n\n(Stopped.)";

/// The room's answers come too fast for people.
pub(crate) const LOOP: &str = "I have answered 20 times within a minute here, as if programs were answering each other: I am silent until \
    somebody whom I know asks me, or it has been quiet for a minute.";

/// The windows of [`ceiling`].
pub(crate) const A_MINUTE: &str = "a minute";
pub(crate) const A_DAY: &str = "a day";

/// A ceiling is reached; `own` is one person's.
pub(crate) fn ceiling(most: u32, span: &str, own: bool, wait: &str) -> String {
    let whom = if own { "You may ask me" } else { "I may ask the model" };
    let times = if most == 1 { "once".to_owned() } else { format!("{most} times") };
    format!("{whom} {times} {span}, and that is used up; please try again in {wait}.")
}

/// The ceilings cannot be looked up.
pub(crate) const UNCOUNTED: &str = "I cannot look up how often the model may be asked; please try again in a while.";

/// The model had nothing to say.
pub(crate) const EMPTY: &str = "The model gave an empty answer. Please ask again, perhaps in other words.";

/// The model has reasoned and said nothing.
pub(crate) const ONLY_THOUGHT: &str =
    "The model only thought, and gave no answer. Please ask again, perhaps in other words.";

/// The model has reasoned until its limit.
pub(crate) const USED_UP: &str =
    "The model thought until it had used up the longest answer that it may give. Please ask for less at once.";

/// Stands behind an answer that is not whole.
pub(crate) const CUT: &str = "\n\n(The answer was cut off at its longest length.)";

/// The model's answer does not end.
pub(crate) const ENDLESS: &str = "The model's answer grew beyond all bounds and was cut off. Please ask for less.";

/// The provider's filter has taken the answer.
pub(crate) const FILTERED: &str = "The model's provider withheld the answer. Please put it in other words.";

/// The provider is not reached.
pub(crate) const UNREACHABLE: &str = "I cannot reach the model just now. Please try again in a while.";

/// The provider takes no more for now; it says to wait so long.
pub(crate) fn rate_limited(wait: &str) -> String {
    format!("The model's provider takes no more questions just now; please try again in {wait}.")
}

/// The provider has trouble of its own.
pub(crate) fn unavailable(status: Option<u16>) -> String {
    match status {
        Some(status) => format!("The model's provider has trouble ({status}); please try again in a minute."),
        None => "The model's provider has trouble; please try again in a minute.".to_owned(),
    }
}

/// The provider does not accept how it is asked.
pub(crate) fn refused(status: u16) -> String {
    format!("The model's provider refused the question ({status}); whoever runs me can see why in my log.")
}

/// The provider does not accept the settings.
pub(crate) const MISCONFIGURED: &str =
    "The model's provider does not accept me; whoever runs me can see why in my log.";

/// Too much was said.
pub(crate) const TOO_LONG: &str =
    "That is more than the model can read at once. Please ask for less, or say `reset` to me.";

/// The provider takes no pictures.
pub(crate) const NO_PICTURES: &str =
    "The model cannot read the pictures here. Say `reset` to me, and ask without them.";

/// Nothing came in time.
pub(crate) const SLOW: &str = "The model took too long to answer. Please try again, or ask for less.";

/// The answer broke off.
pub(crate) const BROKEN_OFF: &str = "The model's answer broke off in the middle. Please ask again.";

/// What came is no answer.
pub(crate) const NO_ANSWER: &str = "What the model's provider sent is no answer. Please try again in a while.";

/// Stands under an answer: who gave it, how fast, and what it took.
pub(crate) fn footer(label: &str, per_second: f64, prompt: u64, total: u64) -> String {
    format!("{label} · {per_second:.0} tok/s · {prompt} prompt, {total} total tokens")
}

/// The reply to a file at which the bot does not look.
pub(crate) fn not_seen(name: &str, why: &str) -> String {
    format!("I have not looked at `{name}`: {why}.")
}

/// Why: a bot that chats takes pictures only.
pub(crate) const ONLY_PICTURES: &str =
    "it is no picture, and I take no other files; send what matters of it as a message";

/// Why: nor those, if its model does not see.
pub(crate) const SEES_NOTHING: &str = "my model reads words only; send what matters of it as a message";

/// A picture, as the model is told of it.
pub(crate) fn picture(name: &str) -> String {
    format!("[a picture: {name}]")
}

/// What the modes are, for the help: each begins with its word.
pub(crate) fn modes(name: &str, words: &str, usual: &str) -> String {
    format!(
        "Begin with {words} to choose how long I may think and write: `{name}: fast what is a monad?` Otherwise it is {usual}."
    )
}

/// Stands behind an answer that is not whole: why.
pub(crate) fn behind(why: &str) -> String {
    format!("\n\n({why})")
}

/// The time was up before an answer was whole.
pub(crate) fn cut_off(limit: &str) -> String {
    format!("Cut off after {limit}, which is this mode's limit.")
}

/// The time was up before a word came.
pub(crate) fn no_time(limit: &str) -> String {
    format!(
        "I found no answer within {limit}, which is this mode's limit. Please ask for less, or choose a longer mode."
    )
}
