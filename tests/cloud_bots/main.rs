//! Cloud bots over a real homeserver: the real binary, which serves nothing else, persons with real clients, a scripted
//! model. Each bot is a file, and its account has a token or is made by `cloud-bot add`.

#[path = "../support/mod.rs"]
mod support;

mod failing;
mod files;
mod memory;
mod token;

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
    process::{Output, Stdio},
};

use matrix_sdk::ruma::OwnedRoomId;
use reqwest::Method;
use serde_json::{Value, json};

use support::{
    person::Person,
    replies::Reply,
    rig::{BARE, Rig, Server, wait},
    scripted_llm::ScriptedLlm,
    seen::{Seal, Seen},
    synapse::{Limits, Synapse, password},
};

/// A homeserver, a model, and a state directory for cloud bots alone.
struct Place {
    synapse: Synapse,
    llm: ScriptedLlm,
    rig: Rig,
    anna: Person,
    server: Option<Server>,
}

impl Place {
    async fn new() -> Self {
        let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
        let anna = Person::new(&synapse, "anna").await;
        let mut rig = Rig::new(BARE, "");
        for (key, value) in [
            ("ENABLE_CLOUD_BOTS", "true"),
            ("MATRIX_HOMESERVER", synapse.url()),
            ("MATRIX_ADMIN_USER", "@operator:localhost"),
            ("MATRIX_ADMIN_PASSWORD", &password("operator")),
            // No model of the coding agent, and Podman is not there either.
            ("LLM_API_KEY", ""),
            ("LLM_MODEL", ""),
            ("PODMAN_PATH", "/nowhere/podman"),
            ("PODMAN_SOCKET", "/nowhere/podman.sock"),
        ] {
            rig.set(key, value);
        }
        // Makes the administrator.
        synapse.admin(Method::GET, "/_synapse/admin/v2/users?limit=1", json!({})).await;
        Self { synapse, llm, rig, anna, server: None }
    }

    fn serve(&mut self) {
        self.server = Some(tokio::task::block_in_place(|| self.rig.serve()));
    }

    fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    /// A room in which Anna is, and nobody else yet.
    async fn room(&self, encrypted: bool) -> OwnedRoomId {
        self.anna.create_room(encrypted, &[]).await
    }

    async fn invite(&self, room: &OwnedRoomId, bot: &str) {
        self.anna.invite(room, bot).await;
        self.anna.joined(room, bot).await;
    }

    /// A token of a new login of an account.
    async fn token(&self, name: &str) -> String {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password(name),
        });
        let (status, answer) = self.synapse.call(Method::POST, "/_matrix/client/v3/login", None, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.rig.path().join(format!("s/secrets/cloud-bot-{name}.env"))
    }

    /// What a bot's file says, without token.
    fn settings(&self, user: &str, room: &str) -> String {
        let url = self.llm.base_url();
        format!(
            "BOT_MXID={user}\nLLM_BASE_URL={url}\nLLM_MODEL=tiny\nLLM_API_KEY=sk-of-the-bot\nALLOWED_ROOMS={room}\n"
        )
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        let fresh = path.with_extension("fresh");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::rename(fresh, path).unwrap();
    }

    /// Makes the account `name`, and its bot by a token; returns its whole name.
    async fn bot(&self, name: &str, room: &OwnedRoomId) -> String {
        let user = self.synapse.account(name).await;
        let token = self.token(name).await;
        self.write(name, &format!("{}BOT_TOKEN={token}\n", self.settings(&user, room.as_str())));
        user
    }

    /// Runs `cloud-bot` with these arguments and this on standard input.
    fn cloud_bot(&self, arguments: &[&str], input: &str) -> Output {
        let arguments: Vec<_> = ["cloud-bot"].iter().chain(arguments).copied().collect();
        tokio::task::block_in_place(|| {
            let mut command = self.rig.command(&arguments);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
    }

    /// What `cloud-bot status` says of a bot.
    fn status(&self, name: &str) -> Value {
        let output = self.cloud_bot(&["status", "--json"], "");
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        all.into_iter().find(|bot| bot["name"] == name).unwrap_or_default()
    }

    /// Waits until a bot has a session.
    fn served(&self, name: &str) {
        tokio::task::block_in_place(|| wait("the bot's session", || self.status(name)["served"] == true));
    }

    /// Anna asks a bot by its name, and is answered in the way of the room.
    async fn is_answered(&self, room: &OwnedRoomId, bot: &str, encrypted: bool) -> Seen {
        let asked = self.anna.say(room, &format!("@{bot} are you here?")).await;
        let answer = self.anna.answer_to(&asked).await;
        assert!(answer.body().contains("It is here."), "{answer:?}");
        assert!(answer.sender.starts_with(&format!("@{bot}:")), "{answer:?}");
        assert_eq!(answer.seal, if encrypted { Seal::Opened { shield: false } } else { Seal::Plain }, "{answer:?}");
        answer
    }

    fn answers_all(&self) {
        self.llm.otherwise(|_| Reply::text("It is here."));
    }
}

fn out(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
