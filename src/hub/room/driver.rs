//! Does the I/O of a room's actor: the machine decides, the driver reads the journal, opens turns, hands messages
//! over and answers.
//!
//! Actions are carried out in their order, and what one stores is durable before the next begins. All running work
//! (the bot's, a fetch, orders, the place in the queue for a permit) lives here and may be dropped at any time: what
//! waits in the journal is read again, and an open turn is resumed.

mod answer;
mod reader;

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument, Span};

use super::{
    Mailbox,
    bringing::Bringing,
    event::{Action, End, Event, Opening, Turn},
    machine::Machine,
    side::{Asked, Side, txn},
};
use crate::{
    bots::{Bot, Outcome, Permit, Progress, QueuePlace, Start, TurnJob, UserMessage},
    crash,
    hub::{AccountHub, Ending, Live},
    ids::{Address, BotName, EventId, TurnId},
    llm::Part,
    metrics,
    store::{Conversation, StoreError},
};

/// An actor with nothing to do ends after this long; the next event starts it again.
const IDLE: Duration = Duration::from_mins(1);
/// Messages that may be queued for the running turn; more stay in the journal.
const STEER: usize = 16;
/// Progress events that may be queued.
const PROGRESS: usize = 256;

/// A running actor.
pub(super) struct Driver {
    hub: AccountHub,
    address: Address,
    mail: Arc<Mailbox>,
    machine: Machine,
    /// Events that the machine has not handled yet.
    events: VecDeque<Event>,
    /// The running fetch of what a message brings along.
    fetch: Option<Bringing>,
    /// The running orders.
    side: Side,
    /// The permit for a turn of this bot, or the place in the queue for one; `queued` says which.
    permit: Option<(BotName, Permit)>,
    /// Whether `permit` is still a place in the queue.
    queued: bool,
    /// The open turn; its fields are empty if none is open.
    turn: Open,
}

/// What belongs to an open turn.
#[derive(Default)]
struct Open {
    /// Its name.
    id: Option<TurnId>,
    /// Who asked.
    sender: String,
    /// Names it in the log.
    span: Option<Span>,
    /// Cancelled when the turn is to stop; `None` once the machine has been told of that.
    stop: Option<CancellationToken>,
    /// Hands messages to the turn.
    steer: Option<mpsc::Sender<UserMessage>>,
    /// The receiving end of `steer`, until the bot takes it.
    steering: Option<mpsc::Receiver<UserMessage>>,
    /// The same token as `stop`, which the bot takes a clone of.
    stopping: CancellationToken,
    /// Counts it while it runs.
    counted: Option<metrics::Running>,
    /// The turn's progress.
    seen: Option<mpsc::Receiver<Progress>>,
    /// The bot's task. If the store fails, it is aborted with the driver, and the turn is resumed from the journal.
    work: Option<AbortOnDropHandle<Option<Outcome>>>,
}

impl Driver {
    pub(super) fn new(hub: AccountHub, address: Address, mail: Arc<Mailbox>) -> Self {
        Self {
            hub,
            address,
            mail,
            machine: Machine::default(),
            events: VecDeque::new(),
            fetch: None,
            side: Side::default(),
            permit: None,
            queued: false,
            turn: Open::default(),
        }
    }

