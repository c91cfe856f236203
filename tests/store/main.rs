//! The store keeps what the design's invariants ask of it: an event once, a turn one reply, a call's state through a
//! crash.

mod pruning;

use std::time::Duration;

use matrix_agent::{
    clock::Clock,
    ids::{Address, BotName, CallId, EventId, TurnId},
    store::{
        Conversation, DayLimits, Durability, EndedCall, Health, LockedInbound, NewInbound, NewOutbox, ORCHESTRATOR,
        Sealed, Size, Spender, Spending, Store, StoreError, Tokens, Verdict,
    },
};
use rusqlite::Connection;
use serde_json::json;

const DAY: i64 = 86_400_000;
const KEEP: Duration = Duration::from_hours(30 * 24);

struct Rig {
    folder: tempfile::TempDir,
    store: Store,
    at: Address,
}

fn rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    Rig { folder, store, at: Address { account: "coder".into(), room: "terminal:one".into() } }
}

fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("db"), Durability::Normal, Clock::fixed_at(1_000)).unwrap()
}

impl Rig {
    async fn say(&self, event: &str) -> Vec<EventId> {
        let new = NewInbound {
            room: self.at.room.clone(),
            event: event.into(),
            sender: "anna".into(),
            body: json!({"text": event}),
            target: None,
        };
        self.store.admit("coder", vec![new], vec![], Some(format!("after-{event}"))).await.unwrap()
    }

    async fn open_turn(&self, event: &str, turn: &str) {
        self.open_turn_of("coder", event, turn).await;
    }

    async fn open_turn_of(&self, bot: &str, event: &str, turn: &str) {
        let message = json!({"role": "user", "event": event});
        self.store.open_turn(&of(bot, &self.at), &turn.into(), vec![event.into()], message).await.unwrap();
    }
}

impl Rig {
    /// One question, its turn with a call, and its answer, sent.
    async fn whole_turn(&self, bot: &str, name: &str) {
        let (store, turn, call) = (&self.store, TurnId::from(name), CallId(format!("{name}-call")));
        self.say(name).await;
        self.open_turn_of(bot, name, name).await;
        store.append_calls(&self.at, &turn, json!({"role": "assistant"}), vec![call.clone()]).await.unwrap();
        store.start_call(&call, "boot").await.unwrap();
        store.end_call(&call, EndedCall { text: "ok".into(), details: json!({"of": name}) }).await.unwrap();
        let last = Some(json!({"role": "assistant", "text": name}));
        store.answer_turn(&self.at, &turn, "done", last, vec![answer(name)]).await.unwrap();
        let row = store.next_unsent(&self.at).await.unwrap().unwrap();
        store.sent(row.seq, &EventId(format!("sent-{name}"))).await.unwrap();
    }

    /// How many rows tables have.
    fn rows<const N: usize>(&self, tables: [&str; N]) -> [i64; N] {
        let connection = Connection::open(self.folder.path().join("db")).unwrap();
        tables
            .map(|table| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap())
    }

    async fn days_pass(&self, days: i64) {
        self.store.clock().advance(days * DAY);
        self.store.prune(KEEP).await.unwrap();
    }
}

/// Returns a bot's conversation.
fn of(bot: &str, at: &Address) -> Conversation {
    Conversation { address: at.clone(), bot: bot.into() }
}

fn answer(txn: &str) -> NewOutbox {
    NewOutbox { txn: txn.into(), payload: json!({"text": "done"}), file: None }
}

#[tokio::test]
async fn an_event_is_admitted_once_with_its_position() {
    let rig = rig();
    assert_eq!(rig.say("e1").await, [EventId::from("e1")]);
    assert_eq!(rig.say("e1").await, [], "the same event again is nothing new");
    assert_eq!(rig.store.position("coder").await.unwrap().as_deref(), Some("after-e1"));
    assert_eq!(rig.store.waiting(&rig.at, 0, 10).await.unwrap().len(), 1);
    rig.open_turn("e1", "t1").await;
    assert_eq!(rig.store.waiting(&rig.at, 0, 10).await.unwrap(), []);
    assert_eq!(rig.store.claimed(&"t1".into()).await.unwrap()[0].sender, "anna");
}

