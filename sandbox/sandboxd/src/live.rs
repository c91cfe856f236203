//! A command's connection to the server: its output goes out on it, its standard input comes in.
//!
//! The connection is asked for only when there is something to carry, since a short output travels with the command's
//! end. While it is there, the kernel's buffers make the command wait for a slow server; without a server nothing waits,
//! and what would go out is dropped (the capture keeps its share). Called by a command's warden.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use crate::{input::Input, sys};

/// So many bytes of output are worth a connection at once.
const WORTH: usize = 8 * 1024;
/// How long fewer bytes may wait for more.
const PATIENCE: Duration = Duration::from_millis(10);
/// The most bytes that may wait to go out; beyond that the command has to wait.
const FULL: usize = 64 * 1024;

/// The connection, if there is one.
pub(crate) struct Live {
    state: State,
    /// What waits to go out, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// Since when something waits for which no connection was asked.
    since: Option<Instant>,
    /// Whether the server has closed its end; what it sent before may still be unread.
    gone: bool,
    /// Standard input on its way from the connection to the command.
    input: Input,
}

enum State {
    /// Nothing to carry yet.
    Unasked,
    /// PID 1 was asked to dial.
    Asked,
    On(UnixStream),
    /// No server listens.
    Off,
}

/// Which of a connection's descriptors to poll, and for what.
pub(crate) struct Polls {
    pub(crate) stream: libc::pollfd,
    pub(crate) input: libc::pollfd,
}

impl Live {
    /// Returns a connection that was not asked for yet. `input` is the writing end of the command's standard input, if
    /// it has one that the server feeds.
    pub(crate) fn new(input: Option<OwnedFd>) -> Self {
        // A command with an input needs its connection at once.
        let since = input.is_some().then(Instant::now);
        Self { state: State::Unasked, waiting: Vec::new(), sent: 0, since, gone: false, input: Input::new(input) }
    }

