//! Homeservers that limit the bot, and events that no program expects.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    proxy::{Fault, Proxy},
    replies::Reply,
    synapse::Limits,
};

#[tokio::test(flavor = "multi_thread")]
async fn three_rooms_at_work_under_the_limits_of_an_unmodified_synapse_get_all_their_answers() {
    let mut proxy = None;
    let town = Town::prepared(Limits::Default, |rig| proxy = Some(Proxy::before(rig))).await;
    let proxy = proxy.unwrap();
    // How many sends were refused, and how many came before the homeserver wanted to be asked again.
    let pauses = Arc::new(Mutex::new((0, 0)));
    let (counted, pause) = (pauses.clone(), Arc::new(Mutex::new(None::<(Instant, Duration)>)));
    proxy.rule(move |asked| {
        if !asked.is_send() {
            return None;
        }
        // What was under way when the refusal came is not meant.
        let since = pause.lock().unwrap().map(|(since, pause)| (since.elapsed(), pause));
        if since.is_some_and(|(since, pause)| since > Duration::from_millis(500) && since < pause) {
            counted.lock().unwrap().1 += 1;
        }
        let (counted, pause) = (counted.clone(), pause.clone());
        Some(Fault::change(move |answer| {
            if let Some(millis) = answer["retry_after_ms"].as_u64() {
                counted.lock().unwrap().0 += 1;
                *pause.lock().unwrap() = Some((Instant::now(), Duration::from_millis(millis)));
            }
        }))
    });
    let lines = json!({"command": "for n in 1 2 3 4; do echo line $n; sleep 0.5; done"});
    let mut rooms = Vec::new();
    for n in 0..3 {
        town.llm
            .when(&format!("work-{n}"))
            .reply_calls(&[("run_command", lines.clone())])
            .reply_text(&format!("Done with work-{n}."));
        rooms.push(town.room(false).await);
    }
    let mut asked = Vec::new();
    for (n, room) in rooms.iter().enumerate() {
        asked.push(town.anna.say(room, &format!("work-{n}")).await);
    }
    for (room, asked) in rooms.iter().zip(&asked) {
        town.anna.wait_for("the answer", |event| event.reply_to() == asked).await;
        town.anna
            .shows(room, "the end of the progress message", |shown| shown.iter().any(|it| it.body.contains("✓ done")))
            .await;
    }
    for (n, room) in rooms.iter().enumerate() {
        let shown: Vec<_> = town.anna.shown(room).into_iter().filter(|it| it.sender == town.bot).collect();
        assert_eq!(shown.len(), 3, "a greeting, a progress message, an answer: {shown:#?}");
        // A progress message that was refused may come after the answer: answers go first.
        let answers = shown.iter().filter(|it| it.body.contains(&format!("Done with work-{n}."))).count();
        assert_eq!(answers, 1, "{shown:#?}");
    }
    let (refused, early) = *pauses.lock().unwrap();
    assert!(refused > 0 && early == 0, "{refused} refusals, {early} sends before the time");
}

/// Events that no homeserver should hand out.
fn nonsense(room: &str) -> Vec<Value> {
    let whole = |more: Value| {
        let mut event = json!({"type": "m.room.message", "sender": "@anna:localhost", "event_id": "$nonsense",
            "origin_server_ts": 1, "content": {"msgtype": "m.text", "body": "say-nonsense"}});
        for (key, value) in more.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    };
    let without = |key: &str| {
        let mut event = whole(json!({}));
        event.as_object_mut().unwrap().remove(key);
        event
    };
    vec![
        without("type"),
        without("sender"),
        without("event_id"),
        without("content"),
        json!({}),
        whole(json!({"type": 7})),
        whole(json!({"sender": [room]})),
        whole(json!({"sender": "anna"})),
        whole(json!({"event_id": {"a": 1}})),
        whole(json!({"event_id": "$n1", "origin_server_ts": "yesterday", "content": []})),
        whole(json!({"event_id": "$n2", "content": null})),
        whole(json!({"event_id": "$n3", "content": {"msgtype": 3, "body": {"a": []}}})),
        whole(json!({"event_id": "$n4", "content": {"msgtype": "m.text", "body": 4, "m.relates_to": 5}})),
        whole(json!({"event_id": "$n5", "type": "m.room.encrypted", "content": {"algorithm": 1}})),
        whole(json!({"event_id": "$n6", "type": "m.room.member", "state_key": 3, "content": {"membership": []}})),
        whole(json!({"event_id": "$n7", "type": "m.room.member", "state_key": "nobody", "content": {}})),
        whole(json!({"event_id": "$n8", "type": "m.room.power_levels", "state_key": "", "content": {"users": 1}})),
        whole(
            json!({"event_id": "$n9", "type": "m.room.tombstone", "state_key": "", "content": {"replacement_room": 0}}),
        ),
        whole(json!({"event_id": "$n10", "type": "m.room.redaction", "redacts": 1, "content": {}})),
        whole(json!({"event_id": "$n11", "type": "m.reaction", "content": {"m.relates_to": {"key": []}}})),
        whole(json!({"event_id": "$n12", "type": "m.room.encryption", "state_key": "", "content": 0})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_full_of_nonsense_goes_on_working() {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Here."));
    let room = town.room(false).await;

    // What Synapse takes.
    town.anna.state(&room, "org.example.large", "", json!({"text": "x".repeat(60_000)})).await;
    let asked = town.anna.say(&room, "are you here?").await;
    town.anna.wait_for("the answer", |event| event.reply_to() == asked).await;

    // What it does not: each event alone, before a question in the same answer.
    for (n, event) in nonsense(room.as_str()).into_iter().enumerate() {
        let (here, told) = (room.to_string(), event.to_string());
        let question = format!("question-{n}");
        let wanted = question.clone();
        proxy.change_syncs(move |sync| {
            let events = sync.pointer_mut(&format!("/rooms/join/{here}/timeline/events"));
            let Some(events) = events.and_then(Value::as_array_mut) else { return };
            if events.iter().any(|event| event["content"]["body"] == wanted.as_str()) {
                events.insert(0, event.clone());
            }
        });
        let asked = town.anna.say(&room, &question).await;
        let answer = town.anna.wait_for(&format!("the answer after {told}"), |event| event.reply_to() == asked).await;
        assert!(answer.body().contains("Here."), "after {told}: {answer:?}");
    }
    proxy.heal();

    // A version of rooms that came after the program, with all that a sync tells of the room.
    let next = town.anna.create_room(false, &[]).await;
    let here = next.to_string();
    proxy.change_syncs(move |sync| {
        let Some(room) = sync.pointer_mut(&format!("/rooms/join/{here}")) else { return };
        for part in ["timeline", "state"] {
            for event in room[part]["events"].as_array_mut().into_iter().flatten() {
                if event["type"] == "m.room.create" {
                    event["content"]["room_version"] = "org.example.99".into();
                    event["content"]["creator"] = 99.into();
                }
            }
        }
    });
    town.anna.invite(&next, &town.bot).await;
    town.greeted(&next).await;
    let asked = town.anna.say(&next, "and here?").await;
    town.anna.wait_for("the answer", |event| event.reply_to() == asked).await;
}
