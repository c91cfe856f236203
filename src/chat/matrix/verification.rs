//! Requests to verify the bot, in a room or between devices. A program cannot compare emoji with anybody, so each
//! request to it is cancelled at once with a reason, instead of leaving a person with a window that waits for ten
//! minutes. Verifications between other people are ignored.

use std::{collections::BTreeMap, time::Duration};

use matrix_sdk::{
    Client, Room,
    deserialized_responses::{ProcessedToDeviceEvent, TimelineEvent},
    ruma::{
        DeviceId, OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId,
        api::client::to_device::send_event_to_device::v3::Request,
        events::{AnyToDeviceEventContent, ToDeviceEventType},
        serde::Raw,
        to_device::DeviceIdOrAllDevices,
    },
};
use serde_json::{Value, json};

use super::{Adapter, rooms::again, scheduler::Failed, send::send_kind, trouble::Trouble};
use crate::{bots::Policies, ids, strings};

const REQUEST: &str = "m.key.verification.request";
/// How older clients begin a verification, without a request.
const START: &str = "m.key.verification.start";
const CANCEL: &str = "m.key.verification.cancel";
/// The age at which clients give up a request by themselves.
const FRESH: Duration = Duration::from_mins(10);

/// Cancels the requests to the bot in a room.
pub(super) fn in_room<'a>(adapter: &Adapter, room: &Room, timeline: impl Iterator<Item = &'a TimelineEvent>) {
    let now = adapter.hub.clock().millis();
    for event in timeline {
        let Ok(event) = serde_json::from_str::<Value>(event.raw().json().get()) else { continue };
        let Some(id) = asked_in_room(room.own_user_id(), adapter.hub.policies(), &event, now) else { continue };
        tracing::info!(event = id, "a request to verify the bot is cancelled");
        let content = cancel(json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": id } }));
        let (room, txn) = (room.clone(), ids::digest(&[room.room_id().as_str(), id, CANCEL], 16));
        adapter.spawn(async move {
            let sent = again(|| async {
                send_kind(&room, CANCEL, Some(&txn), content.clone()).await.map_err(|failed| match failed {
                    Failed::Limited(wait) => Trouble::Limited(wait),
                    Failed::Other(trouble) => trouble,
                })
            });
            log_failure(sent.await.map(drop));
        });
    }
}

/// Cancels the requests of other devices to the bot's.
pub(super) fn by_device(adapter: &Adapter, client: &Client, events: &[ProcessedToDeviceEvent]) {
    let Some(own) = client.user_id() else { return };
    for event in events {
        let Ok(event) = serde_json::from_str::<Value>(event.to_raw().json().get()) else { continue };
        let Some(asked) = asked_by_device(own, client.device_id(), adapter.hub.policies(), &event) else { continue };
        tracing::info!(user = %asked.user, device = %asked.device, "a request to verify the bot's device is cancelled");
        let content = cancel(json!({ "transaction_id": asked.flow }));
        let Ok(content) = serde_json::value::to_raw_value(&content) else { continue };
        let content: Raw<AnyToDeviceEventContent> = Raw::from_json(content);
        let device = BTreeMap::from([(DeviceIdOrAllDevices::DeviceId(asked.device), content)]);
        let messages = BTreeMap::from([(asked.user, device)]);
        let txn = OwnedTransactionId::from(ids::digest(&[&asked.flow, CANCEL], 16));
        let client = client.clone();
        adapter.spawn(async move {
            let sent = again(|| async {
                let request = Request::new_raw(ToDeviceEventType::from(CANCEL), txn.clone(), messages.clone());
                client.send(request).await.map_err(Trouble::from)
            });
            log_failure(sent.await.map(drop));
        });
    }
}

fn log_failure(sent: Result<(), Trouble>) {
    if let Err(trouble) = sent {
        tracing::warn!(%trouble, "a verification could not be cancelled; it ends by itself");
    }
}

fn cancel(mut content: Value) -> Value {
    content["code"] = "m.user".into();
    content["reason"] = strings::rooms::CANNOT_VERIFY.into();
    content
}

/// Returns the id of an event in which somebody whom the bot hears asks it for a verification.
fn asked_in_room<'a>(own: &UserId, policies: &Policies, event: &'a Value, now: i64) -> Option<&'a str> {
    let content = &event["content"];
    let asks = event["type"] == "m.room.message" && content["msgtype"] == REQUEST && content["to"] == own.as_str();
    let sender: OwnedUserId = event["sender"].as_str()?.try_into().ok()?;
    let age = now.saturating_sub(event["origin_server_ts"].as_i64()?);
    let counts = sender != own && policies.hears(sender.as_str()) && age < FRESH.as_millis() as i64;
    event["event_id"].as_str().filter(|_| asks && counts)
}

