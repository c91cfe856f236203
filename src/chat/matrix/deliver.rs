//! Sends the rows of the outbox: each row as one event, with the row's own transaction id.

mod earlier;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use matrix_sdk::{
    Room,
    ruma::{OwnedEventId, OwnedUserId},
};
use serde_json::{Value, json};
use tokio::sync::{broadcast, broadcast::error::RecvError, oneshot};
use tracing::Instrument;

use self::earlier::Earlier;
use super::{
    Adapter, ROOMS, making, media, quote, render,
    scheduler::{Class, Unsent},
    send::{edit, edit_to, joined_room, never_in_the_clear, related, send_raw, to_content},
    trouble::Trouble,
    view,
};
use crate::{
    crash,
    hub::{CardPlace, Delivery, Fetch, Inbox, LiveIn, Outbound, Sent, Undelivered},
    ids::{self, EventId, RoomKey, is_at_github},
};

/// The name of the file that holds the whole of an answer that was shortened in its message.
const WHOLE: &str = "answer.md";
/// The name of a log that goes out as a file.
const LOG: &str = "log.txt";

/// The rows that are being sent, and which failures were logged already. Bounded by the number of rooms, since each
/// room has one row in flight.
#[derive(Default)]
struct Desk {
    /// Transaction ids of the rows that a task is sending. The outbox may hand out the same row again while its task
    /// still waits for the scheduler.
    sending: HashSet<String>,
    /// Whether it was logged that the homeserver is away.
    away: bool,
    /// The rooms for which it was logged that the homeserver refuses messages there.
    refused: HashSet<RoomKey>,
}

type SharedDesk = Arc<Mutex<Desk>>;

/// Marks a row as being sent for as long as this value lives.
struct Sending {
    desk: SharedDesk,
    txn: String,
}

impl Sending {
    /// Returns `None` if another task is sending the row.
    fn begin(desk: &SharedDesk, txn: &str) -> Option<Self> {
        lock(desk).sending.insert(txn.to_owned()).then(|| Self { desk: desk.clone(), txn: txn.to_owned() })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        lock(&self.desk).sending.remove(&self.txn);
    }
}

/// Takes the hub's deliveries until the program ends.
pub(super) async fn run(adapter: Adapter, mut inbox: Inbox, mut live: broadcast::Receiver<LiveIn>) {
    let desk = SharedDesk::default();
    loop {
        tokio::select! {
            Some(delivery) = inbox.deliveries.recv() => {
                // A row that is being sent already is dropped here; the outbox hands it out again after its pause.
                if let Some(sending) = Sending::begin(&desk, &delivery.txn) {
                    let span = delivery.span();
                    adapter.spawn(deliver(adapter.clone(), sending, delivery).instrument(span));
                }
            }
            seen = live.recv() => match seen {
                // The account may have rooms of another protocol, too.
                Ok(live) if ROOMS.owns(&live.address.room) => live.span().in_scope(|| view::follow(&adapter, live)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "rooms were not shown all progress"),
                Err(RecvError::Closed) => return,
            },
            Some(fetch) = inbox.fetches.recv() => match fetch {
                Fetch::File(file) => adapter.spawn(media::fetch(adapter.client(), file)),
                Fetch::Room(wanted) => adapter.spawn(making::make(adapter.clone(), wanted)),
                Fetch::Quote(quote) => {
                    let span = adapter.hub.address(quote.room.clone()).span();
                    adapter.spawn(quote::fetch(adapter.clone(), quote).instrument(span));
                }
            },
            else => return,
        }
    }
}

fn lock(desk: &SharedDesk) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn deliver(adapter: Adapter, sending: Sending, delivery: Delivery) {
    let sent = send(&adapter, &delivery).await;
    lock(&sending.desk).log_change(&delivery.address.room, sent.as_ref().err());
    drop(sending);
    let told = sent.map_err(|_| Undelivered).map(|event| {
        crash::point("sent");
        Sent { event: EventId::from(event.as_str()), noted: oneshot::channel().0 }
    });
    // The outbox may have stopped waiting for this attempt; then it hands the row out again.
    let _ = delivery.done.send(told);
}

impl Desk {
    /// Logs a change of state: one line when sending begins to fail, one when it works again.
    fn log_change(&mut self, room: &RoomKey, trouble: Option<&Trouble>) {
        match trouble {
            None => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("messages are sent again");
                }
                if self.refused.remove(room) {
                    tracing::info!("messages are sent to this room again");
                }
            }
            Some(trouble @ Trouble::Lasting(_)) if self.refused.insert(room.clone()) => {
                tracing::warn!(%trouble, "a message could not be sent; it is tried again");
            }
            Some(trouble) if !matches!(trouble, Trouble::Lasting(_)) && !std::mem::replace(&mut self.away, true) => {
                tracing::warn!(%trouble, "messages cannot be sent now; they are tried again");
            }
            Some(trouble) => tracing::debug!(%trouble, "a message still cannot be sent"),
        }
    }
}