#[tokio::test]
async fn a_turn_has_one_terminal_reply_and_closes_when_it_was_sent() {
    let rig = rig();
    rig.say("e1").await;
    rig.open_turn("e1", "t1").await;
    let turn = TurnId::from("t1");
    rig.store.answer_turn(&rig.at, &turn, "done", None, vec![answer("x1")]).await.unwrap();
    rig.store.answer_turn(&rig.at, &turn, "failed", None, vec![answer("x2")]).await.unwrap();
    let unsent = rig.store.next_unsent(&rig.at).await.unwrap().unwrap();
    assert_eq!(unsent.txn, "x1");
    assert_eq!(rig.store.rooms_with_unsent("coder").await.unwrap(), std::slice::from_ref(&rig.at));
    assert_eq!(rig.store.open_turns(&rig.at).await.unwrap(), []);
    rig.store.sent(unsent.seq, &"sent1".into()).await.unwrap();
    assert_eq!(rig.store.next_unsent(&rig.at).await.unwrap(), None);
    rig.store.note("coder", "shown", "shown1").await.unwrap();
    for (event, own) in [("sent1", true), ("shown1", true), ("e1", false)] {
        assert_eq!(rig.store.is_own(&rig.at, &event.into()).await.unwrap(), own, "{event}");
    }
}

#[tokio::test]
async fn history_holds_each_call_with_what_is_known_of_it_across_a_restart() {
    let rig = rig();
    rig.say("e1").await;
    rig.open_turn("e1", "t1").await;
    let turn = TurnId::from("t1");
    let calls: Vec<CallId> = ["c1", "c2", "c3"].map(CallId::from).to_vec();
    rig.store.append_calls(&rig.at, &turn, json!({"role": "assistant"}), calls.clone()).await.unwrap();
    rig.store.start_call(&calls[0], "boot").await.unwrap();
    let ended = EndedCall { text: "ok".into(), details: json!({"ok": true}) };
    rig.store.end_call(&calls[0], ended.clone()).await.unwrap();
    rig.store.start_call(&calls[1], "boot").await.unwrap();
    let Rig { folder, store, at } = rig;
    drop(store);

    let store = open(&folder);
    let history = store.history(&of("coder", &at)).await.unwrap();
    assert_eq!(history.len(), 2);
    let seen: Vec<_> = history[1].calls.iter().map(|c| (c.call.as_str(), c.boot.as_deref(), c.ended.clone())).collect();
    assert_eq!(seen, [("c1", Some("boot"), Some(ended)), ("c2", Some("boot"), None), ("c3", None, None)]);
    assert_eq!(store.rooms_with_work("coder").await.unwrap(), std::slice::from_ref(&at));

    store.replace_context(&of("coder", &at), vec![json!("summary")]).await.unwrap();
    store.append_message(&at, &turn, json!("later")).await.unwrap();
    let shown: Vec<_> =
        store.history(&of("coder", &at)).await.unwrap().into_iter().map(|entry| entry.message).collect();
    assert_eq!(shown, [json!("summary"), json!("later")]);
}

