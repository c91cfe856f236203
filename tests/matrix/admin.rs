//! Who runs the server looks after it, from a room and from the command line.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{bot::Town, person::Person, replies::Reply, synapse::Limits};

impl Town {
    /// Runs `matrix-agent admin …` beside the server; returns its JSON and its exit code.
    fn admin(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.rig.run(&[&["admin", "--json"], arguments].concat());
        (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_what_runs_ends_it_and_lets_nothing_new_begin() {
    let town = Town::prepared(Limits::Relaxed, |rig| rig.set("ALLOWED_USERS", "@*:localhost")).await;
    let ben = Person::new(&town.synapse, "ben").await;
    let (room, other) = (town.room(false).await, town.room(false).await);
    town.anna.invite(&room, &ben.id).await;
    ben.accept(&room).await;
    let gate = Arc::new(Notify::new());
    town.llm.when("for ever").after(&gate).reply_text("Never said.");
    town.llm.otherwise(|_| Reply::text("Here it is."));

    let refused = ben.say(&room, "!admin rooms").await;
    let told = ben.answer_to(&refused).await;
    assert!(told.body().contains("Only the administrators"), "{told:?}");
    assert!(town.told(&other, "!admin").await.contains("!admin drain"));
    assert!(town.told(&other, "!admin frobnicate").await.contains("!admin drain"));

    town.anna.state(&room, "m.room.name", "", json!({"name": "The new site"})).await;
    let asked = town.anna.say(&room, "work for ever").await;
    town.llm.arrived(1).await;
    let rooms = town.told(&other, "!admin rooms").await;
    let first = rooms.lines().next().unwrap().to_owned();
    assert!(first.contains("The new site") && first.contains(room.as_str()) && first.contains("works for"), "{rooms}");
    assert!(town.told(&other, "!admin status").await.contains("1 running"));
    let (status, code) = town.admin(&["status"]);
    assert_eq!((&status["running"], &status["draining"], code), (&1.into(), &false.into(), 0), "{status:#}");
    assert_eq!(status["accounts"][0], "coder");

    // Nothing new begins, in whichever room; what is said waits.
    assert!(town.told(&other, "!admin drain").await.contains("One turn runs still"));
    let waits = town.anna.say(&other, "wait for it").await;
    town.anna.wait_after(&waits, "its place", |event| event.body().contains("no work begins just now")).await;
    let (drained, code) = town.admin(&["drain", "--wait", "1"]);
    assert_eq!((&drained["running"], code), (&1.into(), 1), "it runs still: {drained:#}");

    let named = town.told(&other, "!admin stop !nowhere:localhost").await;
    assert!(named.contains("There is no room"), "{named}");
    let named = town.told(&other, "!admin stop !").await;
    assert!(named.contains("Several rooms"), "{named}");
    assert!(town.told(&other, "!admin stop The new site").await.contains("is being ended"));
    assert!(town.replies(&asked).await.body().contains("Stopped"));
    let (drained, code) = town.admin(&["drain", "--wait", "20"]);
    assert_eq!((&drained["running"], code), (&0.into(), 0), "{drained:#}");
    assert_eq!(town.llm.requests().len(), 1, "what waits has not begun");
    let (_, code) = town.admin(&["drain", "--off"]);
    assert_eq!(code, 0);
    town.anna.answer_to(&waits).await;

    assert!(town.told(&room, "!grant acme/site 2h").await.contains("acme/site"));
    let grants = town.told(&other, "!admin grants").await;
    assert!(grants.contains(room.as_str()) && grants.contains("acme/site"), "{grants}");
    assert!(town.told(&other, "!admin budget").await.contains(other.as_str()));
    let (allowed, _) = town.admin(&["budget", room.as_str(), "0.5M"]);
    assert_eq!(allowed["limit"], 500_000, "{allowed:#}");
    assert!(town.told(&room, "!budget").await.contains("500k"));
    assert!(town.told(&other, "!admin logs").await.contains("an administrator ends a turn"));
    let logs = String::from_utf8(town.rig.run(&["admin", "logs"]).stdout).unwrap();
    assert!(logs.contains("an administrator ends a turn") && !logs.contains("for ever"), "{logs}");
    let missing = town.rig.run(&["admin", "stop", "!nowhere:localhost"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("There is no room"));
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    let rig = crate::support::rig::Rig::new(crate::support::rig::BARE, "http://127.0.0.1:9/v1");
    for arguments in [&["admin", "status"][..], &["admin", "logs"], &["admin", "drain", "--wait", "1"]] {
        let output = rig.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("No server runs here"), "{said}");
    }
}