    /// Tells whether PID 1 is to be asked for a connection now.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        let worth = self.input.is_open() || self.waiting.len() >= WORTH;
        let late = self.since.is_some_and(|since| now >= since + PATIENCE);
        let ask = matches!(self.state, State::Unasked) && (worth || late);
        if ask {
            self.state = State::Asked;
        }
        ask
    }

    /// Like [`Live::ask`], when the command has ended: output of at most `told` bytes travels with the end and needs no
    /// connection.
    pub(crate) fn ask_at_end(&mut self, told: usize) -> bool {
        let ask = matches!(self.state, State::Unasked) && self.waiting.len() > told;
        if ask {
            self.state = State::Asked;
        }
        ask
    }

    /// Returns when [`Live::ask`] is to be called again.
    pub(crate) fn patience(&self) -> Option<Instant> {
        self.since.filter(|_| matches!(self.state, State::Unasked)).map(|since| since + PATIENCE)
    }

    /// Takes the connection that was asked for; `None` if there is none.
    pub(crate) fn answer(&mut self, stream: Option<UnixStream>) {
        if matches!(self.state, State::Asked) {
            match stream {
                Some(stream) => self.state = State::On(stream),
                None => self.hang_up(),
            }
            self.flush();
        }
    }

    /// Carries on over a new connection, beginning with what was kept.
    pub(crate) fn attach(&mut self, stream: UnixStream, kept: Vec<u8>) {
        self.hang_up();
        self.gone = false;
        self.state = State::On(stream);
        self.waiting = kept;
        self.flush();
    }

    /// Tells whether the command has to wait with more output.
    pub(crate) fn full(&self) -> bool {
        self.unsent() >= FULL
    }

    /// Tells whether its output went, or will go, to a server.
    pub(crate) fn carries(&self) -> bool {
        matches!(self.state, State::Asked | State::On(_))
    }

    /// Tells whether something still has to go out.
    pub(crate) fn busy(&self) -> bool {
        matches!(self.state, State::Asked) || matches!(self.state, State::On(_)) && self.sent < self.waiting.len()
    }

    /// Returns how many bytes still have to go out.
    pub(crate) fn unsent(&self) -> usize {
        self.waiting.len() - self.sent
    }

    /// Takes output.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now: Instant) {
        if let State::On(stream) = &self.state
            && self.waiting.is_empty()
        {
            match sys::write(stream, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if sys::again(&error) => {}
                Err(_) => self.hang_up(),
            }
        }
        if !matches!(self.state, State::Off) {
            self.waiting.extend_from_slice(bytes);
            self.since.get_or_insert(now);
        }
    }

    /// Returns what to poll for.
    pub(crate) fn polls(&self) -> Polls {
        let stream = match &self.state {
            State::On(stream) if !self.gone => Some(stream),
            _ => None,
        };
        let wants_input = !self.input.ended() && !self.input.waits();
        Polls { stream: sys::poll_entry(stream, wants_input, self.sent < self.waiting.len()), input: self.input.poll() }
    }

    /// Acts on what [`Live::polls`] came back with.
    pub(crate) fn handle(&mut self, polls: &Polls, scratch: &mut [u8]) {
        self.input.handle(polls.input);
        if polls.stream.revents & libc::POLLIN != 0 {
            self.take_input(scratch);
        }
        self.input.feed();
        if polls.stream.revents & libc::POLLOUT != 0 {
            self.flush();
        }
        if polls.stream.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
            self.gone = true;
        }
        if self.gone {
            // What the server sent before it went is still the command's.
            while !self.input.ended() && !self.input.waits() {
                self.take_input(scratch);
                self.input.feed();
            }
            if !self.input.waits() {
                self.hang_up();
            }
        }
    }

    /// Gives the connection up: what waits to go out is dropped, and the input ends.
    pub(crate) fn hang_up(&mut self) {
        self.state = State::Off;
        self.waiting = Vec::new();
        self.sent = 0;
        self.input.end();
        self.input.feed();
    }

    fn flush(&mut self) {
        let State::On(stream) = &self.state else { return };
        while self.sent < self.waiting.len() {
            match sys::write(stream, &self.waiting[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if sys::again(&error) => return,
                Err(_) => return self.hang_up(),
            }
        }
        self.waiting.clear();
        self.sent = 0;
    }

    fn take_input(&mut self, scratch: &mut [u8]) {
        let State::On(stream) = &self.state else { return self.input.end() };
        match sys::read(stream, scratch) {
            Ok(read @ 1..) => self.input.push(&scratch[..read]),
            Err(error) if sys::again(&error) => {}
            Ok(_) | Err(_) => self.input.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(live: &mut Live) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        for stream in [&near, &far] {
            stream.set_nonblocking(true).unwrap();
        }
        assert!(live.ask(Instant::now() + PATIENCE));
        live.answer(Some(near));
        far
    }

    fn turn(live: &mut Live) {
        let mut polls = live.polls();
        let mut entries = [polls.stream, polls.input];
        sys::poll(&mut entries, Some(Duration::ZERO));
        [polls.stream, polls.input] = entries;
        live.handle(&polls, &mut [0; 4096]);
    }

    #[test]
    fn a_connection_is_asked_for_when_it_is_worth_it() {
        let now = Instant::now();
        let mut live = Live::new(None);
        assert!(!live.ask(now + PATIENCE * 2));
        live.push(b"little", now);
        assert!(!live.ask(now) && live.ask(now + PATIENCE) && !live.ask(now + PATIENCE));

        let mut live = Live::new(None);
        live.push(&[0; WORTH], now);
        assert!(live.ask(now));
        let (_read, write) = sys::pipe().unwrap();
        assert!(Live::new(Some(write)).ask(now));
    }

    #[test]
    fn at_the_end_only_what_the_end_does_not_tell_needs_one() {
        let now = Instant::now();
        let mut live = Live::new(None);
        live.push(&[0; 32], now);
        assert!(!live.ask_at_end(32) && !live.carries());
        live.push(&[0; 1], now);
        assert!(live.ask_at_end(32) && live.carries() && live.busy());
    }

    #[test]
    fn a_slow_server_makes_the_command_wait_and_none_does_not() {
        let now = Instant::now();
        let mut live = Live::new(None);
        live.push(b"begin", now);
        let far = connected(&mut live);
        while !live.full() {
            live.push(&[1; 4096], now);
        }
        let mut taken = 0;
        while live.unsent() > 0 {
            taken += sys::read(&far, &mut [0; 4096]).unwrap();
            turn(&mut live);
        }
        assert!(taken > 0 && !live.full() && live.carries());
        drop(far);
        turn(&mut live);
        for _ in 0..100 {
            live.push(&[1; 4096], now);
        }
        assert!(!live.full() && !live.carries() && !live.busy());
        // Nothing waits, either, if there was no server from the start.
        let mut live = Live::new(None);
        live.push(&[0; WORTH], now);
        assert!(live.ask(now));
        live.answer(None);
        assert_eq!((live.unsent(), live.busy()), (0, false));
    }

    #[test]
    fn an_input_comes_whole_also_from_a_server_that_has_gone() {
        let (read, write) = sys::pipe().unwrap();
        sys::set_nonblocking(&write).unwrap();
        let mut live = Live::new(Some(write));
        let far = connected(&mut live);
        let sent = sys::write(&far, &vec![7; 150_000]).unwrap();
        drop(far);
        let (mut got, mut buffer) = (0, [0; 4096]);
        // More than the pipe holds: it goes on as the command reads.
        loop {
            turn(&mut live);
            match sys::read(&read, &mut buffer).unwrap() {
                0 => break,
                count => got += count,
            }
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn an_attached_server_gets_what_was_kept_first() {
        let now = Instant::now();
        let mut live = Live::new(None);
        live.push(b"lost", now);
        drop(connected(&mut live));
        turn(&mut live);
        let (near, far) = UnixStream::pair().unwrap();
        live.attach(near, b"kept ".to_vec());
        live.push(b"new", now);
        let mut buffer = [0; 16];
        let read = sys::read(&far, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"kept new");
    }
}
