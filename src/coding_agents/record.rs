//! The log of a run for people: what the agent said and did, a line each with the time. What it wrote byte by byte lies
//! in the sandbox.
//!
//! Pure; called by `run` alone.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::stream::AgentEvent;
use crate::text;

/// Bytes of all lines: a message in a room takes 64 KiB, encrypted and as HTML a third of that.
const SIZE: usize = 16 * 1024;
/// Characters of a line.
const WIDTH: usize = 300;

/// What a run did. Of a long one the beginning is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    lines: VecDeque<String>,
    size: usize,
    forgotten: usize,
    /// What the agent says comes in pieces.
    saying: String,
    /// When it began to.
    said_at: Duration,
}

impl Record {
    /// Takes down what happened after so much time.
    pub(super) fn note(&mut self, event: &AgentEvent, after: Duration) {
        if let AgentEvent::Said(piece) = event {
            if self.saying.is_empty() {
                self.said_at = after;
            }
            let room = (4 * WIDTH).saturating_sub(self.saying.len());
            self.saying.push_str(&piece[..piece.floor_char_boundary(room)]);
            return;
        }
        let line = match event {
            AgentEvent::ToolUsed { name, target, .. } => {
                let target = target.strip_prefix("/workspace/").unwrap_or(target);
                format!("{} {target}", name.replace('_', " "))
            }
            AgentEvent::ToolEnded { ok: false, .. } => "that failed".to_owned(),
            AgentEvent::Retry { reason } => format!("its model refuses: {reason}"),
            AgentEvent::Noise(line) => line.clone(),
            _ => return,
        };
        self.line(&line, after);
    }

    /// Takes down a line of others about it.
    pub(super) fn line(&mut self, line: &str, after: Duration) {
        self.end_of_saying();
        self.push(line, after);
    }

    /// Returns it in lines, each with its time; empty if nothing happened.
    pub(super) fn told(mut self) -> String {
        self.end_of_saying();
        let forgotten = (self.forgotten > 0).then(|| format!("… {} earlier lines", self.forgotten));
        forgotten.into_iter().chain(self.lines).collect::<Vec<_>>().join("\n")
    }

    fn end_of_saying(&mut self) {
        let said = std::mem::take(&mut self.saying);
        if !said.trim().is_empty() {
            self.push(&said, self.said_at);
        }
    }

    fn push(&mut self, line: &str, after: Duration) {
        let line = format!("{} {}", text::stopwatch(after), text::one_line(line, WIDTH));
        self.size += line.len();
        self.lines.push_back(line);
        while self.size > SIZE {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.size -= oldest.len();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, target: &str) -> AgentEvent {
        AgentEvent::ToolUsed { id: "1".into(), name: name.into(), target: target.into() }
    }

    #[test]
    fn what_was_said_and_done_is_told_in_order() {
        let mut record = Record::default();
        for (event, second) in [
            (AgentEvent::Said("I look ".into()), 1),
            (AgentEvent::Said("at it.".into()), 2),
            (used("read_file", "src/`a`.rs"), 3),
            (AgentEvent::ToolEnded { id: "1".into(), ok: true }, 4),
            (used("run_shell_command", "make"), 5),
            (AgentEvent::ToolEnded { id: "1".into(), ok: false }, 70),
            (AgentEvent::Retry { reason: "429 slow down".into() }, 71),
            (AgentEvent::Said("Done.".into()), 72),
        ] {
            record.note(&event, Duration::from_secs(second));
        }
        insta::assert_snapshot!(record.told(), @"
        0:01 I look at it.
        0:03 read file src/`a`.rs
        0:05 run shell command make
        1:10 that failed
        1:11 its model refuses: 429 slow down
        1:12 Done.
        ");
    }

    #[test]
    fn of_a_long_one_the_end_is_kept() {
        let mut record = Record::default();
        for n in 0..1000 {
            record.note(&used("edit", &format!("{n} {}", "x".repeat(100))), Duration::ZERO);
        }
        let told = record.told();
        assert!(told.len() < SIZE + 100, "{}", told.len());
        assert!(
            told.starts_with("… ") && told.lines().last().is_some_and(|line| line.contains("edit 999 x")),
            "{told}"
        );
    }
}
