//! A throw-away homeserver: Synapse from PyPI on a port of its own, with a folder of its own, gone with the test.
//!
//! `scripts/test.sh` installs it. Tests that use one stand in nextest's group `synapse`, so that not too many run at once.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    sync::{Mutex, OnceCell},
    time::timeout,
};

use super::rig::{LIMIT, free_port};

/// The part of its users' names behind the colon.
pub const SERVER: &str = "localhost";
/// What registers the first account, which is an administrator's.
const SHARED_SECRET: &str = "rig";
/// Every limit that Synapse knows, as far away as it gets.
const RELAXED: &str = r"
x-free: &free {per_second: 10000, burst_count: 10000}
rc_message: *free
rc_registration: *free
rc_joins_per_room: *free
rc_room_creation: *free
rc_admin_redaction: *free
rc_media_create: *free
rc_login: {address: *free, account: *free, failed_attempts: *free}
rc_joins: {local: *free, remote: *free}
rc_invites: {per_room: *free, per_user: *free, per_issuer: *free}
rc_presence: {per_user: *free}
max_upload_size: 300M
";

/// How fast its users may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// As an unmodified Synapse has it: a message in five seconds, ten at once.
    Default,
    /// As if there were none.
    Relaxed,
}

/// A homeserver that runs until this is dropped.
#[derive(Debug)]
pub struct Synapse {
    folder: tempfile::TempDir,
    url: String,
    http: reqwest::Client,
    process: Mutex<Option<Child>>,
    admin: OnceCell<String>,
}

impl Synapse {
    /// Starts one and waits until it answers.
    pub async fn start(limits: Limits) -> Self {
        Self::configured(limits, "").await
    }

