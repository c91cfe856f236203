//! A person's client: logs in, syncs by itself, does what people do, and waits for what shall come. No wait is longer
//! than [`LIMIT`], and one that ends in vain tells all that came.
//!
//! A test with persons needs a runtime that goes on while the test blocks: `#[tokio::test(flavor = "multi_thread")]`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client, ClientBuilder, Room,
    attachment::AttachmentConfig,
    config::{RequestConfig, SyncSettings, SyncToken},
    encryption::EncryptionSettings,
    media::{MediaFormat, MediaRequestParameters},
    ruma::{
        EventId, OwnedRoomId, RoomId, UserId,
        api::client::room::{create_room, upgrade_room},
        events::{
            AnySyncTimelineEvent, InitialStateEvent,
            room::{MediaSource, encryption::RoomEncryptionEventContent, message::MessageType},
        },
        room_version_id,
        serde::Raw,
    },
    sync::{State, SyncResponse},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    rig::LIMIT,
    seen::{Seal, Seen, Shown, show},
    synapse::{Synapse, password},
};

/// How long the homeserver holds a sync in which nothing happens.
const POLL: Duration = Duration::from_secs(20);
/// The pause before a sync that failed is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// All that came so far.
#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Seen>,
    invites: Vec<OwnedRoomId>,
    /// Messages that notify and messages that highlight, of each room, since it was read last.
    unread: BTreeMap<OwnedRoomId, (u64, u64)>,
    /// Sync responses that were read.
    syncs: usize,
}

/// Somebody with a client.
#[derive(Debug)]
pub struct Person {
    /// The whole name.
    pub id: String,
    /// The client itself, for what is not done below.
    pub client: Client,
    inbox: watch::Receiver<Inbox>,
    sync: AbortHandle,
    http: reqwest::Client,
}

impl Drop for Person {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

impl Person {
    /// Makes the account, frees it from the limits, and logs in.
    pub async fn new(synapse: &Synapse, name: &str) -> Self {
        let id = synapse.account(name).await;
        synapse.exempt(&id).await;
        Self::login(synapse, name).await
    }

    /// Logs an account in on one more device, and syncs from now on.
    pub async fn login(synapse: &Synapse, name: &str) -> Self {
        Self::login_at(synapse.url(), name).await
    }

    /// The same, by another way to the homeserver.
    pub async fn login_at(url: &str, name: &str) -> Self {
        // Keys that come with an invite race with the events that they open.
        Self::with_client(url, name, |client| client.with_enable_share_history_on_invite(false)).await
    }

    /// The same, with a client that hands whom it invites the keys of what was said before.
    pub async fn login_sharing(synapse: &Synapse, name: &str) -> Self {
        Self::with_client(synapse.url(), name, |client| client.with_enable_share_history_on_invite(true)).await
    }

    async fn with_client(url: &str, name: &str, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let encryption = EncryptionSettings { auto_enable_cross_signing: true, ..EncryptionSettings::default() };
        let client = Client::builder()
            .homeserver_url(url)
            .with_encryption_settings(encryption)
            // The homeserver would name its own address.
            .respect_login_well_known(false)
            .request_config(RequestConfig::new().disable_retry().timeout(LIMIT));
        let client = set(client).build().await.unwrap();
        client.matrix_auth().login_username(name, &password(name)).send().await.unwrap();
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let (tell, inbox) = watch::channel(Inbox::default());
        let task = tokio::spawn(sync(client.clone(), tell));
        let http = matrix_agent::net::client().no_proxy().timeout(LIMIT).build().unwrap();
        let id = client.user_id().unwrap().to_string();
        let person = Self { id, client, inbox, sync: task.abort_handle(), http };
        person.until("the first sync", |inbox| (inbox.syncs > 0).then_some(())).await;
        person
    }

    /// Makes a room and invites people to it.
    pub async fn create_room(&self, encrypted: bool, invite: &[&str]) -> OwnedRoomId {
        let mut request = create_room::v3::Request::new();
        request.invite = invite.iter().map(|id| UserId::parse(id).unwrap()).collect();
        if encrypted {
            let content = RoomEncryptionEventContent::with_recommended_defaults();
            request.initial_state = vec![InitialStateEvent::with_empty_state_key(content).to_raw_any()];
        }
        let room = self.client.create_room(request).await.unwrap().room_id().to_owned();
        self.joined(&room, &self.id).await;
        room
    }

