//! Parses commands as people write them: on a phone, which capitalises the first letter and adds a full stop, or
//! copied from the help with its markup. Pure.

use super::{
    admin::{self, AdminOrder},
    answering::Answering,
    granting::Granting,
    localbot::LocalCommand,
};
use crate::text;

/// A command, written as `!word`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Lists the commands.
    Help,
    /// Stops the running turn.
    Stop,
    /// Ends what runs in the background.
    StopJobs,
    /// Begins a new conversation.
    New,
    /// Shows the room's sandbox.
    Sandbox,
    /// Shows the memory of the room's coding agents.
    Memory,
    /// Gives a link to the log of the room's newest turn.
    Link,
    /// Shows the tokens used.
    Cost,
    /// Shows what is left of today's tokens, or changes how many there are.
    Budget(Budget),
    /// Shows what is granted to the room, or changes it.
    Granting(Granting),
    /// Answers a card.
    Answering(Answering),
    /// About the whole server.
    Admin(AdminOrder),
    /// About the inference servers.
    Local(LocalCommand),
    /// Shows what runs.
    Status,
    /// Shows the model.
    Model,
    /// A word that is no command.
    Unknown(String),
}

/// What `!budget` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// To see what is left.
    Show,
    /// So many tokens for the room today.
    Room(u64),
    /// So many for each person today who has asked for something in the room.
    Each(u64),
    /// Something that cannot be read.
    Unclear,
}

/// What may stand around a command that was copied or emphasised.
const AROUND: &[char] = &['\\', '`', '*', '_', '~', '"', '\'', '“', '”', '„', '‘', '’', '«', '»', '(', ')', '[', ']'];
/// Characters that begin a command; the last one is that of East Asian keyboards.
const MARKS: &[char] = &['!', '/', '！'];
/// Words that people add to a stop: a request, or what is to be stopped.
const POLITE: &[&str] = &[
    "please",
    "pls",
    "now",
    "right",
    "immediately",
    "already",
    "it",
    "this",
    "that",
    "everything",
    "stop",
    "thanks",
    "thank",
    "you",
    "bitte",
    "1",
];
/// What may end a word.
const END: &[char] = &['.', '!', '?', '…', ',', ';', ':'];
/// Words beside a number of tokens that are passed over.
const SIDE: &[&str] = &["to", "=", "tokens", "token", "today", "please", "for"];
/// What a number of tokens begins with.
const DIGITS: &[char] = &['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '+', '-', '.'];
const WHICH: &[&str] = &["the", "all", "my", "background", "running"];

impl Command {
    /// Parses a message; `None` means that it is work. Only a message with nothing else is a command: `!important:
    /// fix the login` and `!new colours for it` are work.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let clean = text::bare(text).trim_matches(|c: char| c.is_whitespace() || AROUND.contains(&c)).to_owned();
        let command = clean.strip_prefix(MARKS).and_then(|rest| {
            if let Some(budget) = Budget::of(rest) {
                return Some(Self::Budget(budget));
            }
            if let Some(granting) = Granting::of(rest) {
                return Some(Self::Granting(granting));
            }
            if let Some(order) = admin::order(rest) {
                return Some(Self::Admin(order));
            }
            if let Some(answering) = Answering::of(rest) {
                return Some(Self::Answering(answering));
            }
            if let Some(local) = LocalCommand::of(rest) {
                return Some(Self::Local(local));
            }
            let words: Vec<_> = rest.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
            let words: Vec<_> = words.into_iter().map(str::to_lowercase).collect();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            Self::of_words(&words)
        });
        command.or_else(|| is_unknown(&clean).then_some(Self::Unknown(clean)))
    }

    fn of_words(words: &[&str]) -> Option<Self> {
        Some(match *words {
            ["help"] => Self::Help,
            ["new"] => Self::New,
            ["sandbox"] => Self::Sandbox,
            ["memory"] => Self::Memory,
            ["link"] => Self::Link,
            ["cost"] => Self::Cost,
            ["status"] => Self::Status,
            ["model"] => Self::Model,
            ["stop", ref rest @ ..] => match *rest {
                [ref which @ .., "job" | "jobs"] if all(which, WHICH) => Self::StopJobs,
                _ if all(rest, POLITE) => Self::Stop,
                _ => return None,
            },
            _ => return None,
        })
    }
}

impl Budget {
    /// Reads what follows the mark of a command; `None`: it is another one, or work.
    fn of(rest: &str) -> Option<Self> {
        let rest = rest.trim().to_lowercase();
        let mut words = rest.split(|c: char| c.is_whitespace() || AROUND.contains(&c)).filter(|word| !word.is_empty());
        if words.next()?.trim_end_matches(END) != "budget" {
            return None;
        }
        let words: Vec<_> = words.map(|word| word.trim_end_matches(END)).filter(|word| !SIDE.contains(word)).collect();
        Some(match words[..] {
            [] => Self::Show,
            [tokens] if tokens.starts_with(DIGITS) => text::amount(tokens).map_or(Self::Unclear, Self::Room),
            ["each", tokens] | [tokens, "each"] => text::amount(tokens).map_or(Self::Unclear, Self::Each),
            // This begins like a budget and cannot be meant as work.
            [word, ..] if word == "each" || word.starts_with(DIGITS) && words.len() < 3 => Self::Unclear,
            _ => return None,
        })
    }
}