/// A request from another device.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    user: OwnedUserId,
    device: OwnedDeviceId,
    flow: String,
}

/// Returns the request of a device of the bot's own account, or of somebody whom the bot hears.
fn asked_by_device(own: &UserId, own_device: Option<&DeviceId>, policies: &Policies, event: &Value) -> Option<Asked> {
    let content = &event["content"];
    let user: OwnedUserId = event["sender"].as_str()?.try_into().ok()?;
    let device = OwnedDeviceId::from(content["from_device"].as_str()?);
    let flow = content["transaction_id"].as_str()?.to_owned();
    let own_other = user == own && own_device.is_some_and(|own| own != device);
    let begins = [REQUEST, START].iter().any(|kind| event["type"] == *kind);
    let asks = begins && (own_other || user != own && policies.hears(user.as_str()));
    asks.then_some(Asked { user, device, flow })
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{device_id, user_id};

    use super::*;
    use crate::bots::{People, Places, Policy};

    fn policies() -> Policies {
        Policies::new([Policy::new(People::Listed(vec!["@anna:a.org".into()]), Places::Anywhere)])
    }

    #[test]
    fn only_what_a_listed_person_has_just_asked_of_the_bot_itself_is_answered() {
        let asked = |sender: &str, to: &str, age: i64| {
            let event = json!({"type": "m.room.message", "sender": sender, "event_id": "$v", "origin_server_ts": 1_000_000,
                "content": {"msgtype": REQUEST, "to": to, "from_device": "D", "methods": ["m.sas.v1"], "body": "x"}});
            asked_in_room(user_id!("@bot:a.org"), &policies(), &event, 1_000_000 + age).is_some()
        };
        assert!(asked("@anna:a.org", "@bot:a.org", 0) && asked("@anna:a.org", "@bot:a.org", -5_000));
        assert!(!asked("@anna:a.org", "@carl:a.org", 0), "one for somebody else");
        assert!(!asked("@carl:a.org", "@bot:a.org", 0), "one of somebody who is not listed");
        assert!(!asked("@bot:a.org", "@bot:a.org", 0), "the bot's own");
        assert!(!asked("@anna:a.org", "@bot:a.org", 600_000), "one that has ended by itself");
        let said = json!({"type": "m.room.message", "sender": "@anna:a.org", "event_id": "$v", "origin_server_ts": 0,
            "content": {"msgtype": "m.text", "to": "@bot:a.org", "body": "x"}});
        assert_eq!(asked_in_room(user_id!("@bot:a.org"), &policies(), &said, 0), None);
    }

    #[test]
    fn a_device_that_asks_is_answered_if_its_owner_may_and_never_the_bots_own() {
        let asked = |sender: &str, device: &str, kind: &str| {
            let event = json!({"type": kind, "sender": sender, "content": {
                "from_device": device, "transaction_id": "t", "methods": ["m.sas.v1"], "timestamp": 1}});
            let own = (user_id!("@bot:a.org"), Some(device_id!("OWN")));
            asked_by_device(own.0, own.1, &policies(), &event).map(|asked| asked.device.to_string())
        };
        assert_eq!(asked("@anna:a.org", "PHONE", REQUEST).as_deref(), Some("PHONE"));
        assert_eq!(asked("@bot:a.org", "OTHER", REQUEST).as_deref(), Some("OTHER"));
        assert_eq!(asked("@anna:a.org", "PHONE", START).as_deref(), Some("PHONE"), "it waits for us like a request");
        for (sender, device, kind) in [
            ("@bot:a.org", "OWN", REQUEST),
            ("@carl:a.org", "PHONE", REQUEST),
            ("@anna:a.org", "PHONE", "m.key.verification.key"),
            ("anna", "PHONE", REQUEST),
        ] {
            assert_eq!(asked(sender, device, kind), None, "{sender} {device} {kind}");
        }
    }
}
