//! The rules of an open turn: messages steer it, a stop ends it, and its answer closes it.

use std::{collections::HashSet, mem};

use super::{
    super::{
        doing::Doing,
        event::{Action, Enclosed, End, Turn},
        meaning::{Entry, Meaning},
    },
    Machine, Out, Phase, Plan, show_taken,
};
use crate::{
    bots::{Progress, QueuePlace, Start},
    hub::Live,
    ids::{BotName, EventId},
};

/// A turn that is open.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) turn: Turn,
    /// The bot that works on it.
    pub(super) bot: BotName,
    /// Whether it was resumed and still waits for a permit.
    pub(super) queued: bool,
    /// Whether it was told to stop.
    stopping: bool,
    /// The messages that were handed to it.
    handed: HashSet<EventId>,
    /// The place of the last of them; none before it is handed over any more.
    handed_until: i64,
    /// The place up to which the journal was read for work that steers it.
    pub(super) offered: i64,
    /// Whether there may be more such work after `offered`, and the turn has room for it.
    pub(super) offering: bool,
}

impl Running {
    fn new(turn: Turn, bot: BotName) -> Self {
        let (handed, handed_until, offered) = (HashSet::new(), 0, 0);
        Self { turn, bot, queued: false, stopping: false, handed, handed_until, offered, offering: true }
    }

    /// Returns whether it takes more messages.
    pub(super) fn takes_more(&self) -> bool {
        self.offering && !self.stopping
    }

    /// Reads the journal for it again, since a message there has another text now.
    pub(super) fn offer_again(&mut self) {
        (self.offered, self.offering) = (0, true);
    }

    /// Returns whether it was handed a message.
    pub(super) fn has(&self, event: &EventId) -> bool {
        self.handed.contains(event)
    }
}

impl Machine {
    /// Goes on with a turn that the driver has opened; `None` if it could not be.
    pub(super) fn opened(&mut self, turn: Option<Turn>, out: &mut Out) {
        let Phase::Opening(plan) = mem::take(&mut self.phase) else { return };
        let Some(turn) = turn else { return };
        match plan {
            Plan::Begin(bot) => {
                let running = Running::new(turn, bot);
                self.start(running, Start::New, out);
            }
            Plan::End(bot, taken) => {
                out.push(Action::Show(Live::Started { asked: turn.asked.clone(), thread: turn.thread.clone() }));
                show_taken(taken, out);
                out.push(Action::Answer { turn, bot, end: End::Stopped });
                self.let_go(out);
            }
            Plan::Resume { bot, served: false, .. } => out.push(Action::Answer { turn, bot, end: End::BotGone }),
            Plan::Resume { bot, stop, .. } => {
                let mut running = Running { queued: true, stopping: stop, ..Running::new(turn, bot) };
                self.unlooked = true;
                if stop {
                    // A turn that is only to end needs no permit.
                    running.queued = false;
                    let opened = running.turn.opened;
                    self.start(running, Start::Resumed { opened }, out);
                } else {
                    out.push(Action::Permit(running.bot.clone()));
                    self.phase = Phase::Turn(Box::new(running));
                }
            }
        }
    }

    /// Starts a resumed turn that has a permit now, or shows its place in the queue.
    pub(super) fn turn_permitted(&mut self, mut running: Box<Running>, place: Option<QueuePlace>, out: &mut Out) {
        if let Some(place) = place {
            let turn = &running.turn;
            self.show_queue(&turn.asked, turn.thread.as_ref(), &turn.what, place, out);
            self.phase = Phase::Turn(running);
        } else {
            running.queued = false;
            let opened = running.turn.opened;
            self.start(*running, Start::Resumed { opened }, out);
        }
    }

    fn start(&mut self, running: Running, start: Start, out: &mut Out) {
        let Running { turn, bot, .. } = &running;
        out.push(Action::Show(Live::Started { asked: turn.asked.clone(), thread: turn.thread.clone() }));
        out.push(Action::Start { turn: turn.id.clone(), bot: bot.clone(), start });
        self.doing = Doing::Working { what: turn.what.clone(), since: turn.opened, tools: 0, now: None };
        // What came after the message that asks steers the turn at once.
        self.unlooked = true;
        self.phase = Phase::Turn(Box::new(running));
    }