    /// Waits for the invite to a room, and joins it.
    pub async fn accept(&self, room: &RoomId) {
        self.until("the invite", |inbox| inbox.invites.iter().any(|invite| invite == room).then_some(())).await;
        self.client.join_room_by_id(room).await.unwrap();
        self.joined(room, &self.id).await;
    }

    /// Waits until somebody is in a room. Say nothing in an encrypted one before: they could not read it.
    pub async fn joined(&self, room: &RoomId, who: &str) -> Seen {
        self.member(room, who, "join").await
    }

    /// Waits until somebody's membership of a room is this: `invite`, `join`, `leave`, `ban`.
    pub async fn member(&self, room: &RoomId, who: &str, membership: &str) -> Seen {
        self.wait_for(&format!("{who}: {membership}"), |event| {
            event.room == room
                && event.kind == "m.room.member"
                && event.raw["state_key"] == who
                && event.content["membership"] == membership
        })
        .await
    }

    /// Says something; returns the event's id.
    pub async fn say(&self, room: &RoomId, text: &str) -> String {
        self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": text})).await
    }

    /// The same in the thread of an event.
    pub async fn say_in_thread(&self, room: &RoomId, thread: &str, text: &str) -> String {
        let relation = json!({
            "rel_type": "m.thread", "event_id": thread, "is_falling_back": true, "m.in_reply_to": {"event_id": thread},
        });
        self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": text, "m.relates_to": relation})).await
    }

    /// The same as a reply.
    pub async fn reply(&self, room: &RoomId, to: &str, text: &str) -> String {
        let relation = json!({"m.in_reply_to": {"event_id": to}});
        self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": text, "m.relates_to": relation})).await
    }

    /// Changes a message, one's own or (what nobody should heed) somebody else's.
    pub async fn edit(&self, room: &RoomId, target: &str, text: &str) -> String {
        let content = json!({
            "msgtype": "m.text", "body": format!("* {text}"),
            "m.new_content": {"msgtype": "m.text", "body": text},
            "m.relates_to": {"rel_type": "m.replace", "event_id": target},
        });
        self.send(room, "m.room.message", content).await
    }

    /// Takes an event back.
    pub async fn redact(&self, room: &RoomId, target: &str) {
        self.room(room).redact(&EventId::parse(target).unwrap(), None, None).await.unwrap();
    }

    /// Reacts to an event.
    pub async fn react(&self, room: &RoomId, target: &str, key: &str) -> String {
        let relation = json!({"rel_type": "m.annotation", "event_id": target, "key": key});
        self.send(room, "m.reaction", json!({"m.relates_to": relation})).await
    }

    /// Uploads a file and shows it in a room, encrypted where the room is.
    pub async fn upload(&self, room: &RoomId, name: &str, bytes: Vec<u8>, mime: &str) -> String {
        let config = AttachmentConfig::new();
        let sent = self.room(room).send_attachment(name, &mime.parse().unwrap(), bytes, config).await;
        sent.unwrap().event_id.to_string()
    }

    /// Fetches the file of an event.
    pub async fn download(&self, event: &Seen) -> Vec<u8> {
        let source: MediaSource = match serde_json::from_value(event.content.clone()).unwrap() {
            MessageType::File(file) => file.source,
            MessageType::Image(image) => image.source,
            MessageType::Audio(audio) => audio.source,
            MessageType::Video(video) => video.source,
            other => panic!("no file: {other:?}"),
        };
        let request = MediaRequestParameters { source, format: MediaFormat::File };
        self.client.media().get_media_content(&request, false).await.unwrap()
    }

    /// Sends any event, encrypted where the room is; returns its id.
    pub async fn send(&self, room: &RoomId, kind: &str, content: Value) -> String {
        self.room(room).send_raw(kind, content).await.unwrap().response.event_id.to_string()
    }

