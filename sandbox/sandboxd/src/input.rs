//! A command's standard input: a pipe, the bytes that wait until the command reads them, and the keys of the words that
//! were taken.
//!
//! The caller decides where the bytes come from: the connection of a command that has one for it ([`crate::live`]), or
//! requests, which no loss of a server ends ([`crate::warden`]).

use std::{collections::VecDeque, os::fd::OwnedFd};

use sandboxd::protocol::Written;

use crate::sys;

/// The most bytes that may wait for a command to read them.
const WAITING: usize = 1024 * 1024;
/// The most keys of words that are remembered.
const KEYS: usize = 1024;

/// The input, if the command has one.
#[derive(Default)]
pub(crate) struct Input {
    /// The writing end; gone when the input has ended, or the command closed it.
    pipe: Option<OwnedFd>,
    waiting: Vec<u8>,
    /// Whether no more bytes come.
    ended: bool,
    /// The keys of the words that were taken, oldest first.
    taken: VecDeque<String>,
}

impl Input {
    /// Returns an input that feeds `pipe`, which does not block.
    pub(crate) fn new(pipe: Option<OwnedFd>) -> Self {
        Self { ended: pipe.is_none(), pipe, ..Self::default() }
    }

    /// Tells whether the command could still read something.
    pub(crate) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Tells whether more may come.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Tells whether something waits for the command.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes bytes; those for a command that reads no more are dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_open() {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Takes a word, unless one with this key was taken before.
    pub(crate) fn word(&mut self, key: &str, bytes: &[u8], end: bool) -> Written {
        if self.taken.iter().any(|taken| taken == key) {
            return Written::Before;
        }
        if !self.is_open() || self.ended {
            return Written::Closed;
        }
        if self.waiting.len() + bytes.len() > WAITING {
            return Written::Full;
        }
        if self.taken.len() == KEYS {
            self.taken.pop_front();
        }
        self.taken.push_back(key.to_owned());
        self.push(bytes);
        if end {
            self.end();
        }
        self.feed();
        Written::Taken
    }

    /// Notes that no more bytes come: the input ends once what waits was read.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Returns what to poll for.
    pub(crate) fn poll(&self) -> libc::pollfd {
        sys::poll_entry(self.pipe.as_ref(), false, self.waits())
    }

    /// Acts on what [`Input::poll`] came back with.
    pub(crate) fn handle(&mut self, polled: libc::pollfd) {
        if polled.revents & libc::POLLERR != 0 {
            // The command has closed it.
            self.close();
        }
        self.feed();
    }

    /// Gives the command as much as its pipe takes.
    pub(crate) fn feed(&mut self) {
        if let Some(pipe) = &self.pipe {
            match sys::write(pipe, &self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if sys::again(&error) => {}
                Err(_) => return self.close(),
            }
            if self.ended && self.waiting.is_empty() {
                self.pipe = None;
            }
        }
    }

    fn close(&mut self) {
        self.pipe = None;
        self.waiting = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> (OwnedFd, Input) {
        let (read, write) = sys::pipe().unwrap();
        for end in [&read, &write] {
            sys::set_nonblocking(end).unwrap();
        }
        (read, Input::new(Some(write)))
    }

    fn read(pipe: &OwnedFd) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = sys::read(pipe, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    #[test]
    fn a_word_is_written_once_by_its_key_and_the_last_one_ends_it() {
        let (pipe, mut input) = input();
        assert_eq!(input.word("a", b"one\n", false), Written::Taken);
        assert_eq!(input.word("a", b"one\n", false), Written::Before);
        assert_eq!(input.word("b", b"two\n", true), Written::Taken);
        assert_eq!((input.word("b", b"", false), input.word("c", b"x", false)), (Written::Before, Written::Closed));
        assert_eq!(read(&pipe), b"one\ntwo\n");
        assert_eq!(sys::read(&pipe, &mut [0; 1]).unwrap(), 0, "it has ended");
    }

    #[test]
    fn what_a_command_does_not_read_is_bounded_and_a_key_of_what_was_not_taken_is_free() {
        let (pipe, mut input) = input();
        let piece = vec![7; WAITING / 4];
        let taken = (0..9).take_while(|n| input.word(&n.to_string(), &piece, false) == Written::Taken).count();
        assert!((4..6).contains(&taken), "{taken}");
        assert_eq!(input.word("late", &piece, false), Written::Full);
        let mut got = read(&pipe).len();
        while input.waits() {
            input.feed();
            got += read(&pipe).len();
        }
        assert_eq!(got, taken * piece.len());
        assert_eq!(input.word("late", &piece, false), Written::Taken);
        drop(pipe);
        assert_eq!(input.word("lost", b"x", false), Written::Taken, "nobody can know yet");
        assert_eq!(input.word("more", b"x", false), Written::Closed);
    }

    #[test]
    fn keys_are_bounded() {
        let (_pipe, mut input) = input();
        for n in 0..=KEYS {
            assert_eq!(input.word(&n.to_string(), b"", false), Written::Taken);
        }
        assert_eq!(input.taken.len(), KEYS);
    }
}
