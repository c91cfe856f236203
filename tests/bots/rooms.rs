//! Three bots on two accounts in real rooms.

use std::{os::unix::process::ExitStatusExt, sync::Arc};

use matrix_sdk::ruma::RoomId;
use serde_json::json;
use tokio::sync::Notify;

use super::{
    house::town,
    support::{
        bot::Town,
        person::Person,
        rig::{Rig, wait},
        scripted_llm::{Reply, ScriptedLlm, user_texts},
        seen::Seen,
        synapse::{Limits, Synapse, password},
    },
};

/// What an account answers to an event.
async fn answer_of(anna: &Person, account: &str, asked: &str) -> Seen {
    let fits =
        |it: &Seen| it.is_message() && it.msgtype() == "m.text" && it.sender == account && it.reply_to() == asked;
    anna.wait_after(asked, &format!("{account}'s answer"), fits).await
}

/// Waits for what an account says when it has come into a room.
async fn greeted(anna: &Person, room: &RoomId, account: &str) -> Seen {
    anna.wait_for("a greeting", |it| it.room == room && it.sender == account && it.is_message()).await
}

/// How often an account has answered an event so far.
fn answers_of(anna: &Person, account: &str, asked: &str) -> usize {
    let of = |it: &&Seen| it.is_message() && it.msgtype() == "m.text" && it.sender == account && it.reply_to() == asked;
    anna.events().iter().filter(of).count()
}

