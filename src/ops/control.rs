//! The control socket, through which `chat`, `sandbox` and other subcommands reach the running server. JSON, one
//! frame a line: the server greets, the client sends a request, and what follows depends on it.
//!
//! The socket belongs to the server's user (mode 0600). A client of another user, except root, is refused.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::broadcast::error::RecvError,
    time,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError},
    sync::CancellationToken,
    task::TaskTracker,
};
use tracing::Instrument;

use super::{
    check_ipc,
    cloud_bots::{CloudBots, Shown},
    exobot::ServedExobot,
    lines::Lines,
    recent,
};
use crate::{
    audit::{Audit, Deed},
    bots::{AdminOrder, Administrator, Place, Told},
    chat::terminal::{self, Hello, Incoming, Outgoing, Terminal, Unreached, reach},
    config::account_of_bot,
    hub::AccountHub,
    ids::{self, Address, FIRST_ACCOUNT},
    links::Links,
    sandbox::{Command, Exit, SandboxError, SandboxSummary, Sandboxes, Stdin, User},
    text,
};

/// How long a client may take to send its request.
const OPENING: Duration = Duration::from_secs(10);
/// How the refusal of what is no request begins, by which a newer client knows an older server.
pub(super) const NO_REQUEST: &str = "That is no request";
/// How long a client hears nothing before it looks whether the server still greets anybody.
const QUIET: Duration = Duration::from_secs(10);
/// How long a question may take that only the server has to do with, and one that Podman has.
const SHORT: Duration = Duration::from_mins(1);
const LONG: Duration = Duration::from_mins(15);
/// The longest line before the request is known, in bytes.
const LINE: usize = 1 << 20;

/// A client's request, in its first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Joins a terminal's room.
    Chat {
        /// The room's name.
        room: String,
    },
    /// Lists all sandboxes.
    Sandboxes,
    /// Observes a sandbox.
    Observe {
        /// The room as the list shows it, its sandbox's name, or a terminal room's name.
        room: String,
    },
    /// Checks whether events from sandboxes arrive.
    CheckIpc {
        /// The sandboxes, each as the list shows it, by its name, or by a terminal room's name; if empty, all that
        /// run.
        rooms: Vec<String>,
    },
    /// Removes a sandbox with its files.
    Remove {
        /// The room as the list shows it, its sandbox's name, or a terminal room's name.
        room: String,
    },
    /// Lists the cloud bots with what they do.
    CloudBots,
    /// Looks at the cloud bots' files at once, and lists them then.
    LookAtCloudBots,
    /// Begins a cloud bot anew, from its file.
    RestartCloudBot {
        /// Its name.
        name: String,
    },
    /// Reads the newest lines of the log about a cloud bot.
    CloudBotLog {
        /// Its name.
        name: String,
        /// Whether further lines are sent as they come, until the client hangs up.
        follow: bool,
    },
    /// What administrators ask of the whole server.
    Admin {
        /// What.
        order: AdminOrder,
    },
    /// Tells which room is meant.
    Room {
        /// The room as the list of `admin rooms` shows it, or a part of that which no other has.
        room: String,
    },
    /// Reads the newest lines of the server's log.
    Log {
        /// Whether further lines are sent as they come, until the client hangs up.
        follow: bool,
    },
    /// Tells what exobot and its model do.
    Exobot,
    /// Makes links by which an operator comes into the dashboard; before, whoever is in is signed out, if that is asked.
    Dashboard {
        /// Whether nobody stays in, and no link that was given opens anything.
        #[serde(default)]
        sign_out: bool,
    },
    /// Has each account send a message through its homeserver to itself, and tells which came back.
    Echo,
    /// Runs a command in a sandbox.
    Exec {
        /// The room as the list shows it, its sandbox's name, or a terminal room's name.
        room: String,
        /// The command.
        argv: Vec<String>,
    },
}

