//! A command's warden: a fork of PID 1 that is the subreaper of the command's tree, carries its output, holds it to its
//! time, and ends it.
//!
//! It never runs a program, stays the container's root and hidden, so that the agent cannot touch it, and since it
//! is a process of its own, nothing that one command does holds up another or PID 1. Talks to PID 1 over a pair of
//! message sockets ([`Order`], [`Word`]). Called by PID 1's [`crate::commands`].

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use sandboxd::{
    blob::Blob,
    frame,
    protocol::{ERRORS, Ended, Event, Exit, HEAD, KillCause, Run, SPOOL_FILE, Spooled, TAIL, User},
};

use crate::{
    account::Account,
    capture::{Capture, Last, Parts},
    input::Input,
    launch::Launch,
    live::Live,
    spool::Spool,
    sys, tree,
    words::{ORDER_LIMIT, Order, Word},
};

/// How long output is still taken after a command's main process has ended.
const DRAIN: Duration = Duration::from_millis(100);
/// How long processes have between SIGTERM and SIGKILL when the command's time is up.
const TIMEOUT_GRACE: Duration = Duration::from_secs(1);
/// How long they have when somebody asked to end it, who wants to see it done within a second.
const KILL_GRACE: Duration = Duration::from_millis(200);
/// How long they have when the main process has ended and left them.
const LEFTOVER_GRACE: Duration = Duration::from_millis(200);
/// If there are more processes than this, they are not given that time.
const CROWD: usize = 64;
/// How long SIGKILL is repeated before what still lives counts as a survivor.
const FORCE: Duration = Duration::from_secs(3);
/// How long between two looks at a tree that is being killed.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);
/// How long the output of a command that has ended waits for a server that takes none of it.
const LINGER: Duration = Duration::from_secs(10);
/// The size of a command's output pipe, and of one read from it.
const PIPE: usize = 256 * 1024;
const _: () = assert!(ORDER_LIMIT <= PIPE, "one buffer serves both");
/// A read that brings so much is followed by a pause in which the pipe fills. Without it each write of the command would
/// wake the warden and then the server, and on a small machine those switches take the time of all that runs beside.
const BULK: usize = 4 * 1024;
const PAUSE: Duration = Duration::from_micros(250);

/// Forks the warden of a command that is ready to start. Returns its pid and PID 1's end of their socket.
pub(crate) fn start(run: &Run, launch: &Launch, account: &Account, null: &OwnedFd) -> io::Result<(i32, OwnedFd)> {
    let (ours, theirs) = sys::message_pair()?;
    match sys::fork()? {
        sys::Fork::Parent(pid) => Ok((pid, ours)),
        sys::Fork::Child => {
            sys::close_all_but(vec![theirs.as_raw_fd(), null.as_raw_fd()]);
            // PID 1's own signals are not a warden's, and its descriptor for them is closed.
            let code = match Warden::new(run, launch, account, null, theirs) {
                Ok(mut warden) => {
                    warden.watch();
                    0
                }
                Err(_) => 1,
            };
            sys::quit(code)
        }
    }
}

/// Returns the frame that tells of a command that never ran.
pub(crate) fn not_started(id: &str, why: String) -> Vec<u8> {
    frame::encode(&Event::Ended(nothing(id, Exit::NotStarted(why))))
}

/// Returns the frame that tells of a command whose warden was killed.
pub(crate) fn lost(id: &str) -> Vec<u8> {
    frame::encode(&Event::Ended(nothing(id, Exit::Signal(libc::SIGKILL))))
}

/// Returns how a command ended that has written nothing.
fn nothing(id: &str, exit: Exit) -> Ended {
    Ended {
        id: id.to_owned(),
        exit,
        head: Blob::default(),
        tail: Blob::default(),
        omitted: 0,
        log: None,
        leftovers: 0,
        survivors: 0,
        streamed: false,
        spooled: None,
    }
}

