//! What a turn shows of itself while it works. Showing never holds up the work: what is not taken waits in a short
//! queue in which pieces of text grow together, the newest line of a call replaces the older, and the oldest gives way.
//!
//! Files for the room are the exception: they must not be lost, so the call that made one waits until it is stored.
//! Knows no chat protocol. The driver calls it, and the hub receives what it hands on.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::ids::{CallId, EventId};

/// The most entries of the queue.
const WAITING: usize = 64;

/// Something that a turn shows of itself.
#[derive(Debug)]
pub enum Progress {
    /// The model is asked, for the first time or again: text that was not followed by a call or the answer is void.
    Thinking,
    /// A piece of the model's text.
    Text(String),
    /// The answer so far, whole, of a bot that shows it as it comes; empty before its first word.
    Draft(String),
    /// A message was taken into the turn.
    Seen(EventId),
    /// A call has begun.
    ToolStarted {
        /// The call.
        call: CallId,
        /// The tool.
        name: String,
        /// What it does, in a line.
        detail: String,
    },
    /// A call's newest line of output.
    ToolOutput {
        /// The call.
        call: CallId,
        /// The line; a coding agent's may be two.
        line: String,
    },
    /// A call has ended.
    ToolEnded {
        /// The call.
        call: CallId,
        /// What came of it, in a line.
        summary: String,
        /// Whether it went well.
        ok: bool,
    },
    /// A plain sentence that the person should read now.
    Notice(String),
    /// A file, a log or a message that stays in the room.
    Enclosure {
        /// Names it. It has the same key after a restart, so that it is sent once.
        key: String,
        /// What it is.
        enclosure: Enclosure,
        /// Told what became of it. The call's result is stored only after that.
        stored: oneshot::Sender<Taken>,
    },
}

/// What a turn hands to the room beside its answer.
#[derive(Debug)]
pub enum Enclosure {
    /// A file.
    File {
        /// Its name, without a path.
        name: String,
        /// Its media type.
        mime: String,
        /// The file.
        data: Bytes,
    },
    /// What a call did in detail: plain lines under a title.
    Log(String),
    /// What came of a call that people should know whatever the answer says: Markdown.
    News(String),
}

/// What became of an enclosure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, and reaches the room.
    Stored,
    /// The room's chat protocol takes none.
    NotHere,
}

/// The queue before the hub's channel.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    waiting: Mutex<VecDeque<Progress>>,
    more: Notify,
}

impl Outflow {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Progress>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something to be shown. Never waits.
    pub(super) fn push(&self, progress: Progress) {
        let mut waiting = self.waiting();
        match (waiting.back_mut(), &progress) {
            (Some(Progress::Text(text)), Progress::Text(piece)) => text.push_str(piece),
            (Some(Progress::ToolOutput { call, line }), Progress::ToolOutput { call: same, line: newer })
                if call == same =>
            {
                line.clone_from(newer);
            }
            _ => {
                if waiting.len() == WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(progress);
            }
        }
        self.more.notify_one();
    }

    /// Hands on what waits, as the channel takes it. Never ends; may be dropped at any time without a loss.
    pub(super) async fn pump(&self, to: &mpsc::Sender<Progress>) {
        loop {
            while !self.waiting().is_empty() {
                // Nobody looks any more: the work goes on all the same.
                let Ok(permit) = to.reserve().await else { return std::future::pending().await };
                if let Some(progress) = self.waiting().pop_front() {
                    permit.send(progress);
                }
            }
            self.more.notified().await;
        }
    }

    /// Hands on what the channel takes at once.
    pub(super) fn flush(&self, to: &mpsc::Sender<Progress>) {
        let mut waiting = self.waiting();
        while let Ok(permit) = to.try_reserve() {
            let Some(progress) = waiting.pop_front() else { return };
            permit.send(progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(call: &str, line: &str) -> Progress {
        Progress::ToolOutput { call: call.into(), line: line.into() }
    }

    #[tokio::test]
    async fn pieces_grow_together_and_the_newest_line_wins() {
        let outflow = Outflow::default();
        for progress in
            [Progress::Text("a".into()), Progress::Text("b".into()), line("1", "x"), line("1", "y"), line("2", "z")]
        {
            outflow.push(progress);
        }
        let (to, mut from) = mpsc::channel(1);
        let mut seen = vec![];
        tokio::select! {
            () = outflow.pump(&to) => {}
            () = async { for _ in 0..3 { seen.push(format!("{:?}", from.recv().await.unwrap())); } } => {}
        }
        insta::assert_snapshot!(seen.join("\n"), @r#"
        Text("ab")
        ToolOutput { call: CallId("1"), line: "y" }
        ToolOutput { call: CallId("2"), line: "z" }
        "#);
    }

    #[test]
    fn nobody_looking_costs_nothing_but_the_oldest() {
        let outflow = Outflow::default();
        for n in 0..1000 {
            outflow.push(line(&n.to_string(), "x"));
        }
        assert_eq!(outflow.waiting().len(), WAITING);
        let (to, mut from) = mpsc::channel(1);
        outflow.flush(&to);
        assert!(matches!(from.try_recv().unwrap(), Progress::ToolOutput { call, .. } if call.as_str() == "936"));
    }
}
