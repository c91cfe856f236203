//! Carries a turn out: the machine decides, this file asks the model, runs calls, keeps lines and the time.
//!
//! Actions are carried out in their order, and a line is durable before what follows from it begins. All that is under
//! way lives in one future: dropping it (the program ends) leaves the turn open in the store, to be resumed, and the
//! commands running in their sandbox. Called by `bots`.

use std::{collections::VecDeque, mem, pin::Pin, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    coding_agents::CodingAgents,
    environments::Environments,
    github::GitHub,
    ids::{CallId, TurnId},
    ledger::{Cost, Ledger, ORCHESTRATOR},
    llm::{Message, Model, ToolSpec},
    pictures::Gallery,
    rights::{Rights, Role},
    sandbox::Sandboxes,
    store::{Conversation, Store, StoreError},
    tools::{self, GuidesSeen, JobsSeen, LargeFiles, Take, TestsSeen, Word},
    updates::Updates,
};

use super::{
    asking::{Asking, Ended, Unanswered, tokens_of},
    batch::CallResult,
    chunks::Chunks,
    context::{text_tokens, tokens},
    event::{Action, Answer, Event, Request, TurnInput},
    footer::{Tally, brief, footer},
    hands::{Hands, Toolbox, known},
    journal::Journal,
    limits::{CALLS_AT_ONCE, TurnLimits},
    line::{Ending, Line, UserMessage},
    machine::Machine,
    progress::{Outflow, Progress},
    prompt, words,
};

/// How long a turn waits for calls that are told to end. A call whose sandbox answers needs a second, and one that is
/// being taken over after a restart some more; beyond that the room is answered, and the calls end behind the turn.
pub(super) const SETTLE: Duration = Duration::from_secs(15);

/// The time that a call with a limit of its own gets beside it: to look at files before and after, and to end what
/// resists.
const OWN_TIME_SLACK: Duration = Duration::from_mins(3);

/// A conversation of more tokens may be too long for a self-hosted model, whose server is asked for its window then.
const LONG: u64 = 3000;

/// Works on turns, with what all turns of a bot have in common. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Orchestrator {
    /// The journal.
    pub store: Store,
    /// The model.
    pub model: Model,
    /// Where the rooms' sandboxes come from.
    pub sandboxes: Sandboxes,
    /// The coding agents.
    pub agents: CodingAgents,
    /// What repositories need to be worked on.
    pub environments: Option<Environments>,
    /// The way to GitHub.
    pub github: GitHub,
    /// Where a newer version of the program is asked for; `None`: it is installed by hand.
    pub updates: Option<Updates>,
    /// Where tokens are reserved and settled.
    pub ledger: Ledger,
    /// Who may allow what.
    pub rights: Rights,
    /// Where pictures are kept.
    pub gallery: Gallery,
    /// Where a turn's large files wait for memory, beside those of all other turns.
    pub large: LargeFiles,
    /// What one turn may use.
    pub limits: TurnLimits,
}

/// A turn to be worked on.
#[derive(Debug)]
pub struct TurnJob {
    /// The conversation that it goes on with.
    pub at: Conversation,
    /// The turn; its first line is stored.
    pub turn: TurnId,
    /// Who gave the message that began it, by their chat protocol's name.
    pub person: String,
    /// From the beginning, or from where a crash left it.
    pub start: Start,
    /// Receives what people say meanwhile. What is not taken from it stays unclaimed in the journal.
    pub steering: mpsc::Receiver<UserMessage>,
    /// Takes what the room may see of the turn.
    pub progress: mpsc::Sender<Progress>,
    /// Cancelled when somebody wants the turn stopped: it ends with an answer.
    pub stop: CancellationToken,
    /// Cancelled when the program ends: the turn is left as it is, to be resumed.
    pub abandon: CancellationToken,
}

/// Where a turn begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With its first message.
    New,
    /// Where a crash has left it.
    Resumed {
        /// When it was opened, in milliseconds since 1970.
        opened: i64,
    },
}

/// What a model has thought before it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thoughts {
    /// Its words.
    pub text: String,
    /// Whether they are folded away, instead of hidden behind a spoiler.
    #[serde(default)]
    pub folded: bool,
}

/// How a turn ended: its one answer, which the hub stores and sends in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What the person reads, in Markdown.
    pub text: String,
    /// The line under it: what the turn took.
    pub footer: String,
    /// The footer in a few words, for where there is little room.
    pub brief: String,
    /// What the model has thought, if people may look at that.
    pub thoughts: Option<Thoughts>,
    /// How it ended.
    pub ending: Ending,
    /// The conversation's last line of this turn, as it is stored.
    pub line: Option<Value>,
}

impl Outcome {
    /// Returns the outcome of a turn that ended with these words and nothing else.
    pub fn plain(ending: Ending, text: impl Into<String>) -> Self {
        Self { text: text.into(), footer: String::new(), brief: String::new(), thoughts: None, ending, line: None }
    }