impl Request {
    /// Returns what the audit log has of it if it changes something, or lets somebody in: which order it is, and of which room.
    fn order(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Admin { order } if order.changes() => Some((order.words(), order.room().unwrap_or_default())),
            Self::Remove { room } => Some(("sandbox rm", room)),
            Self::Exec { room, .. } => Some(("sandbox exec", room)),
            Self::RestartCloudBot { .. } => Some(("cloud-bot restart", "")),
            Self::Dashboard { sign_out: false } => Some(("dashboard", "")),
            Self::Dashboard { sign_out: true } => Some(("dashboard --sign-out", "")),
            _ => None,
        }
    }

    /// Returns the line of the audit log for it, without its outcome, if it is to have one.
    fn deed(&self, by: &str) -> Option<Deed> {
        let (words, room) = self.order()?;
        let digest = ids::digest(&[&serde_json::to_string(self).ok()?], 16);
        Some(Deed { room: room.to_owned(), digest, ..Deed::new("order", words, "") }.by(by))
    }

    /// How long the one answer may take.
    fn patience(&self) -> Duration {
        match self {
            Self::Sandboxes | Self::Observe { .. } | Self::CheckIpc { .. } | Self::Remove { .. } => LONG,
            _ => SHORT,
        }
    }
}

/// The server's answer to every request but a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The result.
    Value {
        /// The result as JSON, for programs.
        value: serde_json::Value,
        /// The result as text, for people.
        text: String,
    },
    /// A piece of a command's output, in base64.
    Output {
        /// The piece.
        data: String,
    },
    /// The end of a command.
    Exit {
        /// Its exit code, as a shell gives it.
        code: i32,
    },
    /// The request failed.
    Failed {
        /// A plain sentence.
        text: String,
    },
}

/// What clients of the socket can reach.
#[derive(Clone)]
pub(super) struct Control {
    /// `None` if no bot works in sandboxes.
    pub(super) sandboxes: Option<Sandboxes>,
    /// `None` if this process only administers sandboxes.
    pub(super) chat: Option<(AccountHub, Terminal)>,
    /// `None` if this process serves none.
    pub(super) cloud_bots: Option<CloudBots>,
    /// `None` if this process serves none.
    pub(super) exobot: Option<Arc<ServedExobot>>,
    /// The accounts' lines to their homeservers.
    pub(super) lines: Lines,
    /// `None` if this process serves no dashboard.
    pub(super) links: Option<Links>,
    /// `None` if this process only administers sandboxes.
    pub(super) admin: Option<Arc<dyn Administrator>>,
    /// Where it is noted what is ordered on the command line.
    pub(super) audit: Audit,
}

