//! Carries the rules out: one task that starts the child, looks after it, and tells those who wait.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    net::TcpListener,
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use nix::sys::signal::Signal;
use reqwest::Client;
use secrecy::SecretString;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task,
    time::{self, Instant},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    CONTEXT, Failure, Options, Pressure, Standing, Unready, gguf,
    machine::{Act, Machine, Rules, State, Who},
    pressure,
    program::Program,
    server::Server,
    tail::Tail,
};
use crate::{
    child::Tied,
    ids,
    llm::{Model, ModelLimits, ModelSettings},
    text,
};

/// How often a model that nobody asks is looked at for the machine's sake.
const LOOK: Duration = Duration::from_secs(15);
/// For how long after an answer the child's threads count as its own load: the kernel's figure is an average of a minute.
const OWN_LOAD: Duration = Duration::from_mins(1);
/// How long an answer may take whatever its asker's limits are.
const WHOLE: Duration = Duration::from_mins(10);
/// The file in which the time of the last load is kept, and the folder of conversations, both in the engine's.
const LOADED_IN: &str = "loaded-in";
const SLOTS: &str = "slots";

/// Somebody asks for the model.
pub(super) struct Command {
    pub(super) who: Who,
    pub(super) answer: oneshot::Sender<Result<Model, Unready>>,
}

/// What a question to the child came to.
enum Event {
    Answers,
    Restored,
    Saved,
}

/// The task.
pub(super) struct Driver {
    machine: Machine,
    program: Program,
    options: Options,
    rules: Rules,
    http: Client,
    tell: watch::Sender<Standing>,
    tasks: TaskTracker,
    waiting: HashMap<Who, oneshot::Sender<Result<Model, Unready>>>,
    running: Option<Running>,
    /// How long the last load took.
    expected: Option<Duration>,
    /// When somebody was last being answered.
    busy: Option<Instant>,
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
}

/// A child, and what we know of it.
struct Running {
    child: Tied,
    server: Server,
    model: Model,
    tail: Tail,
    started: Instant,
    /// The name of the file of its conversation, which tells of which model it is.
    slot: String,
    /// The question that it is asked now; dropped, it is asked no more.
    asking: Option<AbortOnDropHandle<()>>,
    /// Reads what it says.
    reading: Option<AbortOnDropHandle<()>>,
}

/// What woke the task.
enum Woken {
    Asked(Option<Command>),
    Done(Option<Who>),
    Happened(Option<Event>),
    Ended(Option<ExitStatus>),
    Due,
    Look,
    Cancelled,
}

impl Driver {
    pub(super) fn new(
        options: Options,
        rules: Rules,
        tell: watch::Sender<Standing>,
        tasks: TaskTracker,
    ) -> Result<Self, reqwest::Error> {
        // Each child is asked one thing at a time.
        let (events, happened) = mpsc::channel(8);
        Ok(Self {
            machine: Machine::new(rules),
            program: Program::new(&options, options.folder.join(SLOTS)),
            options,
            rules,
            http: Server::client()?,
            tell,
            tasks,
            waiting: HashMap::new(),
            running: None,
            expected: None,
            busy: None,
            events,
            happened,
        })
    }

    /// Works until `cancel`, and until nothing is left of the child then.
    pub(super) async fn run(
        mut self,
        mut asked: mpsc::Receiver<Command>,
        mut done: mpsc::UnboundedReceiver<Who>,
        cancel: CancellationToken,
    ) {
        self.expected = remembered(&self.options.folder);
        let acts = self.machine.begin(Instant::now());
        self.carry_out(acts).await;
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (mut is_ending, mut all_done) = (false, false);
        while !self.machine.is_over() {
            let due = self.machine.deadline();
            let woken = tokio::select! {
                command = asked.recv(), if !is_ending => Woken::Asked(command),
                who = done.recv(), if !all_done => Woken::Done(who),
                event = self.happened.recv() => Woken::Happened(event),
                status = ended(&mut self.running) => Woken::Ended(status),
                () = until(due) => Woken::Due,
                _ = look.tick() => Woken::Look,
                () = cancel.cancelled(), if !is_ending => Woken::Cancelled,
            };
            let now = Instant::now();
            let acts = match woken {
                Woken::Asked(Some(Command { who, answer })) => {
                    // Who is gone already may have said so before this came, and will not say it again.
                    if answer.is_closed() {
                        vec![]
                    } else {
                        self.waiting.insert(who, answer);
                        self.machine.want(who, self.pressure(now), now)
                    }
                }
                Woken::Done(Some(who)) => {
                    self.waiting.remove(&who);
                    self.machine.done(who, now);
                    vec![]
                }
                Woken::Happened(Some(event)) => self.happened(&event, now),
                Woken::Ended(status) => self.ended(status, now),
                Woken::Due => self.machine.tick(now),
                Woken::Look => match self.pressure(now) {
                    Some(pressure) => {
                        let acts = self.machine.press(now);
                        if !acts.is_empty() {
                            tracing::warn!(?pressure, "this machine is short of something: the model is unloaded");
                        }
                        acts
                    }
                    None => vec![],
                },
                Woken::Done(None) => {
                    all_done = true;
                    vec![]
                }
                // Without anybody left to ask it is as good as the program's end.
                Woken::Asked(None) | Woken::Happened(None) | Woken::Cancelled => {
                    is_ending = true;
                    self.machine.end(now)
                }
            };
            self.carry_out(acts).await;
        }
    }

