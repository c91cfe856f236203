//! An account's hub with a protocol that nobody has written yet, in this process: what the hub asks of one, and what it
//! makes of bots that fail.

use std::{sync::Arc, time::Duration};

use matrix_agent::{
    bots::{Addressed, Bot, Intent, People},
    clock::Clock,
    hub::{
        Account, AccountHub, Body, Delivery, Ending, Features, Inbound, Inbox, Keeper, Live, Outbound, Port, Retention,
        Rooms, Sent,
    },
    ids::EventId,
    pictures::Gallery,
    store::{Durability, Store},
};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::small::Small;

pub(super) const NO_FEATURES: Features =
    Features { edits: false, files: false, threads: false, reactions: false, rooms: false };
const LIMIT: Duration = Duration::from_secs(20);

/// A hub of one account, and the protocol's end.
pub(super) struct Desk {
    pub(super) hub: AccountHub,
    pub(super) inbox: Inbox,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Desk {
    async fn open(folder: &tempfile::TempDir, bots: impl FnOnce(&Store) -> Vec<Arc<dyn Bot>>) -> Self {
        Self::with(folder, NO_FEATURES, |store, _| bots(&store)).await
    }

    /// A desk at which the protocol can do this.
    pub(super) async fn with(
        folder: &tempfile::TempDir,
        features: Features,
        bots: impl FnOnce(Store, Gallery) -> Vec<Arc<dyn Bot>>,
    ) -> Self {
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let hour = Duration::from_hours(1);
        let retention = Retention { files: hour, rows: hour };
        let gallery = Gallery::new(folder.path().join("pictures"));
        let bots = bots(store.clone(), gallery.clone());
        let keeper =
            Keeper::start(store.clone(), None, gallery, retention, tasks.clone(), cancel.clone()).await.unwrap();
        let (port, inbox) = Port::new(Rooms { prefix: "talk/", local: false, features }, 16);
        let account = Account { name: "talk".into(), bots, ports: vec![port], rights: None };
        let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await.unwrap();
        Self { hub, inbox, cancel, tasks }
    }

    pub(super) async fn say(&self, sender: &str, event: &str, text: &str) {
        self.say_in(None, sender, event, text).await;
    }

    pub(super) async fn say_in(&self, thread: Option<&str>, sender: &str, event: &str, text: &str) {
        let (text, addressed) = (text.to_owned(), Addressed::default());
        let body = Body::Said { text, thread: thread.map(EventId::from), about: None, addressed };
        let inbound =
            Inbound { room: "talk/one".into(), event: event.into(), sender: sender.into(), body, sealed: None };
        self.hub.admit(vec![inbound], None).await.unwrap();
    }

    /// The next thing to send, and confirms it.
    pub(super) async fn next(&mut self) -> Outbound {
        let delivery = timeout(LIMIT, self.inbox.deliveries.recv()).await.expect("a delivery").unwrap();
        let Delivery { txn, outbound, done, .. } = delivery;
        let (noted, _) = oneshot::channel();
        done.send(Ok(Sent { event: EventId(txn), noted })).unwrap();
        outbound
    }

    pub(super) async fn end(self) {
        self.cancel.cancel();
        self.tasks.close();
        timeout(LIMIT, self.tasks.wait()).await.expect("all tasks end");
    }
}

fn text_of(outbound: &Outbound) -> &str {
    match outbound {
        Outbound::Answer { text, .. } | Outbound::Reply { text, .. } | Outbound::Notice { text, .. } => text,
        other => panic!("no words: {other:?}"),
    }
}

fn everybody(store: &Store, name: &str) -> Arc<Small> {
    Arc::new(Small::new(name, People::Everybody, store, |_| Some(Intent::Work)))
}

#[tokio::test]
async fn a_protocol_needs_a_port_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(&folder, |store| vec![everybody(store, "echo")]).await;
    let mut watched = desk.hub.watch();
    desk.hub.joined(&"talk/one".into(), &"joined".into(), true).await.unwrap();
    assert_eq!(text_of(&desk.next().await), "echo is here.");
    desk.say("anna", "e1", "hello").await;
    let answer = desk.next().await;
    assert_eq!(text_of(&answer), "echo heard: hello");
    let Outbound::Answer { ending, asked, sender, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((ending, asked, sender), (Ending::Done, "e1".into(), "anna".into()));
    desk.say("anna", "e1", "hello").await;
    desk.say("anna", "e2", "again").await;
    assert_eq!(text_of(&desk.next().await), "echo heard: again", "the same event twice is answered once");
    let mut live = vec![];
    while let Ok(seen) = watched.try_recv() {
        live.push(seen.live);
    }
    assert!(live.contains(&Live::Started { asked: "e1".into(), thread: None }), "{live:?}");
    desk.end().await;
}

#[tokio::test]
async fn a_protocol_is_asked_for_nothing_that_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(&folder, |store| vec![everybody(store, "echo")]).await;
    desk.say("anna", "e1", "send a file").await;
    assert_eq!(text_of(&desk.next().await), "echo heard: send a file (no files here)");
    // There is no message that could be changed when the turn has ended, so the next answer follows at once.
    desk.say("anna", "e2", "hello").await;
    assert_eq!(text_of(&desk.next().await), "echo heard: hello");
    desk.end().await;
}

