//! An account whose files are gone, each or several: a new device in its place, and people see who it is.

use std::fs;

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