    /// Does what the rules say, and what follows from that.
    async fn carry_out(&mut self, acts: Vec<Act>) {
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Start => {
                    // Told before, so that who waits knows.
                    self.tell();
                    if let Err(failure) = self.start().await {
                        acts.extend(self.machine.ended(failure, Instant::now()));
                    }
                }
                Act::Restore => self.ask(Event::Restored, "restore"),
                Act::Save => self.ask(Event::Saved, "save"),
                Act::Forget => forget(&self.options.folder.join(SLOTS), ""),
                Act::Terminate => {
                    if let Some(running) = &self.running {
                        running.child.signal(Signal::SIGTERM);
                    }
                }
                Act::Kill => {
                    if let Some(running) = &self.running {
                        self.program.kill(&running.child).await;
                    }
                }
                Act::Admit(all) => {
                    let model = self.running.as_ref().map(|running| running.model.clone());
                    for who in all {
                        // Whoever waits no more has said so, or will.
                        if let Some(answer) = self.waiting.remove(&who) {
                            let _ = answer.send(model.clone().ok_or(Unready::Ending));
                        }
                    }
                }
                Act::Refuse(all, why) => {
                    for who in all {
                        if let Some(answer) = self.waiting.remove(&who) {
                            let _ = answer.send(Err(why.clone()));
                        }
                    }
                }
                Act::Report(failure) => {
                    tracing::error!("exobot's model is given up until somebody asks again in five minutes: {failure}");
                }
            }
        }
        if self.machine.is_busy() {
            self.busy = Some(Instant::now());
        }
        self.tell();
    }

    /// Tells how the model stands, if that is new.
    fn tell(&self) {
        let standing = match self.machine.state() {
            State::Asleep | State::Stopping { slow: false, .. } => Standing::Asleep(self.expected),
            State::Starting { .. } | State::Restoring { .. } | State::Stopping { slow: true, .. } => {
                Standing::Waking(self.expected)
            }
            State::Up { .. } | State::Saving { .. } => Standing::Up,
            State::BackingOff { .. } | State::Degraded { .. } => {
                let why = self.machine.why().cloned();
                why.map_or(Standing::Asleep(self.expected), Standing::Failed)
            }
        };
        self.tell.send_if_modified(|told| {
            let is_new = *told != standing;
            *told = standing;
            is_new
        });
    }

    fn pressure(&self, now: Instant) -> Option<Pressure> {
        let lately = |busy: Instant| now.saturating_duration_since(busy) < OWN_LOAD;
        let own = self.machine.is_busy() || self.busy.is_some_and(lately);
        pressure::now(self.options.pressure?, if own { self.options.threads } else { 0 })
    }

    async fn start(&mut self) -> Result<(), Failure> {
        let (model, slots) = (self.options.model.clone(), self.options.folder.join(SLOTS));
        let prepare = task::spawn_blocking(move || {
            let digest = gguf::look(&model).map_err(Failure::NoModel)?;
            let made = fs::create_dir_all(&slots).and_then(|()| free_port());
            let slot = format!("{digest}.slot");
            // What belongs to another model is of no use, and holds what somebody has said.
            forget(&slots, &slot);
            made.map(|port| (slot, port)).map_err(|error| Failure::NotStarted(error.to_string()))
        });
        let prepared = prepare.await.map_err(|error| Failure::NotStarted(error.to_string()))?;
        let (slot, port) = prepared?;
        let key = SecretString::from(ids::random(24));
        let mut child = self.program.start(port, &key).await?;
        let tail = Tail::default();
        let reading = child.take_errors().map(|errors| AbortOnDropHandle::new(tail.follow(errors)));
        let server = Server::new(self.http.clone(), port, key);
        let model = self.model(&server).map_err(|error| Failure::NotStarted(error.to_string()))?;
        tracing::info!(port, "exobot's model is being loaded");
        let (events, looking) = (self.events.clone(), server.clone());
        let asking = self.tasks.spawn(async move {
            looking.answers().await;
            let _ = events.send(Event::Answers).await;
        });
        let asking = Some(AbortOnDropHandle::new(asking));
        self.running = Some(Running { child, server, model, tail, started: Instant::now(), slot, asking, reading });
        Ok(())
    }

    /// Returns the client for the model of a child.
    fn model(&self, server: &Server) -> Result<Model, crate::llm::LlmError> {
        let name = self.options.model.file_stem().unwrap_or_default().to_string_lossy();
        let name = text::one_line(&name, 100).replace(char::is_whitespace, "-");
        Model::new(ModelSettings {
            base_url: Some(server.base_url()),
            vision: Some(false),
            context_window: Some(CONTEXT),
            // Who waits has limits of their own, and a second attempt would take as long as the first.
            limits: ModelLimits { whole: WHOLE, attempts: 1, ..ModelLimits::default() },
            ..ModelSettings::new(format!("llama-cpp/{name}"), server.key().clone())
        })
    }

    /// Asks the child to save or restore its conversation, and notes once it has.
    fn ask(&mut self, event: Event, action: &'static str) {
        let Some(running) = &mut self.running else { return };
        let (server, slot, events, limit) =
            (running.server.clone(), running.slot.clone(), self.events.clone(), self.rules.slots);
        let is_there = action == "save" || self.options.folder.join(SLOTS).join(&slot).exists();
        let asking = self.tasks.spawn(async move {
            if is_there {
                server.slot(action, &slot, limit).await;
            }
            let _ = events.send(event).await;
        });
        running.asking = Some(AbortOnDropHandle::new(asking));
    }

    fn happened(&mut self, event: &Event, now: Instant) -> Vec<Act> {
        match event {
            Event::Answers => {
                if let (Some(running), State::Starting { .. }) = (&self.running, self.machine.state()) {
                    let took = now.saturating_duration_since(running.started);
                    tracing::info!(took_ms = took.as_millis() as u64, "exobot's model is loaded");
                    self.expected = Some(took);
                    remember(&self.options.folder, took);
                }
                self.machine.healthy(now)
            }
            Event::Restored => self.machine.restored(now),
            Event::Saved => self.machine.saved(now),
        }
    }

    fn ended(&mut self, status: Option<ExitStatus>, now: Instant) -> Vec<Act> {
        let Some(running) = self.running.take() else { return vec![] };
        let failure = self.program.failure(status, &running.tail);
        let was_told = matches!(self.machine.state(), State::Stopping { .. });
        // What it had still to say to us is of a child that is gone.
        drop(running);
        while self.happened.try_recv().is_ok() {}
        if !was_told {
            tracing::warn!("{failure}");
        }
        self.machine.ended(failure, now)
    }
}

