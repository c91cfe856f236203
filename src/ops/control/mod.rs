//! The control socket, through which `chat`, `sandbox` and other subcommands reach the running server. JSON, one
//! frame a line: the server greets, the client sends a request, and what follows depends on it.
//!
//! The socket belongs to the server's user (mode 0600). A client of another user, except root, is refused.

mod administration;
mod operator;
mod protocol;

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::StreamExt;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::broadcast::error::RecvError,
    time,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LinesCodec},
    sync::CancellationToken,
    task::TaskTracker,
};
use tracing::Instrument;

use self::{
    administration::Administration,
    protocol::{fail, send},
};
use super::{
    cloud_bots::{CloudBots, Shown},
    exobot::ServedExobot,
    lines::Lines,
    recent,
};
use crate::{
    audit::{Audit, Deed},
    bots::{Administrator, Place, Told},
    chat::terminal::{self, Hello, Incoming, Outgoing, Terminal},
    config::account_of_bot,
    hub::AccountHub,
    ids::{Address, FIRST_ACCOUNT},
    links::Links,
    sandbox::{SandboxError, Sandboxes},
};

pub(crate) use {
    operator::{Operator, Unanswered},
    protocol::{Answer, NO_REQUEST, Request},
};

/// How long a client may take to send its request.
const OPENING: Duration = Duration::from_secs(10);
/// The longest line before the request is known, in bytes.
const LINE: usize = 1 << 20;

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
