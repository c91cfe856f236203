//! PID 1's side of the commands: starts a warden for each, passes requests to it and its words to the server, and
//! remembers how they ended. Called by the daemon's loop.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use sandboxd::{
    frame,
    protocol::{Event, ID_LIMIT, KEY_LIMIT, KillCause, LINE_LIMIT, Opening, Run, Running, WRITE_LIMIT, Write, Written},
};

use crate::{
    account::Account,
    environment,
    launch::Launch,
    memory::{Memory, Recall},
    sys::{self, Epoll, Interest},
    warden,
    words::{Order, WORD_LIMIT, Word},
};

/// The most commands at the same time.
const RUNNING: usize = 64;

/// All commands of this boot.
pub(crate) struct Commands {
    account: Account,
    /// sandboxd's own environment, which the container's maker and the image have set.
    environment: Vec<(String, String)>,
    null: OwnedFd,
    /// The wardens, each by the token that its socket is polled under; in the order of their start.
    wardens: BTreeMap<u64, Warden>,
    next_token: u64,
    memory: Memory,
    buffer: Vec<u8>,
}

/// A warden and the command it watches.
struct Warden {
    pid: i32,
    id: String,
    socket: OwnedFd,
    background: bool,
    line: String,
    nonce: String,
    /// Whether it has told how the command ended; it may still deliver output.
    ended: bool,
}

/// A connection that is to be opened for a warden.
pub(crate) struct Dial {
    pub(crate) token: u64,
    pub(crate) opening: Opening,
    order: Order,
}

/// What the daemon has to do after something has happened.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Frames for the server.
    pub(crate) events: Vec<Vec<u8>>,
    /// Connections to open.
    pub(crate) dials: Vec<Dial>,
    /// Whether a warden is gone that may have left processes behind.
    pub(crate) strays: bool,
}

impl Outcome {
    fn event(event: &Event) -> Self {
        Self { events: vec![frame::encode(event)], ..Self::default() }
    }
}

impl Commands {
    /// Returns an empty table. `first_token` and all tokens above it are its own to poll under.
    pub(crate) fn new(account: Account, environment: Vec<(String, String)>, null: OwnedFd, first_token: u64) -> Self {
        Self {
            account,
            environment,
            null,
            wardens: BTreeMap::new(),
            next_token: first_token,
            memory: Memory::default(),
            buffer: vec![0; WORD_LIMIT],
        }
    }

    /// Starts a command.
    pub(crate) fn run(&mut self, run: &Run, epoll: &Epoll) -> Outcome {
        let failed = |why: &str| Outcome::event(&Event::Failed { id: run.id.clone(), why: why.to_owned() });
        if self.running(&run.id).is_some() || self.memory.recall(&run.id) != Recall::Never {
            return failed("a command with this id was started before");
        }
        if run.id.len() > ID_LIMIT {
            return Outcome::default();
        }
        if self.wardens.len() >= RUNNING {
            return failed("too many commands are running: end some first");
        }
        let environment = environment::build(&self.environment, &self.account, run.user, &run.env);
        let started = Launch::new(run, &environment).and_then(|launch| {
            warden::start(run, &launch, &self.account, &self.null)
                .map_err(|error| format!("the sandbox has no room for another process ({error}): end some first"))
        });
        let watched = started.and_then(|(pid, socket)| {
            let token = self.next_token;
            epoll.add(&socket, Interest::Read, token).map_err(|error| error.to_string())?;
            self.next_token += 1;
            let (id, nonce) = (run.id.clone(), run.nonce.clone());
            let line = run.argv.last().map(String::as_str).unwrap_or_default();
            let line = line[..line.floor_char_boundary(LINE_LIMIT)].to_owned();
            let warden = Warden { pid, id, socket, background: run.background, line, nonce, ended: false };
            self.wardens.insert(token, warden);
            Ok(())
        });
        match watched {
            Ok(()) => Outcome::default(),
            Err(why) => self.ended(&run.id, warden::not_started(&run.id, why)),
        }
    }

    /// Answers what became of a command, with its output if it runs.
    pub(crate) fn attach(&self, id: String, nonce: String, from: Option<u64>) -> Outcome {
        match self.running(&id) {
            Some(token) => {
                let dial = Dial { token, opening: Opening::Stream { nonce }, order: Order::Attach { from } };
                Outcome { dials: vec![dial], ..Outcome::default() }
            }
            None => self.recall(id),
        }
    }

