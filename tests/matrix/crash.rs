//! The server killed with `kill -9` at every boundary of a turn in a room, and started again: one visible answer each,
//! and no command run twice.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt};

use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    person::Person,
    replies::Reply,
    scripted_llm::user_texts,
    seen::{Seal, Seen},
};

/// What kills it. Adapter's own: an answer of the homeserver that the SDK has taken and we have not (`synced`), that is
/// in the journal and has woken nobody (`admitted`); a progress message that was sent and not noted (`shown`); an
/// answer that was sent and not confirmed (`sent`).
const POINTS: [&str; 13] = [
    "synced", "admitted", "claimed", "asked", "stored", "started", "ran", "ended", "shown", "queued", "sent",
    "answered", "nowhere",
];

/// The bot killed and started in a town.
struct Crashes {
    town: Town,
    room: OwnedRoomId,
}

impl Crashes {
    async fn new(encrypted: bool) -> Self {
        let town = Town::start().await;
        town.llm.otherwise(one_command);
        let room = town.room(encrypted).await;
        Self { town, room }
    }

    /// Starts the bot anew, to be killed at a point.
    fn armed(&mut self, point: &str) {
        let folder = self.town.rig.path().to_str().unwrap().to_owned();
        self.town.rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{folder}"));
        self.town.has_noted();
        drop(self.town.server.take());
        self.town.serve();
    }

    /// Waits until the bot was killed, and starts it again.
    fn killed(&mut self, point: &str) {
        let mut server = self.town.server.take().unwrap();
        let status = tokio::task::block_in_place(|| server.died());
        assert_eq!(status.signal(), Some(9), "at {point}: {}", server.log());
        self.town.serve();
    }

    /// Kills the bot at a point of the turn that a message begins, starts it again, and sees that all is well.
    async fn at(&mut self, point: &str) {
        self.armed(point);
        let asked = self.town.anna.say(&self.room, &format!("run-{point}")).await;
        if point != "nowhere" {
            self.killed(point);
        }
        let answer = self.town.anna.answer_to(&asked).await;
        self.no_more(&asked, point).await;
        let ran = self.ran(point);
        // Between the intent and the command nobody can know from the store; sandboxd knows.
        match ran {
            0 if matches!(point, "stored" | "started") => {
                assert!(answer.body().to_lowercase().contains("did not run"), "at {point}: {answer:?}");
            }
            1 => assert!(answer.body().contains("it ran"), "at {point}: {answer:?}"),
            _ => panic!("at {point} it ran {ran} times: {answer:?}"),
        }
    }

    /// What comes next shows that nothing came between but one answer and one progress message.
    async fn no_more(&self, asked: &str, point: &str) {
        let anna = &self.town.anna;
        let barrier = anna.say(&self.room, "!help").await;
        anna.answer_to(&barrier).await;
        let came = since(anna, &self.room, asked);
        let of = |kind: &str| came.iter().filter(|it| it.sender == self.town.bot && it.msgtype() == kind).count();
        assert_eq!(of("m.text"), 2, "one answer, and that to !help, at {point}: {came:#?}");
        assert!(of("m.notice") <= 1, "at most one progress message, at {point}: {came:#?}");
    }

    /// How often the command of a point ran.
    fn ran(&self, point: &str) -> usize {
        let command = format!("cat /workspace/ran-{point} || true");
        let run = ["sandbox", "exec", self.room.as_str(), "--", "sh", "-c", &command];
        let output = tokio::task::block_in_place(|| self.town.rig.run(&run));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).matches("once").count()
    }
}

/// A model that has one command run for each `run-…`, and then tells what came of it, however often it is asked.
fn one_command(request: &Value) -> Reply {
    let last = request["messages"].as_array().unwrap().last().unwrap();
    if last["role"] == "tool" {
        return Reply::text(&format!("It came to this: {}", last["content"].as_str().unwrap()));
    }
    let texts = user_texts(request);
    let Some(point) = texts.last().and_then(|text| text.split("run-").nth(1)) else { return Reply::text("Yes.") };
    let point: String = point.chars().take_while(char::is_ascii_lowercase).collect();
    Reply::calls(&[("run_command", json!({"command": format!("echo once >> /workspace/ran-{point}; echo it ran")}))])
}

/// What a room's people saw from an event on, without edits.
fn since(anna: &Person, room: &RoomId, event: &str) -> Vec<Seen> {
    let here = anna.events().into_iter().filter(|it| it.room == room);
    here.skip_while(|it| it.id != event).filter(Seen::is_message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_answers_once() {
    let mut crashes = Crashes::new(false).await;
    for point in POINTS {
        crashes.at(point).await;
    }
    let greetings = crashes.town.anna.shown(&crashes.room);
    let greetings = greetings.iter().filter(|it| it.body.starts_with("Hello")).count();
    assert_eq!(greetings, 1, "it greets once");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_answers_once_in_an_encrypted_room() {
    let mut crashes = Crashes::new(true).await;
    let devices = devices(&crashes.town).await;
    for point in ["synced", "admitted", "shown", "queued", "sent", "answered"] {
        crashes.at(point).await;
    }
    // Said while nobody is there.
    drop(crashes.town.server.take());
    let asked = crashes.town.anna.say(&crashes.room, "run-meanwhile").await;
    crashes.town.serve();
    assert!(crashes.town.anna.answer_to(&asked).await.body().contains("it ran"));
    assert_eq!(self::devices(&crashes.town).await, devices, "it is the same device");
    for event in crashes.town.anna.events() {
        if event.sender == crashes.town.bot && event.is_message() {
            assert_eq!(event.seal, Seal::Opened { shield: false }, "{event:?}");
        }
    }
}

async fn devices(town: &Town) -> BTreeSet<String> {
    let path = format!("/_synapse/admin/v2/users/{}/devices", town.bot);
    let token = town.synapse.admin(Method::GET, &path, json!({})).await;
    token["devices"].as_array().unwrap().iter().map(|it| it["device_id"].as_str().unwrap().to_owned()).collect()
}