    /// Returns the outcome of a turn that was stopped before it had begun.
    pub fn stopped(text: impl Into<String>) -> Self {
        let line = Line::ended(Ending::Stopped, words::NOTE_STOPPED.to_owned());
        Self { line: Some(line.to_json()), ..Self::plain(Ending::Stopped, text) }
    }
}

impl Orchestrator {
    /// Works on a turn to its one answer. Returns `None` if the turn was abandoned; it stays open then, as it also does
    /// if this is dropped.
    pub(crate) async fn run(&self, job: TurnJob) -> Option<Outcome> {
        let TurnJob { at, turn, person, start, steering, progress, stop, abandon } = job;
        let Self {
            store,
            model,
            sandboxes,
            agents,
            environments,
            github,
            updates,
            ledger,
            rights,
            gallery,
            large,
            limits,
        } = self.clone();
        // Nobody else can do anything with it.
        let updates = updates.filter(|_| rights.roles().of(&at.address, &person) == Role::Admin);
        let (vision, limits_of_tools) = (model.vision(), limits.tools);
        let tools = Toolbox::Sandbox {
            sandboxes,
            agents,
            environments,
            github,
            updates,
            rights,
            limits: limits_of_tools,
            vision,
            large,
        };
        let journal = Journal { store, at, turn, person, gallery };
        let turn = Turn { model, ledger, journal, tools, limits, steering, progress, stop };
        abandon.run_until_cancelled_owned(Box::pin(turn.run(start))).await
    }
}

/// A turn with its tools in place.
pub(super) struct Turn {
    pub(super) model: Model,
    pub(super) ledger: Ledger,
    pub(super) journal: Journal,
    pub(super) tools: Toolbox,
    pub(super) limits: TurnLimits,
    pub(super) steering: mpsc::Receiver<UserMessage>,
    pub(super) progress: mpsc::Sender<Progress>,
    pub(super) stop: CancellationToken,
}

impl Turn {
    /// Carries the turn out, to its outcome.
    pub(super) async fn run(self, start: Start) -> Outcome {
        let progress = self.progress.clone();
        let outflow = Arc::new(Outflow::default());
        let outcome = self.drive(start, Arc::clone(&outflow)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the turn cannot go on");
            Outcome::plain(Ending::Failed, error.to_string())
        });
        outflow.flush(&progress);
        outcome
    }

    async fn drive(self, start: Start, outflow: Arc<Outflow>) -> Result<Outcome, StoreError> {
        let clock = self.journal.store.clock().clone();
        let before = match start {
            Start::New => Duration::ZERO,
            // A clock that was set says nothing of how long it has worked.
            Start::Resumed { .. } if !clock.is_believed() => Duration::ZERO,
            Start::Resumed { opened } => Duration::from_millis((clock.millis() - opened).max(0) as u64),
        };
        let began = Instant::now();
        let specs = self.tools.specs();
        let loaded = self.journal.load(start != Start::New).await?;
        if loaded.history.iter().map(|line| tokens(&line.message)).sum::<u64>() > LONG {
            // This takes two seconds at most, and is rarely needed: a short conversation fits into any window.
            self.model.ask_window().await;
        }
        let window = self.model.context_window();
        let results = loaded.history.iter().filter_map(|line| match &line.message {
            Message::Tool { text, .. } => Some(text.as_str()),
            _ => None,
        });
        let guides = GuidesSeen::of(results);
        let own_time = self.limits.tools.coding + OWN_TIME_SLACK;
        let machine = Machine::new(TurnInput {
            turn: self.journal.turn.clone(),
            system: prompt::system(self.model.vision(), &clock.day()),
            overhead: specs.iter().map(weight).sum(),
            history: loaded.history,
            base: loaded.base,
            stored: loaded.stored,
            boots: loaded.boots,
            tools: known(&specs),
            window,
            // The time in which the server was away counts, but a turn always has half of its time left.
            time_left: self.limits.time.saturating_sub(before).max(self.limits.time / 2),
            limits: self.limits,
        });
        let (waiting, words) = watch::channel(0);
        // A call waits for the answer to its request, so each has at most one in this channel.
        let (take, takes) = mpsc::channel(CALLS_AT_ONCE);
        let (model, address) = (self.model.name().to_owned(), self.journal.at.address.clone());
        let chunks = Arc::<Chunks>::default();
        let asking = Asking {
            spender: self.journal.spender(ORCHESTRATOR, &model),
            model: self.model,
            ledger: self.ledger.clone(),
            specs: specs.into(),
            chunks: Arc::clone(&chunks),
            outflow: Arc::clone(&outflow),
        };
        let mut driver = Driver {
            machine,
            hands: Hands {
                tools: self.tools,
                journal: self.journal,
                outflow: Arc::clone(&outflow),
                progress: self.progress.clone(),
                heard: CancellationToken::new(),
                words,
                take,
                jobs: JobsSeen::default(),
                tests: TestsSeen::default(),
                guides,
                sent: Arc::default(),
            },
            asking,
            window,
            outflow,
            progress: self.progress,
            steering: Some(self.steering),
            waiting,
            takes,
            taking: VecDeque::new(),
            stop: self.stop,
            stopped: false,
            request: None,
            chunks,
            calls: FuturesUnordered::new(),
            cancel: CancellationToken::new(),
            deadline: Box::pin(sleep(Duration::ZERO)),
            own_time,
            apart: None,
            events: VecDeque::from([Event::Begin]),
        };
        let answer = driver.run().await;
        if answer.is_err() {
            // Nothing may run on without a journal.
            driver.cancel().await;
        }
        driver.hands.turn_ended().await;
        let answer = answer?;
        let elapsed = before + began.elapsed();
        let cost = cost(&self.ledger, &model, &answer.tally);
        let (footer, brief) = (footer(&answer.tally, cost, elapsed), brief(&answer.tally, elapsed));
        tracing::info!(
            ending = ?answer.ending, rounds = answer.tally.rounds, calls = answer.tally.calls,
            tokens = answer.tally.tokens(), "the turn is answered"
        );
        let text = with_warnings(answer.text, answer.ending, &self.ledger.take_warnings(&address));
        Ok(Outcome { text, footer, brief, thoughts: None, ending: answer.ending, line: Some(answer.line.to_json()) })
    }
}

