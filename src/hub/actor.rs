//! One actor owns a room: it sees to what was said there in order, one turn at a time. What is said while it waits
//! for a file or for a place among the running turns is looked at here; what is said during a turn, in `turn`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use super::{
    AccountHub, Ending, Live,
    bringing::{Bringing, Brought},
    change::Told,
    doing::Doing,
    meaning::{Ask, Meaning, Order, thread, words},
    side::{self, Asked, Side, txn},
    turn::{Running, Turn},
};
use crate::{
    bots::{Bot, Outcome, Permit, Start, UserMessage},
    crash,
    ids::{Address, BotName, EventId, TurnId},
    llm::Part,
    store::{Conversation, OpenTurn, StoreError, StoredInbound},
    strings,
};

/// An actor with nothing to do ends after this long; the next event starts it again.
const IDLE: Duration = Duration::from_mins(1);
/// Waiting events that are looked at together.
pub(super) const BATCH: usize = 64;
/// The pause after the database failed.
const PAUSE: Duration = Duration::from_secs(2);

/// How an actor is reached.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Something new was said, or the room was left.
    pub(super) notify: Notify,
    /// The turn that works or is about to, and what ends it.
    turn: Mutex<Option<(TurnId, CancellationToken)>>,
}

impl Mailbox {
    /// Ends the turn if it is one of these.
    pub(super) fn stop(&self, turns: &[TurnId]) {
        if let Some((turn, stop)) = &*self.turn.lock().unwrap_or_else(PoisonError::into_inner)
            && turns.contains(turn)
        {
            stop.cancel();
        }
    }

    /// Returns whether a turn works, or is about to.
    pub(super) fn has_turn(&self) -> bool {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes which turn works.
    pub(super) fn set_turn(&self, turn: Option<(TurnId, CancellationToken)>) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }
}

/// Runs the actor until it has nothing to do, or the program ends.
pub(super) async fn run(hub: AccountHub, address: Address, mail: Arc<Mailbox>) {
    let mut actor = Actor::new(hub, address, mail);
    loop {
        match actor.work().await {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(room = %actor.address.room, %error, "the room's work stands still; it is tried again");
                tokio::select! {
                    () = actor.hub.inner.cancel.cancelled() => return,
                    () = time::sleep(PAUSE) => continue,
                }
            }
        }
        tokio::select! {
            () = actor.hub.inner.cancel.cancelled() => return,
            () = actor.mail.notify.notified() => {}
            () = time::sleep(IDLE) => if actor.hub.retire(&actor.address, &actor.mail) { return },
        }
    }
}

pub(super) struct Actor {
    pub(super) hub: AccountHub,
    pub(super) address: Address,
    pub(super) mail: Arc<Mailbox>,
    /// Orders that are carried out beside other things.
    pub(super) side: Side,
    /// A crash or a failure may have left turns open.
    cut_off: bool,
    /// Up to here events that are no work were looked at.
    looked: i64,
    /// What a message brings along, being fetched before its turn.
    bringing: Option<Bringing>,
    /// What has come along with a message that waits for a place.
    brought: Option<(EventId, Brought)>,
    /// The permit for a turn of this bot, or the place in the queue for one.
    pub(super) permit: Option<(BotName, Permit)>,
    pub(super) doing: Doing,
}

impl Actor {
    fn new(hub: AccountHub, address: Address, mail: Arc<Mailbox>) -> Self {
        Self {
            hub,
            address,
            mail,
            side: Side::default(),
            cut_off: true,
            looked: 0,
            bringing: None,
            brought: None,
            permit: None,
            doing: Doing::Nothing,
        }
    }

    /// Does all that waits: turns that a crash has cut off, then what was said since.
    async fn work(&mut self) -> Result<(), StoreError> {
        self.rest();
        let result = self.go_on().await;
        self.rest();
        self.cut_off = result.is_err();
        result
    }

    /// Lets go of all that belongs to work under way.
    fn rest(&mut self) {
        self.mail.set_turn(None);
        (self.side, self.bringing, self.brought, self.permit, self.doing) = Default::default();
    }