    /// Sends any event as it is, even where the room is encrypted; returns its id.
    pub async fn send_plain(&self, room: &RoomId, kind: &str, content: Value) -> String {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/{kind}/plain-{}", rand::random::<u64>());
        self.call(Method::PUT, &path, Some(content)).await["event_id"].as_str().unwrap().to_owned()
    }

    /// Sets a piece of a room's state.
    pub async fn state(&self, room: &RoomId, kind: &str, key: &str, content: Value) -> String {
        let sent = self.room(room).send_state_event_raw(kind, key, content).await;
        sent.unwrap().event_id.to_string()
    }

    /// Invites somebody to a room.
    pub async fn invite(&self, room: &RoomId, who: &str) {
        self.room(room).invite_user_by_id(&UserId::parse(who).unwrap()).await.unwrap();
    }

    /// Leaves a room.
    pub async fn leave(&self, room: &RoomId) {
        self.room(room).leave().await.unwrap();
    }

    /// Throws somebody out.
    pub async fn kick(&self, room: &RoomId, who: &str) {
        self.room(room).kick_user(&UserId::parse(who).unwrap(), None).await.unwrap();
    }

    /// Throws somebody out for good.
    pub async fn ban(&self, room: &RoomId, who: &str) {
        self.room(room).ban_user(&UserId::parse(who).unwrap(), None).await.unwrap();
    }

    /// Replaces a room by one of the newest version; returns that.
    pub async fn upgrade(&self, room: &RoomId) -> OwnedRoomId {
        let request = upgrade_room::v3::Request::new(room.to_owned(), room_version_id!("12"));
        self.client.send(request).await.unwrap().replacement_room
    }

