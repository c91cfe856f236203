//! The account: logging in and restarting; what all tests of it need.

mod ended;
mod killed;
mod lost;
mod refused;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use matrix_sdk::ruma::{OwnedRoomId, UserId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    replies::Reply,
    rig::{BARE, LIMIT, Rig, wait},
    scripted_llm::ScriptedLlm,
    seen::Seal,
    synapse::{Limits, password},
};

/// What an account's files are, below the state directory.
const SESSION: &str = "secrets/matrix-coder-session.json";
const RECOVERY: &str = "secrets/matrix-coder-recovery-key";
const STORE: &str = "matrix/coder";

fn state(rig: &Rig) -> PathBuf {
    rig.path().join("s")
}

fn saved(rig: &Rig) -> Value {
    serde_json::from_slice(&fs::read(state(rig).join(SESSION)).unwrap()).unwrap()
}

fn text(rig: &Rig, file: &str) -> String {
    fs::read_to_string(state(rig).join(file)).unwrap()
}

/// How often the log has said something.
fn times(log: &str, words: &str) -> usize {
    log.matches(words).count()
}

/// Waits without holding up the clients that sync beside the test.
fn until(what: &str, holds: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait(what, holds));
}

impl Town {
    /// Answers every question in the same way.
    fn answers_all(&self) {
        self.llm.otherwise(|_| Reply::text("It is here."));
    }

    /// Asks, and gets an answer, which must have come encrypted from a signed device where the room is encrypted.
    async fn is_answered(&self, room: &OwnedRoomId, encrypted: bool) {
        let asked = self.anna.say(room, "Are you here?").await;
        self.has_answered(&asked, encrypted).await;
    }

    async fn has_answered(&self, asked: &str, encrypted: bool) {
        let answer = self.anna.answer_to(asked).await;
        assert!(answer.body().contains("It is here."), "{answer:?}");
        assert_eq!(answer.seal, if encrypted { Seal::Opened { shield: false } } else { Seal::Plain }, "{answer:?}");
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn device(&self) -> String {
        saved(&self.rig)["device_id"].as_str().unwrap().to_owned()
    }

    /// The devices of the bot's account, as the homeserver lists them.
    async fn devices(&self) -> Vec<String> {
        let path = format!("/_synapse/admin/v2/users/{}/devices", self.bot);
        let devices = self.synapse.admin(Method::GET, &path, json!({})).await;
        let names = devices["devices"].as_array().unwrap().iter().map(|device| device["device_id"].as_str().unwrap());
        names.map(ToOwned::to_owned).collect()
    }

    /// The bot's identity as Anna's client holds it: the key, and whether it warns of a new one.
    async fn identity(&self) -> (String, bool) {
        let bot = UserId::parse(&self.bot).unwrap();
        let identity = self.anna.client.encryption().get_user_identity(&bot).await.unwrap().expect("an identity");
        let key = identity.master_key().get_first_key().unwrap().to_base64();
        (key, identity.has_verification_violation())
    }

    /// Waits until Anna's client encrypts for a device of the bot's.
    async fn known_to_anna(&self, device: &str) {
        let bot = UserId::parse(&self.bot).unwrap();
        let (client, device) = (self.anna.client.clone(), device.into());
        let learns = async {
            loop {
                let known = client.encryption().get_device(&bot, device).await.unwrap();
                if known.is_some_and(|device| device.is_cross_signed_by_owner()) {
                    return;
                }
                client.encryption().request_user_identity(&bot).await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, learns).await.expect("Anna learns of the device");
    }
}

fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, found);
        }
        found.push(path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_needs_no_password_keeps_the_device_and_shows_no_secret() {
    let mut town = Town::prepared(Limits::Relaxed, |rig| rig.set("RUST_LOG", "trace")).await;
    town.answers_all();
    let room = town.room(true).await;
    town.is_answered(&room, true).await;
    let (device, recovery) = (town.device(), text(&town.rig, RECOVERY));
    assert_eq!(town.devices().await, std::slice::from_ref(&device));

    // Said while it is away, under a key that it got before.
    town.kill();
    town.rig.set("MATRIX_PASSWORD", "");
    let asked = town.anna.say(&room, "Are you still here?").await;
    town.serve();
    town.has_answered(&asked, true).await;
    assert_eq!(town.devices().await, [device]);
    assert_eq!(text(&town.rig, RECOVERY), recovery);

    let mut files = vec![state(&town.rig).join("matrix"), state(&town.rig).join("secrets")];
    for folder in files.clone() {
        all_files(&folder, &mut files);
    }
    assert!(files.iter().any(|file| file.to_string_lossy().ends_with("-wal")), "{files:?}");
    for file in files {
        let Ok(metadata) = fs::metadata(&file) else { continue };
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, wanted, "{}", file.display());
    }

    let log = town.log();
    assert!(log.contains("TRACE"), "the log is told all");
    let session = saved(&town.rig);
    for secret in [&password("bot"), session["access_token"].as_str().unwrap(), recovery.as_str()] {
        let shown = log.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None, "a secret is in the log");
    }

    town.rig.set("MATRIX_PASSWORD", &password("bot"));
    town.kill();
    town.serve();
    town.is_answered(&room, true).await;
    for process in fs::read_dir("/proc").unwrap() {
        let line = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        assert!(!line.contains(&password("bot")), "every user of the machine can read {line}");
    }

    let open = fs::read_dir(format!("/proc/{}/fd", town.server.as_ref().unwrap().pid())).unwrap();
    let store = state(&town.rig).join(STORE);
    let open =
        open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).filter(|path| path.starts_with(&store)).count();
    assert!((4..=24).contains(&open), "{open} files of the store are open");
}

/// A rig for an account on whatever is at `url`.
fn rig_at(url: &str, llm: &ScriptedLlm) -> Rig {
    let mut rig = Rig::new(BARE, llm.base_url());
    for (key, value) in [
        ("MATRIX_HOMESERVER", url),
        ("MATRIX_USER", "@bot:localhost"),
        ("MATRIX_PASSWORD", &password("bot")),
        ("ALLOWED_USERS", "@anna:localhost"),
    ] {
        rig.set(key, value);
    }
    rig
}
