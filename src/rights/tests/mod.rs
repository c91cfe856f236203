//! Rights over a real store: grants through restarts and jumps of the clock, and who has spoken in a turn.

mod cards;

use std::path::Path;

use serde_json::json;
use tokio::time;

use super::*;
use crate::{
    clock::Clock,
    ids::{BotName, EventId},
    store::{Conversation, Durability, NewInbound},
};

const HOUR: Duration = Duration::from_hours(1);

fn site() -> Repository {
    Repository::parse("acme/site").expect("a repository")
}

fn roles() -> Roles {
    let listed = Listed { users: vec!["ben".into()], admins: vec!["ann".into()] };
    Roles { accounts: [("coder".to_owned(), listed)].into(), local: vec![] }
}

async fn open(folder: &Path, clock: Clock) -> Rights {
    let store = Store::open(&folder.join("db"), Durability::Normal, clock).expect("a store");
    let rights = Rights::new(store, roles());
    rights.load().await.expect("what was granted");
    rights
}

fn here() -> Address {
    Address::of_first("!a:a.org")
}

/// Lets somebody say something, which begins a turn or is taken into it.
async fn say(rights: &Rights, turn: &str, event: &str, who: &str, more: serde_json::Value) {
    let (at, turn, event) = (here(), TurnId::from(turn), EventId::from(event));
    let mut body = json!({"kind": "said", "text": event});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let new = NewInbound { room: at.room.clone(), event: event.clone(), sender: who.into(), body, target: None };
    let store = &rights.inner.store;
    store.admit("coder", vec![new], vec![], None).await.expect("it is admitted");
    let conversation = Conversation { address: at.clone(), bot: BotName::from("coder") };
    if store.is_open(&turn).await.expect("a turn") {
        store.steer_turn(&at, &turn, event, json!({})).await.expect("it is taken");
    } else {
        assert!(store.open_turn(&conversation, &turn, vec![event], json!({})).await.expect("it is opened"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_ends_in_time_through_a_restart_and_however_the_clock_is_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::fixed_at(1_000_000_000);
    let rights = open(folder.path(), clock.clone()).await;
    let (at, read, push) = (here(), Act::Read(site()), Act::Push(site()));
    rights.grant(&at, Subject::Repository(site()), false, "ann", Lasts::For(HOUR)).await.expect("a grant");
    assert!(rights.covers(&at, &read) && !rights.covers(&at, &push), "reading is not writing");
    assert!(!rights.covers(&Address::of_first("!b:a.org"), &read), "another room");
    clock.advance(-10 * 3_600_000);
    time::advance(HOUR / 2).await;
    assert_eq!(rights.granted(&at)[0].1, Some(HOUR / 2), "a clock that is set back lengthens nothing");
    drop(rights);

    // At the next start the clock still lags behind.
    let rights = open(folder.path(), clock.clone()).await;
    assert!(rights.covers(&at, &read));
    time::advance(HOUR).await;
    assert!(!rights.covers(&at, &read), "it has ended");
    rights.load().await.expect("what is granted");
    assert!(rights.granted(&at).is_empty() && rights.inner.store.grants().await.expect("rows").is_empty());
}

#[tokio::test]
async fn grants_are_replaced_and_taken_back_and_a_turns_end_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rights = open(folder.path(), Clock::fixed_at(1_000)).await;
    let (at, host, turn) = (here(), Act::Host("example.org".into()), TurnId::from("t"));
    say(&rights, "t", "e1", "ben", json!({})).await;
    let subject = host.subject().expect("a host");
    let of_turn = || rights.grant(&at, subject.clone(), false, "ann", Lasts::Turn(turn.clone()));
    let turn_is_open = rights.begin(&at, &turn);
    of_turn().await.expect("a grant");
    assert!(rights.covers(&at, &host));
    let after = open(folder.path(), Clock::fixed_at(1_000)).await;
    let _taken_up = after.begin(&at, &turn);
    assert!(after.covers(&at, &host), "the turn is open after a restart, too");
    drop(turn_is_open);
    assert!(!rights.covers(&at, &host));

    rights.grant(&at, Subject::Repository(site()), false, "ann", Lasts::For(HOUR)).await.expect("a grant");
    rights.grant(&at, Subject::Repository(site()), true, "ann", Lasts::Room).await.expect("a grant");
    assert_eq!(rights.granted(&at).len(), 1, "the newer one is in force");
    assert!(rights.covers(&at, &Act::Push(site())));
    assert_eq!(rights.revoke(&at, Some(&Subject::Repository(site()))).await.expect("it is taken back"), 1);
    assert!(!rights.covers(&at, &Act::Read(site())));
}

#[tokio::test]
async fn the_turns_speakers_and_what_its_model_has_read_decide() {
    let folder = tempfile::tempdir().expect("a folder");
    let rights = open(folder.path(), Clock::fixed_at(1_000)).await;
    let (at, comment) = (here(), Act::Comment(site()));
    let decided = async || rights.check(&at, &comment).await.expect("it is decided");
    assert_eq!(decided().await, Decision::Refused(Why::NobodyAsks));

    say(&rights, "t1", "e1", "ann", json!({})).await;
    let first = rights.begin(&at, &TurnId::from("t1"));
    assert_eq!(decided().await, Decision::Allowed, "her own word, and nothing else was read");
    say(&rights, "t1", "e2", "ben", json!({})).await;
    assert_eq!(decided().await, Decision::Ask(Role::Admin), "somebody lesser has spoken since");
    let (read, of_turn) = (Subject::Repository(site()), Lasts::Turn(TurnId::from("t1")));
    rights.grant(&at, read, false, "ann", of_turn).await.expect("a grant");
    assert_eq!(decided().await, Decision::Ask(Role::Admin), "what this work may read is not granted to the room");
    rights.grant(&at, Subject::Repository(site()), false, "ann", Lasts::For(HOUR)).await.expect("a grant");
    assert_eq!(decided().await, Decision::Allowed, "in a repository that is granted, a user's word is enough");
    say(&rights, "t1", "e3", "ben", json!({"about": "$q"})).await;
    assert_eq!(decided().await, Decision::Ask(Role::User), "a quote may be anybody's");
    say(&rights, "t1", "e4", "eve", json!({})).await;
    assert_eq!(decided().await, Decision::Refused(Why::Asker(Role::User)), "a guest");
    drop(first);
    let store = &rights.inner.store;
    store.answer_turn(&at, &TurnId::from("t1"), "done", None, vec![]).await.expect("it is answered");
    assert_eq!(decided().await, Decision::Refused(Why::NobodyAsks));

    say(&rights, "t2", "e5", "ann", json!({})).await;
    let _second = rights.begin(&at, &TurnId::from("t2"));
    assert_eq!(decided().await, Decision::Ask(Role::User), "the model has read the turn before");
}

#[tokio::test]
async fn a_label_is_a_yes_for_its_own_repository_and_makes_nobody_an_administrator() {
    let folder = tempfile::tempdir().expect("a folder");
    let rights = open(folder.path(), Clock::fixed_at(1_000)).await;
    let (at, turn) = (here(), TurnId::from("t"));
    let (pull, other) = (Act::PullRequest(site()), Act::Push(Repository::parse("acme/other").expect("a name")));
    rights.add_task(&at, Task { repository: site(), issue: 12 });
    say(&rights, "t", "e1", "github:ann", json!({})).await;
    let _open = rights.begin(&at, &turn);
    let decided =
        async |act: &Act, for_task| rights.decided(&at, Some(&turn), act, for_task, None).await.expect("it is decided");
    assert_eq!(decided(&pull, true).await, Decision::Allowed);
    assert_eq!(decided(&pull, false).await, Decision::Ask(Role::Admin), "another branch");
    assert_eq!(decided(&other, true).await, Decision::Ask(Role::Admin), "another repository");
    say(&rights, "t", "e2", "ann", json!({})).await;
    for act in [Act::Grant, Act::SelfUpdate] {
        assert_eq!(decided(&act, true).await, Decision::Refused(Why::Asker(Role::Admin)));
    }
    say(&rights, "t", "e3", "eve", json!({})).await;
    assert_eq!(decided(&pull, true).await, Decision::Refused(Why::Asker(Role::User)), "a guest takes part");
}