struct Warden<'a> {
    run: &'a Run,
    launch: &'a Launch,
    pid1: OwnedFd,
    signals: OwnedFd,
    /// The command's own process, until it is collected.
    main: i32,
    /// How that process ended.
    status: Option<i32>,
    /// Whether nothing of the tree is left.
    childless: bool,
    output: Option<OwnedFd>,
    /// Until when the output is left to gather in its pipe.
    pause: Option<Instant>,
    /// Tells why the command's program does not run, if so.
    report: OwnedFd,
    /// Standard error, if it is kept apart.
    errors: Option<OwnedFd>,
    last_errors: Last,
    capture: Capture,
    live: Live,
    spool: Option<Spool>,
    /// Up to which byte its output went out, if it has a spool.
    sent: u64,
    /// Standard input, if requests bring it.
    input: Input,
    /// When that ends if nothing is written to it, and the command writes nothing, until then.
    input_until: Option<Instant>,
    deadline: Option<Instant>,
    phase: Phase,
    /// Why it was ended from outside.
    cause: Option<Exit>,
    leftovers: u32,
    survivors: u32,
    /// The kernel's count of processes that it had ended for want of memory when the command began.
    oom_kills: Option<u64>,
}

#[derive(Clone, Copy)]
enum Phase {
    Running,
    /// The main process has ended; what it left has until this time to end by itself.
    Draining(Instant),
    /// SIGTERM was sent; SIGKILL follows at this time.
    Asked(Instant),
    /// SIGKILL is sent to what is left: next at the first time, and last at the second.
    Forced(Instant, Instant),
}

