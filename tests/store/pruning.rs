//! What nobody needs any more goes, what is needed stays, and what was taken once is known for ever.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use matrix_agent::{
    clock::Clock,
    ids::{Address, EventId, TurnId},
    store::{Durability, LockedInbound, Sealed, Size, Store},
};
use rusqlite::Connection;
use serde_json::json;

use super::{DAY, KEEP, Rig, answer, of, open, rig};

const TABLES: [&str; 5] = ["messages", "calls", "inbound", "turns", "outbox"];

#[tokio::test]
async fn what_a_compaction_hides_goes_when_it_is_old_and_what_is_shown_stays() {
    let rig = rig();
    rig.whole_turn("coder", "hidden").await;
    rig.store.replace_context(&of("coder", &rig.at), vec![json!("summary")]).await.unwrap();
    rig.whole_turn("coder", "shown").await;
    rig.days_pass(29).await;
    assert_eq!(rig.rows(TABLES), [6, 2, 2, 2, 2], "nothing is old");
    let before = rig.store.history(&of("coder", &rig.at)).await.unwrap();
    rig.whole_turn("coder", "young").await;
    rig.store.replace_context(&of("coder", &rig.at), vec![json!("summary"), json!("more")]).await.unwrap();
    rig.days_pass(2).await;
    // All before the second compaction is hidden; what is old of that goes.
    assert_eq!(rig.rows(TABLES), [3, 1, 1, 1, 1]);
    assert_eq!(before.len(), 4);
    assert_eq!(rig.store.history(&of("coder", &rig.at)).await.unwrap().len(), 2);
    assert_eq!(rig.store.homes_in_use().await.unwrap(), std::slice::from_ref(&rig.at));
}

#[tokio::test]
async fn a_long_conversation_that_was_never_compacted_stays_whole_and_its_events_are_known() {
    let rig = rig();
    rig.whole_turn("coder", "old").await;
    rig.days_pass(400).await;
    assert_eq!(rig.rows(TABLES), [3, 1, 0, 0, 0]);
    let history = rig.store.history(&of("coder", &rig.at)).await.unwrap();
    assert_eq!((history.len(), history[1].calls[0].ended.as_ref().unwrap().text.as_str()), (3, "ok"));
    assert_eq!(rig.say("old").await, [], "what comes again is not answered again");
}

