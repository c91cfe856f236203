//! The last lines of what the child says, for the log when it fails. None of them is told in a room.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
};

use crate::text;

/// Lines that are kept.
const LINES: usize = 12;
/// The most bytes of a line; what follows in it is left out.
const LONGEST: usize = 400;
/// What lines contain by which llama.cpp refuses a model's file.
const REFUSALS: [&str; 5] =
    ["error loading model", "failed to load model", "invalid magic", "unknown model architecture", "failed to read"];

/// The last lines. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Tail {
    /// Reads what comes until it ends, in a task that ends with it.
    pub(super) fn follow(&self, mut from: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let tail = self.clone();
        tokio::spawn(async move {
            let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                for byte in &buffer[..read] {
                    match byte {
                        b'\n' => tail.push(&std::mem::take(&mut line)),
                        byte if line.len() < LONGEST => line.push(*byte),
                        _ => {}
                    }
                }
            }
            tail.push(&line);
        })
    }

    fn push(&self, line: &[u8]) {
        let line = text::one_line(&String::from_utf8_lossy(line), LONGEST);
        if line.is_empty() {
            return;
        }
        tracing::debug!(target: "llama_server", "{line}");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns the last line, empty if there is none.
    pub(super) fn last(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).back().cloned().unwrap_or_default()
    }

    /// Returns the line by which it has refused its model, if it has.
    pub(super) fn refusal(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|line| REFUSALS.iter().any(|words| line.contains(words))).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(said: String) -> Tail {
        let tail = Tail::default();
        tail.follow(std::io::Cursor::new(said.into_bytes())).await.unwrap();
        tail
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_long_ones_cut() {
        let lines: Vec<_> = (0..100).map(|at| format!("line {at}\n")).collect();
        let tail = after(lines.concat()).await;
        assert_eq!((tail.last().as_str(), tail.lines.lock().unwrap().len()), ("line 99", LINES));
        let tail = after("x".repeat(1 << 20)).await;
        assert!(tail.last().len() <= LONGEST);
        assert_eq!(after(String::new()).await.last(), "");
    }

    #[tokio::test]
    async fn a_refused_model_is_told_by_the_first_line_that_says_so() {
        let said =
            "build: 1\nllama_model_load: error loading model: tensor 'x' data is not within the file bounds\nexiting\n";
        let tail = after(said.to_owned()).await;
        assert!(tail.refusal().is_some_and(|line| line.contains("not within the file bounds")));
        assert_eq!(after("srv update_slots: all slots are idle\n".to_owned()).await.refusal(), None);
    }
}