/// Says something that both accounts answer, so that all that came before has been answered by then.
async fn barrier(town: &Town, echo: &str, room: &RoomId) {
    let asked = town.anna.say(room, "that is all").await;
    answer_of(&town.anna, &town.bot, &asked).await;
    answer_of(&town.anna, echo, &asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_goes_to_the_bot_that_wants_it_and_accounts_share_nothing() {
    let (town, echo) = town().await;
    town.llm.otherwise(|request| Reply::text(&format!("coder heard: {}", user_texts(request).last().unwrap())));
    let anna = &town.anna;
    let bert = Person::new(&town.synapse, "bert").await;
    let room = anna.create_room(false, &[&town.bot, &echo, &bert.id]).await;
    bert.accept(&room).await;
    // The first bot of an account greets for it.
    assert_eq!(greeted(anna, &room, &town.bot).await.body(), "lb is here.");
    assert_eq!(greeted(anna, &room, &echo).await.body(), "echo is here.");

    let asked = anna.say(&room, "hello all").await;
    assert!(answer_of(anna, &town.bot, &asked).await.body().contains("coder heard: hello all"));
    assert!(answer_of(anna, &echo, &asked).await.body().contains("echo heard: hello all"));
    let order = anna.say(&room, "/lbe please").await;
    assert!(answer_of(anna, &town.bot, &order).await.body().contains("lb did: /lbe please"));
    let work = anna.say(&room, "/lbask something").await;
    assert!(answer_of(anna, &town.bot, &work).await.body().contains("lb heard: /lbask something"));
    // Whom one account does not list another one may hear.
    let stranger = bert.say(&room, "and me?").await;
    assert!(answer_of(anna, &echo, &stranger).await.body().contains("echo heard: and me?"));

    barrier(&town, &echo, &room).await;
    for event in [&asked, &order, &work] {
        assert_eq!((answers_of(anna, &town.bot, event), answers_of(anna, &echo, event)), (1, 1), "{event}");
    }
    assert_eq!(answers_of(anna, &town.bot, &stranger), 0, "the coding account does not hear strangers");
    for request in town.llm.requests() {
        assert!(!request.to_string().contains("/lb"), "no other bot's words are in the coder's context: {request}");
        assert!(!request.to_string().contains("echo heard"), "nor another account's: {request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_turn_orders_are_carried_out_and_another_bots_work_waits() {
    let (town, _) = town().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("take your time").after(&gate).reply_text("Done at last.");
    town.llm.otherwise(|_| Reply::text("Yes."));
    let anna = &town.anna;
    let room = anna.create_room(false, &[&town.bot]).await;
    greeted(anna, &room, &town.bot).await;
    let asked = anna.say(&room, "take your time").await;
    town.llm.arrived(1).await;

    let work = anna.say(&room, "/lbask something").await;
    let order = anna.say(&room, "/lbe").await;
    anna.answer_to(&order).await;
    let between = anna.say(&room, "/lbnew").await;
    assert!(anna.answer_to(&between).await.body().contains("lb did"), "it waits for its own bot's turns only");
    assert_eq!(answers_of(anna, &town.bot, &work), 0, "work for another bot waits for the turn");
    gate.notify_one();
    assert!(anna.answer_to(&asked).await.body().contains("Done at last."));
    assert!(anna.answer_to(&work).await.body().contains("lb heard: /lbask something"));

    // A stop ends whosever turn it is; a word to that bot steers it.
    let waits = anna.say(&room, "/lbask wait").await;
    let word = anna.say(&room, "/lbask go on").await;
    assert!(anna.answer_to(&waits).await.body().contains("lb heard: /lbask wait + /lbask go on"));
    let waits = anna.say(&room, "/lbask wait again").await;
    let stop = anna.say(&room, "!stop").await;
    let stopped = anna.answer_to(&waits).await;
    assert!(stopped.body().contains("Stopped"), "{stopped:?}");
    let barrier = anna.say(&room, "that is all").await;
    anna.answer_to(&barrier).await;
    assert_eq!((answers_of(anna, &town.bot, &word), answers_of(anna, &town.bot, &stop)), (0, 0), "one answer for both");
}

/// Whether nothing is left to be sent and no turn is open.
pub(super) fn is_settled(rig: &Rig) -> bool {
    let store = rusqlite::Connection::open(rig.database()).unwrap();
    let select = "SELECT NOT EXISTS (SELECT 1 FROM outbox WHERE sent IS NULL)
                      AND NOT EXISTS (SELECT 1 FROM turns WHERE state <> 'closed')";
    store.query_row(select, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_each_account_answers_once() {
    let (mut town, echo) = town().await;
    town.llm.otherwise(|request| Reply::text(&format!("coder heard: {}", user_texts(request).last().unwrap())));
    let room = town.anna.create_room(false, &[&town.bot, &echo]).await;
    for account in [&town.bot, &echo] {
        greeted(&town.anna, &room, account).await;
    }
    let mut asked = vec![];
    for point in ["synced", "journaled", "admitted", "claimed", "queued", "sent", "answered", "nowhere"] {
        let folder = town.rig.path().to_str().unwrap().to_owned();
        town.rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{folder}"));
        // What was seen in the room may not be noted as sent yet, and would bring the next server to its point at once.
        tokio::task::block_in_place(|| wait("all is noted as sent", || is_settled(&town.rig)));
        drop(town.server.take());
        town.serve();
        for words in ["a question", "/lbask a question"] {
            asked.push((point, words, town.anna.say(&room, &format!("{words}, {point}")).await));
        }
        if point != "nowhere" {
            let mut server = town.server.take().unwrap();
            let status = tokio::task::block_in_place(|| server.died());
            assert_eq!(status.signal(), Some(9), "at {point}: {}", server.log());
            town.serve();
        }
        for (_, words, event) in &asked[asked.len() - 2..] {
            let by_bot = answer_of(&town.anna, &town.bot, event).await;
            let bot = if words.starts_with("/lb") { "lb" } else { "coder" };
            assert!(by_bot.body().contains(&format!("{bot} heard: {words}, {point}")), "at {point}: {by_bot:?}");
            let by_echo = answer_of(&town.anna, &echo, event).await;
            assert!(by_echo.body().contains(&format!("{words}, {point}")), "at {point}: {by_echo:?}");
        }
    }
    barrier(&town, &echo, &room).await;
    for (point, words, event) in &asked {
        let counts = (answers_of(&town.anna, &town.bot, event), answers_of(&town.anna, &echo, event));
        assert_eq!(counts, (1, 1), "{words} at {point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_log_in_keeps_no_other_from_serving() {
    let (mut town, echo) = town().await;
    town.llm.otherwise(|_| Reply::text("I am here."));
    drop(town.server.take());
    std::fs::remove_dir_all(town.rig.path().join("s/matrix")).unwrap();
    town.rig.set("TEST_SECOND_ACCOUNT", &echo.replace("@echo", "@nobody"));
    town.serve();
    let room = town.anna.create_room(false, &[&town.bot]).await;
    greeted(&town.anna, &room, &town.bot).await;
    let asked = town.anna.say(&room, "hello").await;
    assert!(town.anna.answer_to(&asked).await.body().contains("I am here."));
    let log = town.log();
    let told =
        log.lines().filter(|line| line.contains("the account cannot be served") && line.contains("echo")).count();
    assert_eq!(told, 1, "{log}");
}

/// Sets up the account `family` beside the first, which hears Bert alone.
fn set_up_family(rig: &mut Rig, helper: &str, bert: &Person) {
    let file = rig.path().join("matrix-agent.toml");
    let (password, bert) = (password("helper"), &bert.id);
    let account =
        format!("[accounts.family]\nuser = \"{helper}\"\npassword = \"{password}\"\nallowed_users = [\"{bert}\"]\n");
    std::fs::write(&file, account).unwrap();
    let arguments = ["--env-file", "/dev/null", "--config-file", file.to_str().unwrap(), "run"];
    rig.serve_with(env!("CARGO_BIN_EXE_matrix-agent").into(), &arguments);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_the_configuration_is_served_beside_the_first_and_hears_its_own_people() {
    let (synapse, llm) = tokio::join!(Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    let (helper, bert) = (synapse.account("helper").await, Person::new(&synapse, "bert").await);
    llm.otherwise(|request| Reply::text(&format!("heard: {}", user_texts(request).join(" + "))));
    let town = Town::on(synapse, llm, |rig| set_up_family(rig, &helper, &bert)).await;
    let room = town.anna.create_room(false, &[&town.bot, &bert.id]).await;
    bert.accept(&room).await;
    greeted(&town.anna, &room, &town.bot).await;
    let own = bert.create_room(false, &[&helper, &town.anna.id]).await;
    town.anna.accept(&own).await;
    greeted(&bert, &own, &helper).await;

    let unheard = bert.say(&room, "hello first").await;
    let asked = town.anna.say(&room, "hello").await;
    let answer = answer_of(&town.anna, &town.bot, &asked).await;
    assert!(answer.body().contains("heard: hello") && !answer.body().contains("first"), "{answer:?}");
    let not_heard = town.anna.say(&own, "hello second").await;
    let asked = bert.say(&own, "good day").await;
    let answer = answer_of(&bert, &helper, &asked).await;
    assert!(answer.body().contains("heard: good day") && !answer.body().contains("second"), "{answer:?}");
    assert_eq!(answers_of(&town.anna, &town.bot, &unheard), 0, "bert is listed for the other account only");
    assert_eq!(answers_of(&bert, &helper, &not_heard), 0, "and anna for the first");

    // With two of them, a line of the log that names neither account nor room could be about either.
    let log = town.log();
    let chat: Vec<_> = log.lines().filter(|line| line.contains(" matrix_agent::chat::")).collect();
    let nameless: Vec<_> =
        chat.iter().filter(|line| !line.contains(" room{room=") && !line.contains(" account{account=")).collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
    for account in ["coder", "family"] {
        for says in ["logged in", "messages are read"] {
            let span = format!(" account{{account={account}}}: ");
            assert!(chat.iter().any(|line| line.contains(&span) && line.contains(says)), "{account}: {says}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_in_one_room_work_in_sandboxes_of_their_own() {
    let (synapse, llm) = tokio::join!(Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    let (helper, bert) = (synapse.account("helper").await, Person::new(&synapse, "bert").await);
    llm.otherwise(|request| {
        let said = user_texts(request).concat();
        let who = if said.contains("first") { "coder" } else { "family" };
        match request["messages"].as_array().unwrap().last().unwrap()["role"].as_str() {
            Some("tool") => Reply::text("It is written."),
            _ => Reply::calls(&[("run_command", json!({"command": format!("ls; echo {who} > who")}))]),
        }
    });
    let town = Town::on(synapse, llm, |rig| set_up_family(rig, &helper, &bert)).await;
    let room = town.anna.create_room(false, &[&town.bot, &bert.id]).await;
    bert.accept(&room).await;
    greeted(&town.anna, &room, &town.bot).await;
    bert.invite(&room, &helper).await;
    greeted(&bert, &room, &helper).await;
    let (first, second) = (town.anna.say(&room, "the first").await, bert.say(&room, "the second").await);
    answer_of(&town.anna, &town.bot, &first).await;
    answer_of(&bert, &helper, &second).await;

    let theirs = format!("family/{room}");
    let who = |room: &str| {
        let run = ["sandbox", "exec", room, "--", "cat", "who"];
        String::from_utf8(tokio::task::block_in_place(|| town.rig.run(&run)).stdout).unwrap()
    };
    assert_eq!((who(room.as_str()), who(&theirs)), ("coder\n".into(), "family\n".into()));
    let run = |args: &[&str]| tokio::task::block_in_place(|| town.rig.run(args));
    let list = String::from_utf8(run(&["sandbox", "list"]).stdout).unwrap();
    assert_eq!(list.lines().filter(|line| line.ends_with(&theirs)).count(), 1, "{list}");
    assert_eq!(list.lines().filter(|line| line.ends_with(&format!("  {room}"))).count(), 1, "{list}");
    let inspected = String::from_utf8(run(&["sandbox", "inspect", &theirs]).stdout).unwrap();
    assert!(inspected.lines().any(|line| line == "account   family"), "{inspected}");
    let removed = String::from_utf8(run(&["sandbox", "rm", &theirs]).stdout).unwrap();
    assert_eq!(removed, format!("Removed the sandbox of {theirs}.\n"));
    let list: serde_json::Value = serde_json::from_slice(&run(&["sandbox", "list", "--json"]).stdout).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["room"]), (1, &json!(room.as_str())), "{list}");
    assert_eq!(who(room.as_str()), "coder\n", "the first account's is untouched");
}