impl Control {
    /// Binds the socket. The caller holds the state directory's lock, so an existing socket is left over from a
    /// crash.
    pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Serves clients until `cancel`.
    pub(super) async fn serve(self, listener: UnixListener, clients: TaskTracker, cancel: CancellationToken) {
        loop {
            let stream = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a client could not be accepted");
                        time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (control, cancel) = (self.clone(), cancel.clone());
            clients.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    result = control.client(stream, &cancel) => if let Err(error) = result {
                        tracing::debug!(%error, "a client of the control socket went away");
                    }
                }
            });
        }
    }

    async fn client(&self, stream: UnixStream, cancel: &CancellationToken) -> anyhow::Result<()> {
        let peer = stream.peer_cred()?.uid();
        let us = nix::unistd::geteuid().as_raw();
        anyhow::ensure!(peer == us || peer == 0, "the peer is user {peer}");
        let name = nix::unistd::User::from_uid(peer.into()).ok().flatten().map_or(peer.to_string(), |user| user.name);
        let (read, write) = stream.into_split();
        let mut incoming = FramedRead::new(read, LinesCodec::new_with_max_length(LINE));
        let mut outgoing = FramedWrite::new(write, LinesCodec::new());
        send(&mut outgoing, &Hello::ours()).await?;
        let Some(line) = time::timeout(OPENING, incoming.next()).await? else { return Ok(()) };
        let request: Request = match serde_json::from_str(&line?) {
            Ok(request) => request,
            Err(error) => return fail(&mut outgoing, &format!("{NO_REQUEST}: {error}.")).await,
        };
        let mut deed = request.deed(&name);
        if let Some(deed) = &mut deed
            && let Some(meant) = self.meant(&request).await
        {
            deed.room = meant.to_string();
        }
        let note = |outcome: &str| {
            let deed = deed.clone().map(|deed| Deed { outcome: outcome.to_owned(), ..deed });
            if let Some(deed) = deed {
                self.audit.note(deed);
            }
        };
        match (request, &self.chat) {
            (Request::Chat { room }, Some((hub, terminal))) => {
                let room = terminal::room(&room);
                let span = hub.address(room.clone()).span();
                terminal.serve(hub, room, name, incoming, outgoing, cancel.clone()).instrument(span).await;
                Ok(())
            }
            (Request::CloudBotLog { name, follow }, _) => {
                show_log(&account_of_bot(&name), follow, incoming, outgoing).await
            }
            (Request::Log { follow }, _) => show_log(recent::SERVER, follow, incoming, outgoing).await,
            (Request::Exec { room, argv }, _) => match self.administration() {
                Ok(administration) => administration.exec(incoming, outgoing, &room, argv, note).await,
                Err(why) => {
                    note("refused");
                    fail(&mut outgoing, &why).await
                }
            },
            (request, _) => {
                let answer = self.answer(request, &name).await;
                note(match &answer {
                    Ok(_) => "done",
                    Err(Unserved::Refused(_)) => "refused",
                    Err(Unserved::Failed(_)) => "failed",
                });
                match answer {
                    Ok(answer) => send(&mut outgoing, &answer).await,
                    Err(why) => fail(&mut outgoing, &why.to_string()).await,
                }
            }
        }
    }

    /// Returns the room that a request is about, if it is clear which is meant.
    async fn meant(&self, request: &Request) -> Option<Address> {
        match request {
            Request::Admin { order } => self.admin.as_ref()?.room_named(order.room()?).await.ok(),
            Request::Remove { room } => self.administration().ok()?.room_with_files(room).await.ok(),
            Request::Exec { room, .. } => self.administration().ok()?.room(room).await.ok(),
            _ => None,
        }
    }

    /// Does what has one answer. `by` is who asks.
    async fn answer(&self, request: Request, by: &str) -> Result<Answer, Unserved> {
        match request {
            Request::Chat { .. } => {
                Err(refused("No bot answers in the terminal here: this process serves other things."))
            }
            Request::Admin { order } => {
                let Told { text, value } =
                    self.admin()?.carry_out(&order, by, Place::CommandLine).await.map_err(Unserved::Refused)?;
                Ok(Answer::Value { value, text })
            }
            Request::Room { room } => {
                let at = self.admin()?.room_named(&room).await.map_err(Unserved::Refused)?;
                Ok(Answer::Value { value: serde_json::json!(at), text: at.to_string() })
            }
            request @ (Request::CloudBots | Request::LookAtCloudBots | Request::RestartCloudBot { .. }) => {
                let none = "This server serves no cloud bots. Set ENABLE_CLOUD_BOTS=true and start it again.";
                let bots = self.cloud_bots.as_ref().ok_or_else(|| refused(none))?;
                let shown = of_cloud_bots(bots, request).await.map_err(Unserved::Refused)?;
                Ok(Answer::Value { value: serde_json::json!(shown), text: String::new() })
            }
            Request::Dashboard { sign_out } => {
                let none =
                    "This server has no dashboard. Set HTTP_LISTEN, such as HTTP_LISTEN=8090, and start it again.";
                let links = self.links.as_ref().ok_or_else(|| refused(none))?;
                if sign_out && let Err(error) = links.sign_out() {
                    let why = format!("Nobody is signed out: the dashboard's key cannot be written ({error}).");
                    return Err(Unserved::Failed(why));
                }
                let links = links.entrances();
                let text = links.join("\n");
                Ok(Answer::Value { value: serde_json::json!({ "links": links }), text })
            }
            Request::Echo => {
                let echoes = serde_json::to_value(self.lines.echo().await);
                let value = echoes.map_err(|error| Unserved::Failed(error.to_string()))?;
                Ok(Answer::Value { value, text: String::new() })
            }
            Request::Exobot => {
                let none = "This server serves no exobot. Set ENABLE_EXOBOT=true and start it again.";
                let shown = self.exobot.as_ref().ok_or_else(|| refused(none))?.shown().await;
                Ok(Answer::Value { value: serde_json::json!(shown), text: shown.to_string() })
            }
            request => {
                let administration = self.administration().map_err(Unserved::Refused)?;
                administration.answer(request).await.map_err(|error| match error {
                    SandboxError::NoSandbox(_) | SandboxError::Ambiguous(_) => Unserved::Refused(error.to_string()),
                    error => Unserved::Failed(error.to_string()),
                })
            }
        }
    }

    fn admin(&self) -> Result<&Arc<dyn Administrator>, Unserved> {
        let no_server = "This process only administers sandboxes: no server runs here.";
        self.admin.as_ref().ok_or_else(|| refused(no_server))
    }

    fn administration(&self) -> Result<Administration, String> {
        let sandboxes = self.sandboxes.clone().ok_or("No bot of this server works in sandboxes.")?;
        let terminals = self.chat.as_ref().map_or(FIRST_ACCOUNT, |(hub, _)| hub.account()).to_owned();
        Ok(Administration { sandboxes, terminals })
    }
}

