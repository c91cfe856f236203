//! exobot in rooms of a real homeserver.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use reqwest::Method;
use serde_json::json;

use super::{
    Lab,
    support::{
        person::Person,
        rig::wait,
        scripted_llm::{Reply, ScriptedLlm},
        seen::Seen,
        synapse::{Limits, Synapse, password},
    },
};

pub(super) fn login(lab: &Lab, input: &str) -> Output {
    tokio::task::block_in_place(|| {
        let mut command = lab.rig.command(&["exobot", "login"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_wakes_answers_in_its_modes_sleeps_and_wakes_with_what_was_said() {
    use std::os::unix::fs::PermissionsExt;

    let synapse = Synapse::start(Limits::Relaxed).await;
    let anna = Person::new(&synapse, "anna").await;
    synapse.admin(Method::GET, "/_synapse/admin/v2/users?limit=1", json!({})).await;
    let mut lab = Lab::new("none");
    let room = anna.create_room(true, &[]).await;
    let other = anna.create_room(false, &[]).await;
    for (key, value) in [
        ("MATRIX_HOMESERVER", synapse.url()),
        ("MATRIX_ADMIN_USER", "@operator:localhost"),
        ("MATRIX_ADMIN_PASSWORD", &password("operator")),
        ("EXOBOT_ALLOWED_ROOMS", room.as_str()),
    ] {
        lab.rig.set(key, value);
    }
    let output = login(&lab, "");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("@exobot:localhost is logged in"), "{told}");
    let token = std::fs::read_to_string(lab.token_file()).unwrap();
    let token = token.lines().find_map(|line| line.strip_prefix("EXOBOT_TOKEN = ")).unwrap().to_owned();
    assert!(!told.contains(&token), "{told}");
    assert_eq!(std::fs::metadata(lab.token_file()).unwrap().permissions().mode() & 0o777, 0o600);

    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let bot = "@exobot:localhost";
    anna.invite(&other, bot).await;
    anna.member(&other, bot, "leave").await;
    anna.invite(&room, bot).await;
    anna.joined(&room, bot).await;
    assert_eq!(lab.events(), Vec::<String>::new(), "nobody has asked yet");

    let asked = anna.say(&room, "@exobot fast: are you awake?").await;
    let answer = anna.answer_to(&asked).await;
    assert!(answer.body().contains("I am awake.") && answer.body().contains("tiny-model"), "{answer:?}");
    let asked = anna.say(&room, "@exobot deepreason: and now?").await;
    anna.answer_to(&asked).await;
    let events = lab.events();
    assert_eq!(events[1..], ["asked for 100", "asked for 600"], "one start, and the modes' limits");

    tokio::task::block_in_place(|| wait("the model to sleep", || lab.alive().is_empty()));
    assert_eq!(lab.events()[3..], ["save"]);
    let asked = anna.say(&room, "@exobot what did I say?").await;
    assert!(anna.answer_to(&asked).await.body().contains("I am awake."));
    assert_eq!(lab.events()[5..], ["restore", "asked for 250"]);

    let log = tokio::task::block_in_place(|| server.stop());
    assert!(lab.alive().is_empty(), "the child ends with the server");
    assert!(!log.contains(&token) && !log.contains("are you awake"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_is_told_in_the_room_and_not_in_the_servers_words() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let anna = Person::new(&synapse, "anna").await;
    synapse.admin(Method::GET, "/_synapse/admin/v2/users?limit=1", json!({})).await;
    let mut lab = Lab::new("sigill");
    let room = anna.create_room(false, &[]).await;
    for (key, value) in [
        ("MATRIX_HOMESERVER", synapse.url()),
        ("MATRIX_ADMIN_USER", "@operator:localhost"),
        ("MATRIX_ADMIN_PASSWORD", &password("operator")),
        ("EXOBOT_ALLOWED_ROOMS", room.as_str()),
    ] {
        lab.rig.set(key, value);
    }
    assert!(login(&lab, "").status.success());
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    anna.invite(&room, "@exobot:localhost").await;
    anna.joined(&room, "@exobot:localhost").await;
    let asked = anna.say(&room, "@exobot hello").await;
    let answer = anna.answer_to(&asked).await;
    assert!(answer.body().contains("was built for another processor"), "{answer:?}");
    let log = tokio::task::block_in_place(|| server.stop());
    assert_eq!(log.matches("is given up until somebody asks again").count(), 1, "{log}");
}

/// A scripted model in the registry, and a lab whose exobot asks it and has an account at the homeserver.
async fn elsewhere(synapse: &Synapse, rooms: &str, known_bots: &str) -> (Lab, ScriptedLlm) {
    let llm = ScriptedLlm::start().await;
    llm.lists(&["far-away"]);
    // Makes the administrator.
    synapse.admin(Method::GET, "/_synapse/admin/v2/users?limit=1", json!({})).await;
    let mut lab = Lab::new("none");
    let registry = lab.rig.path().join("registry");
    std::fs::create_dir_all(&registry).unwrap();
    let endpoint = json!({"id": "far", "type": "vllm", "url": llm.base_url().trim_end_matches("/v1")});
    std::fs::write(registry.join("inference-endpoints.json"), json!({"endpoints": [endpoint]}).to_string()).unwrap();
    for (key, value) in [
        ("MATRIX_HOMESERVER", synapse.url()),
        ("MATRIX_ADMIN_USER", "@operator:localhost"),
        ("MATRIX_ADMIN_PASSWORD", &password("operator")),
        ("EXOBOT_ALLOWED_ROOMS", rooms),
        ("EXOBOT_KNOWN_BOTS", known_bots),
        ("LOCALBOT_DIR", registry.to_str().unwrap()),
        ("EXOBOT_MODEL", "localbot/far"),
    ] {
        lab.rig.set(key, value);
    }
    assert!(login(&lab, "").status.success());
    (lab, llm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_registry_is_asked_in_place_of_one_of_its_own() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let anna = Person::new(&synapse, "anna").await;
    let room = anna.create_room(false, &[]).await;
    let (mut lab, llm) = elsewhere(&synapse, room.as_str(), "none").await;
    llm.otherwise(|_| Reply::text("From somewhere else."));
    // One of the two it must be.
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    assert!(server.log().contains("keep the one or the others"), "{}", server.log());
    server.kill();
    for key in ["LLAMA_SERVER_BIN", "MODEL_PATH"] {
        lab.rig.set(key, "");
    }
    let _server = tokio::task::block_in_place(|| lab.rig.serve());
    anna.invite(&room, "@exobot:localhost").await;
    anna.joined(&room, "@exobot:localhost").await;
    let asked = anna.say(&room, "@exobot fast: where are you?").await;
    let answer = anna.answer_to(&asked).await;
    assert!(answer.body().contains("From somewhere else.") && answer.body().contains("far"), "{answer:?}");
    assert_eq!(llm.requests()[0]["max_tokens"], 100);
    assert_eq!(lab.events(), Vec::<String>::new(), "nothing was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_talks_with_another_bot_where_nobody_else_does() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let (anna, qwen) = (Person::new(&synapse, "anna").await, Person::new(&synapse, "qwen").await);
    let still = anna.create_room(false, &[&qwen.id]).await;
    let lively = anna.create_room(false, &[&qwen.id]).await;
    for room in [&still, &lively] {
        qwen.accept(room).await;
    }
    let (mut lab, llm) = elsewhere(&synapse, &format!("{still},{lively}"), &qwen.id).await;
    llm.when("Begin a conversation").reply_text("Do machines dream?");
    for (key, value) in [("LLAMA_SERVER_BIN", ""), ("MODEL_PATH", ""), ("CROSSBOT_ENABLED", "true")] {
        lab.rig.set(key, value);
    }
    let _server = tokio::task::block_in_place(|| lab.rig.serve());
    let exobot = "@exobot:localhost";
    for room in [&still, &lively] {
        anna.invite(room, exobot).await;
        anna.joined(room, exobot).await;
    }
    anna.say(&lively, "I am here.").await;
    for room in [&lively, &still] {
        qwen.say(room, "I have counted to a million.").await;
    }
    // Its rooms are looked at every half minute.
    let begins = |it: &Seen| it.is_message() && it.sender == exobot && it.body().contains("Do machines dream?");
    let begun = qwen.wait_for("a conversation", begins).await;
    assert!(begun.room == still && begun.mentions(&qwen.id), "{begun:?}");
    assert_eq!(llm.requests().len(), 1, "people are not interrupted");
}
