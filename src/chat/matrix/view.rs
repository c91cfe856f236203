//! What a room sees of its running turn: a progress message that is edited, and the typing notice.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use matrix_sdk::ruma::OwnedEventId;
use serde_json::{Value, json};
use tokio::time::{self, Instant};
use tracing::{Instrument, Span};

use super::{
    Adapter,
    progress::{Progress, QUICK},
    render,
    scheduler::{Class, Failed},
    send::{edit, joined_room, related, send_kind, send_raw, to_content},
    trouble::Trouble,
};
use crate::{
    crash,
    hub::{Live, LiveIn},
    ids::{self, EventId, RoomKey},
};

/// How long a turn must run before the bot is shown as typing. A quick answer would otherwise have to wait while the
/// homeserver handles the typing notice.
const SLOW: Duration = Duration::from_millis(400);
/// How often the elapsed time is updated in the progress message and the typing notice is renewed.
const TICK: Duration = Duration::from_secs(5);
/// The reactions, each with its name for the transaction id: a message was taken into the running turn, and a message
/// is not acted on.
const SEEN: (&str, &str) = ("seen", "👀");
const REFUSED: (&str, &str) = ("refused", "❌");

/// The event type of messages.
const MESSAGE: &str = "m.room.message";

/// The view of a room's running turn.
pub(super) struct View {
    room: RoomKey,
    asked: EventId,
    thread: Option<EventId>,
    state: Mutex<ViewState>,
}

struct ViewState {
    progress: Progress,
    /// The progress message's event, once it was sent.
    event: Option<OwnedEventId>,
    /// The text that the message was last sent with.
    shown: String,
    /// Whether the bot is shown as typing.
    typing: bool,
    /// Whether somebody has deleted the message. Then it is not sent again.
    deleted: bool,
}

/// What is noted in place of the event of a message that was deleted.
pub(super) const DELETED: &str = "deleted";

/// Returns the key under which the event of a turn's progress message is noted.
fn note_of(asked: &EventId) -> String {
    format!("progress:{asked}")
}

/// Returns the event of a question's progress message, also of an earlier process. It is empty if sending began and
/// it is not known whether the message arrived, and [`DELETED`] once that was deleted.
pub(super) async fn noted(adapter: &Adapter, asked: &EventId) -> Result<Option<String>, Trouble> {
    adapter.hub.noted(&note_of(asked)).await.map_err(|error| Trouble::Away(error.to_string()))
}

/// Returns the transaction id of a turn's progress message. It is the same after a restart, so that the message is
/// not sent twice.
pub(super) fn txn_of(adapter: &Adapter, room: &RoomKey, asked: &EventId) -> String {
    ids::digest(&[adapter.hub.account(), room.as_str(), asked.as_str(), "progress"], 16)
}

impl View {
    fn state(&self) -> MutexGuard<'_, ViewState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether an answer is shown as it comes.
    pub(super) fn is_draft(&self) -> bool {
        self.state().progress.is_draft()
    }

    /// Shows no more of the turn, since somebody has deleted the message.
    pub(super) async fn deleted(&self, adapter: &Adapter) {
        self.state().deleted = true;
        note(adapter, self, DELETED).await;
    }

    /// Returns the progress message's event, once it was sent.
    pub(super) fn event(&self) -> Option<String> {
        self.state().event.as_ref().map(ToString::to_string)
    }
}

/// Shows the room what happened in a turn.
pub(super) fn follow(adapter: &Adapter, LiveIn { address, live, .. }: LiveIn) {
    let room = address.room;
    match &live {
        Live::Started { asked, thread } => start(adapter, &room, asked, thread.as_ref()),
        Live::Queued { asked, thread, .. } if !adapter.views().contains_key(&room) => {
            start(adapter, &room, asked, thread.as_ref());
        }
        Live::Seen { said } => react(adapter, &room, said, SEEN),
        Live::Ended { .. } => {
            // The closing row of the outbox says how the turn ended.
            let ended = adapter.views().remove(&room);
            if ended.is_some_and(|view| view.state().typing) {
                typing(adapter, &room, false);
            }
            return;
        }
        _ => {}
    }
    let view = adapter.views().get(&room).cloned();
    let Some(view) = view else {
        if let Live::Notice { text } = live {
            post_notice(adapter, &room, &text);
        }
        return;
    };
    if view.state().progress.update(&live, Instant::now()) {
        show(adapter, &view);
    }
}

fn start(adapter: &Adapter, room: &RoomKey, asked: &EventId, thread: Option<&EventId>) {
    let mut views = adapter.views();
    // The turn was waiting and runs now.
    if views.get(room).is_some_and(|view| view.asked == *asked) {
        return;
    }
    let state = ViewState {
        progress: Progress::new(Instant::now()),
        event: None,
        shown: String::new(),
        typing: false,
        deleted: false,
    };
    let view =
        Arc::new(View { room: room.clone(), asked: asked.clone(), thread: thread.cloned(), state: Mutex::new(state) });
    views.insert(room.clone(), Arc::clone(&view));
    drop(views);
    let ticking = adapter.clone();
    adapter.spawn(async move { tick(&ticking, &view).await });
}

