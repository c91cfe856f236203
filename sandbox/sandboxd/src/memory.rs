//! Keeps the results of commands that have ended, until too many newer ones have: a server that was away asks for them.
//! Pure bookkeeping over encoded frames. Called by [`crate::commands`].

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// The most results that are kept, by number and by bytes.
const RESULTS: usize = 256;
const BYTES: usize = 256 * 1024;
/// The most commands of which only the name is kept: a name takes eight bytes.
const NAMES: usize = 8192;

/// What is remembered of commands that have ended.
#[derive(Default)]
pub(crate) struct Memory {
    /// Oldest first: a command's id and the frame that tells of its end.
    results: VecDeque<(String, Vec<u8>)>,
    bytes: usize,
    /// Hashes of forgotten ids, oldest first: they ran, and must not count as never started.
    names: VecDeque<u64>,
}

/// What is known of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recall<'a> {
    /// How it ended.
    Ended(&'a [u8]),
    /// It ended; how is not known any more.
    Forgotten,
    /// It was never started.
    Never,
}

impl Memory {
    /// Remembers how a command ended.
    pub(crate) fn remember(&mut self, id: &str, frame: Vec<u8>) {
        self.bytes += frame.len();
        self.results.push_back((id.to_owned(), frame));
        while self.results.len() > RESULTS || self.bytes > BYTES && self.results.len() > 1 {
            let Some((id, frame)) = self.results.pop_front() else { break };
            self.bytes -= frame.len();
            self.names.push_back(hash(&id));
            if self.names.len() > NAMES {
                self.names.pop_front();
            }
        }
    }

    /// Returns what is known of a command that does not run.
    pub(crate) fn recall(&self, id: &str) -> Recall<'_> {
        if let Some((_, frame)) = self.results.iter().rev().find(|(name, _)| name == id) {
            Recall::Ended(frame)
        } else if self.names.contains(&hash(id)) {
            Recall::Forgotten
        } else {
            Recall::Never
        }
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_but_never_taken_for_not_run() {
        let mut memory = Memory::default();
        for number in 0..=RESULTS {
            memory.remember(&number.to_string(), vec![number as u8]);
        }
        assert_eq!(memory.recall("0"), Recall::Forgotten);
        assert_eq!(memory.recall("1"), Recall::Ended(&[1]));
        assert_eq!(memory.recall("x"), Recall::Never);
    }

    #[test]
    fn large_results_go_sooner_and_the_newest_stays() {
        let mut memory = Memory::default();
        memory.remember("a", vec![0; BYTES / 2]);
        memory.remember("b", vec![0; BYTES / 2]);
        assert!(matches!(memory.recall("a"), Recall::Ended(_)));
        memory.remember("c", vec![0; BYTES + 1]);
        assert_eq!((memory.recall("a"), memory.recall("b")), (Recall::Forgotten, Recall::Forgotten));
        assert!(matches!(memory.recall("c"), Recall::Ended(_)));
    }

    #[test]
    fn even_names_are_bounded() {
        let mut memory = Memory::default();
        for number in 0..NAMES + RESULTS + 10 {
            memory.remember(&number.to_string(), Vec::new());
        }
        assert_eq!((memory.names.len(), memory.results.len()), (NAMES, RESULTS));
    }
}