    /// Says that a room was read up to an event.
    pub async fn read(&self, room: &RoomId, event: &str) {
        self.call(Method::POST, &format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{event}"), Some(json!({})))
            .await;
    }

    /// Waits for an event that fits, whether it came already or will.
    pub async fn wait_for(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        self.until(what, |inbox| inbox.events.iter().find(|event| fits(event)).cloned()).await
    }

    /// Waits for an event that fits and came after another.
    pub async fn wait_after(&self, earlier: &str, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        self.until(what, |inbox| {
            let after = inbox.events.iter().position(|event| event.id == earlier)?;
            inbox.events[after + 1..].iter().find(|event| fits(event)).cloned()
        })
        .await
    }

    /// Waits for the answer to what one said: the new text of somebody else that replies to it, stands in its thread
    /// or mentions one, also as an edit of what was shown of it before.
    pub async fn answer_to(&self, asked: &str) -> Seen {
        let room = self.wait_for("the question", |event| event.id == asked).await.room;
        self.wait_after(asked, "the answer", |event| {
            event.room == room
                && event.kind == "m.room.message"
                && (event.is_message() || event.mentions(&self.id))
                && event.sender != self.id
                && event.msgtype() == "m.text"
                && (event.reply_to() == asked || event.target() == asked || event.mentions(&self.id))
        })
        .await
    }

    /// Waits until what a room shows fits, and returns it.
    pub async fn shows(&self, room: &RoomId, what: &str, fits: impl Fn(&[Shown]) -> bool) -> Vec<Shown> {
        self.until(what, |inbox| {
            let shown = show(inbox.events.iter().filter(|event| event.room == room));
            fits(&shown).then_some(shown)
        })
        .await
    }

    /// What a room shows now.
    pub fn shown(&self, room: &RoomId) -> Vec<Shown> {
        show(self.inbox.borrow().events.iter().filter(|event| event.room == room))
    }

    /// All events that came, in their order.
    pub fn events(&self) -> Vec<Seen> {
        self.inbox.borrow().events.clone()
    }

    /// How many messages of a room notify and how many highlight since it was read. The server counts, so in encrypted
    /// rooms every message does.
    pub fn unread(&self, room: &RoomId) -> (u64, u64) {
        self.inbox.borrow().unread.get(room).copied().unwrap_or_default()
    }

    /// Waits until the counts of [`Self::unread`] are these.
    pub async fn unread_is(&self, room: &RoomId, counts: (u64, u64)) {
        self.until("the unread counts", |inbox| (inbox.unread.get(room) == Some(&counts)).then_some(())).await;
    }

    /// The rooms to which one is invited and was not before.
    pub fn invites(&self) -> Vec<OwnedRoomId> {
        self.inbox.borrow().invites.clone()
    }

    /// A room that one is in.
    pub fn room(&self, room: &RoomId) -> Room {
        self.client.get_room(room).expect("a room of this person")
    }

    /// Calls the homeserver as this person; it must agree.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.client.homeserver().as_str().trim_end_matches('/'));
        let mut request = self.http.request(method, url).bearer_auth(self.client.access_token().unwrap());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let (status, body) = (response.status(), response.bytes().await.unwrap());
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn until<T>(&self, what: &str, finds: impl Fn(&Inbox) -> Option<T>) -> T {
        let mut inbox = self.inbox.clone();
        let found = async {
            loop {
                let found = finds(&inbox.borrow_and_update());
                if let Some(found) = found {
                    return found;
                }
                inbox.changed().await.unwrap_or_else(|_| panic!("{} syncs no more", self.id));
            }
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| {
            panic!("{} waited too long for {what}; came: {:#?}", self.id, self.inbox.borrow().events)
        })
    }
}

/// Syncs until it is aborted; what fails (the homeserver may be away) is tried again.
async fn sync(client: Client, tell: watch::Sender<Inbox>) {
    let mut token: Option<String> = None;
    loop {
        let since = token.clone().map_or(SyncToken::NoToken, SyncToken::Specific);
        let poll = if token.is_some() { POLL } else { Duration::ZERO };
        match client.sync_once(SyncSettings::default().timeout(poll).token(since)).await {
            Ok(response) => {
                token = Some(response.next_batch.clone());
                let keys = !response.to_device.is_empty();
                tell.send_modify(|inbox| absorb(inbox, response));
                if keys {
                    open(&client, &tell).await;
                }
            }
            Err(_) => sleep(AGAIN).await,
        }
    }
}

fn absorb(inbox: &mut Inbox, response: SyncResponse) {
    let at = Instant::now();
    inbox.syncs += 1;
    inbox.invites.extend(response.rooms.invited.into_keys());
    for (id, room) in response.rooms.joined {
        let counts = room.unread_notifications;
        inbox.unread.insert(id.clone(), (counts.notification_count, counts.highlight_count));
        if let State::Before(state) = room.state {
            let state = state.iter().map(|event| serde_json::from_str(event.json().get()).unwrap());
            inbox.events.extend(state.map(|raw| Seen::new(id.clone(), raw, Seal::Plain, at)));
        }
        inbox.events.extend(room.timeline.events.iter().map(|event| Seen::of(id.clone(), event, at)));
        let passing = room.ephemeral.iter().map(|event| serde_json::from_str(event.json().get()).unwrap());
        inbox.events.extend(passing.map(|raw| Seen::new(id.clone(), raw, Seal::Plain, at)));
    }
    for (id, room) in response.rooms.left {
        inbox.events.extend(room.timeline.events.iter().map(|event| Seen::of(id.clone(), event, at)));
    }
}

/// Tries what could not be read again: keys have come.
async fn open(client: &Client, tell: &watch::Sender<Inbox>) {
    let is_locked = |event: &&Seen| event.seal == Seal::Locked;
    let locked: Vec<_> = tell.borrow().events.iter().filter(is_locked).cloned().collect();
    for event in locked {
        let Some(room) = client.get_room(&event.room) else { continue };
        let raw: Raw<AnySyncTimelineEvent> = Raw::new(&event.raw).unwrap().cast_unchecked();
        let Ok(opened) = room.decrypt_event(raw.cast_ref_unchecked(), None).await else { continue };
        let opened = Seen { late: true, ..Seen::of(event.room.clone(), &opened, Instant::now()) };
        if opened.seal != Seal::Locked {
            tell.send_modify(|inbox| {
                for known in inbox.events.iter_mut().filter(|known| known.id == opened.id) {
                    *known = opened.clone();
                }
            });
        }
    }
}
