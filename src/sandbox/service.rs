//! Finds Podman: its API socket, or `podman system service`, started here if no socket answers, and always where the
//! operator has chosen a runtime, which is an engine's and so not that of the machine's socket. Tries again with
//! growing pauses after Podman went away. Knows nothing of containers: `engine.rs` gets the client for each request
//! here, and reports a request that could not be sent.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{ClientVersion, Docker};
use nix::unistd::geteuid;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Child,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::runtime::Runtime;
use crate::{child, text};

/// The Docker-compatible API version that every Podman since 3.4 speaks. It is fixed, which saves a request.
const VERSION: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// How long a request may wait for the head of its response. Longer than the grace of a stop, and than creating a
/// container while an old kernel copies the image for a new id range.
const REQUEST_LIMIT: Duration = Duration::from_mins(2);

/// How long a socket may take to answer a ping. Generous, since systemd may have to start Podman behind it.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// How long the service that we start may take to answer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Seconds without a connection after which the service that we started ends. The stream of events is a connection,
/// so this ends only a service that a killed server left behind.
const SERVICE_IDLE: u32 = 60;

/// The longest line of the service's standard error that is kept, in bytes.
const LINE: usize = 1024;

/// The first and the longest pause between two tries while nothing answers.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Whether and where Podman answers.
#[derive(Clone)]
pub(super) enum Contact {
    /// Nothing was tried yet.
    Unknown,
    /// It answers.
    Up {
        /// The client for the socket.
        docker: Docker,
        /// The socket's path.
        socket: PathBuf,
    },
    /// It does not answer; holds the reason, one sentence.
    Away(String),
}

/// The connection to Podman. Cheap to clone; its task ends with the token given to [`Service::start`].
#[derive(Clone)]
pub(super) struct Service {
    contact: watch::Receiver<Contact>,
    /// Notified when a request could not be sent.
    trouble: Arc<Notify>,
}

impl Service {
    /// Starts looking for Podman: at `socket` or else the usual places, then by starting `podman` as a service on a
    /// socket in `state_dir`. With a `runtime` there are no usual places.
    pub(super) fn start(
        socket: Option<PathBuf>,
        podman: PathBuf,
        runtime: Option<Runtime>,
        state_dir: &Path,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let (sender, contact) = watch::channel(Contact::Unknown);
        let trouble = Arc::new(Notify::new());
        let places = if runtime.is_some() { Vec::new() } else { usual_places() };
        let keeper = Keeper {
            places: socket.map_or(places, |socket| vec![socket]),
            own: own_socket(state_dir, runtime),
            state_dir: state_dir.to_owned(),
            podman,
            runtime,
            child: None,
            sender,
            trouble: Arc::clone(&trouble),
        };
        tasks.spawn(keeper.run(cancel));
        Self { contact, trouble }
    }

    /// Waits until it is known whether Podman answers; returns the client, or why there is none.
    pub(super) async fn client(&self) -> Result<Docker, String> {
        match self.settled().await {
            Contact::Up { docker, .. } => Ok(docker),
            Contact::Away(why) => {
                self.report();
                Err(why)
            }
            Contact::Unknown => Err("the server is shutting down".to_owned()),
        }
    }

    /// Returns the socket at which Podman answers now.
    pub(super) async fn socket(&self) -> Result<PathBuf, String> {
        match self.settled().await {
            Contact::Up { socket, .. } => Ok(socket),
            Contact::Away(why) => Err(why),
            Contact::Unknown => Err("the server is shutting down".to_owned()),
        }
    }

    /// Waits until Podman answers. Fails when the server shuts down.
    pub(super) async fn up(&self) -> Result<(), watch::error::RecvError> {
        let mut contact = self.contact.clone();
        contact.wait_for(|contact| matches!(contact, Contact::Up { .. })).await.map(|_| ())
    }

    /// Has the socket pinged, since a request to it could not be sent; if it is silent, Podman is looked for again.
    pub(super) fn report(&self) {
        self.trouble.notify_one();
    }

    async fn settled(&self) -> Contact {
        let mut contact = self.contact.clone();
        match contact.wait_for(|contact| !matches!(contact, Contact::Unknown)).await {
            Ok(contact) => contact.clone(),
            Err(_) => Contact::Unknown,
        }
    }
}

/// Returns the socket of a service that we start. A server that was killed leaves its service behind for a minute, so each
/// runtime has a socket of its own.
pub(crate) fn own_socket(state_dir: &Path, runtime: Option<Runtime>) -> PathBuf {
    match runtime {
        Some(runtime) => state_dir.join(format!("podman-{}.sock", runtime.name())),
        None => state_dir.join("podman.sock"),
    }
}

/// The sockets of the current user in the units of distributions.
fn usual_places() -> Vec<PathBuf> {
    if geteuid().is_root() {
        return vec![PathBuf::from("/run/podman/podman.sock")];
    }
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| format!("/run/user/{}", geteuid()).into(), PathBuf::from);
    vec![runtime.join("podman/podman.sock")]
}

