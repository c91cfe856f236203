//! PID 1's loop: one thread, one epoll. Signals, the control connection, the wardens and the proxied connections are
//! each a part of its own; this one only tells them what happened and passes on what comes of it.

use std::{
    env, io,
    path::Path,
    time::{Duration, Instant},
};

use sandboxd::{
    frame,
    protocol::{Event, PROOF, ROOM_DIR, Request, SOCKET},
};

use crate::{
    account,
    commands::{self, Commands, Dial, Outcome},
    control::Control,
    proxy::Proxies,
    sys::{self, Epoll, Interest, Ready},
    tree,
};

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1;
const LISTENERS: u64 = 16;
const PROXIES: u64 = 1 << 32;
const COMMANDS: u64 = 1 << 48;

/// How long all commands have to end when the container is stopped.
const STOP: Duration = Duration::from_millis(900);
/// How soon a dial that the server had no room for is tried again, and for how long.
const REDIAL: Duration = Duration::from_millis(5);
const REDIAL_LIMIT: Duration = Duration::from_secs(2);
/// How long between two looks for processes that a dead warden left.
const STRAYS: Duration = Duration::from_millis(20);

/// Runs until the container is stopped.
pub(crate) fn run() -> io::Result<()> {
    sys::hide();
    // First of all, so that neither a command's environment nor `/proc/1/environ` ever shows it.
    let proof = sys::take_variable(PROOF);
    sys::set_habits();
    sys::reset_signals();
    let signals = sys::take_signals(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])?;
    // It is opened before all others, so that it lies right above standard error: wardens keep it.
    let null = commands::null()?;
    let account = account::prepare();
    let environment =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = environment.filter(|(name, _)| name != PROOF);
    let epoll = Epoll::new()?;
    epoll.add(&signals, Interest::Read, SIGNALS)?;
    let boot_id = format!("{:032x}", u128::from_ne_bytes(sys::random()?));
    let mut daemon = Daemon {
        control: Control::new(&Path::new(ROOM_DIR).join(SOCKET), boot_id, proof, CONTROL),
        commands: Commands::new(account, environment.collect(), null, COMMANDS),
        proxies: Proxies::new(&epoll, LISTENERS, PROXIES)?,
        epoll,
        dials: Vec::new(),
        strays: None,
        stopping: None,
        scratch: vec![0; 64 * 1024],
    };
    let mut ready = Vec::new();
    while !daemon.stopped() {
        daemon.tick();
        daemon.epoll.wait(&mut ready, daemon.deadline().map(|at| at.saturating_duration_since(Instant::now())))?;
        for ready in &ready {
            match ready.token {
                SIGNALS => {
                    while let Some(signal) = sys::next_signal(&signals) {
                        daemon.signal(signal);
                    }
                }
                CONTROL => daemon.control(*ready),
                COMMANDS.. => {
                    let outcome = daemon.commands.hear(ready.token);
                    daemon.act(outcome);
                }
                _ => daemon.proxies.ready(*ready, &daemon.control, &daemon.epoll, &mut daemon.scratch),
            }
        }
        daemon.control.flush(&daemon.epoll);
    }
    Ok(())
}

struct Daemon {
    epoll: Epoll,
    control: Control,
    commands: Commands,
    proxies: Proxies,
    /// Connections for wardens that the server had no room for, each with the time until which it is tried.
    dials: Vec<(Dial, Instant)>,
    /// When to look next for processes that a dead warden left.
    strays: Option<Instant>,
    /// When the container ends at the latest, if it is being stopped.
    stopping: Option<Instant>,
    scratch: Vec<u8>,
}

impl Daemon {
    fn deadline(&self) -> Option<Instant> {
        let redial = (!self.dials.is_empty()).then(|| Instant::now() + REDIAL);
        [self.control.deadline(), self.proxies.deadline(), redial, self.strays, self.stopping]
            .into_iter()
            .flatten()
            .min()
    }

    fn stopped(&self) -> bool {
        self.stopping.is_some_and(|until| self.commands.is_empty() || Instant::now() >= until)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.control.tick(now, &self.epoll);
        self.proxies.tick(now, &self.control, &self.epoll, &mut self.scratch);
        for (dial, until) in std::mem::take(&mut self.dials) {
            self.dial(dial, until);
        }
        if self.strays.is_some_and(|at| now >= at) {
            let wardens = self.commands.pids();
            let find = || tree::strays(&wardens);
            self.strays = if find().is_empty() { None } else { Some(now + STRAYS) };
            if self.strays.is_some() {
                tree::sweep(find);
            }
        }
    }

    fn signal(&mut self, signal: i32) {
        if signal == libc::SIGCHLD {
            // Wardens are noticed by their sockets; here all that has ended is only collected.
            while let sys::Reaped::Child(..) = sys::reap() {}
        } else if self.stopping.is_none() {
            self.stopping = Some(Instant::now() + STOP);
            self.commands.kill_all();
        }
    }

    fn control(&mut self, ready: Ready) {
        if !ready.readable {
            return;
        }
        let before = self.control.is_ready();
        let requests = self.control.receive(&mut self.scratch);
        if !before && self.control.is_ready() {
            self.proxies.dial_held(&self.control, &self.epoll);
        }
        for request in requests {
            let outcome = match request {
                Request::Run(_) if self.stopping.is_some() => Outcome::default(),
                Request::Run(run) => self.commands.run(&run, &self.epoll),
                Request::Attach { id, nonce, from } => self.commands.attach(id, nonce, from),
                Request::Write(write) => self.commands.write(write),
                Request::Kill { id, cause } => self.commands.kill(id, cause),
                Request::List => self.commands.list(),
                Request::Ping { n } => {
                    self.control.send(&frame::encode(&Event::Pong { n }));
                    Outcome::default()
                }
                // These answer a greeting; the control connection has dealt with them.
                Request::Welcome { .. } | Request::Refused { .. } => Outcome::default(),
            };
            self.act(outcome);
        }
    }

    fn act(&mut self, outcome: Outcome) {
        for event in outcome.events {
            self.control.send(&event);
        }
        for dial in outcome.dials {
            self.dial(dial, Instant::now() + REDIAL_LIMIT);
        }
        if outcome.strays {
            self.strays = Some(Instant::now());
        }
    }

    fn dial(&mut self, dial: Dial, until: Instant) {
        match self.control.open(&dial.opening) {
            Ok(stream) => self.commands.connected(&dial, Some(&stream)),
            Err(_) if self.control.is_ready() && Instant::now() < until => self.dials.push((dial, until)),
            Err(_) => self.commands.connected(&dial, None),
        }
    }
}
