//! `matrix-agent demo --room`: the demo job in a Matrix room, done by the server that runs. This is the person's
//! side: it logs in as the administrator, asks, and prints what the room shows.

mod transcript;

use std::{
    io::{IsTerminal, Write},
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use matrix_sdk::{
    Client, Room,
    config::{RequestConfig, SyncSettings, SyncToken},
    ruma::{
        OwnedUserId, UserId,
        api::client::room::create_room,
        events::room::{member::MembershipState, message::RoomMessageEventContent},
    },
};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::{signal, time::timeout};
use transcript::{Line, Transcript};

use super::{Configuration, Outcome, host};
use crate::{config, ids::FIRST_ACCOUNT, net, ops::Purpose, text};

/// The room's name; an existing room of that name is used again.
const NAME: &str = "matrix-agent demo";
/// How long the bot may take to join the room.
const JOIN: Duration = Duration::from_mins(1);
/// How long the whole job may take.
const JOB: Duration = Duration::from_mins(15);
/// How long after the answer the progress message may take to show how the turn ended.
const CLOSING: Duration = Duration::from_secs(20);
/// How long a request may take; a sync request gets [`POLL`] on top.
const REQUEST: Duration = Duration::from_secs(30);
/// How long the homeserver holds a sync in which nothing happens.
const POLL: Duration = Duration::from_secs(15);
/// The most characters of a status line.
const WIDTH: usize = 100;

/// Asks for the job in a room; `order` is the message.
pub(super) async fn run(configuration: &Configuration, order: &str) -> anyhow::Result<Outcome> {
    let config = configuration.checked(Purpose::Anything)?;
    let Some(matrix) = &config.matrix else {
        bail!("MATRIX_USER is not set. Run scripts/setup-synapse.sh, or name the bot's account in `.env`.");
    };
    if !host::serves(&config.paths.state_dir).await? {
        bail!("No server runs. Start it with `matrix-agent run`, in another terminal.");
    }
    let mut person = Person::login(matrix).await?;
    let outcome = {
        let asking = pin!(person.ask(order));
        tokio::select! {
            outcome = asking => outcome,
            _ = signal::ctrl_c() => Ok(Outcome::Interrupted),
        }
    };
    // The device was made for this demo only; if it stays, it does no harm.
    let _ = timeout(REQUEST, person.client.matrix_auth().logout()).await;
    outcome
}

/// The administrator, logged in.
struct Person {
    client: Client,
    bot: OwnedUserId,
    /// The position up to which everything was read.
    token: Option<String>,
    started: Instant,
    /// Whether a status line is on the screen and must be erased first.
    status: bool,
}

impl Person {
    async fn login(matrix: &config::Matrix) -> anyhow::Result<Self> {
        let (Some(user), Some(password)) = (&matrix.admin_user, &matrix.admin_password) else {
            bail!("MATRIX_ADMIN_USER and MATRIX_ADMIN_PASSWORD are not both set. They are who speaks in the demo.");
        };
        if let Some(refused) = matrix.password_refused(FIRST_ACCOUNT) {
            bail!("{} {}", config::sentence(&refused.what), config::sentence(&refused.mend));
        }
        let bot = UserId::parse(&matrix.user).context("MATRIX_USER is no Matrix user ID.")?;
        let away = || format!("The homeserver {} does not answer. See that it runs.", matrix.homeserver);
        let requests = RequestConfig::new().timeout(REQUEST).retry_limit(3);
        let http = net::client_of(&matrix.homeserver).build().context("No connection can be set up.")?;
        let client = Client::builder().homeserver_url(matrix.homeserver.as_str()).http_client(http);
        let client = client.request_config(requests);
        let client = client.build().await.with_context(away)?;
        let login = client.matrix_auth().login_username(user, password.expose_secret());
        let login = login.initial_device_display_name("matrix-agent demo").send();
        login.await.with_context(|| format!("{user} could not log in. Check MATRIX_ADMIN_PASSWORD in `.env`."))?;
        Ok(Self { client, bot, token: None, started: Instant::now(), status: false })
    }

    /// Sends `order` to the demo's room and waits until the job is done.
    async fn ask(&mut self, order: &str) -> anyhow::Result<Outcome> {
        self.sync().await?;
        let mut transcript = Transcript::new(self.bot.as_str());
        let room = match self.known_room().await? {
            Some(room) => room,
            None => timeout(JOIN, self.new_room(&mut transcript)).await.map_err(|_| {
                anyhow::anyhow!("{} did not come into the room. The server's log tells why.", self.bot)
            })??,
        };
        self.say("you", order)?;
        let asked = room.send(RoomMessageEventContent::text_plain(order)).await?;
        transcript.asked(asked.response.event_id.as_str());
        self.started = Instant::now();
        let ended = timeout(JOB, self.watch(&room, &mut transcript)).await;
        self.wipe()?;
        match ended {
            Ok(told) => told?,
            Err(_) => bail!("There is no answer after {}. The server's log tells why.", text::human_duration(JOB)),
        }
        let good = transcript.is_done();
        let word = if good { "Done" } else { "Not done" };
        let took = text::human_duration(self.started.elapsed());
        writeln!(std::io::stdout().lock(), "\n{word}: answered in the room in {took}.")?;
        Ok(if good { Outcome::Good } else { Outcome::Bad })
    }

    /// Returns the room of an earlier demo if the bot is still in it, after a `!new` there.
    async fn known_room(&mut self) -> anyhow::Result<Option<Room>> {
        for room in self.client.joined_rooms() {
            if room.name().as_deref() != Some(NAME) || room.latest_encryption_state().await?.is_encrypted() {
                continue;
            }
            let bot = room.get_member(&self.bot).await?;
            if bot.is_some_and(|bot| *bot.membership() == MembershipState::Join) {
                self.note(&format!("The room \"{NAME}\" is there already."))?;
                room.send(RoomMessageEventContent::text_plain("!new")).await?;
                return Ok(Some(room));
            }
        }
        Ok(None)
    }

    /// Creates a room, invites the bot, and waits until it has joined.
    async fn new_room(&mut self, transcript: &mut Transcript) -> anyhow::Result<Room> {
        let mut request = create_room::v3::Request::new();
        request.name = Some(NAME.to_owned());
        request.invite = vec![self.bot.clone()];
        let room = self.client.create_room(request).await?;
        self.note(&format!("A room \"{NAME}\", and an invite for {}.", self.bot))?;
        let mut joined = false;
        while !joined {
            for event in self.sync_room(&room).await? {
                if event["type"] == "m.room.member"
                    && event["state_key"] == self.bot.as_str()
                    && event["content"]["membership"] == "join"
                {
                    joined = true;
                    self.note("It has joined.")?;
                }
                self.show(transcript, &event)?;
            }
        }
        Ok(room)
    }

    /// Prints what the room shows until the job has ended.
    async fn watch(&mut self, room: &Room, transcript: &mut Transcript) -> anyhow::Result<()> {
        let mut answered: Option<Instant> = None;
        while !transcript.has_ended() && answered.is_none_or(|at| at.elapsed() < CLOSING) {
            for event in self.sync_room(room).await? {
                self.show(transcript, &event)?;
            }
            if transcript.is_answered() {
                answered.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    fn show(&mut self, transcript: &mut Transcript, event: &Value) -> std::io::Result<()> {
        for line in transcript.follow(event) {
            match line {
                Line::Said(said) => self.say("bot", &said)?,
                Line::Below(done) => self.say("", &done)?,
                Line::Status(status) => self.status(&status)?,
            }
        }
        Ok(())
    }

    async fn sync_room(&mut self, room: &Room) -> anyhow::Result<Vec<Value>> {
        let mut rooms = self.sync().await?;
        let Some(update) = rooms.joined.remove(room.room_id()) else { return Ok(Vec::new()) };
        let events = update.timeline.events.iter().map(|event| serde_json::from_str(event.raw().json().get()));
        Ok(events.collect::<Result<_, _>>()?)
    }

    async fn sync(&mut self) -> anyhow::Result<matrix_sdk::sync::RoomUpdates> {
        let since = self.token.clone().map_or(SyncToken::NoToken, SyncToken::Specific);
        let poll = if self.token.is_some() { POLL } else { Duration::ZERO };
        let response = self.client.sync_once(SyncSettings::default().timeout(poll).token(since)).await;
        let response = response.context("The homeserver went away.")?;
        self.token = Some(response.next_batch);
        Ok(response.rooms)
    }

    fn note(&mut self, text: &str) -> std::io::Result<()> {
        self.wipe()?;
        writeln!(std::io::stdout().lock(), "{text}")
    }

    fn say(&mut self, who: &str, said: &str) -> std::io::Result<()> {
        self.wipe()?;
        let mut out = std::io::stdout().lock();
        for (number, line) in text::strip(said).lines().enumerate() {
            writeln!(out, "{:<4} {}", if number == 0 { who } else { "" }, line.trim_end())?;
        }
        out.flush()
    }

    /// Writes the status line over the last one, if there is a terminal.
    fn status(&mut self, status: &str) -> std::io::Result<()> {
        if !std::io::stdout().is_terminal() {
            return Ok(());
        }
        self.status = true;
        let mut out = std::io::stdout().lock();
        write!(out, "\r\x1b[2K     {}", text::one_line(status, WIDTH))?;
        out.flush()
    }

    fn wipe(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.status) {
            write!(std::io::stdout().lock(), "\r\x1b[2K")?;
        }
        Ok(())
    }
}
