//! A room's actor as a sans-I/O state machine: events in, actions out. It holds every rule about which message is
//! handled when and how, and does no I/O: no store, no clock, no task.
//!
//! The journal is the truth. The machine remembers only what is running and how far it has read; before it acts on a
//! message it reads the message again, so that after a crash a new machine decides the same. The driver carries out
//! actions in their order, each durable before the next. At most one of the actions that an event leads to is a
//! question ([`Action::asks`]), and its answer is the next event.

mod change;
mod turn;

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use super::{
    brought::Brought,
    doing::Doing,
    event::{Action, CutOff, Event, Opening},
    meaning::{Entry, Meaning, Order, Work},
};
use crate::{
    bots::QueuePlace,
    hub::Live,
    ids::{BotName, EventId},
    llm::Part,
    strings,
};
use turn::Running;

/// Orders that run at the same time beside a turn; more wait until the turn has ended.
const AT_ONCE: usize = 8;

type Out = Vec<Action>;

#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Turns that a crash interrupted; they are resumed before anything else.
    cut_off: VecDeque<CutOff>,
    /// The place up to which the journal was read for stops, changes and orders.
    looked: i64,
    /// Whether the journal may hold more after `looked`.
    unlooked: bool,
    /// The running orders, each with the thread in which it was given.
    orders: HashMap<EventId, Option<EventId>>,
    /// The message for which something is being fetched.
    fetching: Option<Entry>,
    /// What was fetched, and for which message.
    fetched: Option<(EventId, Brought)>,
    doing: Doing,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    /// No turn is open, and the next event is to be read.
    #[default]
    Between,
    /// Nothing waits.
    Idle,
    /// This message waits for its turn: something is fetched for it, or it has no permit yet.
    Waiting(Box<Entry>),
    /// This order runs, and everything after it waits.
    Ordering(EventId),
    /// The driver is opening or resuming a turn.
    Opening(Plan),
    /// A turn is open.
    Turn(Box<Running>),
}

/// What happens to a turn once it is open.
#[derive(Debug)]
enum Plan {
    /// The bot works on it.
    Begin(BotName),
    /// It ends at once, stopped, together with these events that the stop covers.
    End(BotName, Vec<EventId>),
    /// The bot goes on where a crash interrupted it; without that bot (`served`) the turn ends.
    Resume { bot: BotName, served: bool, stop: bool },
}