async fn send(adapter: &Adapter, delivery: &Delivery) -> Result<OwnedEventId, Trouble> {
    let key = &delivery.address.room;
    let room = joined_room(adapter, key).ok_or_else(|| match adapter.client() {
        Some(_) => Trouble::Lasting("the bot is not in the room".to_owned()),
        None => Trouble::Away("there is no session now".to_owned()),
    })?;
    never_in_the_clear(adapter, &room).await?;
    let earlier = Earlier::read(&room, delivery.tried.as_ref(), adapter.hub.clock().millis()).await?;
    if delivery.tried.is_none() {
        let device = room.client().device_id().map(ToString::to_string).unwrap_or_default();
        adapter.hub.trying(&delivery.txn, &device).await.map_err(|error| Trouble::Away(error.to_string()))?;
    }
    let txn = &delivery.txn;
    let content = match &delivery.outbound {
        Outbound::Answer { text, footer, asked, sender, thread, streamed, thoughts, .. } => {
            let draft = if *streamed { draft(adapter, &room, asked, thread.as_ref()).await? } else { Draft::None };
            let draft = match draft {
                // Whoever has deleted the beginning does not want the rest.
                Draft::Deleted => return event_of(txn),
                Draft::Shown(event) => Some(event),
                Draft::None => None,
            };
            let short = match draft {
                Some(_) => render::shortened_for_edit(text),
                None => render::shortened(text),
            };
            let two = is_for_two(&room);
            let called =
                if two || is_at_github(sender) { None } else { Some((&**sender, display_name(&room, sender).await)) };
            let called = called.as_ref().map(|(id, name)| (*id, &**name));
            let rendered = render::answer(called, short.as_deref().unwrap_or(text), footer);
            let rendered = render::with_thoughts(rendered, thoughts.as_ref().map(|it| (&*it.text, it.folded)));
            let mut new = to_content("m.text", &rendered);
            // An edit calls nobody but whom it mentions, also in a room for two.
            if let Some(id) = called.map(|(id, _)| id).or_else(|| draft.as_ref().map(|_| &**sender)) {
                new["m.mentions"] = json!({ "user_ids": [id] });
            }
            let content = match &draft {
                Some(event) => edit_to(event, new),
                None => related(new, thread.as_ref(), Some(asked)),
            };
            if short.is_some() {
                attach(adapter, &room, txn, &earlier, &content, text, thread.as_ref()).await?;
            }
            content
        }
        Outbound::Reply { text, asked, thread, replaces } => {
            let shown = shown_as(adapter, replaces.as_deref()).await?;
            let short = match shown {
                Some(_) => render::shortened_for_edit(text),
                None => render::shortened(text),
            };
            let new = to_content("m.text", &render::markdown(short.as_deref().unwrap_or(text)));
            let content = match &shown {
                Some(event) => edit_to(event, new),
                None => related(new, thread.as_ref(), Some(asked)),
            };
            if short.is_some() {
                attach(adapter, &room, txn, &earlier, &content, text, thread.as_ref()).await?;
            }
            content
        }
        Outbound::Notice { text, card: None } => to_content("m.notice", &render::markdown(text)),
        Outbound::Notice { text, card: Some(CardPlace { thread, replaces, calls }) } => {
            let rendered = render::markdown(text);
            match shown_as(adapter, replaces.as_deref()).await? {
                Some(event) => edit(&event, &rendered),
                // Phones ring for a card, and not for its end.
                _ if replaces.is_none() => {
                    let mut content = to_content("m.text", &rendered);
                    if let Some(person) = calls {
                        content["m.mentions"] = json!({ "user_ids": [person] });
                    }
                    related(content, thread.as_ref(), None)
                }
                _ => related(to_content("m.notice", &rendered), thread.as_ref(), None),
            }
        }
        Outbound::Log { text, asked, thread: None } => {
            related(to_content("m.notice", &render::preformatted(text)), Some(asked), None)
        }
        Outbound::Log { text, thread: Some(thread), .. } => {
            if let Some(event) = earlier.find(txn, &Value::Null) {
                return Ok(event);
            }
            let file = media::upload(adapter, &room, txn, LOG, "text/plain", text.as_bytes()).await?;
            related(file, Some(thread), None)
        }
        Outbound::File { name, mime, thread } => {
            if let Some(event) = earlier.find(txn, &Value::Null) {
                return Ok(event);
            }
            let data = delivery.data.as_deref().unwrap_or_default();
            related(media::upload(adapter, &room, txn, name, mime, data).await?, thread.as_ref(), None)
        }
        Outbound::Closing { asked, ending, footer, thread } => {
            // Waits for an edit that is being sent, which notes the event of the progress message.
            adapter.scheduler.settle(key, asked.as_str()).await;
            let progress = view::noted(adapter, asked).await?;
            let rendered = render::markdown(&super::progress::closing(*ending, footer));
            let Some(progress) = progress.filter(|noted| noted != view::DELETED) else { return event_of(txn) };
            let progress = if let Ok(progress) = OwnedEventId::try_from(progress) {
                progress
            } else {
                // The message was begun, and its event id was never noted: sending again with the same transaction id
                // returns it.
                let begun = view::txn_of(adapter, key, asked);
                let content = related(to_content("m.notice", &rendered), thread.as_ref(), None);
                post(adapter, Class::Answer, &room, &begun, content).await?
            };
            edit(&progress, &rendered)
        }
    };
    if let Some(event) = earlier.find(txn, &content) {
        return Ok(event);
    }
    let class = if matches!(delivery.outbound, Outbound::Notice { card: None, .. } | Outbound::Log { .. }) {
        Class::Greeting
    } else {
        Class::Answer
    };
    post(adapter, class, &room, txn, content).await
}