    async fn go_on(&mut self) -> Result<(), StoreError> {
        if self.cut_off {
            for open in self.hub.inner.store.open_turns(&self.address).await? {
                self.resume(open).await?;
            }
        }
        while !self.hub.inner.cancel.is_cancelled() {
            let Some(first) = self.hub.inner.store.next_waiting(&self.address).await? else { break };
            let (meaning, thread) = self.meaning(&first);
            if !meaning.is_work() {
                // Whatever is under way for this very event begins anew, here.
                self.side = Side::default();
            }
            match meaning {
                Meaning::Ask(ask) if ask.is_plain() => {
                    if self.permitted(&*ask.bot, &first, &ask.text).await? {
                        self.begin(ask.bot, first, thread, ask.text, vec![]).await?;
                    }
                }
                Meaning::Ask(ask) => self.ask_with_more(first, thread, ask).await?,
                Meaning::Change(change) => drop(self.change(&first, &change, None).await?),
                Meaning::Stop => self.nothing_to_stop(first.event, thread).await?,
                Meaning::Order(order) => {
                    let asked = self.asked(first, thread, order);
                    side::carry_out(&self.hub, &self.address, asked).await?;
                }
                Meaning::Unsupported(what) => self.reply(first.event, thread, strings::unsupported(&what)).await?,
                Meaning::Nothing => self.hub.inner.store.done(&self.address.account, vec![first.event]).await?,
                Meaning::Broken => self.reply(first.event, thread, strings::INTERNAL.to_owned()).await?,
            }
        }
        Ok(())
    }

    /// Returns what an event asks for, and the thread in which it was said.
    pub(super) fn meaning(&self, event: &StoredInbound) -> (Meaning, Option<EventId>) {
        let local = self.hub.inner.ports.is_local(&self.address.room);
        Meaning::of(event, &self.hub.inner.bots, local)
    }

    async fn resume(&mut self, open: OpenTurn) -> Result<(), StoreError> {
        let OpenTurn { turn: id, bot, opened } = open;
        let claimed = self.hub.inner.store.claimed(&id).await?;
        let Some(first) = claimed.first() else { return Ok(()) };
        let stop = CancellationToken::new();
        self.mail.set_turn(Some((id.clone(), stop.clone())));
        // Looked at after the line above, so that nobody can have left the room in between.
        if !self.hub.inner.store.is_open(&id).await? {
            return Ok(());
        }
        let stops = |event: &StoredInbound| match self.meaning(event).0 {
            Meaning::Stop => true,
            Meaning::Change(change) => change.text.is_none() && change.target == first.event,
            _ => false,
        };
        // It was told to stop, and the process died before it had said so.
        if claimed.iter().any(stops) {
            stop.cancel();
        }
        let turn = Turn {
            id,
            asked: first.event.clone(),
            sender: first.sender.clone(),
            thread: thread(&first.body),
            what: words(&first.body),
            opened,
        };
        if let Some(bot) = self.hub.inner.bots.named(&bot).cloned() {
            return self.turn(bot, turn, Start::Resumed { opened }, stop).await;
        }
        let outcome = Outcome::plain(Ending::Failed, strings::bot_gone(bot.as_str()));
        self.answer(None, turn, outcome).await
    }

    /// Opens a turn and carries it out.
    async fn begin(
        &mut self,
        bot: Arc<dyn Bot>,
        asked: StoredInbound,
        thread: Option<EventId>,
        text: String,
        pictures: Vec<Part>,
    ) -> Result<(), StoreError> {
        let opened = self.open(&*bot, asked, thread, text, pictures, vec![]).await?;
        let Some((turn, stop)) = opened else { return Ok(()) };
        crash::point("claimed");
        self.turn(bot, turn, Start::New, stop).await
    }

    /// Opens a turn for `asked`, which also answers `others`; `None` if it waits no more.
    async fn open(
        &mut self,
        bot: &dyn Bot,
        asked: StoredInbound,
        thread: Option<EventId>,
        text: String,
        pictures: Vec<Part>,
        others: Vec<EventId>,
    ) -> Result<Option<(Turn, CancellationToken)>, StoreError> {
        let (store, what) = (&self.hub.inner.store, words(&asked.body));
        let id = TurnId(txn(&self.address, &asked.event, "turn"));
        let message = self.message(&asked.event, &asked.sender, text, pictures).await?;
        let stop = CancellationToken::new();
        // Before it is open in the store, so that whoever closes it there finds it here.
        self.mail.set_turn(Some((id.clone(), stop.clone())));
        let events = std::iter::once(asked.event.clone()).chain(others).collect();
        if !store.open_turn(&self.conversation(bot), &id, events, bot.line(&message)).await? {
            self.mail.set_turn(None);
            return Ok(None);
        }
        let opened = store.clock().millis();
        Ok(Some((Turn { id, asked: asked.event, sender: asked.sender, thread, what, opened }, stop)))
    }

    /// Returns a bot's conversation in this room.
    pub(super) fn conversation(&self, bot: &dyn Bot) -> Conversation {
        Conversation { address: self.address.clone(), bot: bot.name().clone() }
    }

    /// Returns what somebody says as the model is told it.
    pub(super) async fn message(
        &self,
        event: &EventId,
        sender: &str,
        text: String,
        pictures: Vec<Part>,
    ) -> Result<UserMessage, StoreError> {
        let several = self.hub.inner.store.others_spoke(&self.address, sender).await?;
        let speaker = several.then(|| sender.to_owned());
        Ok(UserMessage { event: event.clone(), speaker, text, pictures })
    }

