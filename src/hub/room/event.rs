//! What goes into the machine and what comes out of it.
//!
//! Types only. Called by the machine, its driver and its tests.

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    brought::Brought,
    doing::Doing,
    meaning::{Entry, Order, Work},
};
use crate::{
    bots::{Outcome, Progress, Start, Taken},
    hub::Live,
    ids::{BotName, EventId, TurnId},
    llm::Part,
};

/// What happened. What answers a question (see [`Action::asks`]) comes before anything else.
#[derive(Debug)]
pub(super) enum Event {
    /// The actor begins: the first event, and only that. These turns were cut off by a crash, the oldest comes first.
    Begin(Vec<CutOff>),
    /// Something may have been said since the journal was looked at.
    Rung,
    /// Answers [`Action::Next`].
    Next(Option<Entry>),
    /// Answers [`Action::Look`].
    Saw(Option<Entry>),
    /// Answers [`Action::LookForWork`]; `None`: nothing waits, or the turn takes nothing more for now.
    Work(Option<Entry>),
    /// Answers [`Action::Permit`]: how many wait before this room; `None`: the turn may begin.
    Before(Option<usize>),
    /// Answers [`Action::Open`] and [`Action::Resume`]; `None`: the message waits no more, or the turn is not open.
    Opened(Option<Turn>),
    /// The queue for a permit has moved.
    Moved,
    /// What a message brings along is here, or a sentence to the person says why it is not.
    Fetched(Result<Brought, String>),
    /// The turn shows something of itself.
    Shows(Progress),
    /// The turn was told to stop, by the machine or because the room was left.
    StopAsked,
    /// The turn's work has ended.
    Ended(End),
    /// An order was carried out, and its event is answered unless it `panicked`.
    OrderEnded {
        /// The order's event.
        event: EventId,
        /// Whether nobody has answered it.
        panicked: bool,
    },
}

/// What is to be done: in this order, each finished before the next. `Start`, `Fetch` and `CarryOut` only begin
/// something whose end comes back as an event.
#[derive(Debug)]
pub(super) enum Action {
    /// Read what the room has to see to next: the oldest change, else the oldest of all that waits.
    Next,
    /// Read the oldest event that waits and came after this place of the journal.
    Look {
        /// The place.
        after: i64,
    },
    /// The same, for the turn, if it takes another message.
    LookForWork {
        /// The place.
        after: i64,
    },
    /// Ask for a permit for a turn of this bot, or how many wait before this room.
    Permit(BotName),
    /// Give the permit back, or leave the queue for it.
    Release,
    /// Open a turn, which claims its messages.
    Open(Opening),
    /// Take up a turn that a crash has cut off, if it is open still.
    Resume {
        /// The turn.
        turn: Turn,
        /// Whether it was told to stop before the crash.
        stop: bool,
    },
    /// Let the bot work.
    Start {
        /// The turn, which is open.
        turn: TurnId,
        /// The bot.
        bot: BotName,
        /// From the beginning, or from where a crash left it.
        start: Start,
    },
    /// Hand what a person says to the turn.
    HandOver {
        /// The message.
        event: EventId,
        /// Who said it.
        sender: String,
        /// Its words, with what it brings along.
        text: String,
        /// What the model is shown of that.
        pictures: Vec<Part>,
    },
    /// Tell the turn about a change. What it does not take waits in the journal.
    Tell {
        /// The change.
        event: EventId,
        /// What is said of it.
        text: String,
    },
    /// Let the turn claim what says nothing to its model: a stop, and what the stop covers.
    Claim {
        /// The turn.
        turn: TurnId,
        /// The events.
        events: Vec<EventId>,
    },
    /// Tell the turn's bot to stop.
    Stop,
    /// Store the turn's end with its answer.
    Answer {
        /// The turn.
        turn: Turn,
        /// The bot that worked on it.
        bot: BotName,
        /// How it ended.
        end: End,
    },
    /// Carry out an order.
    CarryOut {
        /// Its event.
        event: EventId,
        /// The thread in which it was given.
        thread: Option<EventId>,
        /// The order.
        order: Order,
        /// What the actor does just now.
        doing: Doing,
    },
    /// Fetch what a message brings along, in place of what is being fetched.
    Fetch {
        /// The message.
        event: EventId,
        /// What it asks for.
        work: Work,
    },
    /// Let go of what is being fetched; nothing more is heard of it.
    DropFetch,
    /// Say that a file is there, and let the model see it with the next message.
    Acknowledge {
        /// The message that has brought it.
        entry: Entry,
        /// The bot whose it is.
        bot: BotName,
        /// What the person is told.
        saved: String,
        /// What the model is told.
        brought: Brought,
    },
    /// Reply to an event, which needs no other answer then.
    Reply {
        /// The event.
        event: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
        /// The reply.
        text: String,
    },
    /// Reply that no turn runs that could be stopped, and what runs all the same.
    NothingToStop {
        /// The stop.
        event: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
    },
    /// Note that an event needs no answer.
    Done(EventId),
    /// Give up a message that cannot be read yet, as the event `change` asks, which needs no answer then.
    Unlock {
        /// The message.
        target: EventId,
        /// The redaction.
        change: EventId,
    },
    /// Give a message that waits another body, as the event `change` asks, which needs no answer then.
    Rewrite {
        /// The message.
        target: EventId,
        /// The new body.
        body: Value,
        /// The edit.
        change: EventId,
    },
    /// Drop a message that waits, as the event `change` asks, which needs no answer then.
    Drop {
        /// The message.
        target: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
        /// The redaction.
        change: EventId,
    },
    /// Show the room something.
    Show(Live),
    /// Send the room a file of the turn.
    SendFile {
        /// The turn.
        turn: Turn,
        /// The file.
        file: Attachment,
    },
}

