//! The control socket's client.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::time;
use tokio_util::codec::LinesCodecError;

use super::{
    OPENING,
    protocol::{Answer, Request},
};
use crate::{
    chat::terminal::{Incoming, Outgoing, Unreached, reach},
    text,
};

/// How long a client hears nothing before it looks whether the server still greets anybody.
const QUIET: Duration = Duration::from_secs(10);

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
