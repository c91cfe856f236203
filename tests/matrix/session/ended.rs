//! A homeserver that is away, and one that ends the session.

use reqwest::Method;
use serde_json::json;

use super::{rig_at, saved, times, until};
use crate::support::{
    bot::Town,
    person::Person,
    scripted_llm::ScriptedLlm,
    synapse::{Limits, Synapse, password},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_away_at_the_start_is_waited_for() {
    let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
    synapse.account("bot").await;
    let anna = Person::new(&synapse, "anna").await;
    synapse.stop().await;
    let rig = rig_at(synapse.url(), &llm);
    let server = Some(tokio::task::block_in_place(|| rig.serve()));
    let mut town = Town { synapse, llm, rig, server, bot: "@bot:localhost".into(), anna };
    town.answers_all();
    let away = "there is no session yet; it is tried again error=the homeserver cannot be reached";
    until("the log's word", || times(&town.log(), away) == 1);
    let doctor = tokio::task::block_in_place(|| town.rig.run(&["doctor"]));
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(told.lines().any(|line| line.starts_with("❌ homeserver") && line.contains("cannot be reached")), "{told}");
    assert!(told.lines().any(|line| line.starts_with("✅ account") && line.contains("logs in at the first")), "{told}");

    town.synapse.restart().await;
    let room = town.room(false).await;
    town.is_answered(&room, false).await;
    assert_eq!(times(&town.log(), "there is no session yet"), 1, "one line, however often it was tried");

    // With a session too, and through what a proxy says meanwhile.
    town.kill();
    town.synapse.stop().await;
    town.serve();
    until("the log's word", || town.log().contains("messages cannot be read now; it is tried again"));
    town.synapse.restart().await;
    town.is_answered(&room, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_homeserver_ends_is_followed_by_a_new_one() {
    let mut town = Town::start().await;
    town.answers_all();
    let room = town.room(true).await;
    town.is_answered(&room, true).await;
    let identity = town.identity().await;
    let (bot, mut device) = (town.bot.clone(), town.device());
    for (method, path, body) in [
        (Method::DELETE, format!("/_synapse/admin/v2/users/{bot}/devices/{device}"), json!({})),
        (
            Method::POST,
            format!("/_synapse/admin/v1/reset_password/{bot}"),
            json!({"new_password": password("bot"), "logout_devices": true}),
        ),
    ] {
        town.synapse.admin(method, &path, body).await;
        until("a new device", || town.device() != device && saved(&town.rig)["ready"] == true);
        device = town.device();
        town.known_to_anna(&device).await;
        town.is_answered(&room, true).await;
        assert_eq!(town.devices().await, std::slice::from_ref(&device));
        assert_eq!(town.identity().await, identity);
    }
    assert_eq!(times(&town.log(), "the homeserver has ended the session"), 2);

    // Without a password nobody can log in.
    town.kill();
    town.rig.set("MATRIX_PASSWORD", "");
    town.serve();
    town.is_answered(&room, true).await;
    town.synapse.admin(Method::DELETE, &format!("/_synapse/admin/v2/users/{bot}/devices/{device}"), json!({})).await;
    let mut server = town.server.take().unwrap();
    let status = tokio::task::block_in_place(|| server.died());
    assert_eq!(status.code(), Some(1), "{}", server.log());
    let said = server.log().lines().last().unwrap().to_owned();
    assert!(said.starts_with("error: ") && said.contains("has to log in, and MATRIX_PASSWORD is not set"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_run_out_is_replaced_and_the_device_stays() {
    let town = Town::start().await;
    town.answers_all();
    let room = town.room(true).await;
    town.is_answered(&room, true).await;
    let before = saved(&town.rig);
    // The homeserver looks at a token's time by itself, but remembers what it has looked at until it is started again.
    town.synapse.stop().await;
    let run_out = "UPDATE access_tokens SET valid_until_ms = 1 WHERE user_id = '@bot:localhost'";
    assert_eq!(town.synapse.sql(run_out), 1);
    town.synapse.restart().await;
    town.is_answered(&room, true).await;
    assert_eq!(times(&town.log(), "the homeserver has ended the session"), 1);
    let after = saved(&town.rig);
    assert_ne!(after["access_token"], before["access_token"]);
    assert_eq!(after["device_id"], before["device_id"]);
    assert!(!town.log().contains("put aside"), "{}", town.log());
}
