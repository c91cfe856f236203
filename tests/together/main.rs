//! All bots in one process, and in one room those of Matrix: the coding agent with its `/lb` commands, two cloud bots and exobot; and the
//! bot of Nextcloud Talk. Each message is answered once, by the one for whom it was meant, wherever the server is killed.

#[path = "../support/mod.rs"]
mod support;

mod figures;
#[path = "../talk/nextcloud.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod nextcloud;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
};

use futures_util::future::join_all;
use matrix_sdk::ruma::OwnedRoomId;
use nextcloud::{Nextcloud, SECRET, Webhook, said};
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    bot::Town,
    replies::Reply,
    rig::{Rig, free_port, wait},
    scripted_llm::{ScriptedLlm, user_texts},
    seen::Shown,
    synapse::{Limits, Synapse, password},
};

/// Where the server is killed, by whichever bot comes there first.
const POINTS: [&str; 8] = ["synced", "admitted", "claimed", "asked", "shown", "queued", "sent", "answered"];
/// The cloud bots.
const CLOUD: [&str; 2] = ["alpha", "beta"];

/// The process with all its bots, and Anna's room.
struct Scene {
    town: Town,
    room: OwnedRoomId,
    nextcloud: Nextcloud,
    webhook: Webhook,
}

/// A token of a new login.
async fn token(synapse: &Synapse, name: &str) -> String {
    let user = json!({"type": "m.id.user", "user": name});
    let body = json!({"type": "m.login.password", "identifier": user, "password": password(name)});
    let (status, answer) = synapse.call(Method::POST, "/_matrix/client/v3/login", None, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

/// Writes a file that only its owner may read, in folders that only its owner may enter.
fn write(rig: &Rig, name: &str, text: &str) {
    let (state, secrets) = (rig.path().join("s"), rig.path().join("s/secrets"));
    fs::create_dir_all(&secrets).unwrap();
    for folder in [state, secrets.clone()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let file = secrets.join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Gives exobot a stand-in for llama-server.
fn wakes_a_fake(rig: &mut Rig) {
    let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fake_llama.py");
    let path = |name: &str| rig.path().join(name);
    let (program, model, events) = (path("llama-server"), path("tiny-model.gguf"), path("events"));
    fs::write(&model, [&b"GGUF\x03\0\0\0"[..], &[0; 64]].concat()).unwrap();
    let events = events.display();
    let script = format!("#!/bin/sh\necho started $$ >>{events}\nexec python3 {fake} none {events} \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    for (key, value) in [
        ("LLAMA_SERVER_BIN", program.to_str().unwrap()),
        ("MODEL_PATH", model.to_str().unwrap()),
        ("IDLE_UNLOAD_SECONDS", "60"),
        // A machine that is busy with other tests is short of processors.
        ("EXOBOT_PRESSURE_PERCENT", "0"),
    ] {
        rig.set(key, value);
    }
}

/// Returns how many of exobot's children live.
fn children(rig: &Rig) -> usize {
    let events = fs::read_to_string(rig.path().join("events")).unwrap_or_default();
    let lives = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    events.lines().filter_map(|event| event.strip_prefix("started ")).filter(lives).count()
}

/// Says which model was asked what.
fn echo(request: &Value) -> Reply {
    Reply::text(&format!("{} heard {:?}.", request["model"].as_str().unwrap(), user_texts(request).last().unwrap()))
}

impl Scene {
    async fn new() -> Self {
        let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
        llm.otherwise(echo);
        let (url, mut files) = (llm.base_url().to_owned(), Vec::new());
        for name in CLOUD {
            let (user, token) = (synapse.account(name).await, token(&synapse, name).await);
            let model = format!("LLM_BASE_URL={url}\nLLM_MODEL={name}-model\nLLM_API_KEY=sk-{name}\n");
            files.push((name, format!("BOT_MXID={user}\nBOT_TOKEN={token}\n{model}")));
        }
        let (exobot, exobot_token) = (synapse.account("exobot").await, token(&synapse, "exobot").await);
        let mut town = Town::on(synapse, llm, |rig| {
            rig.set("ENABLE_CLOUD_BOTS", "true");
            let folder = rig.path().join("localbot");
            fs::create_dir_all(&folder).unwrap();
            let endpoint = json!({"id": "gone", "type": "llama-cpp", "url": "http://127.0.0.1:9"});
            fs::write(folder.join("inference-endpoints.json"), json!({"endpoints": [endpoint]}).to_string()).unwrap();
            rig.set("LOCALBOT_DIR", folder.to_str().unwrap());
            wakes_a_fake(rig);
        })
        .await;
        let room = town.room(false).await;
        drop(town.server.take());
        for (name, file) in files {
            write(
                &town.rig,
                &format!("cloud-bot-{name}.env"),
                &format!("{file}RATE_LIMIT_RPM=1000\nALLOWED_ROOMS={room}\n"),
            );
        }
        let exobot = format!("EXOBOT_MXID={exobot}\nEXOBOT_TOKEN={exobot_token}\nHS_URL={}\n", town.synapse.url());
        write(&town.rig, "exobot.env", &exobot);
        town.rig.set("EXOBOT_ALLOWED_ROOMS", room.as_str());
        town.rig.set("ENABLE_EXOBOT", "true");
        let nextcloud = Nextcloud::start();
        let port = free_port();
        let of_talk = format!("NEXTCLOUD_URL={}\nBOT_SECRET={SECRET}\nBOT_PORT={port}\n", nextcloud.url());
        write(&town.rig, "nextcloud-talk.env", &format!("{of_talk}MODEL_BASE_URL={url}\nMODEL_NAME=halo-model\n"));
        town.serve();
        for name in CLOUD.into_iter().chain(["exobot"]) {
            let bot = format!("@{name}:localhost");
            town.anna.invite(&room, &bot).await;
            town.anna.joined(&room, &bot).await;
        }
        Self { town, room, nextcloud, webhook: Webhook(port) }
    }

    /// Kills the server at a point of what comes of a message to each bot, starts it again, and sees that each has one answer.
    async fn at(&mut self, point: &str) {
        let folder = tempfile::tempdir().unwrap();
        // It is killed only once this folder is there: at its start it takes up what the bots have said last.
        let armed = folder.path().join("armed");
        self.town.rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{}", armed.display()));
        drop(self.town.server.take());
        self.town.serve();
        fs::create_dir(&armed).unwrap();
        let (at, after) = (format!("at {point}"), format!("after {point}"));
        // Nextcloud tells its message in vain if the server dies first.
        self.ask_in_talk(&at);
        let asked = self.ask(&at).await;
        let mut server = self.town.server.take().unwrap();
        let status = tokio::task::block_in_place(|| server.died());
        assert_eq!(status.signal(), Some(9), "at {point}: {}", server.log());
        self.town.serve();
        self.is_answered(&asked, point).await;
        // What each says next comes behind all that it said before.
        self.ask_in_talk(&at);
        self.ask_in_talk(&after);
        let last = self.ask(&after).await;
        self.is_answered(&last, point).await;
        self.each_once(&asked, point);
        self.is_answered_in_talk(&[at, after]);
    }

    /// Asks the bot of Talk something, as a message of its own; again it is the same.
    fn ask_in_talk(&self, what: &str) {
        let number = what.bytes().fold(0, |sum: u64, byte| sum * 31 % 1_000_003 + u64::from(byte));
        self.webhook.tell(&said("n3xtc10ud", number, "users/ada", &format!("@Halo are you {what}?")));
    }

    /// Waits until the last of these was answered in Talk, and sees that each was, once. An answer that says of itself that it may stand
    /// there already does not count: Talk knows none again, so one that it took in the instant of the kill comes twice.
    fn is_answered_in_talk(&self, asked: &[String]) {
        let answers = |what: &String| {
            let posted = self.nextcloud.posted();
            let answers = posted.iter().filter(|it| it.text.contains("halo-model heard") && it.text.contains(what));
            answers.filter(|it| !it.text.contains("it may stand here already")).count()
        };
        tokio::task::block_in_place(|| {
            wait("the answer in Talk", || asked.last().is_none_or(|last| answers(last) > 0));
        });
        assert_eq!(asked.iter().map(answers).collect::<Vec<_>>(), vec![1; asked.len()], "{asked:?}");
    }

    /// Asks each bot something, all at once.
    async fn ask(&self, what: &str) -> Vec<Asked> {
        let coder = &self.town.bot;
        let questions = [
            (coder.clone(), format!("the coder {what}?"), ["scripted heard", what]),
            ("@alpha:localhost".to_owned(), format!("@alpha are you {what}?"), ["alpha-model heard", what]),
            ("@beta:localhost".to_owned(), format!("@beta are you {what}?"), ["beta-model heard", what]),
            ("@exobot:localhost".to_owned(), format!("@exobot are you {what}?"), ["I am awake", ""]),
            (coder.clone(), "!lbe".to_owned(), ["Inference Endpoints", "127.0.0.1:9"]),
        ];
        let say = async |(bot, text, answer): (String, String, [&str; 2])| {
            let event = self.town.anna.say(&self.room, &text).await;
            Asked { event, bot, answer: answer.map(str::to_owned) }
        };
        join_all(questions.into_iter().map(say)).await
    }

    async fn is_answered(&self, asked: &[Asked], point: &str) {
        for Asked { event, bot, answer } in asked {
            let is_there = |shown: &[Shown]| {
                let since = shown.iter().skip_while(|shown| shown.id != *event);
                since
                    .filter(|it| it.sender == *bot && it.msgtype == "m.text")
                    .any(|it| answer.iter().all(|part| it.body.contains(part)))
            };
            self.town.anna.shows(&self.room, &format!("at {point}: {bot} with {answer:?}"), is_there).await;
        }
    }

    /// Sees that what was said since has one answer each, and nothing else came but progress.
    fn each_once(&self, asked: &[Asked], point: &str) {
        let shown = self.town.anna.shown(&self.room);
        let first = shown.iter().position(|shown| asked.iter().any(|asked| asked.event == shown.id)).unwrap();
        let said = shown[first..].iter().filter(|shown| shown.sender != self.town.anna.id && shown.msgtype == "m.text");
        let said: Vec<_> = said.map(|shown| (&shown.sender, &shown.body)).collect();
        assert_eq!(said.len(), 2 * asked.len(), "at {point}: {said:#?}");
    }
}

/// A question.
struct Asked {
    event: String,
    /// Who is to answer it.
    bot: String,
    /// What the answer holds.
    answer: [String; 2],
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_each_answers_what_was_meant_for_it_once() {
    let mut scene = Scene::new().await;
    for point in POINTS {
        scene.at(point).await;
        assert!(children(&scene.town.rig) <= 1, "at {point} a child was left behind");
    }
    let server = scene.town.server.take().unwrap();
    tokio::task::block_in_place(|| server.stop());
    assert_eq!(children(&scene.town.rig), 0, "a child was left behind at the end");
}
