//! What a room's actor does now, as `!status` shows it. Does no I/O.

use std::time::Duration;

use crate::{
    bots::{Progress, QueuePlace},
    ids::EventId,
    strings, text,
};

/// The most characters of a message that are shown.
const SHOWN: usize = 60;

/// What an actor does now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing.
    #[default]
    Nothing,
    /// It fetches a file.
    Fetching {
        /// The file's name.
        name: String,
    },
    /// It waits for a permit for a turn.
    Queued {
        /// The event that asked.
        asked: EventId,
        /// What was asked.
        what: String,
        /// Its place in the queue.
        place: QueuePlace,
    },
    /// A turn works.
    Working {
        /// What was asked.
        what: String,
        /// When the turn was opened, in milliseconds since 1970.
        since: i64,
        /// Tool calls that it has begun.
        tools: u32,
        /// The call that was begun last, in one line; `None` once it has ended.
        now: Option<String>,
    },
}

impl Doing {
    /// Follows a turn's progress.
    pub(super) fn follow(&mut self, progress: &Progress) {
        let Self::Working { tools, now, .. } = self else { return };
        match progress {
            Progress::ToolStarted { name, detail, .. } => {
                *tools += 1;
                *now = Some(text::one_line(&format!("{name}: {detail}"), SHOWN));
            }
            Progress::ToolEnded { .. } => *now = None,
            _ => {}
        }
    }

    /// Returns it as one line; `clock` is now, in milliseconds since 1970.
    pub(super) fn line(&self, clock: i64) -> String {
        match self {
            Self::Nothing => strings::commands::NOTHING_RUNS.to_owned(),
            Self::Fetching { name } => strings::commands::fetching(&text::one_line(name, SHOWN)),
            Self::Queued { what, place, .. } => {
                strings::commands::queued(&text::one_line(what, SHOWN), place.before, place.held)
            }
            Self::Working { what, since, tools, now } => {
                let time = text::stopwatch(Duration::from_millis((clock - since).max(0) as u64));
                strings::commands::working(&text::one_line(what, SHOWN), &time, *tools, now.as_deref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_one_line() {
        let what = "fix the login, please".to_owned();
        let mut doing = Doing::Working { what: what.clone(), since: 1_000, tools: 0, now: None };
        assert_eq!(doing.line(43_000), "Working on “fix the login, please” for 0:42.");
        let call = || "c".into();
        doing.follow(&Progress::ToolStarted { call: call(), name: "run_command".into(), detail: "cargo test".into() });
        assert_eq!(
            doing.line(43_000),
            "Working on “fix the login, please” for 0:42, 1 tool so far; now: run_command: cargo test."
        );
        doing.follow(&Progress::ToolEnded { call: call(), summary: String::new(), ok: true });
        assert!(doing.line(0).ends_with("for 0:00, 1 tool so far."), "{}", doing.line(0));
        let queued = |before, held| {
            let place = QueuePlace { before, held };
            Doing::Queued { asked: EventId::from("$a"), what: what.clone(), place }.line(0)
        };
        assert!(queued(2, false).ends_with("2 before it."));
        assert!(queued(0, true).contains("no work begins"));
        assert_eq!(Doing::Nothing.line(0), "Nothing is running.");
    }
}
