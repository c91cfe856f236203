//! The canary: this program does one small job on a copy of the state, as `doctor --canary`.
//!
//! A newer program is tried with it beside the older one that runs: it migrates a copy of the database, serves a room of its own
//! there, and has the built-in demo model run one command in a sandbox. What is live is read and never written: the copy lies
//! elsewhere, belongs to no installation, and only an account that nobody has is served on it. All of it is gone afterwards.

use std::{
    env, fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use nix::unistd::geteuid;
use tokio::{task, time};
use tokio_util::sync::CancellationToken;

use super::{
    control::Request,
    lock::Lock,
    server::{House, Served, Server},
    settings::{self, with_demo_model},
    sockets::control_socket,
};
use crate::{
    chat::terminal::{Client, ServerFrame, Shown},
    clock::Clock,
    config::{Config, Paths, SandboxRuntime, make_private},
    hub::{Ending, Live},
    llm::DemoModel,
    sandbox::Sandboxes,
    store::{self, Health, Store},
    text,
};

/// The account that is served. No setting can have this name, so no row of the copy is its own.
const ACCOUNT: &str = "doctor's canary";
const ROOM: &str = "canary";
/// What the demo model is asked: the command's output is nothing that stands in the question.
const ORDER: &str = "run: echo alive-$((6 * 7))";
const OUTPUT: &str = "alive-42";

/// The parts of the job, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The database is copied.
    Copy,
    /// The copy gets this program's tables.
    Migrate,
    /// The copy is served.
    Start,
    /// A message is taken.
    Message,
    /// A sandbox is made.
    Sandbox,
    /// A command runs in it.
    Tool,
    /// The answer comes.
    Answer,
}

impl Stage {
    /// Returns how long it may take.
    fn limit(self) -> Duration {
        match self {
            Self::Copy | Self::Migrate => Duration::from_mins(10),
            Self::Sandbox => Duration::from_mins(3),
            Self::Start | Self::Tool => Duration::from_mins(1),
            Self::Message | Self::Answer => Duration::from_secs(30),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Copy => "copy",
            Self::Migrate => "migrate",
            Self::Start => "start",
            Self::Message => "message",
            Self::Sandbox => "sandbox",
            Self::Tool => "tool",
            Self::Answer => "answer",
        })
    }
}

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
#[error("The canary has failed at the stage `{stage}`: {}", cause.trim_end_matches('.'))]
pub(crate) struct Failed {
    stage: Stage,
    cause: String,
}

/// Does the job with these settings, unless `ended` comes before; `done` is told each stage that was well, with its time.
///
/// # Errors
///
/// The first stage that failed, or took longer than it may. Nothing is left then either.
pub(crate) async fn fly(
    config: &Config,
    ended: impl Future<Output = ()>,
    mut done: impl FnMut(Stage, Duration),
) -> Result<(), Failed> {
    let mut flight = Flight { stage: Stage::Copy, since: Instant::now(), done: &mut done };
    // Boxed because they are large, like what they wait for.
    let flown = match flight.within(Box::pin(Place::take(config))).await {
        Ok(place) => {
            let flown = tokio::select! {
                flown = Box::pin(flight.all(config, &place)) => flown,
                () = ended => Err(anyhow!("it was told to end")),
            };
            if let Err(error) = Box::pin(clear(&place.folder, config)).await {
                tracing::warn!(%error, "what the canary has left in {} cannot be removed", place.folder.display());
            }
            flown
        }
        Err(error) => Err(error),
    };
    flown.map_err(|error| Failed { stage: flight.stage, cause: told(&error) })
}

fn told(error: &anyhow::Error) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.iter().any(|before| before.contains(&cause)) {
            told.push(cause);
        }
    }
    text::one_line(&told.join(": "), 400)
}

/// How the names of the directories begin in which canaries work.
const BEGINS: &str = "matrix-agent-canary-";

/// Where the copy lives: a directory of this process alone, which it holds locked, so that several canaries do not meet and what a
/// killed one has left is known as such by the next.
struct Place {
    folder: PathBuf,
    _lock: Lock,
}

