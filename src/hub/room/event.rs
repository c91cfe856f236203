//! The events and actions of the machine: types only.

use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    brought::Brought,
    doing::Doing,
    meaning::{Entry, Order, Work},
};
use crate::{
    bots::{Enclosure, Outcome, Progress, QueuePlace, Start, Taken},
    hub::Live,
    ids::{BotName, EventId, TurnId},
    llm::Part,
};

/// What happened. The answer to a question ([`Action::asks`]) comes before any other event.
#[derive(Debug)]
pub(super) enum Event {
    /// The first event, which comes once. It holds the turns that a crash interrupted, oldest first.
    Begin(Vec<CutOff>),
    /// The journal may hold something new.
    Rung,
    /// Answers [`Action::Next`].
    Next(Option<Entry>),
    /// Answers [`Action::Look`].
    Saw(Option<Entry>),
    /// Answers [`Action::LookForWork`]; `None`: nothing waits, or the turn takes nothing more for now.
    Work(Option<Entry>),
    /// Answers [`Action::Permit`] with the place in the queue; `None` if the turn may begin.
    Queued(Option<QueuePlace>),
    /// Answers [`Action::Open`] and [`Action::Resume`]; `None`: the message waits no more, or the turn is not open.
    Opened(Option<Turn>),
    /// The queue for a permit has moved.
    Moved,
    /// What a message brings along was fetched; or a sentence tells the person why not.
    Fetched(Result<Brought, String>),
    /// The turn reports progress.
    Shows(Progress),
    /// The turn was told to stop, by the machine or because the room was left.
    StopAsked,
    /// The turn's work has ended.
    Ended(End),
    /// An order has ended. Its event has its reply, unless the order panicked.
    OrderEnded {
        /// The order's event.
        event: EventId,
        /// Whether it panicked, so that its event has no reply yet.
        panicked: bool,
    },
}

/// What is to be done. Actions are carried out in this order, each finished before the next. `Start`, `Fetch` and
/// `CarryOut` only start something, whose end comes back as an event.
#[derive(Debug)]
pub(super) enum Action {
    /// Read what the room handles next: the oldest change, else the oldest event that waits.
    Next,
    /// Read the oldest event that waits after this place of the journal.
    Look {
        /// The place.
        after: i64,
    },
    /// Read the same, if the turn takes another message.
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
    /// Resume a turn that a crash interrupted, if it is still open.
    Resume {
        /// The turn.
        turn: Turn,
        /// Whether it was told to stop before the crash.
        stop: bool,
    },
    /// Start the bot's work.
    Start {
        /// The turn, which is open.
        turn: TurnId,
        /// The bot.
        bot: BotName,
        /// From the beginning, or from where a crash left it.
        start: Start,
    },
    /// Hand a message to the turn.
    HandOver {
        /// The message.
        event: EventId,
        /// Who said it.
        sender: String,
        /// Its text, with what it brings along.
        text: String,
        /// What the model is shown of that.
        pictures: Vec<Part>,
        /// The thread in which it was said.
        thread: Option<EventId>,
    },
    /// Tell the turn about a change. If its queue is full, the change waits in the journal.
    Tell {
        /// The change.
        event: EventId,
        /// What the model is told.
        text: String,
    },
    /// Let the turn claim events that its model is not told of: a stop, and what the stop covers.
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
        /// Who gave it.
        sender: String,
        /// The thread in which it was given.
        thread: Option<EventId>,
        /// The order.
        order: Order,
        /// What the actor does now.
        doing: Doing,
    },
    /// Fetch what a message brings along, in place of what is being fetched.
    Fetch {
        /// The message.
        event: EventId,
        /// What it asks for.
        work: Work,
    },
    /// Drop the running fetch; no event follows.
    DropFetch,
    /// Tell the person that a file was saved, and let the model see it with the next message.
    Acknowledge {
        /// The message that has brought it.
        entry: Entry,
        /// The bot that wanted it.
        bot: BotName,
        /// What the person is told.
        saved: String,
        /// What the model is told.
        brought: Brought,
    },
    /// Reply to an event and mark it done.
    Reply {
        /// The event.
        event: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
        /// The reply.
        text: String,
    },
    /// Reply that no turn runs that could be stopped, and what else goes on in the room.
    NothingToStop {
        /// The stop.
        event: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
    },
    /// Mark an event as done without a reply.
    Done(EventId),
    /// Mark an event that no bot wants. It waits again if an edit gives it another text.
    PassOver(EventId),
    /// Give up a locked message, and mark the event `change` as done.
    Unlock {
        /// The message.
        target: EventId,
        /// The redaction.
        change: EventId,
    },
    /// Replace the body of a message that waits, and mark the event `change` as done.
    Rewrite {
        /// The message.
        target: EventId,
        /// The new body.
        body: Value,
        /// The edit.
        change: EventId,
    },
    /// Drop a message that waits, and mark the event `change` as done.
    Drop {
        /// The message.
        target: EventId,
        /// The thread in which it was said.
        thread: Option<EventId>,
        /// The redaction.
        change: EventId,
    },
    /// Have the bots forget a message that was taken back once it had been answered, and mark the event `change` as done.
    Forget {
        /// The message.
        target: EventId,
        /// The redaction.
        change: EventId,
    },
    /// Show the room something.
    Show(Live),
    /// Send the room a file or log of the turn.
    Enclose {
        /// The turn.
        turn: Turn,
        /// What it is.
        enclosed: Enclosed,
    },
}

impl Action {
    /// Returns whether it is a question, whose answer is the next event.
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
    /// The thread of the event that asked.
    pub(super) thread: Option<EventId>,
    /// The text of the event that asked.
    pub(super) what: String,
    /// When it was opened, in milliseconds since 1970.
    pub(super) opened: i64,
}

/// A turn that a crash interrupted.
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
    /// The other events that the turn answers.
    pub(super) others: Vec<EventId>,
    /// Whether it is opened only to end as stopped.
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
    /// Without an answer: the bot panicked, or returned none although the program did not end.
    NoOutcome,
}

/// A file or log that a turn sends to the room.
#[derive(Debug)]
pub(super) struct Enclosed {
    /// Stays the same when the turn is resumed, so that it is sent once.
    pub(super) key: String,
    /// What it is.
    pub(super) enclosure: Enclosure,
    /// Gets a message once it is stored.
    pub(super) stored: oneshot::Sender<Taken>,
}