/// Waits until the child has ended; for ever if there is none.
async fn ended(running: &mut Option<Running>) -> Option<ExitStatus> {
    match running {
        Some(running) => {
            let status = running.child.ended().await;
            // What it said last is read before it is judged.
            if let Some(reading) = &mut running.reading {
                let _ = time::timeout(Duration::from_millis(200), reading).await;
            }
            running.reading = None;
            status
        }
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns a port of this machine's own address at which nothing listens now. Somebody else may take it before the child does;
/// then that fails, and the next one is tried.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Removes all saved conversations but the one of this name.
fn forget(slots: &Path, but: &str) {
    let Ok(entries) = fs::read_dir(slots) else { return };
    let others = entries.flatten().filter(|entry| entry.file_name() != but);
    for path in others.map(|entry| entry.path()) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a saved conversation cannot be removed");
        }
    }
}

/// Returns how long the last load took, if that is known.
fn remembered(folder: &Path) -> Option<Duration> {
    let text = fs::read_to_string(folder.join(LOADED_IN)).ok()?;
    text.trim().parse().ok().map(Duration::from_millis)
}

fn remember(folder: &Path, took: Duration) {
    if let Err(error) = fs::write(folder.join(LOADED_IN), took.as_millis().to_string()) {
        tracing::debug!(%error, "how long the model took to load is not kept");
    }
}