/// Returns what a turn's tokens cost.
fn cost(ledger: &Ledger, model: &str, tally: &Tally) -> Cost {
    let prices = &ledger.rules().prices;
    let agents = tally.agents.iter().map(|used| prices.cost(&used.model, tokens_of(used.usage)));
    agents.chain([prices.cost(model, tokens_of(tally.spent))]).sum()
}

/// Returns what the person reads, with the warnings of the turn. A turn that ends at a limit tells more than they do.
fn with_warnings(text: String, ending: Ending, warnings: &[String]) -> String {
    if warnings.is_empty() || ending == Ending::Limit {
        return text;
    }
    format!("{text}\n\n⚠️ {}", warnings.join(" "))
}

/// Returns the tokens that a tool's description costs in every request, about.
fn weight(spec: &ToolSpec) -> u64 {
    text_tokens(spec.name) + text_tokens(&spec.description) + text_tokens(&spec.parameters.to_string())
}

/// A turn under way.
struct Driver {
    machine: Machine,
    hands: Hands,
    /// What requests are sent with.
    asking: Asking,
    /// The window that the machine was told of last, in tokens.
    window: u64,
    outflow: Arc<Outflow>,
    progress: mpsc::Sender<Progress>,
    /// `None` once the hub has closed it.
    steering: Option<mpsc::Receiver<UserMessage>>,
    /// Tells the calls how many messages wait at the machine.
    waiting: watch::Sender<usize>,
    /// Requests of running calls for the next of these messages.
    takes: mpsc::Receiver<Take>,
    /// The requests that the machine has not answered yet, in the order in which it was given them.
    taking: VecDeque<oneshot::Sender<Word>>,
    stop: CancellationToken,
    /// Whether the machine was told to stop.
    stopped: bool,
    /// The request to the model, if one is under way.
    request: Option<BoxFuture<'static, Ended>>,
    /// What it has streamed that the machine was not given yet.
    chunks: Arc<Chunks>,
    /// The running calls.
    calls: FuturesUnordered<BoxFuture<'static, (CallId, Result<CallResult, StoreError>)>>,
    /// Cancelled to end the calls.
    cancel: CancellationToken,
    deadline: Pin<Box<Sleep>>,
    /// How long a call may take that has a time limit of its own.
    own_time: Duration,
    /// Such a call while it runs, with its beginning: the deadline was put off by [`Driver::own_time`] then.
    apart: Option<(CallId, Instant)>,
    /// Events that the machine was not given yet.
    events: VecDeque<Event>,
}

impl Driver {
    async fn run(&mut self) -> Result<Answer, StoreError> {
        loop {
            let Some(event) = self.events.pop_front() else {
                self.wait().await?;
                continue;
            };
            for action in self.machine.handle(event) {
                if let Some(answer) = self.carry_out(action).await? {
                    return Ok(answer);
                }
            }
            let waiting = self.machine.waiting();
            self.waiting.send_if_modified(|before| mem::replace(before, waiting) != waiting);
        }
    }

