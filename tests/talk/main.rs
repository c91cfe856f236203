//! Nextcloud Talk: the real binary with a file of its own, a scripted Nextcloud that checks every signature, a scripted model.

#[path = "../support/mod.rs"]
mod support;

mod dashboard;
mod nextcloud;
mod place;

use std::{
    collections::HashSet,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::Output,
    sync::Arc,
};

use nextcloud::{Posted, SECRET, moved, replied, said, signature};
use place::Place;
use serde_json::{Value, json};
use support::{
    rig::{block_on, wait},
    scripted_llm::{Reply, user_texts},
};
use tokio::sync::Notify;

/// The mark of a message that may have been sent before.
const PERHAPS: &str = "it may stand here already";

/// What was last said to the model, said back.
fn echo(request: &Value) -> Reply {
    Reply::text(&format!("heard: {}", user_texts(request).last().unwrap()))
}

fn out(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_mention_is_heard_at_once_and_answered_once_by_talk_alone() {
    let place = Place::with("SYSTEM_PROMPT=\"Always be kind.\"\n");
    place.llm.otherwise(echo);
    let server = place.serve();
    assert!(server.log().contains("only the Nextcloud Talk bot is served"), "{}", server.log());
    let webhook = place.webhook;
    assert_eq!(webhook.tell(&said("n3xtc10ud", 1, "users/ada", "nothing for you")), 202);
    assert_eq!(webhook.tell(&said("n3xtc10ud", 2, "users/ada", "Halo Grace, how are you?")), 202, "a greeting");
    assert_eq!(webhook.tell(&said("n3xtc10ud", 3, "users/ada", "@halo why is the sky blue?")), 202);
    let posted = place.posted(1);
    let Posted { conversation, text, reply_to, reference } = &posted[0];
    assert_eq!((conversation.as_str(), *reply_to, reference.len()), ("n3xtc10ud", Some(3), 64));
    assert!(text.starts_with("heard: why is the sky blue?") && text.contains("tiny"), "{text}");
    let request = &place.llm.requests()[0];
    let system = request["messages"][0]["content"].to_string();
    assert!(system.contains("You are Halo") && system.contains("Always be kind."), "{system}");
    place.ask_last("n3xtc10ud", 4);
    assert_eq!(place.nextcloud.posted().len(), 2, "{:?}", place.nextcloud.posted());
    assert_eq!(place.llm.requests().len(), 2, "what does not call it costs nothing");
    wait("the reactions", || place.nextcloud.reactions().len() >= 2);
    let reactions = place.nextcloud.reactions();
    assert!(reactions.contains(&("n3xtc10ud".to_owned(), 3, "👀".to_owned())), "{reactions:?}");
    assert_eq!(reactions.len(), 2, "{reactions:?}");
    assert!(!server.log().contains("why is the sky"), "what people say is not in the log");
}

#[test]
fn what_is_forged_replayed_too_large_or_nobodys_does_nothing() {
    let place = Place::new();
    place.llm.otherwise(echo);
    let _server = place.serve();
    let webhook = place.webhook;
    let body = said("abc1", 1, "users/ada", "@Halo hello").to_string();
    let random = "r".repeat(64);
    let good = signature(SECRET, &random, body.as_bytes());
    let other = signature("another-secret-of-somebody-else-0123456789", &random, body.as_bytes());
    let moved_mark = signature(SECRET, "", format!("{random}{body}").as_bytes());
    for (random, forged) in [
        (random.as_str(), ""),
        (random.as_str(), "zz"),
        (random.as_str(), &good[1..]),
        (random.as_str(), other.as_str()),
        ("", moved_mark.as_str()),
        ("another", good.as_str()),
    ] {
        assert_eq!(webhook.send(random, forged, body.as_bytes()), 401, "{random} {forged}");
    }
    let changed = body.replace("hello", "hallo");
    assert_eq!(webhook.send(&random, &good, changed.as_bytes()), 401);
    let large = vec![b' '; (2 << 20) + 1];
    assert_eq!(webhook.send(&random, &signature(SECRET, &random, &large), &large), 413);
    for unread in ["", "[]", "{}", "{\"type\":\"Create\"}"] {
        assert_eq!(webhook.send(&random, &signature(SECRET, &random, unread.as_bytes()), unread.as_bytes()), 400);
    }
    for kind in ["Like", "Undo", "Activity"] {
        let mut activity = said("abc1", 1, "users/ada", "@Halo hello");
        activity["type"] = kind.into();
        assert_eq!(webhook.tell(&activity), 200, "{kind}");
    }
    assert_eq!(webhook.tell(&said("abc1", 2, "bots/bot-123", "@Halo hello")), 200, "bots are not heard");
    assert_eq!(place.llm.requests().len(), 0);

    assert_eq!(webhook.send(&random, &good, body.as_bytes()), 202);
    place.posted(1);
    for _ in 0..3 {
        assert_eq!(webhook.send(&random, &good, body.as_bytes()), 409);
    }
    // The same, signed anew: no server tells anything twice.
    assert_eq!(webhook.tell(&said("abc1", 1, "users/ada", "@Halo hello")), 409);
    // A server that was restored begins its numbers anew.
    assert_eq!(webhook.tell(&said("abc1", 1, "users/ada", "@Halo something else")), 202);
    place.posted(2);
    place.ask_last("abc1", 9);
    assert_eq!(place.nextcloud.posted().len(), 3, "{:?}", place.nextcloud.posted());
}

#[test]
fn a_replay_is_known_after_a_restart_too() {
    let place = Place::new();
    place.llm.otherwise(echo);
    let server = place.serve();
    let (hello, join) = (said("abc1", 1, "users/ada", "@Halo hello"), moved("Join", "abc1").to_string());
    let random = "j".repeat(64);
    let signed = signature(SECRET, &random, join.as_bytes());
    assert_eq!(place.webhook.send(&random, &signed, join.as_bytes()), 202);
    assert_eq!(place.webhook.tell(&hello), 202);
    wait("that it was sent to be noted", || place.posted(1).len() == 1 && place.unsent() == 0);
    server.kill();
    let _server = place.serve();
    assert_eq!(place.webhook.tell(&hello), 409);
    assert_eq!(place.webhook.send(&random, &signed.to_uppercase(), join.as_bytes()), 409);
    // To be added again is no replay, though all but the signature is the same.
    assert_eq!(place.webhook.tell(&moved("Leave", "abc1")), 202);
    assert_eq!(place.webhook.tell(&moved("Join", "abc1")), 202);
    place.ask_last("abc1", 2);
    assert_eq!(place.nextcloud.posted().len(), 2);
}

#[test]
fn what_is_repeated_does_not_bring_a_conversation_back_that_was_left() {
    let place = Place::new();
    let _server = place.serve();
    let chat = said("abc1", 1, "users/ada", "nothing for the bot");
    assert_eq!(place.webhook.tell(&chat), 202);
    assert!(!place.has_left("abc1"));
    assert_eq!(place.webhook.tell(&moved("Leave", "abc1")), 202);
    assert!(place.has_left("abc1"));
    assert_eq!(place.webhook.tell(&chat), 409);
    assert!(place.has_left("abc1"));
    // Nextcloud may not have told that the bot was added again.
    assert_eq!(place.webhook.tell(&said("abc1", 2, "users/ada", "still nothing")), 202);
    assert!(!place.has_left("abc1"));
}

#[test]
fn only_listed_people_are_heard_and_some_conversations_need_no_mention() {
    let place = Place::with("ALLOWED_USERS=\"ada, grace hopper\"\nDIRECT_CONVERSATIONS=two1\n");
    place.llm.otherwise(echo);
    let _server = place.serve();
    let webhook = place.webhook;
    for stranger in ["users/bert", "guests/ada", "users/ADA", "federated_users/ada", "emails/ada"] {
        assert_eq!(webhook.tell(&said("abc1", 1, stranger, "@Halo hello")), 200, "{stranger}");
    }
    assert_eq!(webhook.tell(&said("abc1", 2, "users/grace hopper", "@Halo from a group")), 202);
    assert!(place.posted(1)[0].text.contains("from a group"));
    assert_eq!(webhook.tell(&said("two1", 3, "users/ada", "between us")), 202);
    assert!(place.posted(2)[1].text.contains("between us"));
    // A reply to what the bot has said is meant for it, and it knows what that was.
    assert_eq!(webhook.tell(&replied("abc1", 4, "users/ada", "are you sure?", "Halo", "The earth is flat.")), 202);
    let answer = &place.posted(3)[2];
    assert!(answer.text.contains("are you sure?") && answer.text.contains("The earth is flat."), "{}", answer.text);
    assert_eq!(webhook.tell(&replied("abc1", 5, "users/ada", "and you?", "Other", "I am another bot.")), 202);
    place.ask_last("abc1", 6);
    assert_eq!(place.nextcloud.posted().len(), 4, "{:?}", place.nextcloud.posted());
}

/// Kills the server at `point` after a question came; returns all that was sent once it runs again.
fn killed_at(point: &str) -> Vec<Posted> {
    let mut place = Place::new();
    place.llm.otherwise(echo);
    let marker = place.rig.path().to_str().unwrap().to_owned();
    place.rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{marker}"));
    let mut server = place.serve();
    let question = said("abc1", 7, "users/ada", "@Halo hello");
    let first = place.webhook.tell(&question);
    assert_eq!(server.died().signal(), Some(9), "the server was killed at {point}");
    let _server = place.serve();
    // Whoever was not told that it has arrived may send it again.
    let again = if point == "received" { 202 } else { 409 };
    assert!(first == 0 || first == 202, "at {point}: {first}");
    assert_eq!(place.webhook.tell(&question), again, "at {point}");
    place.posted(1);
    place.ask_last("abc1", 8);
    place.nextcloud.posted().into_iter().filter(|posted| !posted.text.contains("this is the end")).collect()
}

macro_rules! killed {
    ($($name:ident $point:literal)*) => {$(
        #[test]
        fn $name() {
            let posted = killed_at($point);
            assert_eq!(posted.len(), 1, "{posted:?}");
            assert!(posted[0].text.contains("heard: hello") && !posted[0].text.contains(PERHAPS), "{posted:?}");
            assert_eq!(posted[0].reply_to, Some(7));
        }
    )*};
}

killed! {
    killed_when_the_message_was_received "received"
    killed_when_it_was_journaled "journaled"
    killed_when_it_was_taken "taken"
    killed_when_it_was_claimed "claimed"
    killed_when_the_answer_was_queued "queued"
    killed_when_that_it_was_sent_was_noted "noted"
    killed_when_it_was_answered "answered"
}

/// Talk can neither be asked for what was sent nor does it know a message again, so this one moment cannot be told from the one before
/// it: the answer comes again, and says that it may.
#[test]
fn killed_between_the_answer_and_its_note_it_comes_again_and_says_so() {
    let posted = killed_at("sent");
    assert_eq!(posted.len(), 2, "{posted:?}");
    assert!(!posted[0].text.contains(PERHAPS) && posted[1].text.contains(PERHAPS), "{posted:?}");
    assert_eq!(posted[0].reference, posted[1].reference, "it has the same name each time");
}

#[test]
fn a_long_answer_comes_in_messages_of_the_servers_length() {
    let place = Place::new();
    place.nextcloud.takes_at_most(500);
    let lines: Vec<_> = (0..60).map(|line| format!("This is line number {line} of them.")).collect();
    place.llm.reply_text(&lines.join("\n"));
    let _server = place.serve();
    assert_eq!(place.webhook.tell(&said("abc1", 7, "users/ada", "@Halo tell me more")), 202);
    place.ask_last("abc1", 8);
    let posted = place.nextcloud.posted();
    let pieces = &posted[..posted.len() - 1];
    assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.text.chars().count() <= 500), "{pieces:?}");
    let text = pieces.iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>().join("\n");
    assert!(text.starts_with(&lines.join("\n")), "at lines' ends, in order, once: {text}");
    assert_eq!(pieces[0].reply_to, Some(7));
    assert!(pieces[1..].iter().all(|piece| piece.reply_to.is_none()));
    let references: HashSet<_> = pieces.iter().map(|piece| &piece.reference).collect();
    assert_eq!(references.len(), pieces.len(), "each message has a name of its own");
}

