//! An account whose files are gone, each or several: a new device in its place, and people see who it is.

use std::{fs, sync::Arc};

use tokio::sync::Notify;

use super::{RECOVERY, SESSION, STORE, killed::killed, state, text, times, until};
use crate::support::{bot::Town, seen::Seen};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_made_up_for_by_the_recovery_key() {
    let mut town = Town::start().await;
    town.answers_all();
    let (sealed, open) = (town.room(true).await, town.room(false).await);
    town.is_answered(&sealed, true).await;
    let (device, identity) = (town.device(), town.identity().await);
    until("the keys of the room in the backup", || {
        times(&town.synapse.log(), "PUT /_matrix/client/v3/room_keys/keys") > 0
    });

    town.kill();
    fs::remove_dir_all(state(&town.rig).join(STORE)).unwrap();
    let asked = [town.anna.say(&sealed, "And now?").await, town.anna.say(&open, "And now?").await];
    // Also when the one that makes up for it is killed when it is nearly done.
    let log = killed(&mut town.rig, "settled");
    assert_eq!(times(&log, "the recovery key has signed the new device"), 1, "{log}");
    town.serve();
    town.has_answered(&asked[1], false).await;
    // Its key comes from the copy on the homeserver, which anybody there can write: nobody vouches for who has made it.
    let refused = |event: &Seen| event.kind == "m.reaction" && event.target() == asked[0] && event.sender == town.bot;
    town.anna.wait_for("the refusal", refused).await;
    let fresh = town.device();
    assert_ne!(fresh, device);
    assert_eq!(town.devices().await, [fresh], "the lost device is removed");
    assert_eq!((town.identity().await, identity.1), (identity, false));
    town.is_answered(&sealed, true).await;
    assert_eq!(times(&town.log(), "new identity"), 0);

    // The session's file alone: the device cannot be known any more.
    town.kill();
    fs::remove_file(state(&town.rig).join(SESSION)).unwrap();
    let asked = town.anna.say(&open, "And now?").await;
    killed(&mut town.rig, "settled");
    town.serve();
    town.has_answered(&asked, false).await;
    town.known_to_anna(&town.device()).await;
    town.is_answered(&sealed, true).await;
    assert_eq!(times(&town.log(), "new identity"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_recovery_key_is_replaced_and_with_the_store_gone_too_there_is_a_new_identity() {
    let mut town = Town::start().await;
    town.answers_all();
    let room = town.room(true).await;
    town.is_answered(&room, true).await;
    let (device, identity) = (town.device(), town.identity().await);

    town.kill();
    fs::remove_file(state(&town.rig).join(RECOVERY)).unwrap();
    town.serve();
    assert!(!text(&town.rig, RECOVERY).is_empty());
    assert_eq!((town.device(), town.identity().await), (device, identity.clone()));

    town.kill();
    fs::remove_dir_all(state(&town.rig).join(STORE)).unwrap();
    fs::write(state(&town.rig).join(RECOVERY), "EsT1 this fits nothing").unwrap();
    // The new identity is there, and its recovery key is not kept yet.
    let log = killed(&mut town.rig, "recoverable");
    assert_eq!(times(&log, "the account has a new identity"), 1, "{log}");
    town.serve();
    town.known_to_anna(&town.device()).await;
    assert_ne!(town.identity().await.0, identity.0);
    town.is_answered(&room, true).await;

    // And that one's key works, whichever of the databases is lost.
    town.kill();
    fs::remove_file(state(&town.rig).join(STORE).join("matrix-sdk-crypto.sqlite3")).unwrap();
    let identity = town.identity().await;
    town.serve();
    town.known_to_anna(&town.device()).await;
    assert_eq!(town.identity().await, identity);
    town.is_answered(&room, true).await;
    assert_eq!(times(&town.log(), "the account has a new identity"), 0);
}

/// A machine is lost and comes back from a backup, made while a question was being answered.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_after_a_backup_is_not_answered_twice() {
    let mut town = Town::start().await;
    let (sealed, open) = (town.room(true).await, town.room(false).await);
    let backup = town.rig.path().join("backup.db");
    let database = town.rig.database();
    let gate = Arc::new(Notify::new());
    town.llm.matching(|_| true).after(&gate).reply_text("It is here.");
    town.answers_all();
    let during = town.anna.say(&open, "Asked before the backup?").await;
    town.llm.arrived(1).await;
    rusqlite::Connection::open(&database).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    gate.notify_one();
    town.has_answered(&during, false).await;
    let after = [town.anna.say(&open, "And after it?").await, town.anna.say(&sealed, "And here?").await];
    town.has_answered(&after[0], false).await;
    town.has_answered(&after[1], true).await;

    town.kill();
    for gone in ["matrix-agent.db", "matrix-agent.db-wal", "matrix-agent.db-shm", SESSION] {
        fs::remove_file(state(&town.rig).join(gone)).unwrap();
    }
    fs::remove_dir_all(state(&town.rig).join(STORE)).unwrap();
    fs::copy(&backup, &database).unwrap();
    fs::write(state(&town.rig).join("matrix-agent.db.restored"), "").unwrap();
    let asked_so_far = town.llm.requests().len();
    let missed = town.anna.say(&open, "Asked while it was away?").await;
    town.serve();
    town.has_answered(&missed, false).await;
    until("all of it was worked on again", || town.llm.requests().len() >= asked_so_far + 3);
    town.is_answered(&open, false).await;
    town.is_answered(&sealed, true).await;
    let answers = |question: &str| {
        let is_one = |event: &&Seen| event.is_message() && event.msgtype() == "m.text" && event.reply_to() == question;
        town.anna.events().iter().filter(is_one).count()
    };
    for question in [&during, &after[0], &after[1], &missed] {
        assert_eq!(answers(question), 1, "{question}");
    }
}