impl Place {
    /// Makes the directory, and removes those that killed canaries have left.
    async fn take(config: &Config) -> anyhow::Result<Self> {
        let base = env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = base.unwrap_or_else(|| "/var/tmp".into());
        for left in left_in(&base)? {
            // One that works holds its lock.
            if let Ok(_lock) = Lock::take(&left) {
                clear(&left, config).await.with_context(|| format!("{} cannot be removed", left.display()))?;
            }
        }
        // It bears its name once it is locked, before which nobody takes it for one that was left.
        let (new, folder) =
            (base.join(format!(".{BEGINS}{}", process::id())), base.join(format!("{BEGINS}{}", process::id())));
        make_private(&new)?;
        if config.sandbox.runtime == Some(SandboxRuntime::Runsc) {
            // gVisor opens what a sandbox is given as the sandbox's own user, who has to pass; the folders in it stay closed.
            fs::set_permissions(&new, fs::Permissions::from_mode(0o711))?;
        }
        let lock = Lock::take(&new)?;
        fs::rename(&new, &folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self { folder, _lock: lock })
    }
}

/// Returns the settings of the server that works in `folder`: everything that is live or reaches anybody is elsewhere or off.
fn settings_in(folder: &Path, config: &Config) -> Config {
    let mut config = config.clone();
    let paths = &config.paths;
    config.paths = Paths {
        state_dir: folder.join("state"),
        ipc_base_dir: folder.join("ipc"),
        localbot_dir: folder.join("inference"),
        ..paths.clone()
    };
    (config.matrix, config.audit_room) = (None, None);
    config.accounts.clear();
    (config.cloud_bots.enabled, config.exobot.enabled) = (false, false);
    config.sandbox.environments = 0;
    (config.limits.room_tokens, config.limits.user_tokens) = (None, None);
    config
}

/// Returns the directories of this user's canaries.
fn left_in(base: &Path) -> io::Result<Vec<PathBuf>> {
    let ours = |entry: &fs::DirEntry| {
        let about = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
        (entry.file_name().to_str()?.starts_with(BEGINS) && about.uid() == geteuid().as_raw()).then(|| entry.path())
    };
    Ok(fs::read_dir(base)?.flatten().filter_map(|entry| ours(&entry)).collect())
}