#[test]
fn what_is_too_long_after_all_is_split_further_and_a_lost_question_is_answered_without_it() {
    let place = Place::new();
    place.nextcloud.lose_parents();
    place.llm.reply_text(&"word ".repeat(200));
    let _server = place.serve();
    // It says more than it takes.
    wait("the capabilities", || place.nextcloud.capabilities_asked() > 0);
    place.nextcloud.takes_at_most(300);
    assert_eq!(place.webhook.tell(&said("abc1", 7, "users/ada", "@Halo talk")), 202);
    place.ask_last("abc1", 8);
    let posted = place.nextcloud.posted();
    assert!(posted.len() >= 5 && !place.nextcloud.too_long().is_empty(), "{posted:?}");
    assert!(posted.iter().all(|piece| piece.reply_to.is_none() && piece.text.chars().count() <= 300));
    let words: usize = posted.iter().map(|piece| piece.text.matches("word").count()).sum();
    assert_eq!(words, 200, "none is lost or repeated");
}

#[test]
fn where_it_is_not_known_it_stops_after_a_few_tries_and_says_so_once() {
    let place = Place::new();
    place.llm.otherwise(echo);
    place.nextcloud.forget(true);
    let server = place.serve();
    assert_eq!(place.webhook.tell(&said("abc1", 1, "users/ada", "@Halo hello")), 202);
    let stopped = "shuts it out";
    wait("the end of tries", || server.log().contains(stopped));
    let asked = place.nextcloud.asked();
    assert!(asked <= 4, "{asked} requests");
    // It would be taken again now, and nobody asks: only a person knows whether all is well.
    place.nextcloud.forget(false);
    assert_eq!(place.webhook.tell(&said("abc2", 2, "users/ada", "@Halo hello again")), 202);
    wait("both answers to be stored", || place.unsent() == 2);
    assert_eq!(place.nextcloud.asked(), asked);
    let log = server.stop();
    assert_eq!(log.matches(stopped).count(), 1, "{log}");
    assert!(log.contains("--feature response"), "{log}");
    // What was not sent is there when the server is started anew.
    let _server = place.serve();
    let posted = place.posted(2);
    assert_eq!(posted.len(), 2);
    assert!(posted.iter().all(|posted| !posted.text.contains(PERHAPS)), "a refusal is no doubt: {posted:?}");
}