#[tokio::test]
async fn bots_of_one_account_share_a_room_and_no_conversation() {
    let rig = rig();
    for (bot, event, turn) in [("coder", "e1", "t1"), ("lb", "e2", "t2"), ("coder", "e3", "t3")] {
        rig.say(event).await;
        rig.open_turn_of(bot, event, turn).await;
        rig.store.append_message(&rig.at, &turn.into(), json!({"answer": turn})).await.unwrap();
    }
    let note = (BotName::from("lb"), TurnId::from("never"), json!("a file"));
    rig.say("e4").await;
    rig.store.reply_and_keep(&rig.at, vec!["e4".into()], vec![answer("x1")], Some(note)).await.unwrap();
    let Rig { folder, store, at } = rig;
    drop(store);

    let store = open(&folder);
    let open: Vec<_> = store.open_turns(&at).await.unwrap().into_iter().map(|open| (open.turn.0, open.bot.0)).collect();
    let turns = [("t1", "coder"), ("t2", "lb"), ("t3", "coder")];
    assert_eq!(open, turns.map(|(turn, bot)| (turn.to_owned(), bot.to_owned())));
    let (coder, lb) = (of("coder", &at), of("lb", &at));
    let shown = async |of: &Conversation| {
        let history = store.history(of).await.unwrap();
        history.into_iter().map(|entry| entry.message.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        shown(&coder).await,
        r#"{"event":"e1","role":"user"} {"answer":"t1"} {"event":"e3","role":"user"} {"answer":"t3"}"#
    );
    assert_eq!(shown(&lb).await, r#"{"event":"e2","role":"user"} {"answer":"t2"} "a file""#);
    store.replace_context(&lb, vec![json!("new")]).await.unwrap();
    assert_eq!(shown(&lb).await, r#""new""#);
    assert!(shown(&coder).await.contains("t3"), "what one bot forgets the other one keeps");
}

#[tokio::test]
async fn how_far_a_call_has_come_is_kept_until_it_has_ended() {
    let rig = rig();
    rig.say("$1").await;
    rig.open_turn("$1", "t1").await;
    let (turn, calls) = (TurnId::from("t1"), ["a", "b", "c"].map(CallId::from));
    rig.store.append_calls(&rig.at, &turn, json!({"role": "assistant"}), calls.to_vec()).await.unwrap();
    for call in &calls[..2] {
        rig.store.start_call(call, "boot").await.unwrap();
    }
    for place in [1, 2] {
        rig.store.keep_call_state(&calls[0], json!({"place": place})).await.unwrap();
    }
    let store = open(&rig.folder);
    let state = Some(json!({"place": 2}));
    assert_eq!(store.call_state(&calls[0]).await.unwrap(), state);
    assert_eq!(
        (store.call_state(&calls[1]).await.unwrap(), store.call_state(&"x".into()).await.unwrap()),
        (None, None)
    );
    let under_way = vec![(rig.at.clone(), calls[0].clone(), state), (rig.at.clone(), calls[1].clone(), None)];
    assert_eq!(store.calls_under_way().await.unwrap(), under_way);
    store.end_call(&calls[0], EndedCall { text: "ok".into(), details: json!({}) }).await.unwrap();
    assert_eq!(store.call_state(&calls[0]).await.unwrap(), None);
    assert_eq!(store.calls_under_way().await.unwrap(), under_way[1..]);
    store.answer_turn(&rig.at, &turn, "done", None, vec![answer("x")]).await.unwrap();
    assert_eq!(store.calls_under_way().await.unwrap(), []);
}

#[tokio::test]
async fn the_instance_keeps_its_name() {
    let Rig { folder, store, .. } = rig();
    let name = store.instance().to_owned();
    drop(store);
    assert_eq!(open(&folder).instance(), name);
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    std::fs::write(&path, "this is no database, it only stands where one should stand, and it is long").unwrap();
    let error = Store::open(&path, Durability::Normal, Clock::default()).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }));
    assert!(error.to_string().contains("cannot be opened"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is no database"));
}

/// Counts a request of the orchestrator's.
async fn spend(rig: &Rig, input: u64, cached: u64, output: u64) {
    let (agent, model) = (ORCHESTRATOR.to_owned(), "m".to_owned());
    let spender = Spender { address: rig.at.clone(), person: Some("anna".into()), agent, model };
    let held = rig.store.hold(spender, DayLimits::default(), input, input + output).await.unwrap();
    let Verdict::Held { id, .. } = held else { panic!("{held:?}") };
    rig.store.settle(id, Tokens { input, cached, output });
}

#[tokio::test]
async fn what_was_used_adds_up_by_day_and_old_days_go() {
    let rig = rig();
    spend(&rig, 100, 80, 10).await;
    spend(&rig, 50, 0, 5).await;
    rig.store.clock().advance(86_400_000);
    spend(&rig, 1, 0, 1).await;
    let days = async || {
        rig.store.take_turn().await.unwrap();
        let spent = rig.store.spending(&rig.at, 7).await.unwrap();
        let row = |spent: Spending| {
            let Tokens { input, cached, output } = spent.tokens;
            assert_eq!(
                (spent.person.as_str(), spent.agent.as_str(), spent.model.as_str()),
                ("anna", ORCHESTRATOR, "m")
            );
            (spent.day, input, cached, output, spent.requests)
        };
        spent.into_iter().map(row).collect::<Vec<_>>()
    };
    let (first, second) = (("1970-01-01".to_owned(), 150, 80, 15, 2), ("1970-01-02".to_owned(), 1, 0, 1, 1));
    assert_eq!(days().await, [second.clone(), first.clone()]);
    assert_eq!(
        rig.store.spent_today().await.unwrap(),
        [(rig.at.clone(), 2)],
        "a person's part of a room's day is in it"
    );
    assert_eq!(rig.store.spending(&rig.at, 1).await.unwrap().len(), 1, "of today alone");
    let keep = Duration::from_hours(24);
    rig.store.prune(keep).await.unwrap();
    assert_eq!(days().await, [second.clone(), first], "a day is kept whole");
    rig.store.clock().advance(86_400_000);
    rig.store.prune(keep).await.unwrap();
    assert_eq!(days().await, [second]);
    let left = Connection::open(rig.folder.path().join("db")).unwrap();
    let rows: i64 =
        left.query_row("SELECT count(*) FROM spent WHERE day < '1970-01-02'", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn what_older_versions_have_counted_counts_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../fixtures/upgrade/schema-5.sql")).unwrap();
    old.execute_batch("INSERT INTO usage VALUES ('coder', '!r', '1970-01-01', 70, 7, 3, 2)").unwrap();
    drop(old);
    let store = Store::open(&path, Durability::Normal, Clock::fixed_at(1_000)).unwrap();
    let at = Address { account: "coder".into(), room: "!r".into() };
    let spent = store.spending(&at, 7).await.unwrap();
    assert_eq!((spent.len(), spent[0].tokens, spent[0].requests), (1, Tokens { input: 70, cached: 7, output: 3 }, 2));
    assert_eq!(store.day_sums(&at, "anna").await.unwrap().room.used, 73);
}

/// What lies beside the database, with who may read it.
fn kept(rig: &Rig) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = std::fs::read_dir(rig.folder.path().join("outgoing")) else { return Vec::new() };
    let told = entries.map(|entry| {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        (entry.file_name().into_string().unwrap(), mode)
    });
    told.collect()
}

#[tokio::test]
async fn a_file_lies_beside_the_database_until_it_is_sent() {
    let rig = rig();
    let store = &rig.store;
    let name = store.keep_file("txn-1", vec![7; 1 << 20].into()).await.unwrap();
    assert_eq!(store.keep_file("txn-1", vec![7; 1 << 20].into()).await.unwrap(), name, "the same file is kept once");
    assert_eq!(kept(&rig), [(name.clone(), 0o600)]);
    store.post(&rig.at, None, NewOutbox { file: Some(name.clone()), ..answer("txn-1") }).await.unwrap();
    let row = store.next_unsent(&rig.at).await.unwrap().unwrap();
    assert_eq!((row.file.as_ref(), row.data), (Some(&name), None));
    assert_eq!(store.kept_file(&name).await.unwrap().map(|data| data.len()), Some(1 << 20));
    let database = std::fs::metadata(rig.folder.path().join("db")).unwrap().len();
    assert!(database < 1 << 20, "{database}");

    // A crash before the row was written leaves a file that nobody waits for: the next start removes it, and no other.
    store.keep_file("txn-2", vec![7; 10].into()).await.unwrap();
    assert_eq!(kept(&rig).len(), 2);
    let again = open(&rig.folder);
    assert_eq!(kept(&rig), [(name.clone(), 0o600)]);

    again.sent(row.seq, &"$sent".into()).await.unwrap();
    assert_eq!((kept(&rig), again.kept_file(&name).await.unwrap()), (vec![], None));

    // What is dropped with a room goes as well.
    let other = again.keep_file("txn-3", vec![7; 10].into()).await.unwrap();
    again.post(&rig.at, None, NewOutbox { file: Some(other), ..answer("txn-3") }).await.unwrap();
    again.drop_unsent(&rig.at).await.unwrap();
    assert_eq!(kept(&rig), []);
}

#[tokio::test]
async fn the_databases_log_gives_back_what_a_large_row_took() {
    let rig = rig();
    let log = || std::fs::metadata(rig.folder.path().join("db-wal")).unwrap().len();
    let large = NewOutbox { payload: json!({"text": "x".repeat(40 << 20)}), ..answer("txn-1") };
    rig.store.post(&rig.at, None, large).await.unwrap();
    assert!(log() > 40 << 20, "{}", log());
    // It is folded back now and then, and begins anew with what is written next.
    let begins_anew = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let mut said = 0;
        while log() > 16 << 20 {
            ticks.tick().await;
            // What is there already is not written again.
            said += 1;
            rig.say(&format!("e{said}")).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), begins_anew).await.is_ok(), "{}", log());
}