impl<'a> Warden<'a> {
    fn new(run: &'a Run, launch: &'a Launch, account: &Account, null: &OwnedFd, pid1: OwnedFd) -> io::Result<Self> {
        sys::become_subreaper();
        let signals = sys::take_signals(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
        let oom_kills = oom_kills();
        let (output, output_end) = sys::pipe()?;
        sys::enlarge_pipe(&output, PIPE as i32);
        sys::set_nonblocking(&output)?;
        let (report, report_end) = sys::pipe()?;
        sys::set_nonblocking(&report)?;
        let errors = if run.spool.is_some() { Some(sys::pipe()?) } else { None };
        let input = if run.stdin || run.spool.is_some() { Some(sys::pipe()?) } else { None };
        if run.user == User::Agent {
            // The command may so open /dev/stdout and /dev/stdin.
            let ends = [input.as_ref().map(|(read, _)| read), errors.as_ref().map(|(_, write)| write)];
            for end in ends.into_iter().flatten().chain([&output_end]) {
                sys::give(end, account.uid, account.gid)?;
            }
        }
        let input_end = input.as_ref().map_or(null.as_raw_fd(), |(read, _)| read.as_raw_fd());
        let errors_end = errors.as_ref().map_or(output_end.as_raw_fd(), |(_, write)| write.as_raw_fd());
        let streams = [input_end, output_end.as_raw_fd(), errors_end];
        let started = launch.start(account, streams, report_end.as_raw_fd());
        let now = Instant::now();
        let input = input.map(|(_, write)| write);
        let errors = errors.map(|(read, _)| read);
        for end in input.iter().chain(&errors) {
            sys::set_nonblocking(end)?;
        }
        let (connected, own) = if run.spool.is_some() { (None, input) } else { (input, None) };
        let mut own = Input::new(own);
        if let Some(spool) = &run.spool {
            own.push(&spool.input.0);
            if !spool.open {
                own.end();
            }
        }
        let (main, cause) = match started {
            Ok(pid) => (pid, None),
            Err(error) => (0, Some(Exit::NotStarted(no_process(&error)))),
        };
        Ok(Self {
            run,
            launch,
            pid1,
            signals,
            main,
            status: None,
            childless: false,
            output: Some(output),
            pause: None,
            report,
            errors,
            last_errors: Last::default(),
            capture: if run.spool.is_some() { Capture::unlogged() } else { Capture::new(&run.id, account) },
            live: Live::new(connected),
            spool: run.spool.is_some().then(|| Spool::new(&run.id, account, SPOOL_FILE)),
            sent: 0,
            input: own,
            input_until: idle(run).map(|idle| now + idle),
            deadline: run.timeout_ms.map(|limit| now + Duration::from_millis(limit.min(u64::from(u32::MAX)))),
            phase: Phase::Running,
            cause,
            leftovers: 0,
            survivors: 0,
            oom_kills,
        })
    }

    /// Watches over the command to its end, and then until its output is delivered.
    fn watch(&mut self) {
        let mut scratch = vec![0; PIPE];
        while !self.over(Instant::now()) {
            self.turn(self.wake_up(), &mut scratch);
        }
        self.drain(&mut scratch);
        self.output = None;
        if self.live.ask_at_end(HEAD + TAIL) {
            Word::Dial.send(&self.pid1);
        }
        let Parts { head, tail, omitted } = self.capture.parts();
        let spooled = self.spool.as_ref().map(|spool| Spooled {
            files: spool.files(),
            end: spool.end(),
            errors: Blob(self.last_errors.bytes()),
        });
        let ended = Ended {
            head: Blob(head),
            tail: Blob(tail),
            omitted,
            log: self.capture.log(),
            leftovers: self.leftovers,
            survivors: self.survivors,
            streamed: self.live.carries(),
            spooled,
            ..nothing(&self.run.id, self.exit())
        };
        Word::Ended(frame::encode(&Event::Ended(ended))).send(&self.pid1);

        let mut until = Instant::now() + LINGER;
        let mut left = (self.sent, self.live.unsent());
        while (self.live.busy() || self.behind()) && Instant::now() < until {
            self.turn(Some(until), &mut scratch);
            if (self.sent, self.live.unsent()) != left {
                left = (self.sent, self.live.unsent());
                until = Instant::now() + LINGER;
            }
        }
    }

    /// Tells whether a server that listens has not got all that the spool holds.
    fn behind(&self) -> bool {
        self.live.carries() && self.spool.as_ref().is_some_and(|spool| self.sent < spool.end())
    }

    /// Sends a server what it has not got of the spool.
    fn catch_up(&mut self, scratch: &mut [u8]) {
        while self.behind() && !self.live.full() {
            let Some(spool) = &self.spool else { return };
            match spool.read(self.sent, scratch) {
                Ok(read) => {
                    self.sent += read as u64;
                    self.live.push(&scratch[..read], Instant::now());
                }
                // The disk is full, or the agent has spoilt the files: the server sees that bytes are missing.
                Err(_) => self.live.hang_up(),
            }
        }
    }

    /// Waits for something to happen and acts on it.
    fn turn(&mut self, until: Option<Instant>, scratch: &mut [u8]) {
        self.catch_up(scratch);
        if self.live.ask(Instant::now()) {
            Word::Dial.send(&self.pid1);
        }
        if self.input_until.take_if(|until| Instant::now() >= *until).is_some() {
            self.input.end();
            self.input.feed();
        }
        self.pause = self.pause.filter(|until| Instant::now() < *until);
        let waits = self.pause.is_some() || self.live.full() || self.behind();
        let output = self.output.as_ref().filter(|_| !waits);
        let mut live = self.live.polls();
        let mut entries = [
            sys::poll_entry(Some(&self.pid1), true, false),
            sys::poll_entry(Some(&self.signals), true, false),
            sys::poll_entry(output, true, false),
            live.stream,
            live.input,
            sys::poll_entry(self.errors.as_ref(), true, false),
            self.input.poll(),
        ];
        sys::poll(&mut entries, until.map(|until| until.saturating_duration_since(Instant::now())));
        [_, _, _, live.stream, live.input, _, _] = entries;
        self.live.handle(&live, scratch);
        self.input.handle(entries[6]);
        if entries[2].revents != 0 {
            self.read_output(scratch);
        }
        if entries[5].revents != 0 {
            self.read_errors(scratch);
        }
        if entries[0].revents != 0 {
            while let Some((order, stream)) = Order::receive(&self.pid1, scratch) {
                self.obey(order, stream);
            }
        }
        if entries[1].revents != 0 {
            while sys::next_signal(&self.signals).is_some() {}
            self.reap();
        }
    }

    fn wake_up(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Running => self.deadline,
            Phase::Draining(until) | Phase::Asked(until) => Some(until),
            Phase::Forced(next, _) => Some(next),
        };
        [phase, self.live.patience(), self.pause, self.input_until].into_iter().flatten().min()
    }