#[tokio::test]
async fn an_order_that_takes_long_is_replied_to_at_once_where_that_can_become_the_result() {
    for edits in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let bots = |store: Store, _| -> Vec<Arc<dyn Bot>> {
            vec![Arc::new(Small::new("echo", People::Everybody, &store, |_| Some(Intent::Order)))]
        };
        let mut desk = Desk::with(&folder, Features { edits, ..NO_FEATURES }, bots).await;
        desk.say("anna", "e1", "slow: load it").await;
        if edits {
            let meanwhile = desk.next().await;
            assert!(matches!(&meanwhile, Outbound::Reply { text, replaces: None, .. } if text == "It takes a while."));
        }
        let Outbound::Reply { text, replaces, asked, .. } = desk.next().await else { panic!("it is a reply") };
        assert_eq!((&*text, replaces.is_some(), asked), ("echo did: slow: load it", edits, "e1".into()));
        desk.say("anna", "e2", "quick").await;
        assert_eq!(text_of(&desk.next().await), "echo did: quick");
        desk.end().await;
    }
}

#[tokio::test]
async fn an_edit_that_the_answer_does_not_know_is_answered_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(&folder, |store| vec![everybody(store, "echo")]).await;
    let mut watched = desk.hub.watch();
    desk.say("anna", "e1", "deaf: what is the capital of France?").await;
    let begins = async { while !matches!(watched.recv().await.unwrap().live, Live::Started { .. }) {} };
    timeout(LIMIT, begins).await.expect("the turn begins");
    let edit = |event: &str, text: &str| Inbound {
        room: "talk/one".into(),
        event: event.into(),
        sender: "anna".into(),
        body: Body::Edited { target: "e1".into(), text: text.into(), addressed: Addressed::default() },
        sealed: None,
    };
    desk.hub.admit(vec![edit("e2", "And that of Spain?")], None).await.unwrap();
    assert_eq!(text_of(&desk.next().await), "echo heard: deaf: what is the capital of France?");
    let answer = desk.next().await;
    assert!(text_of(&answer).ends_with("to: And that of Spain?"), "{answer:?}");
    let Outbound::Answer { asked, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(asked, "e2".into());
    // What is changed once it was answered stays as it was answered.
    desk.hub.admit(vec![edit("e3", "And that of Italy?")], None).await.unwrap();
    desk.say("anna", "e4", "hello").await;
    assert_eq!(text_of(&desk.next().await), "echo heard: hello");
    desk.end().await;
}

#[tokio::test]
async fn where_two_bots_want_everything_the_order_decides() {
    let folder = tempfile::tempdir().unwrap();
    let bots = |store: &Store| -> Vec<Arc<dyn Bot>> {
        let listed = People::Listed(vec!["anna".into()]);
        let first = Arc::new(Small::new("first", listed, store, |_| Some(Intent::Work)));
        vec![first, everybody(store, "second")]
    };
    let mut desk = Desk::open(&folder, bots).await;
    desk.say("anna", "e1", "hello").await;
    assert_eq!(text_of(&desk.next().await), "first heard: hello");
    desk.say("bert", "e2", "hello").await;
    assert_eq!(text_of(&desk.next().await), "second heard: hello", "whom the first does not hear the second may");
    desk.end().await;
}

#[tokio::test]
async fn a_bot_that_panics_over_a_message_is_answered_for_with_one_sentence_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut panics = None;
    let bots = |store: &Store| -> Vec<Arc<dyn Bot>> {
        let small = everybody(store, "echo");
        panics = Some(small.clone());
        vec![small]
    };
    let mut desk = Desk::open(&folder, bots).await;
    panics.unwrap().panic_once();
    desk.say("anna", "e1", "hello").await;
    let told = desk.next().await;
    assert!(text_of(&told).starts_with("Something went wrong"), "{told:?}");
    desk.say("anna", "e2", "and now?").await;
    assert_eq!(text_of(&desk.next().await), "echo heard: and now?");
    desk.end().await;
}

#[tokio::test]
async fn what_no_bot_wants_is_passed_over_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let bots = |store: &Store| -> Vec<Arc<dyn Bot>> {
        let picky = |text: &str| text.starts_with('/').then_some(Intent::Work);
        vec![Arc::new(Small::new("picky", People::Everybody, store, picky))]
    };
    let mut desk = Desk::open(&folder, bots).await;
    desk.say("anna", "e1", "just talk").await;
    desk.say("anna", "e2", "/ask").await;
    assert_eq!(text_of(&desk.next().await), "picky heard: /ask");
    desk.end().await;
}

#[tokio::test]
async fn a_turn_whose_bot_is_not_set_up_any_more_is_ended_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder, |store| vec![everybody(store, "gone")]).await;
    let mut watched = desk.hub.watch();
    desk.say("anna", "e1", "wait for me").await;
    let begun = Live::Started { asked: "e1".into(), thread: None };
    while timeout(LIMIT, watched.recv()).await.expect("the turn begins").unwrap().live != begun {}
    desk.end().await;

    let mut desk = Desk::open(&folder, |store| vec![everybody(store, "new")]).await;
    let told = desk.next().await;
    assert!(text_of(&told).contains("`gone`"), "{told:?}");
    desk.say("anna", "e2", "and you?").await;
    assert_eq!(text_of(&desk.next().await), "new heard: and you?");
    desk.end().await;
}