    /// Stops the open turn, which claims the stop and what the stop covers.
    pub(super) fn stop_turn(&mut self, running: &mut Running, events: Vec<EventId>, out: &mut Out) {
        out.push(Action::Claim { turn: running.turn.id.clone(), events: events.clone() });
        show_taken(events, out);
        running.stopping = true;
        if self.fetching.take().is_some() {
            out.push(Action::DropFetch);
        }
        // The driver answers with [`Event::StopAsked`], as it does when the room is left.
        out.push(Action::Stop);
    }

    /// Lets a turn that was told to stop end, without waiting for a permit.
    pub(super) fn stop_asked(&mut self, out: &mut Out) {
        match mem::take(&mut self.phase) {
            Phase::Turn(mut running) => {
                running.stopping = true;
                if mem::take(&mut running.queued) {
                    let opened = running.turn.opened;
                    self.start(*running, Start::Resumed { opened }, out);
                } else {
                    self.phase = Phase::Turn(running);
                }
            }
            other => self.phase = other,
        }
    }

    /// Hands waiting work to the turn if it is for the turn's bot; work for another bot waits. What a message brings
    /// along is fetched first, and later messages wait for that.
    pub(super) fn offer(&mut self, found: Option<Entry>, out: &mut Out) {
        let mut phase = mem::take(&mut self.phase);
        if let Phase::Turn(running) = &mut phase {
            match found {
                None => running.offering = false,
                Some(entry) => self.offer_entry(running, entry, out),
            }
        }
        self.phase = phase;
    }

    fn offer_entry(&mut self, running: &mut Running, entry: Entry, out: &mut Out) {
        if let Meaning::Work(work) = &entry.meaning
            && work.bot == running.bot
            && entry.seq > running.handed_until
        {
            let Some((text, pictures)) = self.whole(&entry.event, work) else {
                out.push(Action::Fetch { event: entry.event.clone(), work: work.clone() });
                self.fetching = Some(entry);
                return;
            };
            running.handed.insert(entry.event.clone());
            (running.offered, running.handed_until) = (entry.seq, entry.seq);
            let Entry { event, sender, thread, .. } = entry;
            out.push(Action::HandOver { event, sender, text, pictures, thread });
        } else if let Meaning::Order(order) = &entry.meaning
            && order.between_turns
            && order.bot == running.bot
        {
            // It waits for the turn's end, and so do later messages: after `!new` they belong to the new conversation.
            running.offering = false;
        } else {
            running.offered = entry.seq;
        }
    }

    /// Shows the room a turn's progress.
    pub(super) fn show(&mut self, progress: Progress, out: &mut Out) {
        let Phase::Turn(running) = &mut self.phase else { return };
        self.doing.follow(&progress);
        out.push(Action::Show(match progress {
            Progress::Thinking => Live::Thinking,
            Progress::Text(delta) => Live::Text { delta },
            Progress::Draft(text) => Live::Draft { text },
            Progress::Seen(said) => {
                // The turn has taken a message, so there is room for another one.
                running.offering = true;
                Live::Seen { said }
            }
            Progress::ToolStarted { call, name, detail } => Live::ToolStarted { call: call.0, name, detail },
            Progress::ToolOutput { call, line } => Live::ToolOutput { call: call.0, line },
            Progress::ToolEnded { call, summary, ok } => Live::ToolEnded { call: call.0, summary, ok },
            Progress::Notice(text) => Live::Notice { text },
            Progress::Enclosure { key, enclosure, stored } => {
                let enclosed = Enclosed { key, enclosure, stored };
                return out.push(Action::Enclose { turn: running.turn.clone(), enclosed });
            }
        }));
    }

    /// Answers with the result of the turn's work.
    pub(super) fn ended(&mut self, end: End, out: &mut Out) {
        match mem::take(&mut self.phase) {
            Phase::Turn(running) => {
                let Running { turn, bot, .. } = *running;
                self.doing = Doing::Nothing;
                out.push(Action::Answer { turn, bot, end });
                out.push(Action::Release);
            }
            other => self.phase = other,
        }
    }
}