/// Why a request has no answer; a sentence.
#[derive(Debug, thiserror::Error)]
enum Unserved {
    /// It asks for what there is not.
    #[error("{0}")]
    Refused(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
}

fn refused(why: &str) -> Unserved {
    Unserved::Refused(why.to_owned())
}

/// Sends the newest lines of the log about a cloud bot's account, or of the whole server's, and with `follow` those that come later.
async fn show_log(account: &str, follow: bool, mut incoming: Incoming, mut outgoing: Outgoing) -> anyhow::Result<()> {
    let (lines, mut fresh) = recent::of(account);
    let piece = |line: &str| Answer::Output { data: BASE64.encode(format!("{line}\n")) };
    for line in lines {
        send(&mut outgoing, &piece(&line)).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            line = fresh.recv() => match line {
                Ok((of, line)) if account == recent::SERVER || of == account => send(&mut outgoing, &piece(&line)).await?,
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    send(&mut outgoing, &piece(&format!("({missed} lines of all bots were left out)"))).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            // The client has hung up.
            _ = incoming.next() => return Ok(()),
        }
    }
}

/// Does what is asked of the cloud bots, and returns them as they are then.
async fn of_cloud_bots(bots: &CloudBots, request: Request) -> Result<Vec<Shown>, String> {
    match request {
        Request::RestartCloudBot { name } if !bots.restart(&name).await => {
            return Err(format!("There is no cloud bot `{name}` that could begin anew; `cloud-bot status` tells why."));
        }
        Request::LookAtCloudBots => bots.look().await,
        _ => {}
    }
    Ok(bots.shown().await)
}

/// The operators' access to sandboxes.
struct Administration {
    sandboxes: Sandboxes,
    /// The account to which terminals' rooms belong.
    terminals: String,
}

impl Administration {
    async fn answer(&self, request: Request) -> Result<Answer, SandboxError> {
        Ok(match request {
            Request::Sandboxes => {
                let list = self.sandboxes.list().await?;
                let lines: Vec<_> = list.iter().map(ToString::to_string).collect();
                let text = lines.join("\n");
                Answer::Value { value: serde_json::json!(list), text }
            }
            Request::Observe { room } => {
                let room = self.room(&room).await?;
                let observed = self.sandboxes.observe(&room).instrument(room.span()).await?;
                Answer::Value { value: serde_json::json!(observed), text: observed.to_string() }
            }
            Request::CheckIpc { rooms } => {
                let mut named = Vec::new();
                for room in rooms {
                    named.push(self.room(&room).await?);
                }
                let reports = check_ipc::check(&self.sandboxes, &named).await?;
                let value = serde_json::json!({ "status": check_ipc::worst(&reports), "sandboxes": reports });
                Answer::Value { value, text: check_ipc::text(&reports) }
            }
            Request::Remove { room } => {
                let room = self.room_with_files(&room).await?;
                self.sandboxes.remove(&room, true).instrument(room.span()).await?;
                let room = room.to_string();
                let text = format!("Removed the sandbox of {}.", text::shown_name(&room));
                Answer::Value { text, value: room.into() }
            }
            Request::Chat { .. }
            | Request::Exec { .. }
            | Request::Admin { .. }
            | Request::Room { .. }
            | Request::Log { .. }
            | Request::CloudBots
            | Request::Exobot
            | Request::Dashboard { .. }
            | Request::Echo
            | Request::CloudBotLog { .. }
            | Request::LookAtCloudBots
            | Request::RestartCloudBot { .. } => Answer::Failed { text: "Not a question.".into() },
        })
    }

