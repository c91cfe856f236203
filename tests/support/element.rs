//! People at Element, the real client, in headless Chromium: `tests/element/` drives it, this speaks with it.
//!
//! ```ignore
//! let element = Element::start("files").await; // bundles Element first, if it was never bundled
//! let anna = element.login("anna", "http://127.0.0.1:8008", "anna", "her password").await;
//! let room = anna.create_room("Files", Encrypted::Yes, &["@agent:localhost"]).await;
//! anna.send("How many files? q-17").await;
//! let answer = anna.wait(&Seen::text("a-17").notice(false)).await;
//! assert_eq!(answer.shield, Shield::None);
//! anna.screenshot("files.png").await; // target/tmp/element-files/files.png
//! ```
//! With `MATRIX_AGENT_PICTURES=DIR` screenshots are copied there too. Every wait has a limit, and what fails panics with Element's own words and a picture. People take turns: an order
//! waits until the one before is done, whosever it is. All ends when the last of `Element` and its people is dropped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

/// From the start to the browser's being there; the first time ever it is bundled.
const READY_WITHIN: Duration = Duration::from_secs(400);
/// How long an order may take unless it says otherwise.
const WITHIN: Duration = Duration::from_secs(30);
/// A login loads all of Element and makes keys.
const LOGIN_WITHIN: Duration = Duration::from_secs(90);
/// What the driver may need beyond an order's own limit, to say what went wrong.
const GRACE: Duration = Duration::from_secs(10);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// The browser; it ends when it and its people are dropped.
#[derive(Clone)]
pub struct Element {
    driver: Arc<Driver>,
}

struct Driver {
    /// The container's.
    name: String,
    /// Where the pictures go.
    out: PathBuf,
    pipe: Mutex<Pipe>,
}

struct Pipe {
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    said: u64,
    _child: Child,
}

/// Somebody who is logged in, in a browser window of their own.
pub struct Person {
    element: Element,
    who: String,
    /// Their Matrix ID.
    pub user_id: String,
    /// The device that this login made.
    pub device_id: String,
}

/// Whether a new room is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypted {
    /// From its first message.
    Yes,
    /// Not at all.
    No,
}

/// What stands beside a message in an encrypted room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shield {
    /// Nothing: all is well, or the room is not encrypted.
    None,
    /// A hint.
    Grey,
    /// A warning.
    Red,
}

/// A message as the timeline shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Tile {
    /// Its event.
    pub event_id: String,
    /// Who sent it.
    pub sender: Option<String>,
    /// Its text, what is folded away included.
    pub text: String,
    /// Whether it is an `m.notice`.
    pub notice: bool,
    /// Whether "(edited)" stands beside it.
    pub edited: bool,
    /// What stands beside it.
    pub shield: Shield,
    /// How many images it shows.
    pub images: usize,
    /// The language of each block of code; empty for one without.
    pub code: Vec<String>,
    /// Whom it mentions, as their names are shown.
    pub pills: Vec<String>,
    /// How many lists.
    pub lists: usize,
    /// How many tables.
    pub tables: usize,
    /// How many `<details>`.
    pub details: usize,
    /// Each with its count: "🛑1".
    pub reactions: Vec<String>,
}

/// What a message must have to be the one that is waited for.
pub struct Seen {
    order: Value,
    within: Duration,
}

impl Seen {
    /// A message with this in its text: a nonce rather than a phrase.
    pub fn text(nonce: &str) -> Self {
        Self { order: json!({"order": "wait_text", "nonce": nonce}), within: WITHIN }
    }

    /// An image, whoever sent it.
    pub fn image() -> Self {
        Self::text("").with("images", json!(1))
    }

    /// With or without "(edited)".
    #[must_use]
    pub fn edited(self, edited: bool) -> Self {
        self.with("edited", json!(edited))
    }

    /// An `m.notice`, or not.
    #[must_use]
    pub fn notice(self, notice: bool) -> Self {
        self.with("notice", json!(notice))
    }

    /// From this Matrix ID.
    #[must_use]
    pub fn from(self, sender: &str) -> Self {
        self.with("sender", json!(sender))
    }

    /// Waited for as long as this.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.order[name] = value;
        self
    }
}

