//! The whole of it: a homeserver, the program as its bot, a scripted model, and Anna, whom it serves.

use matrix_sdk::ruma::OwnedRoomId;

use super::{
    person::Person,
    proxy::Proxy,
    rig::{BARE, Rig, Server, wait},
    scripted_llm::ScriptedLlm,
    seen::Seen,
    synapse::{Limits, Synapse, password},
};

/// A homeserver with the bot on it, and who may command it.
pub struct Town {
    /// The homeserver.
    pub synapse: Synapse,
    /// What the bot asks.
    pub llm: ScriptedLlm,
    /// How the bot is started.
    pub rig: Rig,
    /// The bot, while it runs.
    pub server: Option<Server>,
    /// Its whole name.
    pub bot: String,
    /// The only person whom it lists.
    pub anna: Person,
}

impl Town {
    /// Starts all of it on a homeserver without limits.
    pub async fn start() -> Self {
        Self::prepared(Limits::Relaxed, |_| {}).await
    }

    /// The same, with a proxy between the bot and its homeserver.
    pub async fn proxied() -> (Self, Proxy) {
        let mut proxy = None;
        let town = Self::prepared(Limits::Relaxed, |rig| proxy = Some(Proxy::before(rig))).await;
        (town, proxy.unwrap())
    }

    /// The same, with other limits and settings.
    pub async fn prepared(limits: Limits, prepare: impl FnOnce(&mut Rig)) -> Self {
        Self::configured(limits, "", prepare).await
    }

    /// The same, with more lines of YAML for the homeserver.
    pub async fn configured(limits: Limits, more: &str, prepare: impl FnOnce(&mut Rig)) -> Self {
        let (synapse, llm) = tokio::join!(Synapse::configured(limits, more), ScriptedLlm::start());
        Self::on(synapse, llm, prepare).await
    }

    /// The same on a homeserver and with a model that are there already.
    pub async fn on(synapse: Synapse, llm: ScriptedLlm, prepare: impl FnOnce(&mut Rig)) -> Self {
        let bot = synapse.account("bot").await;
        let anna = Person::new(&synapse, "anna").await;
        let mut rig = Rig::new(BARE, llm.base_url());
        for (key, value) in [
            ("MATRIX_HOMESERVER", synapse.url()),
            ("MATRIX_USER", &bot),
            ("MATRIX_PASSWORD", &password("bot")),
            ("ALLOWED_USERS", &anna.id),
            ("MATRIX_ADMIN_USER", &anna.id),
        ] {
            rig.set(key, value);
        }
        prepare(&mut rig);
        let server = Some(tokio::task::block_in_place(|| rig.serve()));
        Self { synapse, llm, rig, server, bot, anna }
    }

    /// A room in which Anna and the bot are, and the bot has greeted.
    pub async fn room(&self, encrypted: bool) -> OwnedRoomId {
        let room = self.anna.create_room(encrypted, &[&self.bot]).await;
        self.greeted(&room).await;
        room
    }

    /// Waits for the bot's greeting.
    pub async fn greeted(&self, room: &OwnedRoomId) -> Seen {
        let (room, bot) = (room.to_string(), self.bot.clone());
        self.anna
            .wait_for("the greeting", |event| {
                event.room == room && event.sender == bot && event.body().starts_with("Hello")
            })
            .await
    }

    /// Waits until the bot has read an event; what it does about it, it has been told by then.
    pub async fn has_read(&self, room: &OwnedRoomId, event: &str) {
        self.anna
            .wait_for("the bot's receipt", |seen| {
                seen.room == *room && seen.kind == "m.receipt" && !seen.content[event]["m.read"][&self.bot].is_null()
            })
            .await;
    }

    /// Waits for the words that reply to this very event.
    pub async fn replies(&self, asked: &str) -> Seen {
        let fits = |seen: &Seen| seen.is_message() && seen.msgtype() == "m.text" && seen.reply_to() == asked;
        self.anna.wait_after(asked, "the reply", fits).await
    }

    /// Waits until the bot has noted that all it has said so far has arrived; people see it before that.
    pub fn has_noted(&self) {
        let store = rusqlite::Connection::open(self.rig.database()).unwrap();
        let left = || store.query_row("SELECT count(*) FROM outbox WHERE sent IS NULL", [], |row| row.get::<_, i64>(0));
        // The bot may be writing.
        tokio::task::block_in_place(|| wait("what is noted as sent", || left().is_ok_and(|left| left == 0)));
    }

    /// What comes next in a room, and so shows that nothing came before it: returns what the bot said since an event,
    /// without what it says to this.
    pub async fn said_since(&self, room: &OwnedRoomId, event: &str) -> Vec<Seen> {
        let barrier = self.anna.say(room, "!help").await;
        self.anna.answer_to(&barrier).await;
        let here = self.anna.events().into_iter().filter(|seen| seen.room == *room);
        let since = here.skip_while(|seen| seen.id != event);
        since.filter(|seen| seen.sender == self.bot && seen.is_message() && seen.reply_to() != barrier).collect()
    }

    /// Runs a command in a room's sandbox and returns what it prints.
    pub fn in_sandbox(&self, room: &OwnedRoomId, command: &str) -> String {
        let run = ["sandbox", "exec", room.as_str(), "--", "sh", "-c", command];
        let output = tokio::task::block_in_place(|| self.rig.run(&run));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the bot again, after [`Server::kill`] or a death.
    pub fn serve(&mut self) {
        self.server = Some(tokio::task::block_in_place(|| self.rig.serve()));
    }

    /// What the bot has logged.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }
}