#[tokio::test]
async fn of_what_cannot_be_read_a_room_keeps_the_newest_hundred() {
    let rig = rig();
    let locked = |room: &str, n: usize| LockedInbound {
        room: room.into(),
        event: format!("{room}-{n}").into(),
        sender: "anna".into(),
        body: json!({"n": n}),
    };
    let quiet: Vec<_> = (0..3).map(|n| locked("quiet", n)).collect();
    rig.store.admit("coder", vec![], quiet, None).await.unwrap();
    for n in 0..30 {
        let flood: Vec<_> = (0..10).map(|more| locked("flooded", n * 10 + more)).collect();
        rig.store.admit("coder", vec![], flood, None).await.unwrap();
    }
    let kept = rig.store.locked("coder", 1000).await.unwrap();
    let of =
        |room: &str| kept.iter().filter(|it| it.room.as_str() == room).map(|it| it.event.clone()).collect::<Vec<_>>();
    assert_eq!(of("quiet").len(), 3, "one room's flood costs the others nothing");
    assert_eq!(of("flooded"), (200..300).map(|n| format!("flooded-{n}").into()).collect::<Vec<EventId>>());
}

#[tokio::test]
async fn a_ciphertext_is_taken_by_one_event_and_stays_so() {
    let rig = rig();
    let sealed = |place| Sealed { session: "session".into(), place };
    let take = |event: &str, place| {
        let (store, event) = (rig.store.clone(), EventId::from(event));
        async move { store.take_ciphertexts("coder", vec![(event, sealed(place))]).await.unwrap().len() }
    };
    assert_eq!((take("e1", 0).await, take("e1", 0).await), (0, 0), "the same event again is no replay");
    assert_eq!((take("e2", 0).await, take("e2", 1).await), (1, 0));
    rig.say("e1").await;
    rig.store.leave(&rig.at, &rig.at.room).await.unwrap();
    assert!(rig.store.clear_room(&rig.at, &rig.at.room).await.unwrap());
    rig.store.forget_room("coder", &rig.at.room).await.unwrap();
    rig.store.clock().advance(400 * 86_400_000);
    rig.store.prune(KEEP).await.unwrap();
    assert_eq!(take("e3", 0).await, 1, "whatever else was forgotten");
}

