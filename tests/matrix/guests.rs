//! Guests: whoever is in a room that is public in the registry may begin sessions anew there, and is not heard otherwise.

use serde_json::json;

use crate::support::{bot::Town, person::Person, replies::Reply, synapse::Limits};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_resets_public_rooms_from_public_rooms_and_is_air_otherwise() {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        let folder = rig.path().join("lab");
        std::fs::create_dir(&folder).unwrap();
        rig.set("LOCALBOT_DIR", folder.to_str().unwrap());
    })
    .await;
    town.llm.otherwise(|_| Reply::text("I see."));
    let carl = Person::new(&town.synapse, "carl").await;
    let (public, private) = (town.room(false).await, town.room(false).await);
    for room in [&public, &private] {
        town.anna.invite(room, &carl.id).await;
        carl.accept(room).await;
        town.anna.joined(room, &carl.id).await;
    }
    let room = |name: &str, public: bool| json!({"agentId": "coder/coder", "roomName": name, "publicReset": public});
    let rooms = json!({"rooms": {public.as_str(): room("llmlab", true), private.as_str(): room("planning", false)}});
    std::fs::write(town.rig.path().join("lab/localbot-rooms.json"), rooms.to_string()).unwrap();

    let asked = town.anna.say(&public, "keep the lighthouse in mind").await;
    town.anna.answer_to(&asked).await;
    // None of this is heard: not in the private room, no other command, no work, and no invitation.
    let own = carl.create_room(false, &[&town.bot]).await;
    carl.say(&private, "/lbn llmlab").await;
    for words in ["/lbe", "!lbs", "hello there", "!stop", "!new", "/lbn llmlab\nand then work"] {
        carl.say(&public, words).await;
    }
    let usage = carl.say(&public, "!lbn").await;
    assert_eq!(carl.answer_to(&usage).await.body(), "Usage: /lbn <room>\n\nRooms: `llmlab`", "he sees the public ones");
    let refused = carl.say(&public, "/lbn planning").await;
    assert_eq!(carl.answer_to(&refused).await.body(), "❌ Only authorized users can reset this room");
    let reset = carl.say(&public, "/lbn llmlab").await;
    let told = carl.answer_to(&reset).await;
    assert!(told.body().starts_with("✅ LocalBot session reset (llmlab)\n   Cleared "), "{}", told.body());
    // What was written down before the reset is deleted with the session, so that this shows what is kept.
    for words in ["hello again", "!help", "/lbs"] {
        carl.say(&public, words).await;
    }
    let allowed = town.anna.say(&private, "/lbn planning").await;
    assert!(town.anna.answer_to(&allowed).await.body().contains("session reset (planning)"));

    let asked = town.anna.say(&public, "what did I tell you?").await;
    town.anna.answer_to(&asked).await;
    assert_eq!(town.llm.requests().len(), 2, "nothing of his was work");
    let last = town.llm.requests().pop().unwrap().to_string();
    assert!(!last.contains("lighthouse") && !last.contains("hello"), "{last}");
    let replies =
        carl.events().into_iter().filter(|event| event.sender == town.bot && event.body().contains("/lb")).count();
    assert_eq!(replies, 1, "the usage, once");
    assert!(carl.room(&own).joined_members_count() < 2, "his invitation was declined");
    let journal = rusqlite::Connection::open(town.rig.database()).unwrap();
    let mut of_his = journal.prepare("SELECT body FROM inbound WHERE sender = ?1").unwrap();
    let of_his: Vec<String> = of_his.query_map([&carl.id], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(
        !of_his.is_empty() && of_his.iter().all(|body| body.contains("lbn ")),
        "nothing else is written down: {of_his:?}"
    );
}