    /// The same, with more lines of YAML in its configuration.
    pub async fn configured(limits: Limits, more: &str) -> Self {
        let http = matrix_agent::net::client().no_proxy().timeout(LIMIT).build().unwrap();
        // Another test's homeserver may take the port first: then another is tried.
        for _ in 0..3 {
            let folder = tempfile::Builder::new().prefix("hs-").tempdir_in("/tmp").unwrap();
            let port = free_port();
            configure(folder.path(), port, limits, more);
            let url = format!("http://127.0.0.1:{port}");
            let (http, process, admin) = (http.clone(), Mutex::default(), OnceCell::new());
            let synapse = Self { folder, url, http, process, admin };
            if synapse.run().await {
                return synapse;
            }
            let log = synapse.log();
            assert!(log.contains("Address already in use"), "Synapse did not start: {log}");
        }
        panic!("no port was free for Synapse");
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has logged: its warnings, and a line for each request.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Makes an account, whose password is [`password`], and returns its whole name. The server's limits hold for it.
    pub async fn account(&self, name: &str) -> String {
        let id = format!("@{name}:{SERVER}");
        let path = format!("/_synapse/admin/v2/users/{id}");
        self.admin(Method::PUT, &path, json!({"password": password(name)})).await;
        id
    }

    /// Frees an account from the limit of messages.
    pub async fn exempt(&self, id: &str) {
        let path = format!("/_synapse/admin/v1/users/{id}/override_ratelimit");
        self.admin(Method::POST, &path, json!({"messages_per_second": 0, "burst_count": 0})).await;
    }

    /// Calls its API as its administrator; it must agree.
    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let token = self.admin.get_or_init(|| self.register_admin()).await;
        let (status, answer) = self.call(method, path, Some(token), Some(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Calls its API; returns the status and the body.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Changes its database while it does not run; returns how many rows were changed.
    pub fn sql(&self, statement: &str) -> usize {
        let database = rusqlite::Connection::open(self.folder.path().join("homeserver.db")).unwrap();
        database.execute(statement, []).unwrap()
    }

    /// Ends it as its operator does. What clients ask is refused from now on.
    pub async fn stop(&self) {
        self.end(Signal::SIGTERM).await;
    }

    /// Ends it as a power cut does.
    pub async fn kill(&self) {
        self.end(Signal::SIGKILL).await;
    }

    /// Starts it again after [`Self::stop`], with all that it knew.
    pub async fn restart(&self) {
        assert!(self.run().await, "Synapse did not start again: {}", self.log());
    }

    /// Holds it: connections are taken, and nothing is answered.
    pub async fn freeze(&self) {
        self.signal(Signal::SIGSTOP).await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.signal(Signal::SIGCONT).await;
    }

    async fn signal(&self, signal: Signal) {
        let process = self.process.lock().await;
        let id = process.as_ref().and_then(Child::id).expect("Synapse runs");
        kill(Pid::from_raw(id.cast_signed()), signal).unwrap();
    }

    async fn end(&self, signal: Signal) {
        self.signal(signal).await;
        let mut process = self.process.lock().await.take().unwrap();
        timeout(LIMIT, process.wait()).await.expect("Synapse ends").unwrap();
    }

    /// Starts the process and waits until it says that it is ready; false if it ended instead.
    async fn run(&self) -> bool {
        let (folder, python) = (self.folder.path(), python());
        let ready = folder.join("ready");
        let _ = std::fs::remove_file(&ready);
        let notified = UnixDatagram::bind(&ready).unwrap();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        // A test that is killed takes it along: the kernel tells it when the test's thread has gone.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(python)
            .args(["-m", "synapse.app.homeserver", "-c", "homeserver.yaml"])
            .current_dir(folder)
            .env("NOTIFY_SOCKET", &ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = [0; 256];
        let told = async {
            loop {
                let length = notified.recv(&mut said).await.unwrap();
                if said[..length].windows(7).any(|word| word == b"READY=1") {
                    return;
                }
            }
        };
        let ready = tokio::select! {
            () = told => true,
            _ = process.wait() => false,
            () = tokio::time::sleep(LIMIT) => panic!("Synapse does not start: {}", self.log()),
        };
        *self.process.lock().await = ready.then_some(process);
        ready
    }

    /// Makes the first account by the shared secret; returns its access token.
    async fn register_admin(&self) -> String {
        const PATH: &str = "/_synapse/admin/v1/register";
        // Python has the SHA-1 that this API wants, and nothing else here needs it.
        const MAC: &str = "import hmac, sys; key, *said = sys.argv[1:]; \
                           print(hmac.new(key.encode(), '\\0'.join(said).encode(), 'sha1').hexdigest())";
        let (_, answer) = self.call(Method::GET, PATH, None, None).await;
        let nonce = answer["nonce"].as_str().unwrap();
        let (name, password) = ("operator", password("operator"));
        let said = ["-IS", "-c", MAC, SHARED_SECRET, nonce, name, &password, "admin"];
        let mac = Command::new(python()).args(said).output().await.unwrap();
        let mac = String::from_utf8(mac.stdout).unwrap();
        let body = json!({"nonce": nonce, "username": name, "password": password, "admin": true, "mac": mac.trim()});
        let (status, answer) = self.call(Method::POST, PATH, None, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

/// The password of an account by its short name.
pub fn password(name: &str) -> String {
    format!("{name}-password")
}

/// The Python in which `scripts/test.sh` has put Synapse.
fn python() -> PathBuf {
    let wanted = include_str!("../../scripts/synapse/requirements.txt");
    let version = wanted.lines().find_map(|line| line.strip_prefix("matrix-synapse==")).unwrap();
    let version = version.split_whitespace().next().unwrap();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    let python = cache.join(format!("matrix-agent-tools/synapse-{version}/bin/python"));
    assert!(
        python.exists(),
        "Synapse {version} is not installed for the tests: run scripts/test.sh, which installs it."
    );
    python
}

fn configure(folder: &Path, port: u16, limits: Limits, more: &str) {
    let key = STANDARD_NO_PAD.encode(rand::random::<[u8; 32]>());
    let limits = if limits == Limits::Relaxed { RELAXED } else { "" };
    let yaml = format!(
        r#"
server_name: {SERVER}
public_baseurl: http://127.0.0.1:{port}/
listeners: [{{port: {port}, bind_addresses: [127.0.0.1], type: http, resources: [{{names: [client, media]}}]}}]
database: {{name: sqlite3, args: {{database: homeserver.db}}}}
media_store_path: media
log_config: log.yaml
signing_key: "ed25519 a_rig {key}"
macaroon_secret_key: rig
form_secret: rig
registration_shared_secret: {SHARED_SECRET}
bcrypt_rounds: 4
report_stats: false
trusted_key_servers: []
federation_domain_whitelist: []
{limits}
{more}
"#
    );
    let log = r#"
version: 1
formatters: {line: {format: "%(asctime)s %(levelname)s %(name)s %(message)s"}}
handlers: {all: {class: logging.StreamHandler, formatter: line}}
loggers: {synapse.access.http: {level: INFO}}
root: {level: WARNING, handlers: [all]}
"#;
    std::fs::write(folder.join("homeserver.yaml"), yaml).unwrap();
    std::fs::write(folder.join("log.yaml"), log).unwrap();
}
