//! What identifies a Megolm ciphertext: its session and its message index. Pure.
//!
//! Each index of a session is used for one message, and the ciphertext authenticates its index. So whoever sends a
//! ciphertext under another event id repeats a message, whatever else was changed around it.

use matrix_sdk_crypto::vodozemac::megolm::MegolmMessage;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::Sealed;

#[derive(Deserialize)]
struct Event {
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    session_id: String,
    ciphertext: String,
}

/// Returns the identity of an event's ciphertext, if it has one. A JSON key that occurs twice could be read in two
/// ways, so such an event has none.
pub(super) fn of(event: &RawValue) -> Option<Sealed> {
    let Event { content } = serde_json::from_str(event.get()).ok()?;
    let message = MegolmMessage::from_base64(&content.ciphertext).ok()?;
    Some(Sealed { session: content.session_id, place: message.message_index() })
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::vodozemac::megolm::{GroupSession, SessionConfig};
    use serde_json::value::to_raw_value;

    use super::*;

    fn event(content: &serde_json::Value) -> Box<RawValue> {
        to_raw_value(&serde_json::json!({"type": "m.room.encrypted", "event_id": "$e", "content": content})).unwrap()
    }

    #[test]
    fn a_ciphertext_is_known_by_its_session_and_its_place_there() {
        let mut session = GroupSession::new(SessionConfig::version_1());
        for place in 0..3 {
            let ciphertext = session.encrypt("hello").to_base64();
            let content = serde_json::json!({"session_id": session.session_id(), "ciphertext": ciphertext});
            assert_eq!(of(&event(&content)), Some(Sealed { session: session.session_id(), place }));
        }
        for none in ["{}", r#"{"session_id": "s", "ciphertext": "no base64!"}"#, r#"{"session_id": "s"}"#] {
            assert_eq!(of(&event(&serde_json::from_str(none).unwrap())), None, "{none}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_ciphertext() {
        let mut session = GroupSession::new(SessionConfig::version_1());
        let [first, second] = [session.encrypt("a").to_base64(), session.encrypt("b").to_base64()];
        let twice =
            format!(r#"{{"content": {{"session_id": "s", "ciphertext": "{first}", "ciphertext": "{second}"}}}}"#);
        assert_eq!(of(&serde_json::from_str::<Box<RawValue>>(&twice).unwrap()), None);
        let one = format!(r#"{{"session_id": "s", "ciphertext": "{first}"}}"#);
        let twice = format!(r#"{{"content": {one}, "content": {one}}}"#);
        assert_eq!(of(&serde_json::from_str::<Box<RawValue>>(&twice).unwrap()), None);
    }
}
