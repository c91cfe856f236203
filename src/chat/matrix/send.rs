//! Sends one event to a room, with its transaction id, and nothing in the clear where everything was encrypted once.

use matrix_sdk::{
    Room,
    ruma::{OwnedEventId, OwnedTransactionId},
};
use serde_json::{Value, json};

use super::{Adapter, render::Rendered, scheduler::Failed, trouble::Trouble};
use crate::ids::{EventId, RoomKey};

/// The key in each of our events that holds its transaction id.
pub(super) const KEY: &str = "org.matrix-agent.txn";
/// Returns the room, if the bot can send there now.
pub(super) fn joined_room(adapter: &Adapter, room: &RoomKey) -> Option<Room> {
    let id: matrix_sdk::ruma::OwnedRoomId = room.as_str().try_into().ok()?;
    adapter.client()?.get_room(&id).filter(|room| room.state() == matrix_sdk::RoomState::Joined)
}

/// Sends a message. Without a transaction id each call makes a new one.
pub(super) async fn send_raw(
    adapter: &Adapter,
    room: &Room,
    txn: Option<&str>,
    content: Value,
) -> Result<OwnedEventId, Failed<Trouble>> {
    never_in_the_clear(adapter, room).await.map_err(Failed::Other)?;
    send_kind(room, "m.room.message", txn, content).await
}

/// Refuses to send to a room that was encrypted once if the SDK would not encrypt: the homeserver says that the room
/// is not encrypted any more, or somebody made it say so.
pub(super) async fn never_in_the_clear(adapter: &Adapter, room: &Room) -> Result<(), Trouble> {
    if !adapter.hub.is_encrypted(&RoomKey::from(room.room_id().as_str()))
        || room.latest_encryption_state().await?.is_encrypted()
    {
        return Ok(());
    }
    Err(Trouble::Lasting(
        "the room was encrypted, and the homeserver says now that it is not; nothing is sent there in the clear"
            .to_owned(),
    ))
}

/// Like [`send_raw`], for any type of event, and for events that are never encrypted.
pub(super) async fn send_kind(
    room: &Room,
    kind: &str,
    txn: Option<&str>,
    mut content: Value,
) -> Result<OwnedEventId, Failed<Trouble>> {
    let mut request = room.send_raw(kind, {
        if let Some(txn) = txn {
            content[KEY] = txn.into();
        }
        content
    });
    let id: Option<OwnedTransactionId> = txn.map(Into::into);
    if let Some(id) = &id {
        request = request.with_transaction_id(id);
    }
    match request.await {
        Ok(sent) => Ok(sent.response.event_id),
        Err(error) => Err(match Trouble::from(error) {
            Trouble::Limited(wait) => Failed::Limited(wait),
            trouble => Failed::Other(trouble),
        }),
    }
}

/// Returns a message's content, without mentions.
pub(super) fn to_content(kind: &str, rendered: &Rendered) -> Value {
    let mut content = json!({ "msgtype": kind, "body": rendered.body, "m.mentions": {} });
    if let Some(html) = &rendered.html {
        content["format"] = "org.matrix.custom.html".into();
        content["formatted_body"] = html.as_str().into();
    }
    content
}

/// Relates a message to a thread, to a question, or to nothing.
pub(super) fn related(mut content: Value, thread: Option<&EventId>, asked: Option<&EventId>) -> Value {
    let relation = relation(thread, asked);
    if !relation.is_null() {
        content["m.relates_to"] = relation;
    }
    content
}

fn relation(thread: Option<&EventId>, asked: Option<&EventId>) -> Value {
    // What was not asked in a room is no event there.
    let asked = asked.filter(|asked| asked.as_str().starts_with('$'));
    match (thread, asked) {
        (Some(thread), asked) => json!({
            "rel_type": "m.thread", "event_id": thread, "is_falling_back": true,
            "m.in_reply_to": { "event_id": asked.unwrap_or(thread) },
        }),
        (None, Some(asked)) => json!({ "m.in_reply_to": { "event_id": asked } }),
        (None, None) => Value::Null,
    }
}

/// Returns the content that edits a notice.
pub(super) fn edit(event: &matrix_sdk::ruma::EventId, rendered: &Rendered) -> Value {
    edit_to(event, to_content("m.notice", rendered))
}

/// Returns the content that puts another content in the place of a message. Whom it mentions is called by the edit.
pub(super) fn edit_to(event: &matrix_sdk::ruma::EventId, new: Value) -> Value {
    let mut content = new.clone();
    content["body"] = format!("* {}", new["body"].as_str().unwrap_or_default()).into();
    content["m.new_content"] = new;
    content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": event });
    content
}
