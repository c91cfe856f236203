//! Cards over a real store and a board that only notes what it is given.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::store::NewOutbox;

const LIMIT: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Paper {
    woken: AtomicUsize,
}

impl Board for Paper {
    fn reactions(&self, _at: &Address) -> bool {
        true
    }

    fn row(
        &self,
        txn: String,
        text: String,
        _thread: Option<EventId>,
        replaces: Option<String>,
    ) -> Result<NewOutbox, StoreError> {
        Ok(NewOutbox { txn, payload: json!({"text": text, "replaces": replaces}), file: None })
    }

    fn wake<'a>(&'a self, _at: &'a Address) -> BoxFuture<'a, ()> {
        self.woken.fetch_add(1, Ordering::SeqCst);
        async {}.boxed()
    }
}

/// A room in which a user's turn is open, whose model has read something.
struct Room {
    folder: tempfile::TempDir,
    clock: Clock,
    rights: Rights,
    open: Option<OpenTurn>,
    cancel: CancellationToken,
}

impl Room {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::fixed_at(1_000_000);
        let rights = attached(folder.path(), &clock).await;
        say(&rights, "t", "e1", "ben", json!({"about": "$q"})).await;
        let open = Some(rights.begin(&here(), &TurnId::from("t")));
        clock.advance(1);
        Self { folder, clock, rights, open, cancel: CancellationToken::new() }
    }

    /// Kills the process, so to speak, and starts it again.
    async fn restart(&mut self) {
        self.open = None;
        self.rights = attached(self.folder.path(), &self.clock).await;
        self.open = Some(self.rights.begin(&here(), &TurnId::from("t")));
    }

    fn ask(&self, key: &str) -> JoinHandle<Result<(), Refusal>> {
        let (rights, cancel, key) = (self.rights.clone(), self.cancel.clone(), key.to_owned());
        tokio::spawn(async move { rights.permit(&here(), question(&key), LIMIT, &cancel).await })
    }

    /// Waits for the card that is open.
    async fn card(&self) -> String {
        loop {
            if let Some(card) = self.rights.inner.store.open_cards("coder").await.expect("cards").pop() {
                return card.code;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, code: &str, who: &str, yes: bool) -> Answered {
        self.rights.answer(&here(), code, who, yes, None).await.expect("an answer")
    }

    /// Returns the texts of the rows that the room is sent.
    async fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        while let Some(row) = self.rights.inner.store.next_unsent(&here()).await.expect("a row") {
            rows.push(row.payload["text"].as_str().expect("a text").to_owned());
            self.rights.inner.store.sent(row.seq, &EventId::from(row.txn)).await.expect("it is sent");
        }
        rows
    }
}

async fn attached(folder: &Path, clock: &Clock) -> Rights {
    let rights = open(folder, clock.clone()).await;
    rights.attach("coder", Arc::new(Paper::default())).await.expect("a board");
    rights
}

fn question(key: &str) -> Question {
    Question {
        for_task: false,
        key: key.to_owned(),
        act: Act::Push(site()),
        what: format!("push `agent/{key}` to `acme/site`"),
        why: "run_command git push".to_owned(),
        details: String::new(),
        answerer: Answerer::Anybody,
    }
}

#[tokio::test]
async fn a_card_is_answered_once_by_somebody_who_may_and_told_once() {
    let room = Room::new().await;
    let asked = room.ask("a");
    let code = room.card().await;
    assert_eq!(room.answer(&code, "ben", true).await, Answered::NotYours(Role::Admin), "he asks, she answers");
    assert_eq!(room.answer(&code, "eve", true).await, Answered::NotYours(Role::Admin));
    assert_eq!(room.answer("AAAAA", "ann", true).await, Answered::NotOpen);
    let elsewhere = Address::of_first("!b:a.org");
    assert_eq!(room.rights.answer(&elsewhere, &code, "ann", true, None).await.expect("an answer"), Answered::NotOpen);
    assert!(matches!(room.answer(&code.to_lowercase(), "ann", true).await, Answered::Ended(_)));
    assert_eq!(asked.await.expect("it ends"), Ok(()));
    assert_eq!(room.answer(&code, "ann", false).await, Answered::NotOpen, "no answer counts twice");
    let rows = room.rows().await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0].contains("`agent/a`") && rows[0].contains(&code) && rows[0].contains("`ben`"), "{}", rows[0]);
    assert!(rows[1].contains("Allowed by `ann`"), "{}", rows[1]);

    assert_eq!(room.ask("a").await.expect("it ends"), Ok(()), "the same question has its answer");
    say(&room.rights, "t", "e2", "ben", json!({})).await;
    let after = room.ask("a").await.expect("it ends");
    assert!(matches!(after, Err(Refusal::Overtaken(_))), "somebody lesser has spoken since: {after:?}");
}

#[tokio::test]
async fn another_act_needs_another_yes_and_one_card_is_open_at_a_time() {
    let room = Room::new().await;
    let (first, second) = (room.ask("a"), room.ask("b"));
    let code = room.card().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(room.rights.inner.store.open_cards("coder").await.expect("cards").len(), 1);
    room.answer(&code, "ann", false).await;
    let mut next = room.card().await;
    while next == code {
        next = room.card().await;
    }
    room.answer(&next, "ann", true).await;
    let ended = [first.await.expect("it ends"), second.await.expect("it ends")];
    assert_eq!(ended.iter().filter(|it| it.is_ok()).count(), 1, "{ended:?}");
    assert_eq!(ended.iter().filter(|it| matches!(it, Err(Refusal::Denied(_)))).count(), 1, "{ended:?}");
}