    /// Runs until there has been nothing to do for [`IDLE`], or the program ends.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let cut_off = self.cut_off().await?;
        self.events.push_back(Event::Begin(cut_off));
        loop {
            let Some(event) = self.events.pop_front() else {
                let span = self.turn.span();
                if self.wait().instrument(span).await? {
                    continue;
                }
                return Ok(());
            };
            for action in self.machine.handle(event) {
                let span = self.turn.span();
                self.carry_out(action).instrument(span).await?;
            }
        }
    }

    /// Waits for the next event and queues it in `events`. Returns `false` if the actor is to end.
    async fn wait(&mut self) -> Result<bool, StoreError> {
        let Self { hub, mail, side, fetch, permit, queued, turn, .. } = self;
        let (idle, works) = (self.machine.is_idle(), turn.work.is_some());
        let Open { stop, seen, work, .. } = turn;
        let event = tokio::select! {
            // A running turn ends by itself when the program ends, or stays open.
            () = hub.inner.cancel.cancelled(), if !works => return Ok(false),
            () = mail.notify.notified() => Event::Rung,
            Some(progress) = there(seen.as_mut().map(mpsc::Receiver::recv)) => Event::Shows(progress),
            ended = there(work.as_mut()) => {
                turn.work = None;
                // The progress that came before the end is handled before the end.
                while let Some(Ok(progress)) = turn.seen.as_mut().map(mpsc::Receiver::try_recv) {
                    self.events.push_back(Event::Shows(progress));
                }
                match ended {
                    Ok(Some(outcome)) => Event::Ended(End::Outcome(outcome)),
                    // The program ends. The turn stays open and is resumed at the next start.
                    Ok(None) if hub.inner.cancel.is_cancelled() => return Ok(false),
                    Ok(None) => {
                        tracing::error!("a bot has left a turn without an outcome");
                        Event::Ended(End::NoOutcome)
                    }
                    Err(error) => {
                        tracing::error!(%error, "a turn ended by a panic");
                        Event::Ended(End::NoOutcome)
                    }
                }
            }
            () = there(stop.as_ref().map(CancellationToken::cancelled)) => {
                *stop = None;
                Event::StopAsked
            }
            brought = there(fetch.as_mut().map(Bringing::ended)) => {
                *fetch = None;
                if !works {
                    crash::point("saved");
                }
                Event::Fetched(brought)
            }
            ended = side.ended() => {
                let (event, panicked) = ended?;
                Event::OrderEnded { event, panicked }
            }
            () = there(permit.as_mut().filter(|_| *queued).map(|(_, permit)| permit.moved())) => Event::Moved,
            () = time::sleep(IDLE), if idle => return Ok(!hub.retire(&self.address, mail)),
        };
        self.events.push_back(event);
        Ok(true)
    }

    async fn carry_out(&mut self, action: Action) -> Result<(), StoreError> {
        let (store, account) = (self.hub.inner.store.clone(), self.address.account.clone());
        match action {
            Action::Next => {
                // Nothing new begins while the program ends.
                if !self.hub.inner.cancel.is_cancelled() {
                    let next = self.next().await?;
                    self.reply_to_machine(Event::Next(next));
                }
            }
            Action::Look { after } => {
                let seen = self.next_after(after).await?;
                self.reply_to_machine(Event::Saw(seen));
            }
            Action::LookForWork { after } => {
                let work = match &self.turn.steer {
                    Some(steer) if steer.capacity() > 0 && !steer.is_closed() => self.next_work_after(after).await?,
                    _ => None,
                };
                self.reply_to_machine(Event::Work(work));
            }
            Action::Permit(bot) => {
                let place = self.ask_permit(&bot);
                self.queued = place.is_some();
                self.reply_to_machine(Event::Queued(place));
            }
            Action::Release => (self.permit, self.queued) = (None, false),
            Action::Open(opening) => {
                let turn = self.open(opening).await?;
                self.reply_to_machine(Event::Opened(turn));
            }
            Action::Resume { turn, stop } => {
                let turn = self.resume(turn, stop).await?;
                self.reply_to_machine(Event::Opened(turn));
            }
            Action::Start { turn, bot, start } => self.start(turn, &bot, start),
            Action::HandOver { event, sender, text, pictures, thread } => {
                let message = self.message(&event, &sender, text, pictures, thread).await?;
                if self.turn.hand_over(message) {
                    self.show(Live::Heard { said: event });
                }
            }
            Action::Tell { event, text } => {
                self.turn.hand_over(UserMessage { event, speaker: None, text, pictures: vec![], thread: None });
            }
            Action::Claim { turn, events } => {
                store.claim(&self.address, &turn, events).await?;
                crash::point("stopped");
            }
            Action::Stop => {
                if let Some(stop) = &self.turn.stop {
                    stop.cancel();
                }
            }
            Action::Answer { turn, bot, end } => self.answer(turn, &bot, end).await?,
            Action::CarryOut { event, sender, thread, order, doing } => {
                if let Some(bot) = self.bot(&order.bot) {
                    let doing = doing.line(store.clock().millis());
                    let local = self.hub.inner.ports.is_local(&self.address.room);
                    let asked = Asked { event, sender, local, thread, bot, text: order.text, doing };
                    self.side.begin(&self.hub, &self.address, asked);
                }
            }
            Action::Fetch { event, work } => {
                if let Some(bot) = self.bot(&work.bot) {
                    self.fetch = Some(Bringing::begin(&self.hub, &self.address, &event, bot, work));
                }
            }
            Action::DropFetch => self.fetch = None,
            Action::Acknowledge { entry, bot, saved, brought } => self.acknowledge(entry, &bot, saved, brought).await?,
            Action::Reply { event, thread, text } => self.reply(event, thread, text).await?,
            Action::NothingToStop { event, thread } => self.nothing_to_stop(event, thread).await?,
            Action::PassOver(event) => store.pass_over(&account, &event).await?,
            Action::Done(event) => store.done(&account, vec![event]).await?,
            Action::Unlock { target, change } => {
                store.unlock(&account, &target, None).await?;
                store.done(&account, vec![change]).await?;
            }
            Action::Rewrite { target, body, change } => store.rewrite(&account, &target, body, &change).await?,
            Action::Drop { target, thread, change } => self.drop_question(target, thread, change).await?,
            Action::Forget { target, change } => self.forget(target, change).await?,
            Action::Show(live) => self.show(live),
            Action::Enclose { turn, enclosed } => self.enclose(&turn, enclosed).await?,
        }
        Ok(())
    }

    /// Queues the answer to a question before all other events, as [`Action::asks`] requires.
    fn reply_to_machine(&mut self, answer: Event) {
        self.events.push_front(answer);
    }

    fn bot(&self, name: &BotName) -> Option<Arc<dyn Bot>> {
        self.hub.inner.bots.named(name).cloned()
    }

    /// Asks for a permit for a turn of the bot, or keeps the place in the queue. Returns that place; `None` if the
    /// permit is there.
    fn ask_permit(&mut self, bot: &BotName) -> Option<QueuePlace> {
        // A permit for another bot's turn is given back.
        let held = self.permit.take().filter(|(of, _)| of == bot);
        let held = held.or_else(|| Some((bot.clone(), self.bot(bot)?.permits().enter())));
        self.permit = held;
        self.permit.as_mut().and_then(|(_, permit)| permit.place())
    }

    /// Opens a turn; returns `None` if its message does not wait any more.
    async fn open(&mut self, opening: Opening) -> Result<Option<Turn>, StoreError> {
        let Opening { entry, bot, text, pictures, others, stopped } = opening;
        let Some(bot) = self.bot(&bot) else { return Ok(None) };
        let store = self.hub.inner.store.clone();
        let id = TurnId(txn(&self.address, &entry.event, "turn"));
        let message = self.message(&entry.event, &entry.sender, text, pictures, entry.thread.clone()).await?;
        // Before it is open in the store, so that whoever closes it there finds it here.
        self.turn = Open::new(&id, &entry.sender);
        self.mail.set_turn(Some((id.clone(), self.turn.stopping.clone())));
        let events = std::iter::once(entry.event.clone()).chain(others).collect();
        if !store.open_turn(&self.conversation(&*bot), &id, events, bot.line(&message)).await? {
            self.close();
            return Ok(None);
        }
        let opened = store.clock().millis();
        crash::point(if stopped { "stopped" } else { "claimed" });
        let (sender, thread, what) = (entry.sender, entry.thread, entry.words);
        Ok(Some(Turn { id, asked: entry.event, sender, thread, what, opened }))
    }

    /// Resumes a turn that a crash interrupted; returns `None` if it is not open any more.
    async fn resume(&mut self, turn: Turn, stop: bool) -> Result<Option<Turn>, StoreError> {
        self.turn = Open::new(&turn.id, &turn.sender);
        self.mail.set_turn(Some((turn.id.clone(), self.turn.stopping.clone())));
        // Read after `set_turn`: if the room is left later than this, that stops the turn through the mailbox.
        if !self.hub.inner.store.is_open(&turn.id).await? {
            self.close();
            return Ok(None);
        }
        if stop {
            self.turn.stopping.cancel();
        }
        Ok(Some(turn))
    }

    /// Forgets the open turn.
    fn close(&mut self) {
        self.turn = Open::default();
        self.mail.set_turn(None);
    }

    /// Starts the bot's work on the open turn.
    fn start(&mut self, turn: TurnId, bot: &BotName, start: Start) {
        let (Some(bot), Some(steering)) = (self.bot(bot), self.turn.steering.take()) else { return };
        let (progress, seen) = mpsc::channel(PROGRESS);
        let job = TurnJob {
            at: self.conversation(&*bot),
            turn,
            person: self.turn.sender.clone(),
            start,
            steering,
            progress,
            stop: self.turn.stopping.clone(),
            abandon: self.hub.inner.cancel.child_token(),
        };
        self.turn.seen = Some(seen);
        self.turn.counted = Some(metrics::Running::of(bot.name().as_str()));
        let (hub, address) = (self.hub.clone(), self.address.clone());
        let work = async move {
            if !hub.works_in(&*bot, &address).await {
                tracing::warn!(bot = %bot.name(), "the bot does not work in this room any more, so it answers nothing");
                return Some(Outcome::plain(Ending::Stopped, ""));
            }
            bot.turn(job).await
        };
        self.turn.work = Some(AbortOnDropHandle::new(tokio::spawn(work.in_current_span())));
    }

    /// Returns a bot's conversation in this room.
    fn conversation(&self, bot: &dyn Bot) -> Conversation {
        Conversation { address: self.address.clone(), bot: bot.name().clone() }
    }

    /// Returns what somebody wrote as the bot gets it.
    async fn message(
        &self,
        event: &EventId,
        sender: &str,
        text: String,
        pictures: Vec<Part>,
        thread: Option<EventId>,
    ) -> Result<UserMessage, StoreError> {
        let several = self.hub.inner.store.others_spoke(&self.address, sender).await?;
        let speaker = several.then(|| sender.to_owned());
        Ok(UserMessage { event: event.clone(), speaker, text, pictures, thread })
    }

    fn show(&self, live: Live) {
        self.hub.show(&self.address, self.turn.id.clone(), live);
    }
}

impl Open {
    fn new(id: &TurnId, sender: &str) -> Self {
        let stopping = CancellationToken::new();
        let (steer, steering) = mpsc::channel(STEER);
        let (span, id, stop) = (Some(id.span()), Some(id.clone()), Some(stopping.clone()));
        Self {
            id,
            sender: sender.to_owned(),
            span,
            stop,
            steer: Some(steer),
            steering: Some(steering),
            stopping,
            ..Self::default()
        }
    }

    /// Returns the log span of the open turn.
    fn span(&self) -> Span {
        self.span.clone().unwrap_or_else(Span::none)
    }

    /// Hands a message to the turn; returns `false` if its queue is full or it has ended.
    fn hand_over(&mut self, message: UserMessage) -> bool {
        self.steer.as_ref().is_some_and(|steer| steer.try_send(message).is_ok())
    }
}

/// Waits for the future if there is one, else for ever.
async fn there<F: Future>(under_way: Option<F>) -> F::Output {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}
