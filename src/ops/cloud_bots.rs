//! Serves the cloud bots: each is an account of its own, which begins and ends while the others run.
//!
//! Their files are looked at every few seconds. A new one begins a bot, a changed one begins it anew, and one that is gone
//! ends it. A changed file with mistakes changes nothing: the bot goes on as it was, and the log says what is wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, MutexGuard},
    task, time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::settings;
use crate::{
    bots::chat::{ChatBot, Means},
    chat::matrix::{self, Line, Serving, Standing},
    config::{CloudBot, CloudBots as Files, Config, RefusedBot},
    hub::{Account, AccountHub, Keeper, Port},
    ids::span_of_account,
    inference::Inference,
    store::RoomCounts,
};

/// How often their files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a bot's tasks may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long a start waits for the bots' first tries.
const FIRST_TRY: Duration = Duration::from_secs(20);
/// Deliveries, and files to fetch, that may be queued for a bot's account.
const QUEUE: usize = 256;

/// The cloud bots of a server. Cheap to clone.
#[derive(Clone)]
pub(super) struct CloudBots {
    inner: Arc<Inner>,
}

struct Inner {
    config: Box<Config>,
    inference: Inference,
    means: Means,
    keeper: Keeper,
    cancel: CancellationToken,
    served: Mutex<Served>,
}

/// What is served, and how the files were when they were read.
#[derive(Default)]
struct Served {
    bots: BTreeMap<String, Running>,
    refused: Vec<RefusedBot>,
    stamp: Vec<String>,
}

/// A bot that is served.
struct Running {
    bot: CloudBot,
    hub: AccountHub,
    serving: Serving,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How a cloud bot stands, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Its name.
    pub name: String,
    /// Its Matrix account; none if its file is refused.
    pub user: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The number of rooms in which it may work.
    pub allowed: usize,
    /// The number of rooms in which it is.
    pub rooms: usize,
    /// Whether it has a session.
    pub served: bool,
    /// What it does, or why it does nothing.
    pub state: String,
}

impl CloudBots {
    /// Begins all bots whose files are good, and looks after the files until `cancel`.
    pub(super) async fn start(
        config: Box<Config>,
        inference: Inference,
        means: Means,
        keeper: Keeper,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let served = Mutex::default();
        let bots = Self { inner: Arc::new(Inner { config, inference, means, keeper, cancel, served }) };
        bots.look().await;
        let served = bots.served().await;
        if served.bots.is_empty() && served.refused.is_empty() {
            write_template(&bots.inner.config);
        }
        drop(served);
        tasks.spawn(bots.clone().watch());
        bots
    }

    /// Waits until each bot was tried once, or takes long.
    pub(super) async fn tried(&self) {
        let served = self.served().await;
        let tried = join_all(served.bots.values().map(|running| running.serving.all_tried()));
        if time::timeout(FIRST_TRY, tried).await.is_err() {
            tracing::warn!("not every cloud bot could be tried in time; they are tried further");
        }
    }

    async fn watch(self) {
        while self.inner.cancel.run_until_cancelled(time::sleep(LOOK)).await.is_some() {
            let config = self.inner.config.clone();
            let Ok(stamp) = task::spawn_blocking(move || Files::stamp(&config)).await else { continue };
            if self.served().await.stamp != stamp {
                self.look().await;
            }
        }
        let mut served = self.served().await;
        join_all(std::mem::take(&mut served.bots).into_values().map(Running::end)).await;
    }