    async fn exec(
        &self,
        mut incoming: Incoming,
        mut outgoing: Outgoing,
        room: &str,
        argv: Vec<String>,
        note: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let started = async {
            let room = self.room(room).await?;
            let sandbox = self.sandboxes.ensure(&room).instrument(room.span()).await?;
            let command = Command {
                id: format!("exec-{}", ids::random(8)),
                argv,
                env: Vec::new(),
                cwd: "/workspace".into(),
                user: User::Agent,
                stdin: Stdin::Null,
                timeout: None,
                background: false,
                writable: None,
                spooled: false,
            };
            let id = command.id.clone();
            let process = sandbox.spawn(command).instrument(room.span()).await?;
            Ok::<_, SandboxError>((sandbox, process, id))
        };
        let (sandbox, mut process, id) = match started.await {
            Ok(started) => started,
            Err(error) => {
                note("failed");
                return fail(&mut outgoing, &error.to_string()).await;
            }
        };
        // However it ends, it has begun.
        note("done");
        loop {
            tokio::select! {
                piece = process.next() => match piece {
                    Some(piece) => send(&mut outgoing, &Answer::Output { data: BASE64.encode(piece) }).await?,
                    None => break,
                },
                // The client has disconnected, which ends what it started.
                _ = incoming.next() => {
                    sandbox.kill(&id).await?;
                    return Ok(());
                }
            }
        }
        let ended = match process.wait().await {
            Ok(ended) => ended,
            Err(error) => return fail(&mut outgoing, &error.to_string()).await,
        };
        let why = match ended.exit {
            Exit::Code(code) => return send(&mut outgoing, &Answer::Exit { code }).await,
            Exit::Signal(signal) => return send(&mut outgoing, &Answer::Exit { code: 128 + signal }).await,
            Exit::TimedOut => "The command took too long and was ended.".into(),
            Exit::Killed => "The command was ended.".into(),
            Exit::OutOfMemory => "The command used more memory than `SANDBOX_MEMORY` allows and was ended.".into(),
            Exit::DiskFull => "The command used more disk than `SANDBOX_DISK` allows and was ended.".into(),
            Exit::NotStarted(why) => format!("The command could not be started: {why}"),
        };
        fail(&mut outgoing, &why).await
    }

    /// Returns the room that an operator names, also if only its files are left.
    async fn room_with_files(&self, named: &str) -> Result<Address, SandboxError> {
        match self.room(named).await {
            Err(SandboxError::NoSandbox(_)) => {
                let mut found = self.sandboxes.without_container(named).await?;
                found.extend(self.sandboxes.without_container(&self.terminal(named).to_string()).await?);
                only(named, found)
            }
            found => found,
        }
    }

