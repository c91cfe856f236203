//! The rules of a room's actor against a world in memory: a journal, turns, orders, files and permits that do what the
//! store, the bots and the chat protocol do, one event at a time.

mod acts;
mod beside;
mod chaos;
mod rules;

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;

use super::{
    brought::Brought,
    doing::Doing,
    event::{Action, CutOff, End, Event, Turn},
    machine::Machine,
    meaning::{Change, Entry, FileSent, Found, Meaning, Order, Target, Work},
};
use crate::{
    bots::{Addressed, Ending, Outcome, Progress, QueuePlace},
    hub::Live,
    ids::{BotName, EventId, TurnId},
    store::Standing,
};

/// Steering messages that a turn takes before its bot has read one.
const STEER: usize = 2;

/// What somebody sends.
#[derive(Clone, Debug)]
enum Sent {
    Text(String),
    File { caption: String },
    Edit { target: EventId, text: String },
    Redaction { target: EventId },
    Voice,
}

/// An event of the journal, and how often it was replied to.
#[derive(Clone, Debug)]
struct Row {
    seq: i64,
    event: EventId,
    sender: &'static str,
    sent: Sent,
    standing: Standing,
    replies: usize,
    /// It was taken back before anybody acted on it.
    dropped: bool,
}

impl Row {
    fn waits(&self) -> bool {
        self.standing == Standing::Waiting
    }
}

/// A turn of the store.
#[derive(Debug)]
struct Stored {
    bot: BotName,
    asked: EventId,
    open: bool,
    answers: usize,
    /// Nobody was left in the room before it ended.
    left: bool,
}

/// What a crash takes away.
#[derive(Default)]
struct Memory {
    machine: Machine,
    events: VecDeque<Event>,
    fetching: Option<EventId>,
    orders: Vec<EventId>,
    permitted: bool,
    /// The open turn, whether its bot works, and what it has not read yet.
    turn: Option<TurnId>,
    works: bool,
    steering: VecDeque<EventId>,
    stopped: bool,
    told: bool,
    /// The last message that was handed over.
    handed: i64,
}

