//! Requests to verify somebody: one for the bot is cancelled with a reason, those for others are theirs, and none is
//! answered as a message.

use std::collections::BTreeMap;

use matrix_sdk::ruma::{
    UserId,
    api::client::to_device::send_event_to_device::v3::Request,
    events::{
        AnyToDeviceEventContent, ToDeviceEventType, key::verification::cancel::ToDeviceKeyVerificationCancelEvent,
    },
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use crate::support::{bot::Town, person::Person, rig::LIMIT, seen::Seen};

fn request(from: &Person, to: &str) -> Value {
    json!({
        "msgtype": "m.key.verification.request", "body": "Please verify me", "to": to,
        "from_device": from.client.device_id().unwrap(), "methods": ["m.sas.v1", "m.qr_code.show.v1", "m.reciprocate.v1"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_of_the_bot_is_cancelled_with_a_reason_and_that_of_others_is_left_alone() {
    let town = Town::start().await;
    let (anna, carl) = (&town.anna, Person::new(&town.synapse, "carl").await);
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        anna.invite(&room, &carl.id).await;
        carl.accept(&room).await;
        anna.joined(&room, &carl.id).await;

        let others = anna.send(&room, "m.room.message", request(anna, &carl.id)).await;
        let relation = json!({"rel_type": "m.reference", "event_id": others});
        for kind in ["ready", "start", "accept", "key", "mac", "done", "cancel"] {
            let content = json!({"m.relates_to": relation, "from_device": "X", "code": "m.user", "reason": "no"});
            anna.send(&room, &format!("m.key.verification.{kind}"), content).await;
        }
        carl.send(&room, "m.room.message", request(&carl, &town.bot)).await;
        let asked = anna.send(&room, "m.room.message", request(anna, &town.bot)).await;
        let cancels = |seen: &Seen| seen.kind == "m.key.verification.cancel" && seen.sender == town.bot;
        let cancelled = anna.wait_after(&asked, "the cancellation", cancels).await;
        assert_eq!(cancelled.content["m.relates_to"], json!({"rel_type": "m.reference", "event_id": asked}));
        assert_eq!(cancelled.content["code"], "m.user");
        assert!(cancelled.content["reason"].as_str().unwrap().contains("program"), "{cancelled:?}");

        let said = town.said_since(&room, &others).await;
        assert!(said.is_empty(), "nothing is said about any of it: {said:#?}");
        let here = anna.events().into_iter().filter(|seen| seen.room == room);
        assert_eq!(here.filter(cancels).count(), 1, "nor is what others have asked for cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_the_bots_device_gets_a_reason_too() {
    let town = Town::start().await;
    town.room(false).await;
    let (tell, mut cancelled) = mpsc::unbounded_channel();
    town.anna.client.add_event_handler(move |event: ToDeviceKeyVerificationCancelEvent| {
        let _ = tell.send(event);
        std::future::ready(())
    });
    let content = json!({
        "from_device": town.anna.client.device_id().unwrap(), "methods": ["m.sas.v1"], "transaction_id": "flow-1",
        "timestamp": matrix_agent::clock::Clock::default().millis(),
    });
    let content: Raw<AnyToDeviceEventContent> = Raw::new(&content).unwrap().cast_unchecked();
    let to = BTreeMap::from([(DeviceIdOrAllDevices::AllDevices, content)]);
    let messages = BTreeMap::from([(UserId::parse(&town.bot).unwrap(), to)]);
    let kind = ToDeviceEventType::from("m.key.verification.request");
    town.anna.client.send(Request::new_raw(kind, "one".into(), messages)).await.unwrap();
    let event = timeout(LIMIT, cancelled.recv()).await.expect("the cancellation").unwrap();
    assert_eq!((event.sender.as_str(), event.content.transaction_id.as_str()), (&*town.bot, "flow-1"));
    assert!(event.content.reason.contains("program"), "{event:?}");
}