impl Element {
    /// Starts the browser. Pictures go to a folder of this name in Cargo's folder for what tests leave, which is emptied.
    pub async fn start(name: &str) -> Self {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("element-{name}"));
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(&out).expect("a place for pictures");
        let name = format!("element-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let mut child = Command::new(repo.join("tests/element/run.sh"))
            .args(["drive", &name])
            .arg(&out)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("tests/element/run.sh");
        let mut pipe = Pipe {
            orders: child.stdin.take().expect("its stdin"),
            answers: BufReader::new(child.stdout.take().expect("its stdout")).lines(),
            said: 0,
            _child: child,
        };
        let ready = pipe.answer(READY_WITHIN).await;
        assert_eq!(ready["ready"], true, "Element did not start: {ready}");
        Self { driver: Arc::new(Driver { name, out, pipe: Mutex::new(pipe) }) }
    }

    /// Logs in at a homeserver on this machine, in a new window. `who` is the person's name here.
    pub async fn login(&self, who: &str, homeserver: &str, user: &str, password: &str) -> Person {
        let order = json!({"order": "login", "homeserver": homeserver, "user": user, "password": password});
        let answer = self.order(who, order, LOGIN_WITHIN).await;
        let text = |name: &str| answer[name].as_str().expect("an id").to_owned();
        Person { element: self.clone(), who: who.to_owned(), user_id: text("user_id"), device_id: text("device_id") }
    }

    async fn order(&self, who: &str, mut order: Value, within: Duration) -> Value {
        let mut pipe = self.driver.pipe.lock().await;
        pipe.said += 1;
        order["id"] = json!(pipe.said);
        order["as"] = json!(who);
        order["timeout"] = json!(within.as_millis() as u64);
        pipe.orders.write_all(format!("{order}\n").as_bytes()).await.expect("Element takes orders");
        let answer = pipe.answer(within + GRACE).await;
        assert_eq!(answer["id"], order["id"], "an answer to another order");
        assert!(answer["ok"] == true, "{who} could not {}: {answer:#}", order["order"]);
        answer
    }
}

impl Person {
    /// Makes a room, invites these, and shows it; gives its id.
    pub async fn create_room(&self, name: &str, encrypted: Encrypted, invite: &[&str]) -> String {
        let order = json!({
            "order": "create_room", "name": name, "encrypted": encrypted == Encrypted::Yes, "invite": invite,
        });
        self.order(order, WITHIN).await["room"].as_str().expect("the room's id").to_owned()
    }

    /// Shows a room, as soon as it is known; takes an invite to it.
    pub async fn open_room(&self, id: &str) {
        self.order(json!({"order": "open_room", "room": id}), WITHIN).await;
    }

    /// Types and sends; gives the event's id.
    pub async fn send(&self, text: &str) -> String {
        let answer = self.order(json!({"order": "send", "text": text}), WITHIN).await;
        answer["event_id"].as_str().expect("the event's id").to_owned()
    }

    /// Waits for a message in the room that is shown.
    pub async fn wait(&self, seen: &Seen) -> Tile {
        let answer = self.order(seen.order.clone(), seen.within).await;
        serde_json::from_value(answer["tile"].clone()).expect("a tile")
    }

    /// The messages of the room that is shown, the oldest first.
    pub async fn timeline(&self) -> Vec<Tile> {
        let answer = self.order(json!({"order": "timeline"}), WITHIN).await;
        serde_json::from_value(answer["tiles"].clone()).expect("tiles")
    }

    /// Reacts to the last message with this text: `search` is what one would type into the picker ("octagonal": 🛑).
    pub async fn react(&self, nonce: &str, search: &str) {
        self.order(json!({"order": "react", "nonce": nonce, "search": search}), WITHIN).await;
    }

    /// Makes the window as large as this, in pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        self.order(json!({"order": "resize", "width": width, "height": height}), WITHIN).await;
    }

    /// Takes a picture of the window; gives where it is.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let path = self.element.driver.out.join(name);
        self.order(json!({"order": "screenshot", "path": path}), WITHIN).await;
        if let Some(folder) = std::env::var_os("MATRIX_AGENT_PICTURES").filter(|folder| !folder.is_empty()) {
            std::fs::copy(&path, Path::new(&folder).join(name)).expect("a folder for pictures");
        }
        path
    }

    /// Closes the window. The device stays with the homeserver.
    pub async fn close(self) {
        self.order(json!({"order": "close"}), WITHIN).await;
    }

    async fn order(&self, order: Value, within: Duration) -> Value {
        self.element.order(&self.who, order, within).await
    }
}

impl Pipe {
    async fn answer(&mut self, within: Duration) -> Value {
        let line = timeout(within, self.answers.next_line()).await.expect("Element answers in time").expect("a line");
        serde_json::from_str(&line.expect("Element is there; what it said is above")).expect("JSON")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = std::process::Command::new("podman")
            .args(["rm", "--force", "--ignore", "--time", "0", &self.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
