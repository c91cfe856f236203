//! Several accounts in one room: each has a sandbox of its own, and none takes another's away.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use matrix_agent::{
    clock::Clock,
    hub::{Keeper, Retention},
    ids::Address,
    pictures::Gallery,
    sandbox::Sandboxes,
    store::{Durability, Store},
};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::house::{House, LIMIT, podman, sh};

/// The same room as another account knows it.
fn of(account: &str, room: &Address) -> Address {
    Address { account: account.into(), ..room.clone() }
}

async fn listed(fleet: &Sandboxes) -> Vec<Address> {
    fleet.list().await.unwrap().into_iter().map(|sandbox| sandbox.address).collect()
}

/// The files of a kind below a folder of the state directory.
fn files(house: &House, folder: &str, ending: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(house.options.state_dir.join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == ending)).collect()
}

fn label(container: &str, name: &str) -> String {
    podman(&["inspect", "--format", &format!("{{{{index .Config.Labels \"{name}\"}}}}"), container]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_in_one_room_have_sandboxes_of_their_own() {
    let house = House::new();
    let fleet = house.open().await;
    let coder = house.room("shared");
    let talk = of("talk", &coder);
    let (ours, theirs) = (fleet.ensure(&coder).await.unwrap(), fleet.ensure(&talk).await.unwrap());
    sh(&ours, "echo coder > /workspace/who").await;
    assert_eq!(sh(&theirs, "ls /workspace").await, "");
    sh(&theirs, "echo talk > /workspace/who").await;
    let name = |list: &[matrix_agent::sandbox::SandboxSummary], whose: &Address| {
        list.iter().find(|sandbox| sandbox.address == *whose).unwrap().name.clone()
    };
    let list = fleet.list().await.unwrap();
    let (own, other) = (name(&list, &coder), name(&list, &talk));
    assert_eq!(own, format!("sandbox-shared-{}", house.options.instance));
    assert_eq!(other, format!("sandbox-talk-shared-{}", house.options.instance));
    assert_eq!(
        (label(&own, "matrix-agent.room"), label(&own, "matrix-agent.account")),
        (coder.room.0.clone(), String::new())
    );
    assert_eq!(
        (label(&other, "matrix-agent.room"), label(&other, "matrix-agent.account")),
        (coder.room.0.clone(), "talk".into())
    );
    assert_eq!(files(&house, "workspaces", "json").len(), 2, "a record each");
    assert_eq!(files(&house, "rooms", "name").len(), 2, "a socket each");

    // The next server finds both, each with its files, and keeps apart what it finds.
    let boots = [ours.boot_id().to_owned(), theirs.boot_id().to_owned()];
    fleet.shutdown().await;
    drop((ours, theirs, fleet));
    let fleet = house.open().await;
    let (ours, theirs) = (fleet.ensure(&coder).await.unwrap(), fleet.ensure(&talk).await.unwrap());
    assert_eq!([ours.boot_id(), theirs.boot_id()], [&*boots[0], &*boots[1]]);
    assert_eq!((sh(&ours, "cat who").await, sh(&theirs, "cat who").await), ("coder".into(), "talk".into()));
    assert_eq!(fleet.observe(&talk).await.unwrap().container, other);

    fleet.keep_only([coder.clone(), talk.clone()]).await;
    fleet.reconcile().await.unwrap();
    assert_eq!(listed(&fleet).await, [coder.clone(), talk.clone()], "the union keeps both");
    fleet.remove(&coder, true).await.unwrap();
    assert_eq!(listed(&fleet).await, std::slice::from_ref(&talk));
    assert_eq!(sh(&theirs, "cat who").await, "talk");
    let ours = fleet.ensure(&coder).await.unwrap();
    assert_eq!(sh(&ours, "ls").await, "", "what was removed was its own");
    fleet.keep_only([coder.clone()]).await;
    assert_eq!(listed(&fleet).await, [coder], "what no account keeps goes, whoever else is in the room");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_sandbox_is_told_to_its_account() {
    let house = House::new();
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let coder = house.room("told");
    let talk = of("talk", &coder);
    fleet.ensure(&talk).await.unwrap();
    let theirs = files(&house, "workspaces", "ext4").pop_first().unwrap();
    fleet.ensure(&coder).await.unwrap();
    fleet.remove(&talk, false).await.unwrap();
    fs::remove_file(theirs).unwrap();
    fleet.ensure(&talk).await.unwrap();
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == talk && notice.text.contains("the files of this room are gone"), "{notice:?}");
    assert!(fleet.take_loss(&coder).await.is_none() && fleet.take_loss(&talk).await.is_some());
    assert!(notices.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_set_up_no_more_keeps_its_sandboxes() {
    let house = House::new();
    let fleet = house.open().await;
    let served = house.room("known");
    let (former, unknown) = (of("former", &served), of("unknown", &served));
    for room in [&served, &former, &unknown] {
        fleet.ensure(room).await.unwrap();
    }
    let store = Store::open(&house.directory.path().join("db"), Durability::Normal, Clock::default()).unwrap();
    for room in [&served, &former] {
        store.join(room, &room.room, &"joined".into(), None).await.unwrap();
    }
    // No hub of any account runs: that a sandbox is somebody's stands in the store.
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let retention = Retention { files: Duration::from_hours(1), rows: Duration::from_hours(1) };
    let gallery = Gallery::new(house.directory.path().join("pictures"));
    let keeper = Keeper::start(store, Some(fleet.clone()), gallery, retention, tasks.clone(), cancel.clone());
    let keeper = keeper.await.unwrap();
    let gone = async {
        while listed(&fleet).await.contains(&unknown) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("what nobody has ever heard of goes");
    fleet.reconcile().await.unwrap();
    assert_eq!(listed(&fleet).await, [served, former]);
    drop(keeper);
    cancel.cancel();
    tasks.close();
    timeout(LIMIT, tasks.wait()).await.expect("all tasks end");
}
