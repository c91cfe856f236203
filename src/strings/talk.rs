//! What the Nextcloud Talk bot says besides its model's words.

/// Stands before a message that may have been sent before.
pub(crate) const PERHAPS_AGAIN: &str = "(I do not know whether this arrived, so it may stand here already.)\n\n";

/// The reaction to a message that was heard.
pub(crate) const HEARD: &str = "👀";

/// What was sent along cannot be looked at.
pub(crate) const NO_FILES: &str = "Nextcloud gives its bots no files";

/// Nextcloud refuses the bot in one conversation.
pub(crate) const REFUSED: &str =
    "Nextcloud has refused the bot in this conversation again and again: nothing is sent there any more";

/// Nextcloud refuses the bot, and shuts it out.
pub(crate) const STOPPED: &str = "Nextcloud has refused the bot, and shuts it out for asking too often: nothing is sent to Nextcloud until the next start";

/// What to do about both.
pub(crate) const REFUSED_MEND: &str = "Install the bot with `--feature webhook --feature response` and the same secret, add it to the \
    conversation, and start the server anew; `matrix-agent doctor` looks at it";

/// What a model is told before every conversation, and behind that what the operator has set.
pub(crate) fn prompt(name: &str, more: Option<&str>) -> String {
    let own = format!(
        "You are {name}, an assistant in a Nextcloud Talk chat. Answer in the language of the question, briefly and to the point. \
         You may use Markdown. You see only what is said to you; where several people talk to you, their ids stand before their words."
    );
    match more.map(str::trim).filter(|more| !more.is_empty()) {
        Some(more) => format!("{own}\n\n{more}"),
        None => own,
    }
}
