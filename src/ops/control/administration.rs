//! The operators' access to sandboxes: what there are, what is in one, a command in it, and its end.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::StreamExt;
use tracing::Instrument;

use super::{
    super::check_ipc,
    protocol::{Answer, Request, fail, send},
};
use crate::{
    chat::terminal::{self, Incoming, Outgoing},
    ids::{self, Address},
    sandbox::{Command, Exit, SandboxError, SandboxSummary, Sandboxes, Stdin, User},
    text,
};

/// The operators' access to sandboxes.
pub(super) struct Administration {
    pub(super) sandboxes: Sandboxes,
    /// The account to which terminals' rooms belong.
    pub(super) terminals: String,
}

impl Administration {
    pub(super) async fn answer(&self, request: Request) -> Result<Answer, SandboxError> {
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

    pub(super) async fn exec(
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
    pub(super) async fn room_with_files(&self, named: &str) -> Result<Address, SandboxError> {
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
    pub(super) async fn room(&self, named: &str) -> Result<Address, SandboxError> {
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
