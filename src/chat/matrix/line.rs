//! Whether messages go both ways between an account and its homeserver: one is sent to the account's own device, and read in its own
//! stream. No room sees anything of it, and the homeserver has it no longer than until it is read.

use std::{collections::BTreeMap, time::Duration};

use matrix_sdk::{
    Client,
    deserialized_responses::ProcessedToDeviceEvent,
    ruma::{
        OwnedTransactionId,
        api::client::to_device::send_event_to_device::v3::Request,
        events::{AnyToDeviceEventContent, ToDeviceEventType},
        serde::Raw,
        to_device::DeviceIdOrAllDevices,
    },
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{rooms::again, trouble::Trouble};
use crate::{ids, text};

/// The type of the message.
const KIND: &str = "org.matrix-agent.echo";

/// Why a message did not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    /// There is no session.
    #[error("it has had no session at its homeserver for {}", text::human_duration(*.0))]
    Away(Duration),
    /// The homeserver does not take a message.
    #[error("it can send nothing: {0}")]
    Unsent(Trouble),
    /// Sending has not ended.
    #[error("the homeserver has not taken a message within {}", text::human_duration(*.0))]
    Slow(Duration),
    /// What was sent was not read.
    #[error("what it has sent did not come back within {}", text::human_duration(*.0))]
    Unread(Duration),
}

/// An account's line to its homeserver. Cheap to clone; all clones are the same line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The SDK's client, while there is a session.
    client: watch::Sender<Option<Client>>,
    /// The last message that came back.
    heard: watch::Sender<String>,
}

impl Default for Line {
    fn default() -> Self {
        Self { client: watch::Sender::new(None), heard: watch::Sender::default() }
    }
}

impl Line {
    /// Notes the client of a session that has begun, or that there is none now.
    pub(super) fn lead_to(&self, client: Option<Client>) {
        self.client.send_replace(client);
    }

    /// Returns the SDK's client, if there is a session now.
    pub(super) fn client(&self) -> Option<Client> {
        self.client.borrow().clone()
    }

    /// Takes what came to the account's device.
    pub(super) fn hear(&self, events: &[ProcessedToDeviceEvent]) {
        for event in events {
            if let Some(word) = echoed(event.to_raw().json().get()) {
                self.heard.send_replace(word);
            }
        }
    }

    /// Sends a message and waits until it was read, no longer than `limit` for all of it.
    ///
    /// # Errors
    ///
    /// Messages do not go both ways now.
    pub(crate) async fn echo(&self, limit: Duration) -> Result<(), Silence> {
        let (word, mut heard) = (ids::random(16), self.heard.subscribe());
        let (mut session, end) = (self.client.subscribe(), Instant::now() + limit);
        let there = time::timeout_at(end, session.wait_for(Option::is_some)).await;
        let client = there.ok().and_then(|there| there.ok()?.clone()).ok_or(Silence::Away(limit))?;
        match time::timeout_at(end, again(|| say(&client, &word))).await {
            Ok(said) => said.map_err(Silence::Unsent)?,
            Err(_) => return Err(Silence::Slow(limit)),
        }
        match time::timeout_at(end, heard.wait_for(|heard| *heard == word)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Silence::Unread(limit)),
        }
    }
}

/// Returns the word of a message of ours; its sender need not be believed, for nobody else knows a word before it has come back.
fn echoed(event: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: String,
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        word: String,
    }
    let event: Event = serde_json::from_str(event).ok()?;
    (event.kind == KIND).then_some(event.content.word)
}

async fn say(client: &Client, word: &str) -> Result<(), Trouble> {
    let (Some(user), Some(device)) = (client.user_id(), client.device_id()) else {
        return Err(Trouble::LoggedOut { soft: false });
    };
    let content = serde_json::value::to_raw_value(&json!({ "word": word }))
        .map_err(|error| Trouble::Lasting(format!("the message cannot be written: {error}")))?;
    let content: Raw<AnyToDeviceEventContent> = Raw::from_json(content);
    let device = BTreeMap::from([(DeviceIdOrAllDevices::DeviceId(device.to_owned()), content)]);
    let messages = BTreeMap::from([(user.to_owned(), device)]);
    let request = Request::new_raw(ToDeviceEventType::from(KIND), OwnedTransactionId::from(word), messages);
    client.send(request).await.map(drop).map_err(Trouble::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_of_this_kind_is_an_echo() {
        let event = |kind: &str, content: &str| echoed(&format!(r#"{{"type": "{kind}", "content": {content}}}"#));
        assert_eq!(event(KIND, r#"{"word": "abc"}"#).as_deref(), Some("abc"));
        assert_eq!(event("m.dummy", r#"{"word": "abc"}"#), None);
        assert_eq!(event(KIND, r#"{"word": 3}"#), None);
        assert_eq!(echoed("{"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_without_a_session_is_not_waited_for_for_ever() {
        let limit = Duration::from_secs(15);
        let silence = Line::default().echo(limit).await.unwrap_err();
        assert!(matches!(silence, Silence::Away(_)) && silence.to_string().contains("no session"), "{silence}");
    }
}
