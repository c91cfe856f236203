//! A connection to a host that is not listed waits while the room is asked, as if it had been open all along.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, future::BoxFuture};
use matrix_agent::{
    clock::Clock,
    gateway::{GatewayLimits, ProxyKind},
    ids::{Address, BotName, EventId, TurnId},
    rights::{Board, Lasts, Listed, OpenTurn, Rights, Roles},
    store::{Conversation, Durability, NewInbound, NewOutbox, Store, StoreError},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::door::{Door, HELLO, ask, door_to_http, rest, soon};

/// Where nobody reads what is asked.
#[derive(Default)]
struct Wall(AtomicUsize);

impl Board for Wall {
    fn reactions(&self, _at: &Address) -> bool {
        false
    }

    fn row(
        &self,
        txn: String,
        text: String,
        _thread: Option<EventId>,
        _replaces: Option<String>,
    ) -> Result<NewOutbox, StoreError> {
        Ok(NewOutbox { txn, payload: json!({ "text": text }), file: None })
    }

    fn wake<'a>(&'a self, _at: &'a Address) -> BoxFuture<'a, ()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        async {}.boxed()
    }
}

pub(crate) struct Town {
    _folder: tempfile::TempDir,
    store: Store,
    pub(crate) rights: Rights,
}

impl Town {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let listed = Listed { users: vec!["ben".into()], admins: vec!["ann".into()] };
        let rights = Rights::new(store.clone(), Roles { accounts: [("coder".into(), listed)].into(), local: vec![] });
        rights.attach("coder", Arc::new(Wall::default())).await.unwrap();
        Self { _folder: folder, store, rights }
    }

    /// Opens a turn in a room, in which this person has asked for something.
    pub(crate) async fn asks(&self, room: &str, who: &str) -> OpenTurn {
        let (at, turn, event) = (Address::of_first(room), TurnId(format!("t{room}")), EventId(format!("e{room}")));
        let body = json!({"kind": "said", "text": "fetch it"});
        let new = NewInbound { room: room.into(), event: event.clone(), sender: who.into(), body, target: None };
        self.store.admit("coder", vec![new], vec![], None).await.unwrap();
        let conversation = Conversation { address: at.clone(), bot: BotName::from("coder") };
        assert!(self.store.open_turn(&conversation, &turn, vec![event], json!({})).await.unwrap());
        self.rights.begin(&at, &turn)
    }

    /// How many cards are open.
    pub(crate) async fn cards(&self) -> usize {
        self.store.open_cards("coder").await.unwrap().len()
    }

    /// Waits for the code of the room's card.
    pub(crate) async fn code(&self, room: &str) -> String {
        let there = async {
            loop {
                let cards = self.store.open_cards("coder").await.unwrap();
                if let Some(card) = cards.into_iter().find(|card| card.at.room.as_str() == room) {
                    return card.code;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(there).await
    }
}

const GET: &[u8] = b"GET http://deb.example.org/ HTTP/1.1\r\nHost: deb.example.org\r\nConnection: close\r\n\r\n";

/// A door to `deb.example.org`, which is not listed.
async fn door(town: &Town) -> Door {
    let (mut door, server, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    door.name("deb.example.org", &["203.0.113.3"]);
    door.route("203.0.113.3:80", server.address);
    door.gateway = door.gateway.clone().with_rights(town.rights.clone());
    door
}

#[tokio::test]
async fn it_goes_on_after_a_yes_and_the_name_was_not_looked_up_before() {
    let town = Town::new().await;
    let mut door = door(&town).await;
    let _turn = town.asks("!room", "ben").await;
    let mut both = [door.open(ProxyKind::Web), door.open(ProxyKind::Web)];
    for stream in &mut both {
        stream.write_all(GET).await.unwrap();
    }
    let code = town.code("!room").await;
    assert_eq!(door.lookups(), 0, "a name that nobody has opened may carry what nobody may know");
    town.rights.answer(&Address::of_first("!room"), &code, "ann", true, None).await.unwrap();
    for stream in &mut both {
        assert!(rest(stream).await.ends_with("hello"), "each goes on, by one card");
    }
    let again = ask(&mut door.open(ProxyKind::Web), GET).await;
    assert!(again.ends_with("hello"), "until the turn ends: {again}");
}

#[tokio::test]
async fn programs_that_give_up_and_try_again_share_one_question_and_keep_no_other_out() {
    let town = Town::new().await;
    let mut door = door(&town).await;
    let _turn = town.asks("!room", "ben").await;
    for _ in 0..100 {
        let mut stream = door.open(ProxyKind::Web);
        stream.write_all(b"CONNECT dead.example.org:443 HTTP/1.1\r\n\r\n").await.unwrap();
        // What has given up is refused at once, so that it holds no connection of the room's.
        stream.shutdown().await.unwrap();
        assert!(rest(&mut stream).await.contains("not among the allowed hosts"));
    }
    let mut live = door.open(ProxyKind::Web);
    live.write_all(GET).await.unwrap();
    let at = Address::of_first("!room");
    let code = town.code("!room").await;
    assert_eq!(town.store.open_cards("coder").await.unwrap().len(), 1, "one card at a time");
    town.rights.answer(&at, &code, "ann", false, None).await.unwrap();
    let mut next = town.code("!room").await;
    while next == code {
        next = town.code("!room").await;
    }
    town.rights.answer(&at, &next, "ann", true, None).await.unwrap();
    assert!(rest(&mut live).await.ends_with("hello"));
}

#[tokio::test]
async fn nobody_is_asked_for_a_guest_nor_for_what_no_yes_opens_nor_when_nobody_works() {
    let town = Town::new().await;
    let mut door = door(&town).await;
    let refused = |answer: String| assert!(answer.contains("not among the allowed hosts"), "{answer}");
    refused(ask(&mut door.open(ProxyKind::Web), GET).await);
    let _guest = town.asks("!guest", "eve").await;
    refused(ask(&mut door.open_in("!guest", ProxyKind::Web), GET).await);
    let _turn = town.asks("!room", "ben").await;
    for host in ["10.0.0.1", "[fd00::1]", "printer", "nas.local", "db.internal", "x.home.arpa", "accounts.google.com"] {
        let get = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        refused(ask(&mut door.open(ProxyKind::Web), get.as_bytes()).await);
    }
    assert!(town.store.open_cards("coder").await.unwrap().is_empty() && door.lookups() == 0);
    // What is granted leads inside no more than what is listed.
    door.name("deb.example.org", &["10.0.0.1"]);
    let subject = matrix_agent::rights::Subject::Host("deb.example.org".into());
    town.rights.grant(&Address::of_first("!room"), subject, false, "ann", Lasts::Room).await.unwrap();
    let answer = ask(&mut door.open(ProxyKind::Web), GET).await;
    assert!(answer.contains("which SANDBOX_ALLOWED_HOSTS cannot open"), "{answer}");
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn so_many_wait_and_each_costs_little() {
    const ROOMS: usize = 10;
    const EACH: usize = 16;
    let town = Town::new().await;
    let mut door = door(&town).await;
    let mut turns = Vec::new();
    for number in 0..ROOMS {
        turns.push(town.asks(&format!("!room{number}"), "ben").await);
    }
    let (before, mut waiting) = (resident(), Vec::new());
    for number in 0..ROOMS {
        let room = format!("!room{number}");
        for _ in 0..EACH {
            let mut stream = door.open_in(&room, ProxyKind::Web);
            stream.write_all(GET).await.unwrap();
            waiting.push(stream);
        }
        town.code(&room).await;
        // When the room may hold no more, the next is refused at once.
        let refused = async {
            loop {
                let mut stream = door.open_in(&room, ProxyKind::Web);
                stream.write_all(GET).await.unwrap();
                let mut first = [0; 12];
                if tokio::time::timeout(std::time::Duration::from_millis(200), stream.read_exact(&mut first))
                    .await
                    .is_ok()
                {
                    return String::from_utf8_lossy(&first).into_owned();
                }
                waiting.push(stream);
            }
        };
        assert_eq!(soon(refused).await, "HTTP/1.1 403");
    }
    let each = resident().saturating_sub(before) / (ROOMS * EACH);
    assert!(each <= 50 * 1024, "{each} bytes each");
    for number in 0..ROOMS {
        let room = format!("!room{number}");
        let code = town.code(&room).await;
        town.rights.answer(&Address::of_first(&*room), &code, "ann", true, None).await.unwrap();
    }
    for stream in waiting.iter_mut().take(EACH) {
        assert!(rest(stream).await.ends_with("hello"));
    }
}