#[tokio::test]
async fn nobody_is_asked_for_a_moment_only_and_what_was_not_asked_may_be_later() {
    let room = Room::new().await;
    let first = room.ask("a");
    let code = room.card().await;
    let limit = Duration::from_secs(3);
    let (begun, at) = (Instant::now(), here());
    let second = room.rights.permit(&at, question("b"), limit, &room.cancel);
    let answered = async {
        // The store has times of its own, which a clock that jumps would end.
        time::sleep_until(begun + limit * 7 / 10).await;
        room.answer(&code, "ann", true).await;
    };
    let (second, ()) = tokio::join!(second, answered);
    first.await.expect("it ends").expect("a yes");
    assert!(matches!(second, Err(Refusal::Unasked(_))), "less than a third of its time is left: {second:?}");
    let again = room.ask("b");
    let code = room.card().await;
    room.answer(&code, "ann", true).await;
    again.await.expect("it ends").expect("a yes");
}

#[tokio::test]
async fn who_was_asked_before_a_crash_is_not_asked_again() {
    let mut room = Room::new().await;
    let asked = room.ask("a");
    let code = room.card().await;
    asked.abort();
    let _ = asked.await;
    room.restart().await;
    let again = room.ask("a");
    assert!(matches!(room.answer(&code, "ann", true).await, Answered::Ended(_)));
    assert_eq!(again.await.expect("it ends"), Ok(()));
    // Answered, and killed before whoever waits has heard of it.
    room.restart().await;
    assert_eq!(room.ask("a").await.expect("it ends"), Ok(()));
    assert_eq!(room.rows().await.len(), 2, "one card, and its end");
}

#[tokio::test]
async fn a_card_ends_with_its_turn_and_by_a_stop() {
    let mut room = Room::new().await;
    let asked = room.ask("a");
    let code = room.card().await;
    room.cancel.cancel();
    assert!(matches!(asked.await.expect("it ends"), Err(Refusal::Stopped(_))));
    assert_eq!(room.answer(&code, "ann", true).await, Answered::NotOpen);
    room.cancel = CancellationToken::new();

    let asked = room.ask("b");
    let code = room.card().await;
    room.open.take().expect("it is open").ended().await;
    assert!(asked.await.expect("it ends").is_err());
    assert_eq!(room.answer(&code, "ann", true).await, Answered::NotOpen);
    let rows = room.rows().await;
    assert_eq!(rows.iter().filter(|row| row.contains("No answer is needed")).count(), 2, "{rows:?}");
}

#[tokio::test]
async fn a_turn_that_is_over_at_the_start_needs_no_answer() {
    let mut room = Room::new().await;
    let asked = room.ask("a");
    room.card().await;
    asked.abort();
    let _ = asked.await;
    let (at, turn) = (here(), TurnId::from("t"));
    room.rights.inner.store.answer_turn(&at, &turn, "done", None, vec![]).await.expect("it is answered");
    room.restart().await;
    assert!(room.rights.inner.store.open_cards("coder").await.expect("cards").is_empty());
}

#[tokio::test]
async fn nobody_answers_in_time_and_a_grant_needs_no_card() {
    let room = Room::new().await;
    let watching = tokio::spawn(room.rights.clone().watch(room.cancel.clone()));
    let asked = room.ask("a");
    let code = room.card().await;
    room.clock.advance(2 * LIMIT.as_millis() as i64);
    assert_eq!(room.answer(&code, "ann", true).await, Answered::NotOpen, "too late");
    assert!(matches!(asked.await.expect("it ends"), Err(Refusal::Unanswered(_))));
    assert!(matches!(room.ask("a").await.expect("it ends"), Err(Refusal::Unanswered(_))), "asked once");

    room.rights.grant(&here(), Subject::Repository(site()), true, "ann", Lasts::Room).await.expect("a grant");
    assert_eq!(room.ask("c").await.expect("it ends"), Ok(()));
    assert_eq!(room.rows().await.len(), 2, "the first card, and its end");
    room.cancel.cancel();
    watching.await.expect("it ends");
}

#[tokio::test]
async fn a_yes_for_an_hour_is_a_grant() {
    let room = Room::new().await;
    let asked = room.ask("a");
    let code = room.card().await;
    let answered = room.rights.answer(&here(), &code, "ann", true, Some(Lasts::For(HOUR))).await.expect("an answer");
    assert!(matches!(answered, Answered::Ended(_)));
    assert_eq!(asked.await.expect("it ends"), Ok(()));
    assert_eq!(room.ask("b").await.expect("it ends"), Ok(()));
    let again = attached(room.folder.path(), &room.clock).await;
    assert!(again.covers(&here(), &Act::Push(site())), "it is stored");
}

#[tokio::test]
async fn a_plan_is_approved_by_whoever_asked_or_by_somebody_else_as_it_is_set() {
    for (answerer, not, yes) in [(Answerer::Asker, "ann", "ben"), (Answerer::Another, "ben", "ann")] {
        let room = Room::new().await;
        let plan = Question { act: Act::Implement, details: "1. one\n2. two".to_owned(), answerer, ..question("plan") };
        let (rights, cancel) = (room.rights.clone(), room.cancel.clone());
        let asked = tokio::spawn(async move { rights.permit(&here(), plan, LIMIT, &cancel).await });
        let code = room.card().await;
        assert_eq!(room.answer(&code, not, true).await, Answered::NotFor(answerer));
        assert_eq!(room.answer(&code, "eve", true).await, Answered::NotYours(Role::User), "a guest answers nothing");
        assert!(matches!(room.answer(&code, yes, true).await, Answered::Ended(_)));
        assert_eq!(asked.await.expect("it ends"), Ok(()), "{answerer:?}");
        assert!(room.rows().await[0].contains("\n> 1. one\n> 2. two\n"));
    }
}