#[derive(Default)]
struct World {
    rows: Vec<Row>,
    turns: BTreeMap<TurnId, Stored>,
    memory: Memory,
    /// How many wait before this room for a permit; `None`: one is free.
    before: Option<usize>,
    /// Actions until a crash.
    crash_in: Option<usize>,
    log: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.crash();
        world
    }

    /// Everything that is not stored is gone, and the actor begins anew; returns what it does.
    fn crash(&mut self) -> Vec<String> {
        self.memory = Memory::default();
        self.crash_in = None;
        let open: Vec<_> = self.turns.iter().filter(|(_, turn)| turn.open).map(|(id, _)| id.clone()).collect();
        let cut_off = open.into_iter().map(|id| self.cut_off(&id)).collect();
        self.happens(Event::Begin(cut_off))
    }

    fn cut_off(&self, id: &TurnId) -> CutOff {
        let stored = &self.turns[id];
        let claimed = self.rows.iter().filter(|row| row.standing == Standing::Claimed(id.clone()));
        CutOff {
            turn: self.turn(id),
            bot: stored.bot.clone(),
            served: stored.bot.as_str() != "gone",
            claimed: claimed.map(|row| self.entry(row)).collect(),
        }
    }

    fn turn(&self, id: &TurnId) -> Turn {
        let asked = self.turns[id].asked.clone();
        let what = self.entry(self.row(&asked)).words;
        Turn { id: id.clone(), asked, sender: "anna".into(), thread: None, what, opened: 0 }
    }

    fn row(&self, event: &EventId) -> &Row {
        self.rows.iter().find(|row| row.event == *event).unwrap()
    }

    fn row_mut(&mut self, event: &EventId) -> &mut Row {
        self.rows.iter_mut().find(|row| row.event == *event).unwrap()
    }

    /// Somebody sends something: it is in the journal, and the actor is not told yet.
    fn sends(&mut self, sender: &'static str, event: &str, sent: Sent) {
        let seq = self.rows.len() as i64 + 1;
        let (event, standing) = (EventId::from(event), Standing::Waiting);
        self.rows.push(Row { seq, event, sender, sent, standing, replies: 0, dropped: false });
    }

    fn says(&mut self, event: &str, text: &str) -> Vec<String> {
        self.sends("anna", event, Sent::Text(text.into()));
        self.ring()
    }

    fn edits(&mut self, event: &str, target: &str, text: &str) -> Vec<String> {
        self.sends("anna", event, Sent::Edit { target: target.into(), text: text.into() });
        self.ring()
    }

    fn redacts(&mut self, event: &str, target: &str) -> Vec<String> {
        self.sends("anna", event, Sent::Redaction { target: target.into() });
        self.ring()
    }

    fn sends_file(&mut self, event: &str, caption: &str) -> Vec<String> {
        self.sends("anna", event, Sent::File { caption: caption.into() });
        self.ring()
    }

    fn ring(&mut self) -> Vec<String> {
        self.happens(Event::Rung)
    }

    /// The file on its way is here.
    fn file_comes(&mut self) -> Vec<String> {
        let mut brought = Brought::default();
        brought.saved = Some("It is there.".into());
        self.fetch_ends(Ok(brought))
    }

    fn fetch_ends(&mut self, brought: Result<Brought, String>) -> Vec<String> {
        assert!(self.memory.fetching.take().is_some(), "nothing is being fetched");
        self.happens(Event::Fetched(brought))
    }

    /// The bot reads the next message that was handed to it.
    fn bot_reads(&mut self) -> Vec<String> {
        let (Some(event), Some(turn)) = (self.memory.steering.pop_front(), self.memory.turn.clone()) else {
            panic!("nothing was handed over")
        };
        self.claim(&turn, std::slice::from_ref(&event));
        self.happens(Event::Shows(Progress::Seen(event)))
    }

    fn turn_ends(&mut self) -> Vec<String> {
        assert!(std::mem::take(&mut self.memory.works), "no bot works");
        let ending = if self.memory.stopped { Ending::Stopped } else { Ending::Done };
        self.happens(Event::Ended(End::Outcome(Outcome::plain(ending, ""))))
    }

    fn order_ends(&mut self, event: &str, panicked: bool) -> Vec<String> {
        let event = EventId::from(event);
        self.memory.orders.retain(|order| *order != event);
        if !panicked {
            self.reply(&event);
        }
        self.happens(Event::OrderEnded { event, panicked })
    }

    /// The queue for a permit moves up.
    fn moves_up(&mut self, before: Option<usize>) -> Vec<String> {
        self.before = before;
        self.happens(Event::Moved)
    }

    /// Everybody leaves the room.
    fn is_left(&mut self) {
        for row in self.rows.iter_mut().filter(|row| row.waits()) {
            (row.standing, row.dropped) = (Standing::Done, true);
        }
        for turn in self.turns.values_mut().filter(|turn| turn.open) {
            (turn.open, turn.left) = (false, true);
        }
        self.memory.stopped = self.memory.turn.is_some();
    }

    /// Lets something happen, and all that follows from it at once; returns what was done.
    fn happens(&mut self, event: Event) -> Vec<String> {
        self.memory.events.push_back(event);
        while let Some(event) = self.memory.events.pop_front() {
            for action in self.memory.machine.handle(event) {
                if let Some(left) = &mut self.crash_in {
                    if *left == 0 {
                        return self.crash();
                    }
                    *left -= 1;
                }
                self.carry_out(action);
            }
            if self.memory.events.is_empty() && self.memory.stopped && !std::mem::replace(&mut self.memory.told, true) {
                self.memory.events.push_back(Event::StopAsked);
            }
        }
        std::mem::take(&mut self.log)
    }

    /// What the bots of this world want a text for: `!` are orders to the coder, `/` to another bot.
    fn meaning(row: &Row) -> Meaning {
        let (text, file) = match &row.sent {
            Sent::Text(text) => (text.clone(), None),
            Sent::File { caption } => {
                let file = FileSent { name: "a.txt".into(), mime: "text/plain".into(), size: None, source: json!({}) };
                (caption.clone(), Some(file))
            }
            Sent::Edit { target, text } => {
                let (target, text, stops) = (target.clone(), Some(text.clone()), text == "!stop");
                return Meaning::Change(Change {
                    target,
                    text,
                    addressed: Addressed::default(),
                    stops,
                    found: Found::Nothing,
                });
            }
            Sent::Redaction { target } => {
                let (target, text, stops) = (target.clone(), None, false);
                return Meaning::Change(Change {
                    target,
                    text,
                    addressed: Addressed::default(),
                    stops,
                    found: Found::Nothing,
                });
            }
            Sent::Voice => return Meaning::Unsupported("voice messages".into()),
        };
        let order =
            |bot: &str, between_turns| Meaning::Order(Order { bot: bot.into(), text: text.clone(), between_turns });
        match text.split(' ').next().unwrap_or_default() {
            "!stop" => Meaning::Stop { before: vec![] },
            "!status" => order("coder", false),
            "!new" => order("coder", true),
            "/now" => order("other", false),
            "/between" => order("other", true),
            "nothing" => Meaning::Nothing,
            word => {
                let bot = BotName::from(if word.starts_with('/') { "other" } else { "coder" });
                Meaning::Work(Work { bot, text, file, about: None })
            }
        }
    }

    /// An event as the driver reads it.
    fn entry(&self, row: &Row) -> Entry {
        let mut meaning = Self::meaning(row);
        match &mut meaning {
            Meaning::Stop { before } => {
                let earlier = self.rows.iter().filter(|other| other.waits() && other.seq < row.seq);
                let work = earlier.filter(|other| Self::meaning(other).is_work());
                *before = work.map(|other| other.event.clone()).collect();
            }
            Meaning::Change(change) => {
                let own = self.rows.iter().find(|other| other.event == change.target && other.sender == row.sender);
                if let Some(own) = own {
                    let has_text = matches!(own.sent, Sent::Text(_) | Sent::File { .. });
                    let edited = change.text.as_ref().filter(|_| has_text).map(|text| json!(text));
                    let standing = own.standing.clone();
                    change.found = Found::Message(Target { standing, thread: None, words: Self::words(own), edited });
                }
            }
            _ => {}
        }
        let (event, words) = (row.event.clone(), Self::words(row));
        Entry { seq: row.seq, event, sender: row.sender.into(), thread: None, words, meaning }
    }

    fn words(row: &Row) -> String {
        match &row.sent {
            Sent::Text(text) => text.clone(),
            Sent::File { caption } => caption.clone(),
            _ => String::new(),
        }
    }

    fn next_after(&self, after: i64) -> Option<Entry> {
        self.rows.iter().find(|row| row.waits() && row.seq > after).map(|row| self.entry(row))
    }

    fn next(&self) -> Option<Entry> {
        let waiting = || self.rows.iter().filter(|row| row.waits());
        let changes = |row: &&Row| matches!(row.sent, Sent::Edit { .. } | Sent::Redaction { .. });
        waiting().find(changes).or_else(|| waiting().next()).map(|row| self.entry(row))
    }

    fn claim(&mut self, turn: &TurnId, events: &[EventId]) {
        for row in self.rows.iter_mut().filter(|row| events.contains(&row.event)) {
            if row.waits() {
                row.standing = Standing::Claimed(turn.clone());
            }
        }
    }

    fn done(&mut self, event: &EventId) {
        self.row_mut(event).standing = Standing::Done;
    }

    fn reply(&mut self, event: &EventId) {
        if self.row(event).waits() {
            self.row_mut(event).replies += 1;
            self.done(event);
        }
    }

    fn answered(&mut self, answer: Event) {
        self.memory.events.push_front(answer);
    }

    fn note(&mut self, line: String) {
        self.log.push(line);
    }
}