impl Action {
    /// Returns whether it is a question, which is answered at once by the next event.
    pub(super) fn asks(&self) -> bool {
        matches!(
            self,
            Self::Next
                | Self::Look { .. }
                | Self::LookForWork { .. }
                | Self::Permit(_)
                | Self::Open(_)
                | Self::Resume { .. }
        )
    }
}

/// A turn as the actor knows it.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// Its id.
    pub(super) id: TurnId,
    /// The event that asked.
    pub(super) asked: EventId,
    /// Who asked.
    pub(super) sender: String,
    /// The thread in which they did.
    pub(super) thread: Option<EventId>,
    /// What they asked, in their words.
    pub(super) what: String,
    /// When it was opened, in milliseconds since 1970.
    pub(super) opened: i64,
}

/// A turn that a crash has cut off.
#[derive(Clone, Debug)]
pub(super) struct CutOff {
    /// The turn.
    pub(super) turn: Turn,
    /// The bot that works on it.
    pub(super) bot: BotName,
    /// Whether that bot is still one of the account's.
    pub(super) served: bool,
    /// The events that it has claimed.
    pub(super) claimed: Vec<Entry>,
}

/// A turn that is to be opened.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// The message that asks.
    pub(super) entry: Entry,
    /// The bot that is asked.
    pub(super) bot: BotName,
    /// What the model is told.
    pub(super) text: String,
    /// What it is shown.
    pub(super) pictures: Vec<Part>,
    /// What the turn answers besides.
    pub(super) others: Vec<EventId>,
    /// Whether it ends before it begins.
    pub(super) stopped: bool,
}

/// How a turn's work ended.
#[derive(Debug)]
pub(super) enum End {
    /// With the bot's answer.
    Outcome(Outcome),
    /// Somebody stopped it before it began.
    Stopped,
    /// Its bot is not one of the account's any more.
    BotGone,
    /// Without one: the bot panicked, or gave the turn up by itself.
    NoOutcome,
}

/// A file that a turn makes for the room.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The same for the same file after a restart, so that it is sent once.
    pub(super) key: String,
    /// Its name, without a path.
    pub(super) name: String,
    /// Its type.
    pub(super) mime: String,
    /// The file.
    pub(super) data: Bytes,
    /// To be told when it is stored.
    pub(super) stored: oneshot::Sender<Taken>,
}