/// Removes the sandbox and the directory. Only the canary's own installation is ever opened here.
async fn clear(folder: &Path, config: &Config) -> anyhow::Result<()> {
    let config = settings_in(folder, config);
    // A copy that cannot be opened has never had a sandbox.
    if config.paths.database().exists()
        && let Ok(house) = House::open(&config, Clock::default()).await
    {
        let removed = match house.sandboxes() {
            Some(sandboxes) => remove_all(sandboxes).await,
            None => Ok(()),
        };
        house.shutdown().await;
        removed?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

async fn remove_all(sandboxes: &Sandboxes) -> anyhow::Result<()> {
    for sandbox in sandboxes.list().await? {
        sandboxes.remove(&sandbox.address, true).await?;
    }
    Ok(())
}

/// How far it has come.
struct Flight<'a, F> {
    stage: Stage,
    since: Instant,
    done: &'a mut F,
}

impl<F: FnMut(Stage, Duration)> Flight<'_, F> {
    /// Begins the next stage.
    fn next(&mut self, stage: Stage) {
        (self.done)(self.stage, self.since.elapsed());
        (self.stage, self.since) = (stage, Instant::now());
    }

    /// Waits as long as the stage may take.
    async fn within<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let limit = self.stage.limit();
        match time::timeout(limit, work).await {
            Ok(worked) => worked,
            Err(_) => anyhow::bail!("it has taken longer than {}", text::human_duration(limit)),
        }
    }

    async fn all(&mut self, live: &Config, place: &Place) -> anyhow::Result<()> {
        let config = settings_in(&place.folder, live);
        make_private(&config.paths.state_dir)?;
        let (from, to) = (live.paths.database(), config.paths.database());
        if from.exists() {
            let copied = task::spawn_blocking(move || store::copy(&from, &to));
            self.within(async { Ok(copied.await??) }).await?;
        }

        self.next(Stage::Migrate);
        let (path, limit) = (config.paths.database(), self.stage.limit());
        let migrated = task::spawn_blocking(move || migrate(&path, limit));
        self.within(async { migrated.await? }).await?;

        self.next(Stage::Start);
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let demo = DemoModel::start(cancel).await?;
        let config = with_demo_model(&config, &demo)?;
        let (server, sandboxes) = self.within(Box::pin(start(&config))).await?;
        let worked = self.job(&config, &sandboxes).await;
        server.shutdown().await;
        worked
    }

    /// Asks, and watches what becomes of it.
    async fn job(&mut self, config: &Config, sandboxes: &Sandboxes) -> anyhow::Result<()> {
        let state = &config.paths.state_dir;
        let opening = serde_json::to_string(&Request::Chat { room: ROOM.to_owned() })?;
        let mut client = Client::connect(&control_socket(state), opening, state.join("terminal")).await?;

        self.next(Stage::Message);
        let id = client.say(ORDER.to_owned()).await?;
        self.within(until(&mut client, |frame| {
            let is_admitted = matches!(frame, ServerFrame::Admitted { id: admitted } if *admitted == id);
            Ok(is_admitted.then_some(()))
        }))
        .await?;

        self.next(Stage::Sandbox);
        let address = crate::ids::Address { account: ACCOUNT.to_owned(), room: crate::chat::terminal::room(ROOM) };
        self.within(async { Ok(sandboxes.ensure(&address).await?) }).await?;

        self.next(Stage::Tool);
        self.within(until(&mut client, |frame| match frame {
            ServerFrame::Live { live: Live::ToolEnded { ok: true, .. } } => Ok(Some(())),
            ServerFrame::Live { live: Live::ToolEnded { summary, .. } } => anyhow::bail!("the command: {summary}"),
            ServerFrame::Answer { text, .. } => anyhow::bail!("no tool was used: {}", text::one_line(text, 200)),
            _ => Ok(None),
        }))
        .await?;

        self.next(Stage::Answer);
        self.within(until(&mut client, |frame| match frame {
            ServerFrame::Answer { text, ending: Ending::Done, .. } if text.contains(OUTPUT) => Ok(Some(())),
            ServerFrame::Answer { text, .. } => anyhow::bail!("the answer is: {}", text::one_line(text, 200)),
            _ => Ok(None),
        }))
        .await?;
        (self.done)(self.stage, self.since.elapsed());
        Ok(())
    }
}

/// Brings the copy up to date, and reads it through. Blocks.
fn migrate(path: &Path, limit: Duration) -> anyhow::Result<()> {
    drop(Store::open(path, store::Durability::Normal, Clock::default())?);
    match Health::of(path, limit / 2)? {
        Health::Whole | Health::Unread => Ok(()),
        Health::Damaged(what) => anyhow::bail!("the copy is damaged: {what}"),
    }
}

async fn start(config: &Config) -> anyhow::Result<(Server, Sandboxes)> {
    let house = House::open(config, Clock::default()).await?;
    let model = settings::model(config, house.inference())?;
    let sandboxes = house.sandboxes().cloned();
    let Some((coder, sandboxes)) = house.coder(config, model).zip(sandboxes) else {
        anyhow::bail!("no bot works in sandboxes");
    };
    let served = Served { name: ACCOUNT.to_owned(), bots: vec![Arc::new(coder)], login: None, terminals: true };
    Ok((house.serve(vec![served]).await?, sandboxes))
}

/// Reads frames until one is what was waited for.
async fn until<T>(
    client: &mut Client,
    mut fits: impl FnMut(&ServerFrame) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    loop {
        if let Shown::Frame(frame) = client.next().await?
            && let Some(found) = fits(&frame)?
        {
            return Ok(found);
        }
    }
}