/// It may stand there: each further try would show it once more.
#[test]
fn an_answer_that_may_have_been_taken_is_not_sent_again_at_once() {
    let place = Place::new();
    place.llm.otherwise(echo);
    place.nextcloud.loses_answers(true);
    let server = place.serve();
    assert_eq!(place.webhook.tell(&said("abc1", 1, "users/ada", "@Halo hello")), 202);
    wait("the message", || place.nextcloud.posted().len() == 1);
    wait("its loss", || server.log().contains("answer is lost"));
    place.nextcloud.loses_answers(false);
    // Other conversations do not wait for this one.
    assert_eq!(place.webhook.tell(&said("other", 2, "users/ada", "@Halo hello there")), 202);
    let posted = place.posted(2);
    let of = |conversation: &str| posted.iter().filter(|posted| posted.conversation == conversation).count();
    assert_eq!((of("abc1"), of("other")), (1, 1), "{posted:?}");
    wait("the other one to be noted, and only that", || place.unsent() == 1);
}

/// A proxy, a login page or a captive portal has not taken the message, whatever its status.
#[test]
fn a_page_in_place_of_an_answer_loses_no_message() {
    for status in [200, 302, 404, 503] {
        let place = Place::new();
        place.llm.otherwise(echo);
        place.nextcloud.shows_page(Some(status));
        let server = place.serve();
        assert_eq!(place.webhook.tell(&said("abc1", 1, "users/ada", "@Halo hello")), 202);
        wait("a second try", || place.nextcloud.asked() >= 3);
        place.nextcloud.shows_page(None);
        let posted = place.posted(1);
        assert!(posted[0].text.starts_with("heard: hello"), "{status}: {posted:?}");
        assert!(server.log().contains("it is tried again"), "{status}: {}", server.log());
    }
}

