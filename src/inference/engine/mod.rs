//! A llama-server of our own: a child that is started when somebody asks for its model, watched while it lives, and put to
//! sleep when nobody asks any more.
//!
//! ```text
//! Engine → driver.rs (one task) → machine.rs (the rules)
//!             ├ program.rs   the command line: a native binary, or a container image
//!             ├ server.rs    what it is asked by HTTP: whether it answers, to save and restore its conversation
//!             ├ gguf.rs      whether the model's file is one
//!             ├ pressure.rs  whether this machine is short of memory or processors
//!             └ tail.rs      the last lines of what it says
//! ```

mod driver;
mod gguf;
mod machine;
mod pressure;
mod program;
mod server;
mod tail;

use std::{
    convert::Infallible,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{llm::Model, strings::exobot, text};
use driver::{Command, Driver};
use machine::{Rules, Who};

/// How long somebody waits for the model at most, whatever happens meanwhile.
const LONGEST: Duration = Duration::from_mins(5);
/// The context in tokens: what was said, and the answer. A phone has room for no more.
pub const CONTEXT: u64 = 2048;
/// The most tokens of any answer. The server cuts longer ones, whatever a request says.
pub const LONGEST_ANSWER: u64 = 600;

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// A program of this machine.
    Native(PathBuf),
    /// A container image whose entry point is one, run by Podman.
    Image {
        /// The image.
        image: String,
        /// The podman program.
        podman: PathBuf,
        /// What the container is called; one of that name which was left over is replaced.
        name: String,
    },
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is started.
    pub binary: Binary,
    /// The model's file.
    pub model: PathBuf,
    /// Where the engine keeps a conversation while the model sleeps, and how long that takes to load.
    pub folder: PathBuf,
    /// How long the model stays loaded without a question; `None`: always, from the start.
    pub idle: Option<Duration>,
    /// Threads of the child.
    pub threads: usize,
    /// How many percent of its memory, or of its processors, this machine may use before the model is left asleep; `None`: that
    /// is not looked at.
    pub pressure: Option<u32>,
}

/// An inference server of our own. Cheap to clone; it ends with the token that it was started with.
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    /// Not bounded by itself, but each lease puts one word into it, and no more may ask than the machine lets.
    done: mpsc::UnboundedSender<Who>,
    standing: watch::Receiver<Standing>,
    next: Arc<AtomicU64>,
    /// The child answers one question at a time. Who waits for that waits here, before their answer's time begins.
    turns: Arc<Semaphore>,
    label: Arc<str>,
}

/// How the model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It sleeps; the next question wakes it, which takes about so long if it was ever measured.
    Asleep(Option<Duration>),
    /// It is being loaded, which takes about so long.
    Waking(Option<Duration>),
    /// It answers.
    Up,
    /// It has failed; with why.
    Failed(Failure),
}

impl Standing {
    /// Returns how long waking it takes.
    pub fn expected(&self) -> Option<Duration> {
        match self {
            Self::Asleep(expected) | Self::Waking(expected) => *expected,
            Self::Up | Self::Failed(_) => None,
        }
    }
}

/// Why the child failed. `Display` is for the operator: a sentence without its full stop, which may hold the server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be started.
    NotStarted(String),
    /// The model's file is none.
    NoModel(String),
    /// It uses instructions that this processor lacks.
    Illegal,
    /// It did not answer in time, and was killed.
    Slow,
    /// It ended by itself, with how and its last words.
    Ended(String),
}

impl Failure {
    /// Returns whether starting it again at once would end in the same way.
    pub(super) fn stays(&self) -> bool {
        matches!(self, Self::NotStarted(_) | Self::NoModel(_) | Self::Illegal)
    }

    /// Returns what people in a room are told: nothing of the server's own words.
    pub fn told(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => exobot::NOT_STARTED,
            Self::NoModel(_) => exobot::NO_MODEL,
            Self::Illegal => exobot::ILLEGAL,
            Self::Slow => exobot::TOO_SLOW,
            Self::Ended(_) => exobot::DIED,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(why) => write!(f, "llama-server cannot be started: {why}"),
            Self::NoModel(why) => write!(f, "the model's file cannot be used: {why}"),
            Self::Illegal => f.write_str(
                "llama-server was built for another processor (SIGILL): build it on this machine, or with flags for its processor",
            ),
            Self::Slow => f.write_str("llama-server did not answer within a minute, and was ended"),
            Self::Ended(how) => write!(f, "llama-server ended by itself: {how}"),
        }
    }
}

/// What this machine is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Memory.
    Memory,
    /// Processors.
    Load,
}

/// Why the model cannot be asked now. `Display` is one sentence for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The machine is short of something.
    Pressed(Pressure),
    /// It has failed, and is tried again after so long.
    BackingOff(Duration),
    /// It has failed too often.
    Degraded(Option<Failure>),
    /// Too many wait.
    Crowded,
    /// The program ends.
    Ending,
    /// It took too long, all in all.
    Slow,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Pressed(Pressure::Memory) => exobot::SHORT_OF_MEMORY.to_owned(),
            Self::Pressed(Pressure::Load) => exobot::BUSY_MACHINE.to_owned(),
            Self::BackingOff(wait) => exobot::backing_off(&text::human_duration(*wait)),
            Self::Degraded(why) => exobot::degraded(why.as_ref().map_or(exobot::DIED, Failure::told)),
            Self::Crowded => exobot::CROWDED.to_owned(),
            Self::Ending => exobot::ENDING.to_owned(),
            Self::Slow => exobot::WAITED.to_owned(),
        };
        f.write_str(&sentence)
    }
}

