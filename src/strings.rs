//! The words that people read, in one voice: short, plain, says what to do next. Knows nothing of who says them.

/// The reply to `!help`.
pub const HELP: &str = "\
I work in this room's own sandbox: tell me what to do, in your own words.

- `!stop` stops what I am doing
- `!new` begins a new conversation; the files stay
- `!sandbox` shows this room's sandbox as it is observed
- `!cost` shows the tokens used in this room
- `!help` shows this

A message while I work is taken into the work.";

/// The reply to `!new`.
pub const NEW: &str = "A new conversation. The files in `/workspace` are as they were.";

/// The reply to `!stop` when nothing runs.
pub const NOTHING_RUNS: &str = "Nothing is running.";

/// The answer of a turn that was stopped.
pub const STOPPED: &str = "Stopped.";

/// The reply to `!cost` before anything was asked.
pub const NO_COST: &str = "No tokens were used in this room yet.";

/// The answer when the program itself failed; the log has the cause.
pub const INTERNAL: &str = "Something went wrong on my side, and I could not finish this. The log of the server has the cause; ask again to go on.";

/// The reply to a `!word` that is no command.
pub fn unknown_command(word: &str) -> String {
    format!("I know no command `{word}`. `!help` lists them.")
}

/// The reply when a command could not be carried out.
pub fn command_failed(cause: &str) -> String {
    format!("That did not work: {cause}")
}

/// A line of the reply to `!cost`.
pub fn cost_of_day(day: &str, input: u64, cached: u64, output: u64, requests: u64) -> String {
    format!("- {day}: {input} in ({cached} cached), {output} out, {requests} requests\n")
}