    /// Returns whether a turn of the bot may begin for `first`. If not, it has waited for a while.
    async fn permitted(&mut self, bot: &dyn Bot, first: &StoredInbound, what: &str) -> Result<bool, StoreError> {
        let Some(before) = self.permit(bot).before() else { return Ok(true) };
        self.show_queue(&first.event, thread(&first.body), what, before);
        let Self { permit: Some((_, permit)), mail, side, hub, .. } = self else { return Ok(false) };
        tokio::select! {
            () = hub.inner.cancel.cancelled() => {}
            () = permit.moved() => {}
            ended = side.ended() => ended?,
            () = mail.notify.notified() => self.meanwhile().await?,
        }
        Ok(false)
    }

    /// Shows how many turns wait before one, when that has changed.
    pub(super) fn show_queue(&mut self, asked: &EventId, thread: Option<EventId>, what: &str, before: usize) {
        let queued = Doing::Queued { asked: asked.clone(), what: what.to_owned(), before };
        if self.doing != queued {
            self.show(Live::Queued { asked: asked.clone(), thread, before });
            self.doing = queued;
        }
    }

    /// Returns the permit that a turn of a bot has or waits for.
    pub(super) fn permit(&mut self, bot: &dyn Bot) -> &mut Permit {
        // One that was taken for another bot is of no use to this one.
        let held = self.permit.take().filter(|(of, _)| of == bot.name());
        let held = held.unwrap_or_else(|| (bot.name().clone(), bot.permits().enter()));
        &mut self.permit.insert(held).1
    }

    /// Sees to a message that brings something along for a while: fetches that, then answers or begins the turn that its
    /// words ask for.
    async fn ask_with_more(
        &mut self,
        first: StoredInbound,
        thread: Option<EventId>,
        ask: Ask,
    ) -> Result<(), StoreError> {
        let bot = Arc::clone(&ask.bot);
        if let Some((_, brought)) = self.brought.take_if(|(event, _)| *event == first.event) {
            if self.permitted(&*bot, &first, &ask.text).await? {
                return self.begin(bot, first, thread, brought.behind(&ask.text), brought.pictures).await;
            }
            self.brought = Some((first.event, brought));
            return Ok(());
        }
        let words = !ask.text.trim().is_empty();
        if self.bringing.as_ref().is_none_or(|bringing| bringing.event != first.event) {
            self.permit = None;
            if let Some(file) = &ask.file {
                self.doing = Doing::Fetching { name: file.name.clone() };
            }
            self.bringing = Some(Bringing::begin(&self.hub, &self.address, &first.event, ask));
        }
        let Self { bringing: Some(bringing), mail, side, hub, .. } = self else { return Ok(()) };
        let brought = tokio::select! {
            () = hub.inner.cancel.cancelled() => return Ok(()),
            ended = side.ended() => return ended,
            () = mail.notify.notified() => return self.meanwhile().await,
            brought = bringing.ended() => brought,
        };
        (self.bringing, self.doing) = Default::default();
        crash::point("saved");
        match brought {
            Err(sentence) => self.reply(first.event, thread, sentence).await,
            Ok(brought) => match &brought.saved {
                Some(saved) if !words => self.acknowledge(&*bot, first, thread, saved.clone(), brought).await,
                _ => {
                    self.brought = Some((first.event, brought));
                    Ok(())
                }
            },
        }
    }

    /// Says that a file is there, and lets the model see it with the next message.
    async fn acknowledge(
        &mut self,
        bot: &dyn Bot,
        first: StoredInbound,
        thread: Option<EventId>,
        saved: String,
        brought: Brought,
    ) -> Result<(), StoreError> {
        let message = self.message(&first.event, &first.sender, brought.behind(""), brought.pictures).await?;
        let reply = side::reply_row(&self.address, &first.event, thread, saved)?;
        let line = (bot.name().clone(), TurnId(txn(&self.address, &first.event, "file")), bot.line(&message));
        let store = &self.hub.inner.store;
        store.reply_and_keep(&self.address, vec![first.event], vec![reply], Some(line)).await?;
        self.hub.inner.outbox.wake(&self.address).await;
        Ok(())
    }