/// Updates the elapsed time for as long as the turn runs.
async fn tick(adapter: &Adapter, view: &Arc<View>) {
    // A quick answer needs no typing notice. A turn that becomes worth a message only by its duration is shown as
    // soon as it is.
    for pause in [SLOW, QUICK.saturating_sub(SLOW)].into_iter().chain(std::iter::repeat(TICK)) {
        time::sleep(pause).await;
        if !adapter.views().get(&view.room).is_some_and(|current| Arc::ptr_eq(current, view)) {
            return;
        }
        view.state().typing = true;
        typing(adapter, &view.room, true);
        show(adapter, view);
    }
}

/// Queues the newest state of the message, if it has changed.
fn show(adapter: &Adapter, view: &Arc<View>) {
    {
        let (state, now) = (view.state(), Instant::now());
        let unworthy = !state.progress.worth(now) && state.event.is_none();
        if unworthy || state.deleted || state.progress.text(now) == state.shown {
            return;
        }
    }
    let (sending, shown, span) = (adapter.clone(), Arc::clone(view), Span::current());
    adapter.scheduler.progress(&view.room, view.asked.as_str(), move || {
        let (adapter, view) = (sending.clone(), Arc::clone(&shown));
        async move { send(&adapter, &view).await }.instrument(span.clone())
    });
}

async fn send(adapter: &Adapter, view: &View) -> Result<(), Failed<Trouble>> {
    let Some(room) = joined_room(adapter, &view.room) else { return Ok(()) };
    let (text, event, is_reply) = {
        let state = view.state();
        if state.deleted {
            return Ok(());
        }
        (state.progress.text(Instant::now()), state.event.clone(), state.progress.is_reply())
    };
    let rendered = render::markdown(&text);
    let event = match event {
        // After a restart the message may exist already.
        None => match noted(adapter, &view.asked).await.map_err(Failed::Other)?.as_deref() {
            Some(DELETED) => return Ok(()),
            event => event.and_then(|event| event.try_into().ok()),
        },
        known => known,
    };
    let event = if let Some(event) = event {
        send_raw(adapter, &room, None, edit(&event, &rendered)).await?;
        event
    } else {
        let content =
            related(to_content("m.notice", &rendered), view.thread.as_ref(), Some(&view.asked).filter(|_| is_reply));
        // The message may arrive without our knowing it, so that sending began is noted before.
        note(adapter, view, "").await;
        let event = send_raw(adapter, &room, Some(&txn_of(adapter, &view.room, &view.asked)), content).await?;
        crash::point("shown");
        note(adapter, view, event.as_str()).await;
        event
    };
    let mut state = view.state();
    state.event = Some(event);
    state.shown = text;
    Ok(())
}

/// Notes the event of the progress message; empty while it is not known.
async fn note(adapter: &Adapter, view: &View, event: &str) {
    if let Err(error) = adapter.hub.note(&note_of(&view.asked), event).await {
        tracing::warn!(%error, "a progress message could not be noted; it may stay as it is");
    }
}

/// Tells a room without a running turn what happened to its sandbox.
fn post_notice(adapter: &Adapter, room: &RoomKey, text: &str) {
    let content = to_content("m.notice", &render::markdown(text));
    post(adapter, Class::Greeting, room, MESSAGE, None, content);
}

/// Reacts to a message to show that it does not count.
pub(super) fn refuse(adapter: &Adapter, room: &RoomKey, said: &EventId) {
    react(adapter, room, said, REFUSED);
}

fn react(adapter: &Adapter, room: &RoomKey, said: &EventId, (name, key): (&str, &str)) {
    let txn = ids::digest(&[adapter.hub.account(), room.as_str(), said.as_str(), name], 16);
    let content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": key } });
    post(adapter, Class::Reaction, room, "m.reaction", Some(txn), content);
}

/// Sends what is of no use later; if it cannot be sent now, it is dropped.
fn post(adapter: &Adapter, class: Class, room: &RoomKey, kind: &'static str, txn: Option<String>, content: Value) {
    let Some(to) = joined_room(adapter, room) else { return };
    let (adapter, room) = (adapter.clone(), room.clone());
    adapter.clone().spawn(async move {
        let send = || async {
            match kind {
                MESSAGE => send_raw(&adapter, &to, txn.as_deref(), content.clone()).await,
                kind => send_kind(&to, kind, txn.as_deref(), content.clone()).await,
            }
        };
        if let Err(trouble) = adapter.scheduler.send(class, &room, send).await {
            tracing::debug!(%trouble, "a notice or a reaction could not be sent");
        }
    });
}

fn typing(adapter: &Adapter, room: &RoomKey, types: bool) {
    let Some(room) = joined_room(adapter, room) else { return };
    adapter.spawn(async move {
        if let Err(error) = room.typing_notice(types).await {
            tracing::debug!(%error, "typing could not be shown");
        }
    });
}