    /// Returns the room that an operator names: by its address as the list shows it, by its sandbox's name, or a
    /// terminal's room by its name. A room's key alone always means a room of the first account: otherwise `rm` could
    /// hit another account's.
    async fn room(&self, named: &str) -> Result<Address, SandboxError> {
        let list = self.sandboxes.list().await?.into_iter();
        let terminal = self.terminal(named);
        let is_meant = |SandboxSummary { address, name, .. }: &SandboxSummary| {
            address.to_string() == named || name == named || *address == terminal
        };
        only(named, list.filter(is_meant).map(|summary| summary.address).collect())
    }

    fn terminal(&self, named: &str) -> Address {
        Address { account: self.terminals.clone(), room: terminal::room(named) }
    }
}

/// Returns the room if exactly one was found.
fn only(named: &str, mut found: Vec<Address>) -> Result<Address, SandboxError> {
    match (found.pop(), found.is_empty()) {
        (Some(room), true) => Ok(room),
        (Some(_), false) => Err(SandboxError::Ambiguous(named.to_owned())),
        (None, _) => Err(SandboxError::NoSandbox(named.to_owned())),
    }
}

/// A client for every request but a chat.
pub(crate) struct Operator {
    socket: PathBuf,
    incoming: Incoming,
    /// Dropping it disconnects, which ends what was started.
    _outgoing: Outgoing,
}

/// Why a server that was asked gives no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It cannot be asked, or not any more.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// The connection has failed.
    #[error("The connection to the server has failed: {0}.")]
    Lost(#[from] LinesCodecError),
    /// What it sends is no answer.
    #[error("The server sent something that cannot be read: {0}.")]
    Frame(#[from] serde_json::Error),
    /// It refuses, and says why.
    #[error("{0}")]
    Refused(String),
    /// It ended before it answered.
    #[error(
        "The server has ended before it answered, so what became of this is not known. Start it again, and ask again."
    )]
    Ended,
    /// It answers others and not this.
    #[error("The server has not answered this for {}, and may still do it. Its log (`matrix-agent admin logs`) may say why.", text::human_duration(*.0))]
    Late(Duration),
}

impl Operator {
    /// Connects and sends a request.
    pub(crate) async fn ask(socket: &Path, request: &Request) -> Result<Self, Unanswered> {
        let (incoming, mut outgoing, _) = reach(socket).await?;
        let line = serde_json::to_string(request)?;
        // A long command may have to be read before all of it is sent.
        time::timeout(OPENING, outgoing.send(line)).await.map_err(|_| Unreached::Silent)??;
        Ok(Self { socket: socket.to_owned(), incoming, _outgoing: outgoing })
    }

    /// Asks what has one answer; returns it for programs and for people, in which nothing deceives a terminal.
    pub(crate) async fn answer(socket: &Path, request: &Request) -> Result<(serde_json::Value, String), Unanswered> {
        let limit = request.patience();
        let asked = async {
            match Self::ask(socket, request).await?.next().await? {
                Some(Answer::Value { value, text }) => Ok((value, text::strip(text))),
                Some(Answer::Failed { text }) => Err(Unanswered::Refused(text::strip(text))),
                _ => Err(Unanswered::Ended),
            }
        };
        time::timeout(limit, asked).await.unwrap_or(Err(Unanswered::Late(limit)))
    }

    /// Returns the next part of the answer; `None` after the last. It may be long in coming while the server greets others: a command
    /// may run for hours, and one that hangs greets nobody.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, Unanswered> {
        loop {
            match time::timeout(QUIET, self.incoming.next()).await {
                Ok(None) => return Ok(None),
                Ok(Some(line)) => return Ok(Some(serde_json::from_str(&line?)?)),
                Err(_) => drop(reach(&self.socket).await?),
            }
        }
    }
}

async fn send<T: Serialize>(outgoing: &mut Outgoing, frame: &T) -> anyhow::Result<()> {
    Ok(outgoing.send(serde_json::to_string(frame)?).await?)
}

async fn fail(outgoing: &mut Outgoing, text: &str) -> anyhow::Result<()> {
    send(outgoing, &Answer::Failed { text: text.to_owned() }).await
}