#[test]
fn nextcloud_is_answered_at_once_while_the_model_is_slow() {
    let place = Place::new();
    let gate = Arc::new(Notify::new());
    place.llm.when("first").after(&gate).reply_text("one");
    place.llm.when("second").reply_text("two");
    let _server = place.serve();
    assert_eq!(place.webhook.tell(&said("abc1", 1, "users/ada", "@Halo the first")), 202);
    block_on(place.llm.arrived(1));
    assert_eq!(place.webhook.tell(&said("abc1", 2, "users/grace", "@Halo the second")), 202);
    assert_eq!(place.webhook.tell(&said("abc2", 3, "users/ada", "@Halo elsewhere the second")), 202);
    assert!(place.posted(1)[0].text.starts_with("two"), "another conversation does not wait");
    place.llm.when("second").reply_text("two");
    gate.notify_one();
    let posted = place.posted(3);
    let here: Vec<_> = posted.iter().filter(|posted| posted.conversation == "abc1").map(|it| it.reply_to).collect();
    assert_eq!(here, [Some(1), Some(2)], "{posted:?}");
}

#[test]
fn a_model_that_fails_is_one_plain_sentence() {
    let place = Place::new();
    place.llm.status(500, &[], "<html>secret trouble</html>");
    let _server = place.serve();
    assert_eq!(place.webhook.tell(&said("abc1", 1, "users/ada", "@Halo hello")), 202);
    let posted = place.posted(1);
    assert!(posted[0].text.contains("has trouble") && !posted[0].text.contains("secret"), "{posted:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_its_mend() {
    let place = Place::with("TIMEOUT=never\n");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let output = place.rig.run(&["run"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(out(&output).contains("chmod 600") && !out(&output).contains(SECRET), "{}", out(&output));
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
    let output = place.rig.run(&["run"]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(out(&output).contains("TIMEOUT"), "{}", out(&output));
}

#[test]
fn a_port_that_is_taken_is_told_with_its_setting() {
    let place = Place::new();
    let _taken = TcpListener::bind(("127.0.0.1", place.webhook.0)).unwrap();
    let output = place.rig.run(&["run"]);
    assert!(!output.status.success() && out(&output).contains("BOT_PORT"), "{}", out(&output));
}

#[test]
fn doctor_names_a_missing_feature_and_what_is_not_known() {
    let place = Place::with("DIRECT_CONVERSATIONS=two1\n");
    place.llm.lists(&["tiny"]);
    let doctor = || -> Vec<Value> {
        let output = place.rig.run(&["doctor", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = found["checks"].as_array().unwrap().iter();
        checks.filter(|check| check["name"] == "Nextcloud Talk").cloned().collect()
    };
    let says = |checks: &[Value], status: &str, words: &str| {
        checks.iter().any(|check| check["status"] == status && check.to_string().contains(words))
    };
    let checks = doctor();
    assert!(says(&checks, "good", "two1") && says(&checks, "good", "has `tiny`"), "{checks:#?}");
    place.nextcloud.gives(1);
    let checks = doctor();
    assert!(says(&checks, "bad", "--feature response"), "{checks:#?}");
    place.nextcloud.forget(true);
    let checks = doctor();
    assert!(says(&checks, "bad", "401"), "{checks:#?}");
}

/// With real Podman: the coding agent has a conversation of its own, where only its users are heard, and the chat bot another one.
#[test]
fn the_coding_agent_works_in_its_conversation_for_its_users() {
    let mut place = Place::with("CODER_CONVERSATIONS=work1\nCODER_USERS=ada\n");
    place.llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "tool" {
            return Reply::text(&format!("It came to this: {}", last["content"].as_str().unwrap()));
        }
        if request["tools"].is_array() {
            return Reply::calls(&[("run_command", json!({"command": "echo made in the sandbox"}))]);
        }
        echo(request)
    });
    let (base_url, folder) = (place.llm.base_url().to_owned(), place.rig.path().to_str().unwrap().to_owned());
    let rooms = json!({"rooms": {"talk:abc1": {"roomName": "world", "agentId": "talk/talk"}}});
    fs::write(place.rig.path().join("localbot-rooms.json"), rooms.to_string()).unwrap();
    for (key, value) in [
        ("LOCALBOT_DIR", folder.as_str()),
        ("LLM_BASE_URL", base_url.as_str()),
        ("LLM_API_KEY", "sk-scripted-secret"),
        ("LLM_MODEL", "openai/scripted"),
        ("PODMAN_PATH", "podman"),
        ("PODMAN_SOCKET", ""),
    ] {
        place.rig.set(key, value);
    }
    let _server = place.serve();
    let webhook = place.webhook;
    assert_eq!(webhook.tell(&said("work1", 1, "users/bert", "@Halo delete everything")), 200);
    assert_eq!(webhook.tell(&said("work1", 2, "users/ada", "please make something")), 202);
    let posted = place.posted(1);
    assert!(posted[0].text.contains("made in the sandbox"), "{posted:?}");
    assert_eq!((posted[0].conversation.as_str(), posted[0].reply_to), ("work1", Some(2)));
    assert_eq!(webhook.tell(&said("abc1", 3, "users/bert", "@Halo hello")), 202);
    let posted = place.posted(2);
    assert!(posted[1].text.starts_with("heard: hello"), "{posted:?}");
    // Its users may clear what the chat bot remembers elsewhere.
    assert_eq!(webhook.tell(&said("work1", 4, "users/ada", "!lbn world")), 202);
    let posted = place.posted(3);
    assert!(posted[2].text.contains("session reset (world)"), "{posted:?}");
}