    /// Looks at what was said while something waits that has not begun; a stop ends it before it has.
    async fn meanwhile(&mut self) -> Result<(), StoreError> {
        let Some(stop) = self.look(None).await? else { return Ok(()) };
        let Some(first) = self.hub.inner.store.next_waiting(&self.address).await? else { return Ok(()) };
        let (Meaning::Ask(ask), thread) = self.meaning(&first) else { return Ok(()) };
        if first.seq > stop.seq {
            // The stop is answered in its turn.
            return Ok(());
        }
        let bot = ask.bot;
        let mut others = self.work_before(stop.seq).await?;
        others.retain(|event| *event != first.event);
        others.push(stop.event);
        let text = words(&first.body);
        let opened = self.open(&*bot, first, thread, text, vec![], others.clone()).await?;
        let Some((turn, _)) = opened else { return Ok(()) };
        crash::point("stopped");
        self.show(Live::Started { asked: turn.asked.clone(), thread: turn.thread.clone() });
        self.show_taken(others);
        let outcome = bot.stopped();
        self.answer(Some(&*bot), turn, outcome).await?;
        (self.bringing, self.brought, self.permit, self.doing) = Default::default();
        Ok(())
    }

    /// Returns the messages that were said before `seq` and that nobody has acted on.
    pub(super) async fn work_before(&self, seq: i64) -> Result<Vec<EventId>, StoreError> {
        let (mut events, mut after) = (vec![], 0);
        loop {
            let page = self.hub.inner.store.waiting(&self.address, after, BATCH).await?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.seq;
            for event in page {
                if event.seq >= seq {
                    return Ok(events);
                }
                if self.meaning(&event).0.is_work() {
                    events.push(event.event);
                }
            }
        }
    }

    /// Looks at what came since and is no work: orders are carried out, changes are made. Ends early with what asks
    /// for a stop.
    pub(super) async fn look(&mut self, running: Option<&mut Running>) -> Result<Option<StoredInbound>, StoreError> {
        let mut running = running;
        loop {
            let page = self.hub.inner.store.waiting(&self.address, self.looked, BATCH).await?;
            if page.is_empty() {
                return Ok(None);
            }
            for event in page {
                self.looked = event.seq;
                let (meaning, thread) = self.meaning(&event);
                match meaning {
                    Meaning::Stop => return Ok(Some(event)),
                    Meaning::Change(change) => {
                        if self.change(&event, &change, running.as_deref_mut()).await? == Told::Stop {
                            return Ok(Some(event));
                        }
                    }
                    Meaning::Ask(_) => {}
                    Meaning::Order(order) => {
                        // What is to come between a bot's turns waits for the end of its own, and not for another bot's.
                        let others = running.as_deref().is_some_and(|running| running.bot.name() != order.bot.name());
                        if !order.between_turns || others {
                            let asked = self.asked(event, thread, order);
                            self.side.begin(&self.hub, &self.address, asked);
                        }
                    }
                    Meaning::Nothing => {
                        self.hub.inner.store.done(&self.address.account, vec![event.event]).await?;
                    }
                    Meaning::Unsupported(what) => {
                        self.reply(event.event, thread, strings::unsupported(&what)).await?;
                    }
                    Meaning::Broken => self.reply(event.event, thread, strings::INTERNAL.to_owned()).await?,
                }
            }
        }
    }

    /// Lets go of what was being done for a message that was taken back before its turn had begun, if that was done.
    pub(super) fn drop_waiting(&mut self, event: &EventId) {
        let fetching = self.bringing.take_if(|bringing| bringing.event == *event).is_some();
        let saved = self.brought.take_if(|(of, _)| of == event).is_some();
        let queued = matches!(&self.doing, Doing::Queued { asked, .. } if asked == event);
        if queued {
            self.show(Live::Ended { ending: Ending::Stopped });
        }
        if fetching || saved || queued {
            self.doing = Doing::Nothing;
        }
    }

    /// Returns an order as it is carried out.
    fn asked(&self, event: StoredInbound, thread: Option<EventId>, order: Order) -> Asked {
        let doing = self.doing.line(self.hub.inner.store.clock().millis());
        Asked { event, thread, bot: order.bot, text: order.text, doing }
    }

    /// Says that no turn runs that could be stopped, and what runs all the same.
    async fn nothing_to_stop(&mut self, event: EventId, thread: Option<EventId>) -> Result<(), StoreError> {
        let mut text = strings::NOTHING_RUNS.to_owned();
        for bot in self.hub.inner.bots.iter() {
            if let Some(left) = bot.left_running(&self.address).await {
                text = format!("{text}\n\n{left}");
            }
        }
        self.reply(event, thread, text).await
    }

    pub(super) async fn reply(&self, asked: EventId, thread: Option<EventId>, text: String) -> Result<(), StoreError> {
        side::reply(&self.hub, &self.address, asked, thread, text).await
    }

    pub(super) fn show(&self, live: Live) {
        self.hub.show(&self.address, live);
    }

    /// Shows that a turn, which a stop ends, has taken these.
    pub(super) fn show_taken(&self, events: Vec<EventId>) {
        for said in events {
            self.show(Live::Heard { said: said.clone() });
            self.show(Live::Seen { said });
        }
    }
}