    /// Notes that something was written to the command, or by it.
    fn is_active(&mut self, now: Instant) {
        if let Some(until) = &mut self.input_until {
            *until = idle(self.run).map_or(*until, |idle| now + idle);
        }
    }

    /// Goes from phase to phase; returns whether the last is over.
    fn over(&mut self, now: Instant) -> bool {
        if self.childless || self.main == 0 {
            return true;
        }
        match self.phase {
            Phase::Running => {
                if self.status.is_some() && !self.run.background {
                    self.phase = Phase::Draining(now + DRAIN);
                } else if self.deadline.is_some_and(|deadline| now >= deadline) {
                    self.cause = Some(Exit::TimedOut);
                    self.ask_to_end(now + TIMEOUT_GRACE);
                }
            }
            Phase::Draining(until) if now >= until => {
                self.leftovers = self.ask_to_end(now + LEFTOVER_GRACE);
            }
            Phase::Asked(until) if now >= until => {
                self.sweep(now + FORCE);
            }
            Phase::Forced(next, until) if now >= next => {
                if now >= until {
                    self.survivors = tree::below(own_pid()).len() as u32;
                    return true;
                }
                self.sweep(until);
            }
            Phase::Draining(_) | Phase::Asked(_) | Phase::Forced(..) => {}
        }
        self.childless
    }

    fn ask_to_end(&mut self, until: Instant) -> u32 {
        let processes = tree::below(own_pid());
        tree::ask_to_end(&processes);
        // A program that tidies up is no crowd of processes, and each moment that a crowd has makes it slower to end.
        self.phase = Phase::Asked(if processes.len() > CROWD { Instant::now() } else { until });
        processes.len() as u32
    }

    fn sweep(&mut self, until: Instant) {
        if self.status.is_none() {
            // Its own group first: while a fork bomb runs, even to look for it takes long.
            sys::kill(-self.main, libc::SIGSTOP);
        }
        tree::sweep(|| tree::below(own_pid()));
        self.reap();
        self.phase = Phase::Forced(Instant::now() + SWEEP_PAUSE, until);
    }

    fn obey(&mut self, order: Order, stream: Option<UnixStream>) {
        match (order, stream) {
            (Order::Stream, stream) => self.live.answer(stream),
            (Order::Attach { from }, Some(stream)) => self.attach(stream, from),
            (Order::Attach { .. }, None) => {}
            (Order::Write { n, key, bytes, end }, _) => {
                self.is_active(Instant::now());
                Word::Written { n, how: self.input.word(&key, &bytes, end) }.send(&self.pid1);
            }
            (Order::Kill(cause), _) => {
                let until = Instant::now() + KILL_GRACE;
                match self.phase {
                    Phase::Running => {
                        self.cause = Some(match cause {
                            KillCause::Killed => Exit::Killed,
                            KillCause::DiskFull => Exit::DiskFull,
                        });
                        self.ask_to_end(until);
                    }
                    Phase::Draining(_) => {
                        self.leftovers = self.ask_to_end(until);
                    }
                    Phase::Asked(sooner) => self.phase = Phase::Asked(until.min(sooner)),
                    Phase::Forced(..) => {}
                }
            }
        }
    }

    /// Carries on over a new connection: from a byte of the spool, or else with what was kept.
    fn attach(&mut self, stream: UnixStream, from: Option<u64>) {
        match (&self.spool, from) {
            (Some(spool), Some(from)) => {
                self.sent = from.clamp(spool.begin(), spool.end());
                Word::AttachedFrom(self.sent).send(&self.pid1);
                self.live.attach(stream, Vec::new());
            }
            (spool, _) => {
                self.sent = spool.as_ref().map_or(0, Spool::end);
                let Parts { head, tail, omitted } = self.capture.parts();
                Word::Attached { head: head.len() as u64, omitted }.send(&self.pid1);
                self.live.attach(stream, [head, tail].concat());
            }
        }
    }