impl Machine {
    /// Handles an event; returns the actions to carry out, in this order.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Out::new();
        match event {
            Event::Begin(cut_off) => self.cut_off = cut_off.into(),
            Event::Rung => {
                self.unlooked = true;
                if self.is_idle() {
                    self.phase = Phase::Between;
                }
            }
            Event::Next(None) => {
                self.let_go(&mut out);
                self.phase = Phase::Idle;
            }
            Event::Next(Some(entry)) => self.next(entry, &mut out),
            Event::Saw(None) => self.looked_at_all(),
            Event::Saw(Some(entry)) => self.saw(entry, &mut out),
            Event::Work(found) => self.offer(found, &mut out),
            Event::Queued(place) => self.permitted(place, &mut out),
            Event::Opened(turn) => self.opened(turn, &mut out),
            Event::Moved => self.moved(&mut out),
            Event::Fetched(brought) => self.came(brought, &mut out),
            Event::Shows(progress) => self.show(progress, &mut out),
            Event::StopAsked => self.stop_asked(&mut out),
            Event::Ended(end) => self.ended(end, &mut out),
            Event::OrderEnded { event, panicked } => self.order_ended(event, panicked, &mut out),
        }
        // A second question would be answered in another state than the one in which it was asked.
        if !out.iter().any(Action::asks) {
            self.advance(&mut out);
        }
        out
    }

    /// Returns whether nothing waits and no turn is open.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Asks for the next event of the journal, if the machine is ready for one.
    fn advance(&mut self, out: &mut Out) {
        match &mut self.phase {
            Phase::Between => match self.cut_off.pop_front() {
                Some(cut_off) => self.resume(cut_off, out),
                None => out.push(Action::Next),
            },
            Phase::Waiting(_) | Phase::Turn(_) if self.unlooked => out.push(Action::Look { after: self.looked }),
            Phase::Turn(running) if self.fetching.is_none() => {
                out.extend(running.takes_more().then_some(Action::LookForWork { after: running.offered }));
            }
            _ => {}
        }
    }

    /// Handles the next event in a room without a turn.
    fn next(&mut self, entry: Entry, out: &mut Out) {
        let Entry { event, thread, meaning, .. } = &entry;
        match meaning {
            Meaning::Work(work) => {
                let work = work.clone();
                self.prepare(entry, work, out);
            }
            Meaning::Order(order) => {
                let (event, order) = (event.clone(), order.clone());
                if !self.orders.contains_key(&event) {
                    self.carry_out(&entry, order, out);
                }
                self.phase = Phase::Ordering(event);
            }
            Meaning::Stop { .. } => {
                out.push(Action::NothingToStop { event: event.clone(), thread: thread.clone() });
            }
            Meaning::Change(change) => self.change(&entry, change, out),
            Meaning::Unsupported(_) | Meaning::Nothing | Meaning::Broken => dismiss(&entry, out),
        }
    }

    /// Handles an event that came while a message waits for its turn or a turn is open. Work waits, orders are
    /// carried out, changes are made, and a stop ends the turn.
    fn saw(&mut self, entry: Entry, out: &mut Out) {
        self.looked = entry.seq;
        match &entry.meaning {
            Meaning::Work(_) => {}
            Meaning::Stop { before } => {
                let before = before.clone();
                self.stop(entry, before, out);
            }
            Meaning::Change(change) => self.change(&entry, change, out),
            Meaning::Order(order) => {
                let known = self.orders.contains_key(&entry.event);
                if !known && self.orders.len() < AT_ONCE && self.may_be_carried_out(order) {
                    self.carry_out(&entry, order.clone(), out);
                }
            }
            Meaning::Unsupported(_) | Meaning::Nothing | Meaning::Broken => dismiss(&entry, out),
        }
    }

    /// Notes that the journal was read to its end.
    fn looked_at_all(&mut self) {
        self.unlooked = false;
        match &mut self.phase {
            Phase::Turn(running) => running.offering = true,
            // The message may have been edited or redacted, so it is read again.
            Phase::Waiting(_) => self.phase = Phase::Between,
            _ => {}
        }
    }

    /// Returns whether an order can be carried out now. One that must run between turns waits only for a turn of its
    /// own bot.
    fn may_be_carried_out(&self, order: &Order) -> bool {
        !order.between_turns || matches!(&self.phase, Phase::Turn(running) if running.bot != order.bot)
    }

    fn carry_out(&mut self, entry: &Entry, order: Order, out: &mut Out) {
        let (event, thread, doing) = (entry.event.clone(), entry.thread.clone(), self.doing.clone());
        self.orders.insert(event.clone(), thread.clone());
        out.push(Action::CarryOut { event, sender: entry.sender.clone(), thread, order, doing });
    }

    fn order_ended(&mut self, event: EventId, panicked: bool, out: &mut Out) {
        let thread = self.orders.remove(&event).flatten();
        if matches!(&self.phase, Phase::Ordering(current) if *current == event) {
            self.phase = Phase::Between;
        }
        if panicked {
            out.push(Action::Reply { event, thread, text: strings::rooms::INTERNAL.to_owned() });
        }
    }

    /// Prepares a message's turn: first fetches what the message brings along, then asks for a permit.
    fn prepare(&mut self, entry: Entry, work: Work, out: &mut Out) {
        let is_other = |fetching: &mut Entry| work.is_plain() || fetching.event != entry.event;
        if self.fetching.take_if(is_other).is_some() {
            out.push(Action::DropFetch);
        }
        let brought = self.fetched.as_ref().filter(|(of, _)| *of == entry.event).map(|(_, brought)| brought);
        if brought.is_none() && !work.is_plain() {
            self.doing = match &work.file {
                Some(file) => Doing::Fetching { name: file.name.clone() },
                None => Doing::Nothing,
            };
            if self.fetching.is_none() {
                // A permit that was held during the fetch would keep other rooms waiting.
                out.push(Action::Release);
                out.push(Action::Fetch { event: entry.event.clone(), work });
                self.fetching = Some(entry.clone());
            }
        } else if work.text.trim().is_empty()
            && let Some(saved) = brought.and_then(|brought| brought.saved.clone())
        {
            let brought = self.fetched.take().map(|(_, brought)| brought).unwrap_or_default();
            return out.push(Action::Acknowledge { entry, bot: work.bot, saved, brought });
        } else {
            out.push(Action::Permit(work.bot));
        }
        self.phase = Phase::Waiting(Box::new(entry));
    }

    /// Takes what was fetched for a message. The message is read again then, and begins a turn or steers the open
    /// one.
    fn came(&mut self, brought: Result<Brought, String>, out: &mut Out) {
        let Some(Entry { event, thread, .. }) = self.fetching.take() else { return };
        match brought {
            Ok(brought) => self.fetched = Some((event, brought)),
            Err(text) => out.push(Action::Reply { event, thread, text }),
        }
        match &mut self.phase {
            Phase::Turn(running) => running.offering = true,
            Phase::Waiting(_) => {
                self.doing = Doing::Nothing;
                self.phase = Phase::Between;
            }
            _ => {}
        }
    }

    /// Returns a message's text with what was fetched for it, and the pictures of that; `None` while the fetch is not
    /// done.
    fn whole(&mut self, event: &EventId, work: &Work) -> Option<(String, Vec<Part>)> {
        match self.fetched.take_if(|(of, _)| of == event) {
            Some((_, brought)) => Some((brought.behind(&work.text), brought.pictures)),
            None => work.is_plain().then(|| (work.text.clone(), vec![])),
        }
    }

    /// Opens the turn that has a permit now, or shows its place in the queue.
    fn permitted(&mut self, place: Option<QueuePlace>, out: &mut Out) {
        match mem::take(&mut self.phase) {
            Phase::Turn(running) if running.queued => self.turn_permitted(running, place, out),
            Phase::Waiting(entry) => match place {
                None => self.begin(*entry, out),
                Some(place) => {
                    self.show_queue(&entry.event, entry.thread.as_ref(), &entry.words, place, out);
                    self.phase = Phase::Waiting(entry);
                }
            },
            other => self.phase = other,
        }
    }

    /// Opens a message's turn.
    fn begin(&mut self, entry: Entry, out: &mut Out) {
        let Meaning::Work(work) = &entry.meaning else { return };
        let bot = work.bot.clone();
        let Some((text, pictures)) = self.whole(&entry.event, work) else { return };
        self.phase = Phase::Opening(Plan::Begin(bot.clone()));
        out.push(Action::Open(Opening { entry, bot, text, pictures, others: vec![], stopped: false }));
    }

    fn show_queue(&mut self, asked: &EventId, thread: Option<&EventId>, what: &str, place: QueuePlace, out: &mut Out) {
        let queued = Doing::Queued { asked: asked.clone(), what: what.to_owned(), place };
        if self.doing != queued {
            let QueuePlace { before, held } = place;
            out.push(Action::Show(Live::Queued { asked: asked.clone(), thread: thread.cloned(), before, held }));
            self.doing = queued;
        }
    }

    /// Asks for the permit again.
    fn moved(&mut self, out: &mut Out) {
        match &self.phase {
            Phase::Waiting(_) => self.phase = Phase::Between,
            Phase::Turn(running) if running.queued => out.push(Action::Permit(running.bot.clone())),
            _ => {}
        }
    }

    /// Stops the open turn, or the message that waits for its turn, with all work that was sent before the stop. If
    /// there is neither, the stop is handled when it comes next.
    fn stop(&mut self, stop: Entry, before: Vec<EventId>, out: &mut Out) {
        match mem::take(&mut self.phase) {
            Phase::Turn(mut running) => {
                let mut events = vec![stop.event];
                events.extend(before);
                self.stop_turn(&mut running, events, out);
                self.phase = Phase::Turn(running);
            }
            Phase::Waiting(entry) if entry.seq < stop.seq => self.end_waiting(*entry, stop, before, out),
            other => self.phase = other,
        }
    }

    /// Opens a turn for a message only to end it as stopped, together with what the stop covers.
    fn end_waiting(&mut self, entry: Entry, stop: Entry, before: Vec<EventId>, out: &mut Out) {
        let Meaning::Work(work) = &entry.meaning else { return };
        let bot = work.bot.clone();
        let mut others = before;
        others.retain(|event| *event != entry.event);
        others.push(stop.event);
        self.phase = Phase::Opening(Plan::End(bot.clone(), others.clone()));
        let (text, pictures) = (entry.words.clone(), vec![]);
        out.push(Action::Open(Opening { entry, bot, text, pictures, others, stopped: true }));
    }

    /// Resumes a turn that a crash interrupted. A stop among its events means that it was told to stop before the
    /// crash.
    fn resume(&mut self, cut_off: CutOff, out: &mut Out) {
        let CutOff { turn, bot, served, claimed } = cut_off;
        let stop = claimed.iter().any(|entry| match &entry.meaning {
            Meaning::Stop { .. } => true,
            Meaning::Change(change) => change.stops || change.takes_back(&turn.asked),
            _ => false,
        });
        out.push(Action::Resume { turn, stop });
        self.phase = Phase::Opening(Plan::Resume { bot, served, stop });
    }

    /// Drops what was prepared for a turn.
    fn let_go(&mut self, out: &mut Out) {
        out.push(Action::Release);
        if self.fetching.take().is_some() {
            out.push(Action::DropFetch);
        }
        self.fetched = None;
        self.doing = Doing::Nothing;
    }
}

/// Answers an event that no bot can work with.
fn dismiss(entry: &Entry, out: &mut Out) {
    let (event, thread) = (entry.event.clone(), entry.thread.clone());
    out.push(match &entry.meaning {
        Meaning::Unsupported(what) => Action::Reply { event, thread, text: strings::rooms::unsupported(what) },
        Meaning::Broken => Action::Reply { event, thread, text: strings::rooms::INTERNAL.to_owned() },
        Meaning::Nothing => Action::PassOver(event),
        _ => Action::Done(event),
    });
}

/// Shows that these events were taken into a turn that is being stopped.
fn show_taken(events: Vec<EventId>, out: &mut Out) {
    for said in events {
        out.push(Action::Show(Live::Heard { said: said.clone() }));
        out.push(Action::Show(Live::Seen { said }));
    }
}
