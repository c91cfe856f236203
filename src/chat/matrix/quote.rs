//! Fetches the message to which somebody replies, when the bot needs it: decrypted if need be, and as its last edit
//! has it.

use std::time::Duration;

use matrix_sdk::{
    deserialized_responses::{
        EncryptionInfo, TimelineEvent, TimelineEventKind, UnsignedDecryptionResult, UnsignedEventLocation,
        VerificationLevel, VerificationState,
    },
    ruma::{OwnedEventId, OwnedUserId, UserId},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{Adapter, inbound, rooms::again, send::joined_room, trouble::Trouble};
use crate::{
    bots::Policies,
    hub::{Author, Body, FetchQuote, NotQuoted, Quoted},
    ids::{EventId, RoomKey},
};

/// How long finding one may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Fetches a message for the hub.
pub(super) async fn fetch(adapter: Adapter, wanted: FetchQuote) {
    let FetchQuote { room, event, done } = wanted;
    let found = timeout(LIMIT, find(&adapter, &room, &event)).await.unwrap_or(Err(NotQuoted::Away));
    // The receiver may be gone, if the turn was stopped.
    let _ = done.send(found);
}

async fn find(adapter: &Adapter, room: &RoomKey, event: &EventId) -> Result<Quoted, NotQuoted> {
    let id = OwnedEventId::try_from(event.as_str()).map_err(|_| NotQuoted::Unreadable)?;
    let room = joined_room(adapter, room).ok_or(NotQuoted::Away)?;
    let event = again(|| async { room.event(&id, None).await.map_err(Trouble::from) }).await;
    let event = event.map_err(|trouble| match trouble {
        Trouble::Lasting(_) => NotQuoted::Unreadable,
        _ => NotQuoted::Away,
    })?;
    // If the encryption state is unknown, the message is quoted without the mark of one that stands in the clear.
    let encrypted = room.latest_encryption_state().await.is_ok_and(|state| state.is_encrypted());
    read(&event, room.own_user_id(), adapter.hub.policies(), encrypted)
}

/// Reads the message.
fn read(event: &TimelineEvent, own: &UserId, policies: &Policies, encrypted: bool) -> Result<Quoted, NotQuoted> {
    let (sealed, edit_counts) = match &event.kind {
        TimelineEventKind::UnableToDecrypt { .. } => return Err(NotQuoted::Unreadable),
        TimelineEventKind::PlainText { .. } => (false, true),
        TimelineEventKind::Decrypted(_) => {
            let edit = event.kind.unsigned_encryption_map();
            let edit = edit.and_then(|bundled| bundled.get(&UnsignedEventLocation::RelationsReplace));
            let edit = edit.and_then(UnsignedDecryptionResult::encryption_info);
            (true, edit.is_some_and(|info| !is_forged(info)))
        }
    };
    if event.encryption_info().is_some_and(|info| is_forged(info)) {
        return Err(NotQuoted::Unreadable);
    }
    let json: Value = serde_json::from_str(event.raw().json().get()).map_err(|_| NotQuoted::Unreadable)?;
    let sender = json["sender"].as_str().and_then(|sender| OwnedUserId::try_from(sender).ok());
    let sender = sender.ok_or(NotQuoted::Unreadable)?;
    let author = if encrypted && !sealed {
        Author::Unproven
    } else if sender == own {
        Author::Bot
    } else if policies.hears(sender.as_str()) {
        Author::Listed
    } else {
        Author::Stranger
    };
    let edit = newest(&json).filter(|_| edit_counts);
    let body = words(&sender, &json, edit)?;
    Ok(Quoted { sender: sender.to_string(), author, body })
}

/// Returns whether the message was encrypted with a key that is not its sender's.
fn is_forged(info: &EncryptionInfo) -> bool {
    matches!(info.verification_state, VerificationState::Unverified(VerificationLevel::MismatchedSender))
}

/// Returns the author's last edit, which homeservers bundle with a message.
fn newest(event: &Value) -> Option<&Value> {
    let edit = &event["unsigned"]["m.relations"]["m.replace"];
    let relation = &edit["content"]["m.relates_to"];
    let is_edit = edit["type"] == event["type"]
        && edit["sender"] == event["sender"]
        && relation["rel_type"] == "m.replace"
        && relation["event_id"] == event["event_id"];
    Some(&edit["content"]["m.new_content"]).filter(|content| is_edit && content.is_object())
}

fn words(sender: &UserId, event: &Value, edit: Option<&Value>) -> Result<Body, NotQuoted> {
    let content = &event["content"];
    if !event["unsigned"]["redacted_because"].is_null() || content.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(NotQuoted::TakenBack);
    }
    let is_said = matches!(
        event["type"].as_str(),
        Some("m.room.message" | "m.sticker" | "m.poll.start" | "org.matrix.msc3381.poll.start")
    );
    // Some clients reply to an edit instead of the edited message.
    let replaces = content["m.relates_to"]["rel_type"] == "m.replace" && content["m.new_content"].is_object();
    let said = if replaces { &content["m.new_content"] } else { content };
    let body = inbound::words(sender, edit.unwrap_or(said)).filter(|_| is_said);
    body.ok_or(NotQuoted::Unreadable)
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{serde::Raw, user_id};
    use serde_json::json;

    use super::*;
    use crate::bots::{People, Places, Policy};

    fn read_plain(event: &Value, encrypted: bool) -> Result<Quoted, NotQuoted> {
        let policies = Policies::new([Policy::new(People::Listed(vec!["@anna:a.org".into()]), Places::Anywhere)]);
        let event = TimelineEvent::from_plaintext(Raw::new(event).unwrap().cast_unchecked());
        read(&event, user_id!("@bot:a.org"), &policies, encrypted)
    }

    fn event(sender: &str, content: Value) -> Value {
        let mut event = json!({"type": "m.room.message", "event_id": "$q", "sender": sender, "origin_server_ts": 1});
        event["content"] = content;
        event
    }

    fn text(body: &str) -> Value {
        json!({"msgtype": "m.text", "body": body})
    }

    #[test]
    fn each_author_is_told_apart() {
        for (sender, encrypted, author) in [
            ("@bot:a.org", false, Author::Bot),
            ("@anna:a.org", false, Author::Listed),
            ("@carl:a.org", false, Author::Stranger),
            ("@anna:a.org", true, Author::Unproven),
        ] {
            let quoted = read_plain(&event(sender, text("words")), encrypted).unwrap();
            let body = Body::said("words");
            assert_eq!(quoted, Quoted { sender: sender.into(), author, body });
        }
    }

    #[test]
    fn the_newest_words_of_its_own_author_count() {
        let edit = |sender: &str, target: &str| {
            json!({"type": "m.room.message", "sender": sender, "content": {
                "msgtype": "m.text", "body": "* new", "m.new_content": {"msgtype": "m.text", "body": "new"},
                "m.relates_to": {"rel_type": "m.replace", "event_id": target},
            }})
        };
        for (edit, reads) in [
            (edit("@anna:a.org", "$q"), "new"),
            (edit("@carl:a.org", "$q"), "old"),
            (edit("@anna:a.org", "$other"), "old"),
        ] {
            let mut event = event("@anna:a.org", text("old"));
            event["unsigned"] = json!({"m.relations": {"m.replace": edit}});
            let Body::Said { text, .. } = read_plain(&event, false).unwrap().body else { panic!("{event}") };
            assert_eq!(text, reads, "{event}");
        }
    }

    #[test]
    fn of_an_edit_the_new_words_are_quoted() {
        let edit = json!({"msgtype": "m.text", "body": "* new", "m.new_content": {"msgtype": "m.text", "body": "new"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}});
        let Body::Said { text, .. } = read_plain(&event("@anna:a.org", edit), false).unwrap().body else { panic!() };
        assert_eq!(text, "new");
    }

    #[test]
    fn what_was_taken_back_is_told_and_what_is_no_message_is_named() {
        let mut event = event("@anna:a.org", json!({}));
        assert_eq!(read_plain(&event, false), Err(NotQuoted::TakenBack));
        event["content"] = text("still there");
        event["unsigned"] = json!({"redacted_because": {"type": "m.room.redaction"}});
        assert_eq!(read_plain(&event, false), Err(NotQuoted::TakenBack));
        let topic =
            json!({"type": "m.room.topic", "sender": "@anna:a.org", "event_id": "$q", "content": {"topic": "x"}});
        assert_eq!(read_plain(&topic, false), Err(NotQuoted::Unreadable));
    }
}