#[tokio::test]
async fn a_newer_database_is_used_unless_it_says_that_this_program_is_too_old() {
    let Rig { folder, store, .. } = rig();
    drop(store);
    let path = folder.path().join("db");
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("CREATE TABLE newer (x); PRAGMA user_version = 1000;").unwrap();
    drop(open(&folder));
    for (oldest, may) in [("1", true), ("1000", false), ("a word that only newer ones know", false)] {
        newer.execute("INSERT OR REPLACE INTO meta VALUES ('oldest_version', ?1)", [oldest]).unwrap();
        let opened = Store::open(&path, Durability::Normal, Clock::default());
        assert_eq!(opened.is_ok(), may, "{oldest}");
        drop(opened.inspect_err(|error| assert!(matches!(error, StoreError::Newer { .. }), "{error}")));
        let healthy = Health::of(&path, Duration::from_secs(20));
        assert_eq!(healthy.is_ok(), may, "{oldest}: {healthy:?}");
        if !may {
            assert!(matches!(healthy, Err(StoreError::Newer { .. })), "{healthy:?}");
            assert!(matches!(Size::compact(&path), Err(StoreError::Newer { .. })), "{oldest}");
        }
    }
    let version: i64 = newer.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1000);
}

#[tokio::test]
async fn names_that_no_line_has_any_more_are_found() {
    let rig = rig();
    let turn = TurnId::from("t1");
    rig.say("e1").await;
    rig.open_turn("e1", "t1").await;
    rig.store.append_message(&rig.at, &turn, json!({"picture": "in-a-line"})).await.unwrap();
    rig.store.append_calls(&rig.at, &turn, json!({}), vec!["c1".into()]).await.unwrap();
    let ended = EndedCall { text: String::new(), details: json!({"picture": "in-a-result"}) };
    rig.store.end_call(&"c1".into(), ended).await.unwrap();
    rig.store.replace_context(&of("cloud", &rig.at), vec![json!({"picture": "in-a-context"})]).await.unwrap();
    let names = ["in-a-line", "in-a-result", "in-a-context", "nowhere"].map(str::to_owned).to_vec();
    assert_eq!(rig.store.unnamed(&rig.at, names.clone()).await.unwrap(), ["nowhere"]);
    let talk = Address { account: "talk".into(), ..rig.at };
    assert_eq!(rig.store.unnamed(&talk, names.clone()).await.unwrap(), names, "another account's lines name its own");
}