fn all(words: &[&str], of: &[&str]) -> bool {
    words.iter().all(|word| of.contains(word))
}

/// Returns whether a message is a lone `!word`, which nobody means as work.
fn is_unknown(clean: &str) -> bool {
    clean.strip_prefix('!').is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_is_taken_as_people_write_it() {
        for stop in [
            "!stop",
            " !STOP \n",
            "!Stop",
            "!stop.",
            "!Stop!",
            "!STOP!!!",
            "!stop…",
            "!stop,",
            "! stop",
            "!\u{a0}stop",
            "\u{200b}!stop",
            "!stop\u{feff}",
            "\u{200e}!stop\u{200f}",
            "！stop",
            "/stop",
            "/Stop.",
            "`!stop`",
            "**!stop**",
            "“!stop”",
            "!stop please",
            "!stop now!",
            "!stop it, please.",
            "!stop 🙏",
            "!!stop",
            "(!stop)",
            "!stop\n\n",
            "!stop!!1",
            "!STOP STOP STOP",
            "!stop\n!stop",
            "!stop right now",
            "!stop everything, thank you",
            "_!stop_",
            "\\!stop",
        ] {
            assert_eq!(Command::of(stop), Some(Command::Stop), "{stop:?}");
        }
        for jobs in [
            "!stop jobs",
            "!Stop jobs.",
            "!stop  Jobs",
            "! stop job",
            "/stop jobs",
            "!stop the jobs",
            "!stop all background jobs!",
        ] {
            assert_eq!(Command::of(jobs), Some(Command::StopJobs), "{jobs:?}");
        }
        for (text, command) in [
            ("!help", Command::Help),
            ("!Help?", Command::Help),
            ("/help", Command::Help),
            ("!New.", Command::New),
            ("! new", Command::New),
            ("!status…", Command::Status),
            ("!COST", Command::Cost),
            ("!model?", Command::Model),
            ("`!sandbox`", Command::Sandbox),
            ("!memory", Command::Memory),
            ("!admin status", Command::Admin(AdminOrder::Status)),
            ("/Admin", Command::Admin(AdminOrder::Unclear)),
            ("!frobnicate", Command::Unknown("!frobnicate".into())),
            ("\u{200b}!frobnicate ", Command::Unknown("!frobnicate".into())),
        ] {
            assert_eq!(Command::of(text), Some(command), "{text:?}");
        }
    }

    #[test]
    fn a_budget_is_read_as_people_write_numbers() {
        for (text, budget) in [
            ("!budget", Budget::Show),
            ("!Budget?", Budget::Show),
            ("/budget please.", Budget::Show),
            ("!budget 500k", Budget::Room(500_000)),
            ("`!budget 500K`", Budget::Room(500_000)),
            ("!budget 1.5M.", Budget::Room(1_500_000)),
            ("!budget = 200,000 tokens today", Budget::Room(200_000)),
            ("!budget +1", Budget::Room(1)),
            ("! budget each 200k!", Budget::Each(200_000)),
            ("!budget 200k each", Budget::Each(200_000)),
        ] {
            assert_eq!(Command::of(text), Some(Command::Budget(budget)), "{text:?}");
        }
        for unclear in ["0", "-5", "0.4", "1e9", "9999999999m", "500q", "1.2.3", "each", "each many", "5 m"] {
            let text = format!("!budget {unclear}");
            assert_eq!(Command::of(&text), Some(Command::Budget(Budget::Unclear)), "{text:?}");
        }
        for work in ["!budget for the trip: plan it", "!budget inf", "!budget 3 columns for the table"] {
            assert_eq!(Command::of(work), None, "{work:?}");
        }
    }

    #[test]
    fn work_stays_work() {
        for work in [
            "!important: fix it",
            "!",
            "!!",
            "/",
            "stop",
            "stop.",
            "",
            "! important",
            "/workspace",
            "/tmp",
            "!wow!",
            "!new colours for it",
            "!stop the server on port 80",
            "!stop jobs that fail",
            "!help me with the login",
            "please !stop",
            "it works!",
            "/stopwatch",
            "!stop() is called twice",
            "5!",
            "!= is unequal",
        ] {
            assert_eq!(Command::of(work), None, "{work:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(text in any::<String>(), around in "[ .!?`*\\u{200b}\\u{a0}]{0,4}") {
            Command::of(&text);
            prop_assert_eq!(Command::of(&format!("!stop{around}")), Some(Command::Stop));
        }
    }
}