/// What there is of an engine, as far as that is known without starting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// All of it.
    Good,
    /// There is no such program.
    NoProgram(String),
    /// Podman does not have the image.
    NoImage(String),
    /// The model's file is none.
    NoModel(String),
}

/// Looks whether the program, or the image, and the model of an engine are there. Takes some seconds at most.
pub async fn look(options: &Options) -> Looked {
    match &options.binary {
        Binary::Native(path) if !program::is_there(path) => {
            return Looked::NoProgram(format!("there is no program {}", path.display()));
        }
        Binary::Native(_) => {}
        Binary::Image { image, podman, .. } => {
            if let Some(why) = program::lacks(podman, image).await {
                return Looked::NoImage(why);
            }
        }
    }
    let model = options.model.clone();
    let looked = spawn_blocking(move || gguf::look(&model)).await;
    looked.unwrap_or_else(|error| Err(error.to_string())).map_or_else(Looked::NoModel, |_| Looked::Good)
}

/// The model, which stays loaded, and answers nobody else, until this is dropped.
pub struct Lease {
    /// The model.
    pub model: Model,
    /// What people read of it.
    pub label: String,
    _turn: OwnedSemaphorePermit,
    _ticket: Ticket,
}

/// Says that somebody waits no more, or is done.
struct Ticket {
    who: Who,
    done: mpsc::UnboundedSender<Who>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Nobody listens once the program ends.
        let _ = self.done.send(self.who);
    }
}

impl Engine {
    /// Starts what looks after the child. The child itself is started with the first question, unless it is kept warm.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be made.
    pub fn start(options: Options, tasks: &TaskTracker, cancel: CancellationToken) -> Result<Self, reqwest::Error> {
        let rules = Rules::usual(options.idle);
        Self::with_rules(options, rules, tasks, cancel)
    }

    /// The same with other times: for a start, before the first try after a failure, to end by itself. For tests.
    #[doc(hidden)]
    pub fn with_times(
        options: Options,
        [start, pause, grace]: [Duration; 3],
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        let rules = Rules { start, first_pause: pause, grace, ..Rules::usual(options.idle) };
        Self::with_rules(options, rules, tasks, cancel)
    }

    /// Returns an engine for a model that somebody else serves: it is always awake, and nothing is started for it.
    pub fn elsewhere(model: Model, label: &str, tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let (commands, mut asked) = mpsc::channel::<Command>(64);
        let (done, mut gone) = mpsc::unbounded_channel();
        let (tell, standing) = watch::channel(Standing::Up);
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    command = asked.recv() => match command {
                        // Whoever waits no more has said so.
                        Some(Command { answer, .. }) => drop(answer.send(Ok(model.clone()))),
                        None => break,
                    },
                    Some(_) = gone.recv() => {}
                    () = cancel.cancelled() => break,
                }
            }
            drop(tell);
        });
        let turns = Arc::new(Semaphore::new(1));
        Self { commands, done, standing, next: Arc::default(), turns, label: label.into() }
    }

    fn with_rules(
        options: Options,
        rules: Rules,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        let (commands, asked) = mpsc::channel(64);
        let (done, gone) = mpsc::unbounded_channel();
        let (tell, standing) = watch::channel(Standing::Asleep(None));
        let label: Arc<str> = super::shown_name(&options.model.to_string_lossy()).into();
        let driver = Driver::new(options, rules, tell, tasks.clone())?;
        tasks.spawn(driver.run(asked, gone, cancel));
        let turns = Arc::new(Semaphore::new(1));
        Ok(Self { commands, done, standing, next: Arc::default(), turns, label })
    }

    /// Waits until the model answers and it is one's turn, and keeps it loaded as long as the lease is held. `tell` takes
    /// sentences for the person who waits. May be dropped.
    ///
    /// # Errors
    ///
    /// It does not answer now.
    pub async fn wake(&self, tell: &(dyn Fn(String) + Send + Sync)) -> Result<Lease, Unready> {
        let who = self.next.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { who, done: self.done.clone() };
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.commands.send(Command { who, answer }).await.map_err(|_| Unready::Ending)?;
            answered.await.map_err(|_| Unready::Ending)?
        };
        let mut standing = self.standing.clone();
        let telling = async {
            let expected = match standing.wait_for(|now| matches!(now, Standing::Waking(_))).await {
                Ok(now) => now.expected(),
                Err(_) => None,
            };
            tell(exobot::waking(expected.map(text::human_duration).as_deref()));
            // Further starts are tried; in the end whoever waits is let in or refused.
            if standing.wait_for(|now| matches!(now, Standing::Failed(_))).await.is_ok() {
                tell(exobot::WAKING_AGAIN.to_owned());
            }
            std::future::pending::<Infallible>().await
        };
        let waiting = async {
            let model = tokio::select! {
                // Who is let in at once, or refused, is not told of any waking.
                biased;
                answer = asking => answer?,
                never = telling => match never {},
            };
            let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Unready::Ending)?;
            Ok::<_, Unready>((model, turn))
        };
        let (model, turn) = time::timeout(LONGEST, waiting).await.map_err(|_| Unready::Slow)??;
        Ok(Lease { model, label: self.label.to_string(), _turn: turn, _ticket: ticket })
    }

    /// Returns how the model stands.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Returns what tells each time how the model stands.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Returns what people call the model.
    pub fn label(&self) -> &str {
        &self.label
    }
}

#[cfg(test)]
mod tests;
