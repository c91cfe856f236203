//! The replies to commands.

/// The reply to `!help`.
pub(crate) const HELP: &str = "\
I work in this room's own sandbox: tell me what to do, in your own words. Files that you send me land in `/workspace/uploads`.

- `!stop` stops what I am doing; `!stop jobs` ends what runs in the background
- `!status` shows what I am doing
- `!new` begins a new conversation; the files stay
- `!sandbox` shows this room's sandbox as it is observed
- `!memory` shows what the coding agents keep in mind here
- `!link` gives a link to the log of what I did last, for a day
- `!model` shows the model that I think with
- `!grants` shows what this room's sandbox may reach beyond the settings; `!grant owner/repo 2h` adds to it
- `!cost` shows the tokens used in this room; `!budget` those that today has
- `!admin` is for those who run the server
- `!help` shows this

A message while I work is taken into the work.";

/// The reply to `!new`.
pub(crate) const NEW: &str = "A new conversation. The files in `/workspace` are as they were.";

/// The reply to `!stop` when nothing runs.
pub(crate) const NOTHING_RUNS: &str = "Nothing is running.";

/// The reply to `!link`.
pub(crate) fn link(link: &str, lasts: &str) -> String {
    format!("Whoever has this link sees the log of my newest turn here, for {lasts}: {link}")
}

/// The reply to `!link` before the first turn.
pub(crate) const NO_TURN: &str = "I have done nothing in this room yet.";

/// The reply to `!link` where there is no dashboard.
pub(crate) const NO_LINKS: &str = "This server shows no logs: its operator can set `HTTP_LISTEN`.";

/// The reply to `!stop jobs` when there are none.
pub(crate) const NO_JOBS: &str = "Nothing runs in the background.";

/// What a stop leaves running.
pub(crate) fn jobs_left(jobs: &str, count: usize) -> String {
    let them = if count == 1 { "it" } else { "them" };
    format!("Still running in the background: {jobs}. `!stop jobs` ends {them}.")
}

/// The reply to `!stop jobs`.
pub(crate) fn jobs_ended(jobs: &str) -> String {
    format!("Ended, with all that it had started: {jobs}.")
}

/// The reply to a command that is not carried out in time.
pub(crate) const TOO_SLOW: &str = "That takes too long just now. Try again in a minute.";

/// The reply to a `!word` that is no command.
pub(crate) fn unknown(word: &str) -> String {
    format!("I know no command `{word}`. `!help` lists them.")
}

/// The reply when a command could not be carried out.
pub(crate) fn failed(cause: &str) -> String {
    format!("That did not work: {cause}")
}

/// The reply to `!memory`: files by name, with their texts.
pub(crate) fn memory(files: &[(&str, String)]) -> String {
    if files.is_empty() {
        return "Nothing is kept in mind in this room yet.".to_owned();
    }
    // A fence in a text must not end the block.
    let block = |(name, text): &(&str, String)| format!("`{name}`\n~~~~\n{}\n~~~~\n", text.replace("~~~~", "~~~"));
    files.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// The reply to `!model`.
pub(crate) fn model(name: &str, window: u64, source: &str, vision: bool) -> String {
    let sees = if vision { "sees pictures" } else { "does not see pictures" };
    format!(
        "The model is `{name}`; {window} tokens fit in its context ({source}), and it {sees}. Whoever runs the server changes it \
         with `LLM_MODEL` and a restart."
    )
}

/// The first line of the reply to `!status` while a turn works.
pub(crate) fn working(what: &str, time: &str, tools: u32, now: Option<&str>) -> String {
    let tools = match tools {
        0 => String::new(),
        1 => ", 1 tool so far".to_owned(),
        _ => format!(", {tools} tools so far"),
    };
    let now = now.map(|now| format!("; now: {now}")).unwrap_or_default();
    format!("Working on “{what}” for {time}{tools}{now}.")
}

/// Why a turn waits although others may not stand before it.
pub(crate) const HELD: &str = "no work begins just now, by an administrator's order; it follows by itself";

/// The first line of the reply to `!status` while a turn waits for others.
pub(crate) fn queued(what: &str, before: usize, held: bool) -> String {
    match before {
        _ if held => format!("Waiting with “{what}”; {HELD}."),
        0 => format!("Waiting with “{what}”; it is next."),
        _ => format!("Waiting with “{what}”; {before} before it."),
    }
}

/// The first line of the reply to `!status` while a file is fetched.
pub(crate) fn fetching(name: &str) -> String {
    format!("Fetching the file `{name}`.")
}

/// The last line of the reply to `!status`.
pub(crate) fn model_and_sandbox(model: &str, sandbox: &str) -> String {
    format!("Model `{model}`; sandbox {sandbox}.")
}

/// The sandbox in the reply to `!status`: there is one.
pub(crate) fn sandbox_last_used(state: &str, ago: &str) -> String {
    format!("{state}, last used {ago} ago")
}

/// The sandbox in the reply to `!status`: there is none.
pub(crate) const SANDBOX_NOT_MADE: &str = "not made yet";

/// The sandbox in the reply to `!status`: nobody can tell.
pub(crate) fn sandbox_unseen(cause: &str) -> String {
    format!("not to be seen ({cause})")
}

/// The sandbox in the reply to `!status`: nobody tells in time.
pub(crate) const SANDBOX_UNSEEN_NOW: &str = "not to be seen just now";