    async fn served(&self) -> MutexGuard<'_, Served> {
        self.inner.served.lock().await
    }

    /// Reads the files, and begins and ends what they say.
    pub(super) async fn look(&self) {
        let mut served = self.served().await;
        let config = self.inner.config.clone();
        // Stamped before it is read, so that what changes in between is read again.
        let read = task::spawn_blocking(move || (Files::stamp(&config), Files::read(&config)));
        let Ok((stamp, Files { bots, refused })) = read.await else { return };
        served.stamp = stamp;
        // A directory that cannot be read says nothing of the bots.
        let unread = refused.iter().any(|refused| refused.file.is_dir());
        let kept = |name: &String| {
            unread || bots.iter().any(|bot| bot.name == *name) || refused.iter().any(|refused| refused.name == *name)
        };
        let gone: Vec<_> = served.bots.keys().filter(|name| !kept(name)).cloned().collect();
        for running in gone.iter().filter_map(|name| served.bots.remove(name)).collect::<Vec<_>>() {
            running.hub.span().in_scope(|| tracing::info!("the bot's file is gone; it is served no more"));
            self.inner.means.neighbours.moves_out(&running.bot.account());
            running.end().await;
        }
        for bot in bots {
            if served.bots.get(&bot.name).is_none_or(|running| running.bot.digest != bot.digest) {
                self.begin(&mut served, bot).await;
            }
        }
        for one in &refused {
            let known = served.refused.iter().any(|known| known.name == one.name && known.mistakes == one.mistakes);
            if !known {
                let goes_on = served.bots.contains_key(&one.name);
                let then = if goes_on { "it goes on as it was" } else { "it is not served" };
                tracing::error!(bot = one.name, "a cloud bot's file cannot be used, so {then}: {one}");
            }
        }
        served.refused = refused;
    }

    /// Begins one bot anew, from its file as it is now; returns whether there is such a bot.
    pub(super) async fn restart(&self, name: &str) -> bool {
        if let Some(running) = self.served().await.bots.get_mut(name) {
            running.bot.digest.clear();
        }
        self.look().await;
        self.served().await.bots.contains_key(name)
    }

    /// Returns all of them.
    pub(super) async fn shown(&self) -> Vec<Shown> {
        let counts = self.inner.means.store.room_counts().await.unwrap_or_default();
        self.shown_with(&counts).await
    }

    /// Returns all of them, for somebody who knows in how many rooms each is.
    pub(super) async fn shown_with(&self, counts: &RoomCounts) -> Vec<Shown> {
        let served = self.served().await;
        let mut all = Vec::new();
        for (name, running) in &served.bots {
            let rooms = counts.of(running.hub.account());
            let (is_served, mut state) = match running.serving.standing() {
                Standing::Served => (true, format!("serves {rooms} rooms")),
                Standing::Beginning => (false, "begins".to_owned()),
                Standing::Away(error) => (false, error.to_string()),
            };
            if let Some(refused) = served.refused.iter().find(|refused| refused.name == *name) {
                state = format!("{state}, with the settings before these mistakes: {refused}");
            }
            all.push(Shown { rooms, served: is_served, state, ..shown(&running.bot) });
        }
        let idle = served.refused.iter().filter(|refused| !served.bots.contains_key(&refused.name));
        all.extend(idle.map(shown_refused));
        all
    }

    async fn begin(&self, served: &mut Served, bot: CloudBot) {
        let name = bot.name.clone();
        if let Some(running) = served.bots.remove(&name) {
            running.hub.span().in_scope(|| tracing::info!("the bot begins anew"));
            running.end().await;
        }
        let span = span_of_account(&bot.account());
        match self.started(bot).instrument(span.clone()).await {
            Ok(running) => drop(served.bots.insert(name, running)),
            Err(error) => span.in_scope(|| tracing::error!(%error, "the bot cannot begin")),
        }
    }

    async fn started(&self, bot: CloudBot) -> anyhow::Result<Running> {
        let Inner { config, inference, means, keeper, cancel, .. } = &*self.inner;
        let (chat, source) = settings::cloud_bot(config, &bot, inference)?;
        let (port, inbox) = Port::new(matrix::ROOMS, QUEUE);
        let answers = Arc::new(ChatBot::new(chat, Arc::new(source), means.clone()));
        let account = Account { name: bot.account(), bots: vec![answers], ports: vec![port], rights: None };
        let (tasks, stop) = (TaskTracker::new(), cancel.child_token());
        let hub = AccountHub::start(account, means.store.clone(), keeper.clone(), tasks.clone(), stop.clone()).await?;
        let (login, serving) = (settings::cloud_login(config, &bot), Serving::of_one_spared());
        let name = bot.called.iter().map(|name| format!("@{}", name.trim_start_matches('@')));
        means.neighbours.moves_in(bot.account(), login.called().into_iter().chain(name));
        let running =
            matrix::run(login, hub.clone(), inbox, serving.seat(), Line::default(), tasks.clone(), stop.clone());
        // Boxed because the SDK's futures are large.
        tasks.spawn(Box::pin(running).instrument(hub.span()));
        Ok(Running { bot, hub, serving, tasks, stop })
    }
}

impl Running {
    /// Ends its tasks. Its turns stay open, and are taken up when it begins again.
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        if time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            self.hub.span().in_scope(|| tracing::warn!("not all of the bot's tasks ended in time"));
        }
    }
}

/// Returns a bot that is not served.
pub(crate) fn shown(bot: &CloudBot) -> Shown {
    let host = bot.base_url.as_ref().and_then(|url| url.host_str());
    Shown {
        name: bot.name.clone(),
        user: Some(bot.user.clone()),
        model: Some(host.map_or_else(|| bot.model.clone(), |host| format!("{} at {host}", bot.model))),
        allowed: bot.rooms.len(),
        rooms: 0,
        served: false,
        state: "no server runs".to_owned(),
    }
}

/// Returns one whose file cannot be used.
pub(crate) fn shown_refused(refused: &RefusedBot) -> Shown {
    Shown {
        name: refused.name.clone(),
        user: None,
        model: None,
        allowed: 0,
        rooms: 0,
        served: false,
        state: refused.to_string(),
    }
}

/// Writes the file that shows how a bot's file is written, and says where it is.
fn write_template(config: &Config) {
    match CloudBot::write_template(config) {
        Ok(path) => tracing::warn!(
            "ENABLE_CLOUD_BOTS is set, and there is no cloud bot yet: `matrix-agent cloud-bot add NAME` makes one, or copy \
             {} to cloud-bot-NAME.env beside it",
            path.display()
        ),
        Err(error) => tracing::error!("the example of a cloud bot's file cannot be written: {error}"),
    }
}