/// Sends the whole text of a message that is too long for one as a file before it, so that whoever sees the message finds the file,
/// too; unless one of them was sent earlier.
async fn attach(
    adapter: &Adapter,
    room: &Room,
    txn: &str,
    earlier: &Earlier,
    content: &Value,
    text: &str,
    thread: Option<&EventId>,
) -> Result<(), Trouble> {
    let whole = ids::digest(&[txn, "whole"], 16);
    if earlier.find(txn, content).or_else(|| earlier.find(&whole, &Value::Null)).is_none() {
        let file = media::upload(adapter, room, &whole, WHOLE, "text/markdown", text.as_bytes()).await?;
        post(adapter, Class::Answer, room, &whole, related(file, thread, None)).await?;
    }
    Ok(())
}

/// Returns the event as which a row was sent, if it was.
async fn shown_as(adapter: &Adapter, txn: Option<&str>) -> Result<Option<OwnedEventId>, Trouble> {
    let Some(txn) = txn else { return Ok(None) };
    let sent = adapter.hub.sent_as(txn).await.map_err(|error| Trouble::Away(error.to_string()))?;
    Ok(sent.and_then(|event| OwnedEventId::try_from(event.as_str()).ok()))
}

/// The message in which an answer is shown as it comes.
enum Draft {
    /// There is none.
    None,
    /// This one.
    Shown(OwnedEventId),
    /// Somebody has deleted it.
    Deleted,
}

/// Returns the message in which an answer was shown as it came.
async fn draft(adapter: &Adapter, room: &Room, asked: &EventId, thread: Option<&EventId>) -> Result<Draft, Trouble> {
    let key = RoomKey::from(room.room_id().as_str());
    // Waits for an edit that is being sent, which notes the event of the message.
    adapter.scheduler.settle(&key, asked.as_str()).await;
    let Some(noted) = view::noted(adapter, asked).await? else { return Ok(Draft::None) };
    if noted == view::DELETED {
        return Ok(Draft::Deleted);
    }
    if let Ok(event) = OwnedEventId::try_from(noted) {
        return Ok(Draft::Shown(event));
    }
    // The message was begun, and its event id was never noted: sending again with the same transaction id returns it.
    let begun = view::txn_of(adapter, &key, asked);
    let content = related(to_content("m.notice", &render::markdown("…")), thread, Some(asked));
    post(adapter, Class::Answer, room, &begun, content).await.map(Draft::Shown)
}

/// Returns a made-up event id for a row that sends nothing, so that the outbox can close it.
fn event_of(txn: &str) -> Result<OwnedEventId, Trouble> {
    OwnedEventId::try_from(format!("${txn}")).map_err(|error| Trouble::Lasting(error.to_string()))
}

async fn post(
    adapter: &Adapter,
    class: Class,
    room: &Room,
    txn: &str,
    content: Value,
) -> Result<OwnedEventId, Trouble> {
    let (by, to, txn) = (adapter.clone(), room.clone(), txn.to_owned());
    let send = move || {
        let (by, to, txn, content) = (by.clone(), to.clone(), txn.clone(), content.clone());
        async move { send_raw(&by, &to, Some(&txn), content).await }
    };
    adapter.scheduler.send(class, &RoomKey::from(room.room_id().as_str()), send).await.map_err(|unsent| match unsent {
        Unsent::Failed(trouble) => trouble,
        Unsent::Ended => Trouble::Away("the program ends".to_owned()),
    })
}

/// Returns whether only one person is in a room with the bot. Their client tells them of each message there, and would
/// highlight the whole of one that called them.
fn is_for_two(room: &Room) -> bool {
    room.joined_members_count() == 2
}

async fn display_name(room: &Room, user: &str) -> String {
    let Ok(id) = OwnedUserId::try_from(user) else { return user.to_owned() };
    match room.get_member_no_sync(&id).await {
        Ok(Some(member)) => member.name().to_owned(),
        Ok(None) | Err(_) => id.localpart().to_owned(),
    }
}