    async fn carry_out(&mut self, action: Action) -> Result<Option<Answer>, StoreError> {
        match action {
            Action::Keep(line) => self.hands.journal.keep(line).await?,
            Action::Rebase(lines) => self.hands.journal.rebase(lines).await?,
            Action::Ask(request) => self.ask(request),
            Action::Run(call) => {
                let (name, detail) = (call.name.clone(), call.detail.clone());
                if tools::has_own_time(&name) {
                    self.apart = Some((call.id.clone(), Instant::now()));
                    let deadline = self.deadline.deadline() + self.own_time;
                    self.deadline.as_mut().reset(deadline);
                }
                self.outflow.push(Progress::ToolStarted { call: call.id.clone(), name, detail });
                let id = call.id.clone();
                let work = self.hands.clone().run(call, self.cancel.clone());
                self.calls.push(work.map(|result| (id, result)).boxed());
            }
            Action::Pass(word) => {
                if let (Some(call), Some(word)) = (self.taking.pop_front(), word) {
                    // If the call is gone, nothing is lost: the model is shown the word all the same.
                    let _ = call.send(word);
                }
            }
            Action::Arm(time) => {
                self.apart = None;
                self.deadline.as_mut().reset(Instant::now() + time);
            }
            Action::Cancel => self.cancel().await,
            Action::Show(progress) => self.outflow.push(progress),
            Action::Answer(answer) => return Ok(Some(answer)),
        }
        Ok(None)
    }

    fn ask(&mut self, request: Request) {
        // What was said so far is shown to the model now; what is said from here on ends the next wait.
        self.hands.heard = CancellationToken::new();
        self.request = Some(self.asking.clone().ask(request).boxed());
    }

    /// Ends the request and the calls, and waits until nothing runs any more.
    async fn cancel(&mut self) {
        self.request = None;
        drop(self.chunks.take());
        mem::take(&mut self.cancel).cancel();
        let mut calls = mem::take(&mut self.calls);
        if timeout(SETTLE, async { while calls.next().await.is_some() {} }).await.is_err() {
            tracing::warn!("calls did not end in time; they are ended behind the turn");
            // Dropped, they would leave their commands running: only they know what to end, and each has a limit.
            let ending = async move { while calls.next().await.is_some() {} };
            tokio::spawn(ending.in_current_span());
        }
    }

    /// Waits for something to happen and appends it to `events`.
    async fn wait(&mut self) -> Result<(), StoreError> {
        let event = tokio::select! {
            biased;
            () = self.stop.cancelled(), if !self.stopped => {
                self.stopped = true;
                Event::Stop
            }
            () = self.chunks.come() => {
                self.events.extend(self.chunks.take());
                return Ok(());
            }
            ended = under_way(&mut self.request) => {
                self.model_ended(ended);
                return Ok(());
            }
            Some((call, result)) = self.calls.next() => {
                if let Some((_, began)) = self.apart.take_if(|(apart, _)| *apart == call) {
                    let deadline = self.deadline.deadline() - self.own_time.saturating_sub(began.elapsed());
                    self.deadline.as_mut().reset(deadline);
                }
                Event::ToolDone { call, result: result? }
            }
            Some(Take { call, word }) = self.takes.recv() => {
                self.taking.push_back(word);
                Event::Takes(call)
            }
            message = next(&mut self.steering), if self.machine.listens() => {
                let Some(message) = message else {
                    self.steering = None;
                    return Ok(());
                };
                self.hands.heard.cancel();
                Event::Said(message)
            }
            () = &mut self.deadline => {
                // It is far off until it is armed again.
                self.deadline.as_mut().reset(Instant::now() + Duration::from_hours(24 * 365));
                Event::TimeUp
            }
            () = self.outflow.pump(&self.progress) => return Ok(()),
        };
        self.events.push_back(event);
        Ok(())
    }

    fn model_ended(&mut self, (request, ended): Ended) {
        // Dropping the request gives back the messages, so that the next append need not copy them.
        self.request = None;
        self.events.extend(self.chunks.take());
        let window = self.asking.model.context_window();
        if mem::replace(&mut self.window, window) != window {
            self.events.push_back(Event::Window(window));
        }
        self.events.push_back(match ended {
            Ok(completion) => Event::ModelDone { request, completion },
            Err(Unanswered::Refused(refused)) => {
                tracing::info!(why = %refused, "the model is not asked");
                Event::Refused { request, why: refused.to_string() }
            }
            Err(Unanswered::Failed(error)) => {
                tracing::warn!(%error, "the model failed");
                Event::ModelFailed { request, remedy: error.remedy(), why: error.user_text() }
            }
        });
    }
}

/// Waits for the request, if there is one.
async fn under_way(request: &mut Option<BoxFuture<'static, Ended>>) -> Ended {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

/// Waits for the next message, if there may be one.
async fn next(steering: &mut Option<mpsc::Receiver<UserMessage>>) -> Option<UserMessage> {
    match steering {
        Some(steering) => steering.recv().await,
        None => std::future::pending().await,
    }
}
