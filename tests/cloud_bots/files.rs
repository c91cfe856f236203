//! Bots come, begin anew and go by their files and by `cloud-bot`, while the others answer.

use std::{os::unix::fs::MetadataExt, sync::Arc};

use matrix_sdk::{attachment::AttachmentConfig, ruma::events::room::message::TextMessageEventContent};
use tokio::sync::Notify;

use super::{support::scripted_llm::user_texts, *};

/// A picture of one point.
const POINT: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\nIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_added_before_the_first_start_is_served() {
    let mut place = Place::new().await;
    place.answers_all();
    let state = place.rig.path().join("s");
    fs::remove_dir_all(&state).or_else(|error| if state.exists() { Err(error) } else { Ok(()) }).unwrap();
    let room = place.room(true).await;
    let added = place.cloud_bot(&["add", "llama"], &place.settings("@llama:localhost", room.as_str()));
    assert!(added.status.success(), "{}", out(&added));
    assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o700);
    place.serve();
    place.served("llama");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_closed_homeserver_a_bot_is_added_with_its_account_beside_a_running_server() {
    let mut place = Place::new().await;
    place.answers_all();
    place.serve();
    assert!(place.log().contains("only the cloud bots are served"), "{}", place.log());
    let template = place.rig.path().join("s/secrets/cloud-bot-example.env.template");
    assert!(place.log().contains("cloud-bot-example.env.template") && template.exists());
    assert_eq!(template.metadata().unwrap().mode() & 0o7777, 0o600);

    let room = place.room(true).await;
    let added = place.cloud_bot(&["add", "llama"], &place.settings("@llama:localhost", room.as_str()));
    assert!(added.status.success(), "{}", out(&added));
    assert!(out(&added).contains("The account @llama:localhost is made."), "{}", out(&added));
    assert_eq!(place.file("llama").metadata().unwrap().mode() & 0o7777, 0o600);
    let path = "/_synapse/admin/v1/users/@llama:localhost/override_ratelimit";
    let lifted = place.synapse.admin(Method::GET, path, json!({})).await;
    assert_eq!(lifted, json!({"messages_per_second": 0, "burst_count": 0}));

    place.served("llama");
    place.invite(&room, "@llama:localhost").await;
    place.is_answered(&room, "llama", true).await;
    assert_eq!(place.llm.headers(1)["authorization"], "Bearer sk-of-the-bot");

    // A second time it is there already, and nothing is overwritten.
    let before = fs::read(place.file("llama")).unwrap();
    let again = place.cloud_bot(&["add", "llama"], &place.settings("@llama:localhost", room.as_str()));
    assert!(!again.status.success() && out(&again).contains("exists already"), "{}", out(&again));
    assert_eq!(fs::read(place.file("llama")).unwrap(), before);

    // Its lines are in its log, and no secret is.
    let logs = out(&place.cloud_bot(&["logs", "llama"], ""));
    assert!(logs.contains("messages are read"), "{logs}");
    let token = String::from_utf8(before).unwrap();
    let token = token.lines().find_map(|line| line.strip_prefix("BOT_TOKEN = ")).unwrap();
    assert!(!place.log().contains(token) && !place.log().contains("sk-of-the-bot"));

    let removed = place.cloud_bot(&["remove", "llama", "--yes"], "");
    assert!(removed.status.success() && out(&removed).contains("is logged out"), "{}", out(&removed));
    assert!(!place.file("llama").exists() && !place.rig.path().join("s/matrix/cloud-llama").exists());
    let who = "/_matrix/client/v3/account/whoami";
    assert_eq!(place.synapse.call(Method::GET, who, Some(token), None).await.0, 401, "its token is void");
    assert_eq!(place.status("llama"), Value::Null);

    // Nobody knows its password any more, and its account is a bot's.
    let added = place.cloud_bot(&["add", "llama"], &place.settings("@llama:localhost", room.as_str()));
    assert!(added.status.success(), "{}", out(&added));
    place.served("llama");
    place.is_answered(&room, "llama", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_bot_leaves_nothing_behind() {
    let place = Place::new().await;
    let settings = place.settings("@llama:localhost", "none");
    for (name, settings, told) in [
        ("llama", settings.replace("sk-of-the-bot", "your-api-key"), "LLM_API_KEY"),
        ("llama", format!("{settings}SHOE_SIZE=42\n"), "line 6 is no setting"),
        ("llama", settings.replace("LLM_MODEL=tiny\n", ""), "LLM_MODEL: it is not set."),
        ("../llama", settings.clone(), "cannot name a bot"),
        // Of another server there is nobody who could make it.
        ("llama", settings.replace(":localhost", ":elsewhere.org"), "BOT_PASSWORD is not among the settings"),
    ] {
        let output = place.cloud_bot(&["add", name], &settings);
        assert!(!output.status.success() && out(&output).contains(told), "{told}: {}", out(&output));
        assert!(!place.file("llama").exists());
    }
    let path = "/_synapse/admin/v2/users/@llama:localhost";
    let (status, _) = place.synapse.call(Method::GET, path, Some("none"), None).await;
    assert_ne!(status, 200, "no account was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_no_other_bot_away_and_one_begins_anew_while_the_other_answers() {
    let mut place = Place::new().await;
    place.answers_all();
    let (one, two) = (place.room(false).await, place.room(false).await);
    let (llama, qwen) = (place.bot("llama", &one).await, place.bot("qwen", &two).await);
    place.write("broken", "BOT_TOKEN=x\nLLM_TEMPERATURE=warm\n");
    let mismatch = place.token("qwen").await;
    place.synapse.account("other").await;
    place.write("other", &format!("{}BOT_TOKEN={mismatch}\n", place.settings("@other:localhost", one.as_str())));
    place.serve();
    let told = "BOT_TOKEN in cloud-bot-other.env is a token of @qwen:localhost, and BOT_MXID in cloud-bot-other.env is @other:localhost";
    tokio::task::block_in_place(|| wait("that the other is told", || place.log().contains(told)));
    let log = place.log();
    assert!(log.contains("LLM_TEMPERATURE (cloud-bot-broken.env:2)") && log.contains("it is not served"), "{log}");
    assert!(!log.contains(&mismatch), "no token is logged");
    place.invite(&one, &llama).await;
    place.invite(&two, &qwen).await;
    place.is_answered(&one, "llama", false).await;
    place.is_answered(&two, "qwen", false).await;
    let status = place.cloud_bot(&["status"], "");
    assert!(!status.status.success() && out(&status).contains("cloud-bot-broken.env"), "{}", out(&status));

    // Qwen's answer is under way while llama begins anew.
    let gate = Arc::new(Notify::new());
    place.llm.when("slowly").after(&gate).reply_text("It came at last.");
    let asked = place.anna.say(&two, "@qwen slowly, please").await;
    place.llm.arrived(3).await;
    let restarted = place.cloud_bot(&["restart", "llama"], "");
    assert!(place.log().contains("the bot begins anew"), "{}", out(&restarted));
    place.served("llama");
    place.is_answered(&one, "llama", false).await;
    gate.notify_one();
    let answer = place.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It came at last."), "{answer:?}");

    // The mended file is taken up by itself.
    let token = place.token("other").await;
    place.write("other", &format!("{}BOT_TOKEN={token}\n", place.settings("@other:localhost", one.as_str())));
    place.served("other");
}

#[tokio::test(flavor = "multi_thread")]
async fn mentioned_in_a_room_that_is_not_its_any_more_it_leaves() {
    let mut place = Place::new().await;
    place.answers_all();
    let (one, two) = (place.room(false).await, place.room(false).await);
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    let text = |place: &Place, rooms: &str| format!("{}BOT_TOKEN={token}\n", place.settings(&user, rooms));
    place.write("llama", &text(&place, &format!("{one},{two}")));
    place.serve();
    for room in [&one, &two] {
        place.invite(room, &user).await;
        place.is_answered(room, "llama", false).await;
    }
    place.write("llama", &text(&place, one.as_str()));
    tokio::task::block_in_place(|| wait("the bot begins anew", || place.log().contains("the bot begins anew")));
    place.served("llama");
    place.anna.say(&two, "nothing for anybody").await;
    place.is_answered(&one, "llama", false).await;
    let left = |it: &Seen| it.room == two && it.raw["state_key"] == *user && it.content["membership"] == "leave";
    assert!(!place.anna.events().iter().any(left), "nobody has called it there");
    place.anna.say(&two, "@llama are you still here?").await;
    place.anna.member(&two, &user, "leave").await;
    assert_eq!(place.llm.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_taken_off_its_list_during_an_answer_gets_none() {
    let mut place = Place::new().await;
    let gate = Arc::new(Notify::new());
    place.llm.when("slowly").after(&gate).reply_text("This comes too late.");
    place.answers_all();
    let (room, other) = (place.room(false).await, place.room(false).await);
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    let write = |rooms: &str| place.write("llama", &format!("{}BOT_TOKEN={token}\n", place.settings(&user, rooms)));
    write(&format!("{room},{other}"));
    place.serve();
    place.invite(&room, &user).await;
    place.invite(&other, &user).await;
    place.anna.say(&room, "@llama answer slowly").await;
    place.llm.arrived(1).await;
    // This waits behind it.
    let second = place.anna.say(&room, "@llama and slowly again").await;
    let journal = rusqlite::Connection::open(place.rig.database()).unwrap();
    let heard = || {
        let count = "SELECT count(*) FROM inbound WHERE event = ?1";
        journal.query_row(count, [&second], |row| row.get::<_, i64>(0)).is_ok_and(|count| count == 1)
    };
    tokio::task::block_in_place(|| wait("the second question", heard));
    let write = |rooms: &str| place.write("llama", &format!("{}BOT_TOKEN={token}\n", place.settings(&user, rooms)));
    write(other.as_str());
    let told = || place.log().matches("does not work in this room any more").count() == 2;
    tokio::task::block_in_place(|| wait("the end of both questions", told));
    place.is_answered(&other, "llama", false).await;
    let asked: Vec<_> = place.llm.requests().iter().flat_map(user_texts).collect();
    assert_eq!(asked.iter().filter(|text| text.contains("slowly")).count(), 1, "{asked:?}");
    let shown = place.anna.shown(&room);
    assert!(!shown.iter().any(|it| it.sender == user && it.body.contains("too late")), "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_goes_to_a_model_that_sees_with_the_question_below_it() {
    let mut place = Place::new().await;
    place.answers_all();
    let room = place.room(true).await;
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    let seeing = place.settings(&user, room.as_str()).replace("LLM_MODEL=tiny", "LLM_MODEL=gpt-4-vision");
    place.write("llama", &format!("{seeing}BOT_TOKEN={token}\n"));
    place.serve();
    place.invite(&room, &user).await;
    let caption = TextMessageEventContent::plain("@llama what is this?");
    let (config, kind) = (AttachmentConfig::new().caption(Some(caption)), "image/png".parse().unwrap());
    let there = place.anna.room(&room);
    let sent = there.send_attachment("point.png", &kind, POINT.to_vec(), config);
    let asked = sent.await.unwrap().event_id.to_string();
    let answer = place.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It is here."), "{answer:?}");
    let request = &place.llm.requests()[0];
    let parts = request["messages"].as_array().unwrap().last().unwrap()["content"].as_array().unwrap();
    let picture = parts.iter().find_map(|part| part["image_url"]["url"].as_str()).expect("a picture");
    assert!(picture.starts_with("data:image/"), "{picture}");
    assert!(parts.iter().any(|part| part["text"].as_str().is_some_and(|text| text.contains("what is this?"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_may_think_with_a_model_of_the_registry_whose_key_may_change() {
    let mut place = Place::new().await;
    place.answers_all();
    place.llm.lists(&["tiny"]);
    let folder = place.rig.path().join("lab");
    fs::create_dir(&folder).unwrap();
    place.rig.set("LOCALBOT_DIR", folder.to_str().unwrap());
    let key = |key: &str| {
        let path = folder.join("key");
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        file.unwrap().write_all(key.as_bytes()).unwrap();
    };
    key("sk-first");
    let url = place.llm.base_url().trim_end_matches("/v1");
    let lab = json!({"id": "lab", "type": "vllm", "url": url, "apiKeyFile": folder.join("key")});
    fs::write(folder.join("inference-endpoints.json"), json!({"endpoints": [lab]}).to_string()).unwrap();
    let room = place.room(false).await;
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    place
        .write("llama", &format!("BOT_TOKEN={token}\nBOT_MXID={user}\nLLM_MODEL=localbot/lab\nALLOWED_ROOMS={room}\n"));
    place.serve();
    place.invite(&room, &user).await;
    let answer = place.is_answered(&room, "llama", false).await;
    assert!(answer.body().contains("localbot/lab"), "{answer:?}");
    let sent = |place: &Place, request| place.llm.headers(request)["authorization"].to_str().unwrap().to_owned();
    assert_eq!((sent(&place, 1), &place.llm.requests()[0]["model"]), ("Bearer sk-first".to_owned(), &json!("tiny")));
    key("sk-second");
    place.is_answered(&room, "llama", false).await;
    assert_eq!(sent(&place, 2), "Bearer sk-second");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_bot_whose_file_is_refused_leaves_no_session_behind() {
    let mut place = Place::new().await;
    place.answers_all();
    let room = place.room(false).await;
    let user = place.bot("llama", &room).await;
    place.serve();
    place.invite(&room, &user).await;
    place.is_answered(&room, "llama", false).await;
    let session = place.rig.path().join("s/secrets/matrix-cloud-llama-session.json");
    assert!(session.exists());
    place.server.take();
    place.write("llama", "LLM_TEMPERATURE=warm\n");
    let removed = place.cloud_bot(&["remove", "llama", "--yes"], "");
    assert!(removed.status.success() && out(&removed).contains("log it out with another client"), "{}", out(&removed));
    assert!(!place.file("llama").exists() && !session.exists(), "{}", out(&removed));
    assert!(!place.rig.path().join("s/matrix/cloud-llama").exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as the watchdog waits at least: `cargo nextest run --test cloud_bots --run-ignored only`"]
async fn a_stream_of_which_nothing_comes_is_begun_anew() {
    let mut place = Place::new().await;
    place.answers_all();
    let proxy = support::proxy::Proxy::before(&mut place.rig);
    let room = place.room(false).await;
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    let text = format!("{}BOT_TOKEN={token}\nSYNC_WATCHDOG_S=45\n", place.settings(&user, room.as_str()));
    place.write("llama", &text);
    place.serve();
    place.invite(&room, &user).await;
    place.is_answered(&room, "llama", false).await;
    let mut held = false;
    proxy.rule(move |asked| {
        let holds = asked.is_sync() && !std::mem::replace(&mut held, true);
        holds.then(|| support::proxy::Fault::Held(Arc::default()))
    });
    // Until the request that is under way has ended, its answer comes.
    place.is_answered(&room, "llama", false).await;
    let asked = place.anna.say(&room, "@llama are you still here?").await;
    tokio::task::block_in_place(|| {
        wait("a new stream", || place.log().contains("the stream is begun anew"));
    });
    let answer = place.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It is here."), "{answer:?}");
}