#[tokio::test]
async fn an_open_turn_loses_nothing_however_old_and_hidden_it_is() {
    let rig = rig();
    rig.say("e1").await;
    rig.open_turn("e1", "t1").await;
    rig.store.append_message(&rig.at, &"t1".into(), json!("line")).await.unwrap();
    rig.store.replace_context(&of("coder", &rig.at), vec![json!("summary")]).await.unwrap();
    rig.days_pass(100).await;
    assert_eq!(rig.store.turn_history(&rig.at, &"t1".into()).await.unwrap().len(), 2);
    rig.store.replace_context(&of("coder", &rig.at), vec![]).await.unwrap();
    rig.store.finish_forgetting().await.unwrap();
    assert_eq!(rig.store.turn_history(&rig.at, &"t1".into()).await.unwrap().len(), 2);
    assert_eq!(rig.store.claimed(&"t1".into()).await.unwrap().len(), 1);
    // It goes once it has ended.
    rig.store.answer_turn(&rig.at, &"t1".into(), "done", None, vec![answer("x1")]).await.unwrap();
    let row = rig.store.next_unsent(&rig.at).await.unwrap().unwrap();
    rig.store.sent(row.seq, &"sent".into()).await.unwrap();
    rig.store.finish_forgetting().await.unwrap();
    assert_eq!(rig.rows(["messages", "inbound", "turns", "forgotten"]), [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_new_conversation_deletes_the_bots_old_one_and_no_other() {
    let rig = rig();
    rig.whole_turn("coder", "mine").await;
    rig.whole_turn("cloud", "its").await;
    rig.say("new").await;
    rig.store.replace_context(&of("coder", &rig.at), vec![]).await.unwrap();
    rig.store.reply(&rig.at, vec!["new".into()], vec![answer("reply")]).await.unwrap();
    assert_eq!(rig.store.history(&of("coder", &rig.at)).await.unwrap(), [], "at once");
    rig.store.append_message(&rig.at, &"next".into(), json!("later")).await.unwrap();
    tokio::time::timeout(KEEP, rig.store.something_forgotten()).await.expect("it is told");
    let rooms = rig.store.finish_forgetting().await.unwrap();
    assert_eq!(rooms.into_iter().collect::<Vec<_>>(), std::slice::from_ref(&rig.at));
    // The order itself and its reply are what somebody at a terminal may still ask for.
    assert_eq!(rig.rows(TABLES), [4, 1, 2, 1, 2]);
    assert_eq!(rig.rows(["forgotten"]), [0]);
    assert_eq!(rig.store.history(&of("cloud", &rig.at)).await.unwrap().len(), 3);
    assert_eq!(rig.store.history(&of("coder", &rig.at)).await.unwrap().len(), 1);
    assert_eq!((rig.say("mine").await, rig.say("its").await), (vec![], vec![]), "known for ever");
}

#[tokio::test]
async fn a_room_that_was_left_loses_all_and_its_events_stay_known() {
    let rig = rig();
    rig.whole_turn("coder", "one").await;
    rig.whole_turn("cloud", "two").await;
    rig.say("waits").await;
    let locked =
        LockedInbound { room: rig.at.room.clone(), event: "locked".into(), sender: "anna".into(), body: json!({}) };
    rig.store.admit("coder", vec![], vec![locked.clone()], None).await.unwrap();
    rig.store.leave(&rig.at, &rig.at.room).await.unwrap();
    assert!(rig.store.clear_room(&rig.at, &rig.at.room).await.unwrap());
    assert_eq!(rig.store.history(&of("coder", &rig.at)).await.unwrap(), [], "at once");
    // A kill in between: the rest goes after the next start.
    let Rig { folder, store, at } = rig;
    drop(store);
    let rig = Rig { store: open(&folder), folder, at };
    rig.store.finish_forgetting().await.unwrap();
    assert_eq!(rig.rows(TABLES), [0; 5]);
    assert_eq!(rig.rows(["locked", "forgotten", "contexts"]), [0; 3]);
    rig.store.forget_room("coder", &rig.at.room).await.unwrap();
    assert_eq!(rig.store.homes_in_use().await.unwrap(), []);
    for event in ["one", "two", "waits", "locked"] {
        assert_eq!(rig.say(event).await, [], "{event}");
    }
    assert_eq!(rig.store.admit("coder", vec![], vec![locked], None).await.unwrap(), []);
}

#[tokio::test]
async fn what_could_not_be_read_for_a_month_is_given_up() {
    let rig = rig();
    let locked =
        LockedInbound { room: rig.at.room.clone(), event: "locked".into(), sender: "anna".into(), body: json!({}) };
    rig.store.admit("coder", vec![], vec![locked], None).await.unwrap();
    // As an older version has written it: its month begins when it is first looked at.
    Connection::open(rig.folder.path().join("db")).unwrap().execute("UPDATE locked SET received = NULL", []).unwrap();
    rig.days_pass(40).await;
    assert_eq!(rig.rows(["locked"]), [1]);
    rig.days_pass(31).await;
    assert_eq!((rig.rows(["locked"]), rig.say("locked").await), ([0], vec![]));
}

#[tokio::test]
async fn ciphertexts_become_bits_and_none_is_taken_twice() {
    let rig = rig();
    let take = |event: &str, place| {
        let (store, event) = (rig.store.clone(), EventId::from(event));
        let sealed = Sealed { session: "session".into(), place };
        async move { store.take_ciphertexts("coder", vec![(event, sealed)]).await.unwrap().len() }
    };
    let places = [0, 1, 7, 8, 99, 4095, 4096, u32::MAX];
    for place in places {
        assert_eq!(take(&format!("e{place}"), place).await, 0);
        rig.whole_turn("coder", &format!("e{place}")).await;
    }
    // Taken, but a crash came before the journal took it.
    assert_eq!(take("lost", 50).await, 0);
    rig.days_pass(29).await;
    assert_eq!(rig.rows(["ciphertexts", "places"]), [9, 0]);
    assert_eq!(take("lost", 50).await, 0);
    rig.days_pass(2).await;
    assert_eq!(rig.rows(["ciphertexts", "places"]), [0, 3]);
    for place in places {
        assert_eq!(take("another", place).await, 1, "{place}");
        assert_eq!(take(&format!("e{place}"), place).await, 0, "the same event again is no replay");
    }
    assert_eq!((take("another", 2).await, take("third", 100).await), (0, 0), "those were never taken");
}

#[tokio::test]
async fn a_database_of_an_older_version_is_pruned_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../fixtures/upgrade/schema-5.sql")).unwrap();
    // A compaction has hidden the first turn. Of another, long gone, two lines are left, and a call without a line.
    old.execute_batch(
        "UPDATE messages SET seq = seq + 10;
         INSERT INTO messages VALUES (1, 'coder', 'terminal:old', 'gone', '{}'), (2, 'coder', 'terminal:old', 'gone', '{}');
         INSERT INTO calls VALUES ('gone-1', 'gone', 2, 0, 'boot', 1, 2, 'ok', '{}');
         INSERT INTO calls VALUES ('lost-1', 'lost', 999, 0, 'boot', 1, 2, 'ok', '{}');
         INSERT INTO contexts VALUES ('coder', 'terminal:old', 12, '[\"summary\"]');
         INSERT INTO ciphertexts VALUES ('coder', 'session', 3, '2e0e59b7db16758ed6a58b4a');",
    )
    .unwrap();
    drop(old);
    let opened = 1_795_962_680_912;
    let store = Store::open(&path, Durability::Normal, Clock::fixed_at(opened + DAY)).unwrap();
    let rig = Rig { folder, store, at: Address { account: "coder".into(), room: "terminal:old".into() } };
    rig.store.prune(KEEP).await.unwrap();
    assert_eq!(rig.rows(TABLES), [3, 0, 2, 2, 2], "what says no time is older than all");
    rig.days_pass(40).await;
    // The open turn keeps its line and its event.
    assert_eq!(rig.rows(TABLES), [1, 0, 1, 1, 0]);
    assert_eq!(rig.store.open_turns(&rig.at).await.unwrap().len(), 1);
    let again = Sealed { session: "session".into(), place: 3 };
    assert_eq!(rig.store.take_ciphertexts("coder", vec![("other".into(), again)]).await.unwrap().len(), 1);
    assert_eq!(rig.say("2e0e59b7db16758ed6a58b4a").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_write_while_much_is_pruned_and_the_file_gets_small_again() {
    let rig = rig();
    let body = "x".repeat(4_000);
    for turn in 0..40 {
        let turn = TurnId(format!("t{turn}"));
        rig.say(turn.as_str()).await;
        rig.open_turn(turn.as_str(), turn.as_str()).await;
        for _ in 0..50 {
            rig.store.append_message(&rig.at, &turn, json!({"text": body})).await.unwrap();
        }
        rig.store.answer_turn(&rig.at, &turn, "done", None, vec![answer(turn.as_str())]).await.unwrap();
        let row = rig.store.next_unsent(&rig.at).await.unwrap().unwrap();
        rig.store.sent(row.seq, &"sent".into()).await.unwrap();
    }
    rig.store.replace_context(&of("coder", &rig.at), vec![]).await.unwrap();
    let (over, store) = (Arc::new(AtomicBool::new(false)), rig.store.clone());
    let writer = tokio::spawn({
        let over = over.clone();
        async move {
            let mut written = 0_u32;
            while !over.load(Ordering::Relaxed) {
                store.note("coder", "key", "value").await.unwrap();
                written += 1;
            }
            written
        }
    });
    rig.store.finish_forgetting().await.unwrap();
    over.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    // Two thousand rows and their pages go in dozens of steps.
    assert!(written > 100, "{written}");
    assert_eq!(rig.rows(TABLES), [0; 5]);
    let size = Size::of(&rig.folder.path().join("db")).unwrap();
    assert!(size.file < 3_000_000, "{size:?}");
}
