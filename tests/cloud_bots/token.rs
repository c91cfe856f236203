//! A session that begins by a token: what a later token of the same account changes, and what one that is refused does.

use matrix_sdk::ruma::UserId;

use super::{support::rig::LIMIT, *};

#[tokio::test(flavor = "multi_thread")]
async fn another_token_of_the_account_goes_on_with_its_rooms_and_answers_nothing_twice() {
    let mut place = Place::new().await;
    place.answers_all();
    let room = place.room(true).await;
    let bot = place.bot("llama", &room).await;
    place.serve();
    place.invite(&room, &bot).await;
    place.is_answered(&room, "llama", true).await;
    let session = place.rig.path().join("s/secrets/matrix-cloud-llama-session.json");
    let device = || serde_json::from_slice::<Value>(&fs::read(&session).unwrap()).unwrap()["device_id"].clone();
    let before = device();

    let token = place.token("llama").await;
    place.write("llama", &format!("{}BOT_TOKEN={token}\n", place.settings(&bot, room.as_str())));
    tokio::task::block_in_place(|| wait("the new session", || session.exists() && device() != before));
    place.served("llama");
    known_to(&place.anna, &bot, device().as_str().unwrap()).await;
    place.is_answered(&room, "llama", true).await;
    assert_eq!(place.llm.requests().len(), 2, "nothing is answered twice");
}

/// Waits until somebody's client encrypts for a device.
async fn known_to(person: &Person, user: &str, device: &str) {
    let (user, device) = (UserId::parse(user).unwrap(), device.into());
    let encryption = person.client.encryption();
    let learns = async {
        while !encryption.get_device(&user, device).await.unwrap().is_some_and(|it| it.is_cross_signed_by_owner()) {
            encryption.request_user_identity(&user).await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, learns).await.expect("the device is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_told_once_and_another_one_is_taken_at_once() {
    let mut place = Place::new().await;
    place.answers_all();
    let room = place.room(false).await;
    let user = place.synapse.account("llama").await;
    let token = place.token("llama").await;
    place.write("llama", &format!("{}BOT_TOKEN={token}\n", place.settings(&user, room.as_str())));
    place.serve();
    place.invite(&room, &user).await;
    place.is_answered(&room, "llama", false).await;

    let (status, _) =
        place.synapse.call(Method::POST, "/_matrix/client/v3/logout", Some(&token), Some(json!({}))).await;
    assert_eq!(status, 200);
    let told = "the homeserver does not take the token of @llama:localhost";
    tokio::task::block_in_place(|| wait("the refusal", || place.log().contains(told)));
    assert_eq!(place.status("llama")["served"], false);
    let doctor = tokio::task::block_in_place(|| place.rig.run(&["doctor"]));
    assert!(out(&doctor).contains(told) && out(&doctor).contains("cloud-bot-llama.env"), "{}", out(&doctor));

    let asked = place.anna.say(&room, "@llama are you back?").await;
    let token = place.token("llama").await;
    place.write("llama", &format!("{}BOT_TOKEN={token}\n", place.settings(&user, room.as_str())));
    let answer = place.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It is here."), "what was said meanwhile is answered: {answer:?}");
    assert_eq!(place.log().matches(told).count(), 1, "{}", place.log());
}