/// The task behind [`Service`].
struct Keeper {
    places: Vec<PathBuf>,
    own: PathBuf,
    state_dir: PathBuf,
    podman: PathBuf,
    /// What the service that we start runs containers with; `None`: what Podman's own settings say.
    runtime: Option<Runtime>,
    /// The `podman system service` that we started, if any. Killed when dropped.
    child: Option<Child>,
    sender: watch::Sender<Contact>,
    trouble: Arc<Notify>,
}

impl Keeper {
    async fn run(mut self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.keep()).await;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await; // it may have ended; the containers do not depend on it
            let _ = std::fs::remove_file(&self.own);
        }
    }

    async fn keep(&mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            match self.find().await {
                Ok((docker, socket)) => {
                    if matches!(*self.sender.borrow(), Contact::Away(_)) {
                        tracing::info!(socket = %socket.display(), "Podman answers again");
                    } else {
                        tracing::debug!(socket = %socket.display(), "Podman answers");
                    }
                    backoff = BACKOFF.0;
                    self.sender.send_replace(Contact::Up { docker: docker.clone(), socket });
                    self.hold(&docker).await;
                }
                Err(why) => {
                    if !matches!(*self.sender.borrow(), Contact::Away(_)) {
                        tracing::error!(cause = %why, "Podman is away: no sandbox can start until it answers; trying on");
                    }
                    self.sender.send_replace(Contact::Away(why));
                    sleep(BACKOFF.0).await;
                    // A report cuts the pause short.
                    let _ = timeout(backoff.saturating_sub(BACKOFF.0), self.trouble.notified()).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Returns when Podman has stopped answering.
    async fn hold(&mut self, docker: &Docker) {
        loop {
            tokio::select! {
                () = self.trouble.notified() => if ping(docker).await.is_err() { return },
                status = ended(&mut self.child) => {
                    tracing::warn!(%status, "our Podman service ended; starting it again");
                    self.child = None;
                    return;
                }
            }
        }
    }

    /// Tries the sockets in turn, then starts a service.
    async fn find(&mut self) -> Result<(Docker, PathBuf), String> {
        let mut why = String::new();
        for place in self.places.iter().chain([&self.own]) {
            match connect(place).await {
                Ok(docker) => return Ok((docker, place.clone())),
                Err(cause) if why.is_empty() && *place != self.own => why = cause,
                Err(_) => {}
            }
        }
        match self.serve().await {
            Ok(docker) => Ok((docker, self.own.clone())),
            Err(cause) if why.is_empty() => Err(cause),
            Err(cause) => Err(format!("{why}, and {cause}")),
        }
    }

    /// Starts `podman system service` and waits until it answers.
    async fn serve(&mut self) -> Result<Docker, String> {
        let _ = std::fs::remove_file(&self.own); // a stale socket: nothing has answered there
        let program = self.podman.display();
        let mut command = child::command(&self.podman);
        if let Some(runtime) = self.runtime {
            command.arg("--runtime").arg(runtime.install(&self.state_dir).await.map_err(|error| error.to_string())?);
        }
        let mut child = command
            .args(["system", "service", &format!("--time={SERVICE_IDLE}")])
            .arg(format!("unix://{}", self.own.display()))
            // conmon writes an empty file `oom` to the directory in which Podman was started when a container runs
            // out of memory.
            .current_dir(self.own.parent().unwrap_or(Path::new("/")))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`{program}` cannot be started ({error}); install Podman or set PODMAN_PATH"))?;
        let last_line = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(keep_last_line(stderr, Arc::clone(&last_line))); // ends with the child's standard error
        }
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                let line = last_line.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Err(format!("`{program} system service` ended at once ({status}) {line}")
                    .trim_end()
                    .to_owned());
            }
            if let Ok(docker) = connect(&self.own).await {
                tracing::info!(socket = %self.own.display(), "started Podman's API service");
                self.child = Some(child);
                return Ok(docker);
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("`{program} system service` did not answer within {} s", START_LIMIT.as_secs()));
            }
            sleep(Duration::from_millis(20)).await; // a new service gives no other sign that it is ready
        }
    }
}

/// Waits for the end of the service that we started; for ever if there is none.
async fn ended(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
        None => std::future::pending().await,
    }
}

async fn connect(socket: &Path) -> Result<Docker, String> {
    let path = socket.display();
    let text = socket.to_str().ok_or_else(|| format!("the path `{path}` is no text"))?;
    let docker = Docker::connect_with_unix(text, REQUEST_LIMIT.as_secs(), &VERSION)
        .map_err(|_| format!("there is no Podman socket at `{path}`"))?;
    ping(&docker).await.map_err(|why| format!("Podman's socket `{path}` does not answer ({why})"))?;
    Ok(docker)
}

async fn ping(docker: &Docker) -> Result<(), String> {
    match timeout(PING_LIMIT, docker.ping()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(text::root_cause(&error)),
        Err(_) => Err(format!("no answer within {} s", PING_LIMIT.as_secs())),
    }
}

/// Reads the service's standard error, which would block otherwise, and keeps its last line for error texts.
async fn keep_last_line(stderr: impl AsyncRead + Unpin, last: Arc<Mutex<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::with_capacity(LINE);
    loop {
        line.clear();
        match (&mut reader).take(LINE as u64).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                tracing::debug!(%text, "podman system service");
                *last.lock().unwrap_or_else(PoisonError::into_inner) = text;
            }
        }
    }
}