    fn reap(&mut self) {
        loop {
            match sys::reap() {
                sys::Reaped::Child(pid, status) if pid == self.main => self.status = Some(status),
                sys::Reaped::Child(..) => {}
                sys::Reaped::None => return,
                sys::Reaped::Childless => {
                    self.childless = true;
                    return;
                }
            }
        }
    }

    fn read_output(&mut self, scratch: &mut [u8]) -> usize {
        let Some(output) = &self.output else { return 0 };
        match sys::read(output, scratch) {
            Ok(0) => self.output = None,
            Ok(read) => {
                let (now, behind) = (Instant::now(), self.behind());
                self.is_active(now);
                self.capture.push(&scratch[..read]);
                if let Some(spool) = &mut self.spool {
                    spool.push(&scratch[..read]);
                }
                if !behind {
                    self.live.push(&scratch[..read], now);
                    self.sent = self.spool.as_ref().map_or(0, Spool::end);
                }
                self.pause = (read >= BULK).then(|| now + PAUSE);
                return read;
            }
            Err(error) if sys::again(&error) => {}
            Err(_) => self.output = None,
        }
        0
    }

    fn read_errors(&mut self, scratch: &mut [u8]) -> usize {
        let Some(errors) = &self.errors else { return 0 };
        match sys::read(errors, scratch) {
            Ok(read @ 1..) => {
                self.last_errors.push(&scratch[..read], ERRORS);
                return read;
            }
            Err(error) if sys::again(&error) => {}
            Ok(_) | Err(_) => self.errors = None,
        }
        0
    }

    /// Takes what is left in the pipes, and no more than that: a process of another command may hold them open and
    /// write on.
    fn drain(&mut self, scratch: &mut [u8]) {
        for read in [Self::read_output, Self::read_errors] {
            let mut taken = 0;
            while taken < PIPE {
                match read(self, scratch) {
                    0 => break,
                    read => taken += read,
                }
            }
        }
    }

    fn exit(&mut self) -> Exit {
        if let Some(cause) = self.cause.take() {
            return cause;
        }
        let mut report = [0; 8];
        if let Ok(read @ 1..) = sys::read(&self.report, &mut report) {
            return Exit::NotStarted(self.launch.explain(&report[..read]));
        }
        let status = self.status.unwrap_or_default();
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let code = libc::WEXITSTATUS(status);
        // A shell that lost its child to SIGKILL tells so by its code.
        let suspicious = signal == Some(libc::SIGKILL) || signal.is_none() && code == 128 + libc::SIGKILL;
        // Without a count there is no such end: gVisor, which has none, goes as a whole when its memory is used up.
        let out_of_memory = suspicious && self.oom_kills.zip(oom_kills()).is_some_and(|(before, after)| after > before);
        match signal {
            _ if out_of_memory => Exit::OutOfMemory,
            Some(signal) => Exit::Signal(signal),
            None => Exit::Code(code),
        }
    }
}

/// How long a command's standard input stays open that is left alone.
fn idle(run: &Run) -> Option<Duration> {
    let spool = run.spool.as_ref().filter(|spool| spool.open)?;
    spool.idle_ms.map(|idle| Duration::from_millis(idle.min(u64::from(u32::MAX))))
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn no_process(error: &io::Error) -> String {
    format!("the sandbox has no room for another process ({error}): end some first")
}

/// Where the kernel counts the processes that it has ended for want of memory: those of this container, by either version of
/// control groups, or, where no container has a count, those of the whole machine.
const OOM_KILLS: [&str; 3] =
    ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat"];

/// Returns how many processes the kernel has ended for want of memory, if it counts them.
fn oom_kills() -> Option<u64> {
    OOM_KILLS.iter().find_map(|path| {
        let told = fs::read_to_string(path).ok()?;
        told.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}