    /// Has a warden write bytes to its command's standard input.
    pub(crate) fn write(&self, write: Write) -> Outcome {
        let Write { id, n, key, bytes, end } = write;
        let Some(warden) = self.running(&id).and_then(|token| self.wardens.get(&token)) else { return self.recall(id) };
        let fits = key.len() <= KEY_LIMIT && bytes.0.len() <= WRITE_LIMIT;
        let order = Order::Write { n, key, bytes: bytes.0, end };
        if fits && order.send(&warden.socket, None).is_ok() {
            return Outcome::default();
        }
        // The warden has not read the last orders yet.
        Outcome::event(&Event::Written { id, n, how: Written::Full })
    }

    /// Ends a command's tree.
    pub(crate) fn kill(&self, id: String, cause: KillCause) -> Outcome {
        match self.running(&id).and_then(|token| self.wardens.get(&token)) {
            Some(warden) => {
                // A warden that cannot be told is not told twice: the server ends the container instead.
                let _ = Order::Kill(cause).send(&warden.socket, None);
                Outcome::default()
            }
            None => self.recall(id),
        }
    }

    /// Ends every command.
    pub(crate) fn kill_all(&self) {
        for warden in self.wardens.values() {
            let _ = Order::Kill(KillCause::Killed).send(&warden.socket, None);
        }
    }

    /// Answers which commands run.
    pub(crate) fn list(&self) -> Outcome {
        let running = self.wardens.values().filter(|warden| !warden.ended);
        let running = running.map(|warden| Running {
            id: warden.id.clone(),
            background: warden.background,
            line: warden.line.clone(),
        });
        Outcome::event(&Event::Commands { running: running.collect() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wardens.is_empty()
    }

    /// Returns the wardens' pids.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.wardens.values().map(|warden| warden.pid).collect()
    }

    /// Hands a warden the connection it waits for, or tells it that there is none.
    pub(crate) fn connected(&self, dial: &Dial, stream: Option<&UnixStream>) {
        if let Some(warden) = self.wardens.get(&dial.token) {
            let _ = dial.order.send(&warden.socket, stream);
        }
    }

    /// Takes the words of a warden.
    pub(crate) fn hear(&mut self, token: u64) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(warden) = self.wardens.get_mut(&token) {
            match sys::receive(&warden.socket, &mut self.buffer) {
                Ok((length @ 1.., _)) => match Word::parse(&self.buffer[..length]) {
                    Some(Word::Dial) => {
                        let opening = Opening::Stream { nonce: warden.nonce.clone() };
                        outcome.dials.push(Dial { token, opening, order: Order::Stream });
                    }
                    Some(Word::Attached { head, omitted }) => {
                        let id = warden.id.clone();
                        outcome.events.push(frame::encode(&Event::Attached { id, head, omitted, from: None }));
                    }
                    Some(Word::AttachedFrom(from)) => {
                        let id = warden.id.clone();
                        let attached = Event::Attached { id, head: 0, omitted: 0, from: Some(from) };
                        outcome.events.push(frame::encode(&attached));
                    }
                    Some(Word::Written { n, how }) => {
                        let id = warden.id.clone();
                        outcome.events.push(frame::encode(&Event::Written { id, n, how }));
                    }
                    Some(Word::Ended(frame)) => {
                        warden.ended = true;
                        let id = warden.id.clone();
                        outcome.events.extend(self.ended(&id, frame).events);
                    }
                    None => {}
                },
                Err(error) if sys::again(&error) => break,
                Ok(_) | Err(_) => {
                    // The warden is gone: normally after its last word; otherwise somebody killed it.
                    let Some(warden) = self.wardens.remove(&token) else { break };
                    if !warden.ended {
                        outcome.strays = true;
                        outcome.events.extend(self.ended(&warden.id, warden::lost(&warden.id)).events);
                    }
                }
            }
        }
        outcome
    }

    fn ended(&mut self, id: &str, frame: Vec<u8>) -> Outcome {
        self.memory.remember(id, frame.clone());
        Outcome { events: vec![frame], ..Outcome::default() }
    }

    fn running(&self, id: &str) -> Option<u64> {
        self.wardens.iter().find(|(_, warden)| warden.id == id && !warden.ended).map(|(token, _)| *token)
    }

    fn recall(&self, id: String) -> Outcome {
        match self.memory.recall(&id) {
            Recall::Ended(frame) => Outcome { events: vec![frame.to_vec()], ..Outcome::default() },
            Recall::Forgotten => Outcome::event(&Event::Unknown { id, forgotten: true }),
            Recall::Never => Outcome::event(&Event::Unknown { id, forgotten: false }),
        }
    }
}

/// Opens `/dev/null`, once for all commands.
pub(crate) fn null() -> io::Result<OwnedFd> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}
