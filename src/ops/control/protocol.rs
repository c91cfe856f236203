//! What is said on the control socket: a client's request, and the server's answers.

use std::time::Duration;

use futures_util::SinkExt;
use serde::{Deserialize, Serialize};

use crate::{audit::Deed, bots::AdminOrder, chat::terminal::Outgoing, ids};

/// How the refusal of what is no request begins, by which a newer client knows an older server.
pub(crate) const NO_REQUEST: &str = "That is no request";
/// How long a question may take that only the server has to do with, and one that Podman has.
const SHORT: Duration = Duration::from_mins(1);
const LONG: Duration = Duration::from_mins(15);

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
    pub(super) fn deed(&self, by: &str) -> Option<Deed> {
        let (words, room) = self.order()?;
        let digest = ids::digest(&[&serde_json::to_string(self).ok()?], 16);
        Some(Deed { room: room.to_owned(), digest, ..Deed::new("order", words, "") }.by(by))
    }

    /// How long the one answer may take.
    pub(super) fn patience(&self) -> Duration {
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

/// Sends a frame.
pub(super) async fn send<T: Serialize>(outgoing: &mut Outgoing, frame: &T) -> anyhow::Result<()> {
    Ok(outgoing.send(serde_json::to_string(frame)?).await?)
}

/// Sends that the request failed, and why.
pub(super) async fn fail(outgoing: &mut Outgoing, text: &str) -> anyhow::Result<()> {
    send(outgoing, &Answer::Failed { text: text.to_owned() }).await
}
