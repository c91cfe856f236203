//! The client's side of the terminal protocol: sends what a person writes, outlives restarts of the server, and shows
//! everything once.
//!
//! It remembers which of its messages have no answer yet. After a broken connection, and now and then while it waits,
//! it asks the server what became of them: another client may have been shown the answer.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    fs,
    time::{self, Instant},
};

use super::{
    frame::{ClientFrame, PROTOCOL, ServerFrame},
    reach::{Incoming, Outgoing, Unreached, reach},
};
use crate::ids::{self, EventId};

/// How long the client waits for a server that has gone away to come back.
const RETURN: Duration = Duration::from_mins(1);
/// The pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the end of a client waits for its last confirmations.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a client with open questions hears nothing before it asks what became of them.
const ASK: Duration = Duration::from_secs(15);
/// How long a server that is connected may take to answer that question, or to accept a line.
const SILENCE: Duration = Duration::from_mins(1);

/// Why the client cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server cannot be asked.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// The server went away and did not come back in time.
    #[error(
        "The server went away and did not return within a minute. What you asked is in its journal: it is answered when it starts again."
    )]
    Gone,
    /// The server is connected and does not answer.
    #[error(
        "The server has not answered for a minute. Its log (`journalctl -u matrix-agent`) may say why; what you asked is \
         answered once it works again."
    )]
    Silent,
    /// The server speaks another version of the protocol.
    #[error(
        "The server is matrix-agent {0} and speaks another protocol than this program. Restart the server, or use the same version."
    )]
    Version(String),
    /// The socket failed.
    #[error("The connection to the server failed: {0}.")]
    Io(#[from] std::io::Error),
    /// A frame was longer than the protocol allows, or was not UTF-8.
    #[error("The server sent something that cannot be read: {0}.")]
    Line(#[from] tokio_util::codec::LinesCodecError),
    /// A line could not be parsed as a frame.
    #[error("The server sent something that cannot be read: {0}.")]
    Frame(#[from] serde_json::Error),
}

/// What the client shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A frame. The `data` of a file is the path under which it was saved.
    Frame(ServerFrame),
    /// The server went away; the client waits for it.
    Lost,
    /// The server is back.
    Back,
    /// The server has noted every confirmation.
    Settled,
}

/// A person at a terminal, in one room.
pub(crate) struct Client {
    socket: PathBuf,
    opening: String,
    /// Where files are saved.
    files: PathBuf,
    link: Link,
    /// The frame that was read and not yet returned by `next`.
    held: Option<ServerFrame>,
    /// Messages that the server has not admitted yet. They are sent again after a reconnect; the journal takes each
    /// id once.
    unadmitted: Vec<ClientFrame>,
    /// Messages that have no answer yet.
    open: Vec<EventId>,
    /// When the server is next asked what became of the unanswered messages.
    ask_at: Instant,
    /// Since when the server has been silent although it was asked.
    silent_since: Option<Instant>,
    /// What was shown: it is not shown again when its confirmation was lost.
    shown: HashSet<String>,
    /// Transaction ids of what was shown and confirmed, until the server says that it has noted them.
    unnoted: HashSet<String>,
    /// Whether the connection has failed and a new one is needed.
    broken: bool,
    /// Whether the person was told that the server is away.
    lost: bool,
}

type Link = (Incoming, Outgoing);

impl Client {
    /// Connects to the server at `socket`. `opening` is the first line, which asks it for a chat; files are saved in
    /// `files`.
    pub(crate) async fn connect(socket: &Path, opening: String, files: PathBuf) -> Result<Self, ClientError> {
        let link = connect(socket, &opening).await?;
        Ok(Self {
            socket: socket.to_owned(),
            opening,
            files,
            link,
            held: None,
            unadmitted: Vec::new(),
            open: Vec::new(),
            ask_at: Instant::now() + ASK,
            silent_since: None,
            shown: HashSet::new(),
            unnoted: HashSet::new(),
            broken: false,
            lost: false,
        })
    }

    /// Sends a message; returns the id under which it is answered.
    pub(crate) async fn say(&mut self, text: String) -> Result<EventId, ClientError> {
        let id = EventId(ids::random(12));
        self.send(ClientFrame::Say { id: id.clone(), text }).await?;
        Ok(id)
    }

    /// Stops the running turn.
    pub(crate) async fn stop(&mut self) -> Result<(), ClientError> {
        self.send(ClientFrame::Stop { id: EventId(ids::random(12)) }).await
    }

    async fn send(&mut self, say: ClientFrame) -> Result<(), ClientError> {
        self.open.extend(said(&say).cloned());
        self.ask_at = Instant::now() + ASK;
        self.unadmitted.push(say.clone());
        self.write(&say).await
    }

    /// Writes a line. If the connection fails, `next` notices it and sends the line again on another one.
    async fn write(&mut self, say: &ClientFrame) -> Result<(), ClientError> {
        let line = serde_json::to_string(say)?;
        if !self.broken {
            self.broken = !matches!(time::timeout(SILENCE, self.link.1.send(line)).await, Ok(Ok(())));
        }
        Ok(())
    }

    /// Confirms that a frame was shown, so that it is not sent again.
    pub(crate) async fn confirm(&mut self, frame: &ServerFrame) -> Result<(), ClientError> {
        let Some(txn) = txn_of(frame) else { return Ok(()) };
        self.shown.insert(txn.clone());
        self.unnoted.insert(txn.clone());
        self.write(&ClientFrame::Shown { txn: txn.clone() }).await
    }

    /// Returns what is to be shown next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Shown, ClientError> {
        loop {
            if self.held.is_none() && !self.read().await? {
                return self.reconnect().await;
            }
            if self.is_shown().await?
                && let Some(frame) = self.held.take()
            {
                return Ok(Shown::Frame(frame));
            }
            if let Some(ServerFrame::Noted { txn }) = self.held.take()
                && self.unnoted.remove(&txn)
                && self.unnoted.is_empty()
            {
                return Ok(Shown::Settled);
            }
        }
    }

    /// Reads the next frame. Returns `false` when the connection has failed and must be made anew.
    async fn read(&mut self) -> Result<bool, ClientError> {
        while !self.broken {
            let line = tokio::select! {
                // What arrived while this program was suspended is read before the server counts as silent.
                biased;
                line = self.link.0.next() => line,
                () = time::sleep_until(self.ask_at), if !self.open.is_empty() => {
                    self.ask().await?;
                    continue;
                }
            };
            let Some(Ok(line)) = line else {
                self.broken = true;
                break;
            };
            (self.ask_at, self.silent_since) = (Instant::now() + ASK, None);
            let frame = serde_json::from_str(&line)?;
            self.settles(&frame);
            self.held = Some(frame);
            return Ok(true);
        }
        Ok(false)
    }

    /// Prepares the frame that was read for showing. Returns `false` if it must not be shown (again).
    async fn is_shown(&mut self) -> Result<bool, ClientError> {
        let again = self.held.as_ref().and_then(txn_of).filter(|txn| self.shown.contains(*txn)).cloned();
        if let Some(txn) = again {
            self.write(&ClientFrame::Shown { txn }).await?;
            return Ok(false);
        }
        match &mut self.held {
            Some(ServerFrame::Noted { .. } | ServerFrame::Open { .. }) | None => Ok(false),
            Some(ServerFrame::File { name, data, txn, .. }) => {
                let path = path_of(&self.files, txn, name);
                match data {
                    Some(data) => save(&self.files, &path, data).await?,
                    // The bytes went to another client of this room, which has saved the file.
                    None if fs::try_exists(&path).await? => {}
                    None => return Ok(false),
                }
                *data = Some(path.display().to_string());
                Ok(true)
            }
            Some(_) => Ok(true),
        }
    }

    /// Updates the open messages and confirmations by what a frame says.
    fn settles(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Admitted { id } => self.unadmitted.retain(|say| said(say) != Some(id)),
            ServerFrame::Answer { asked, others, .. } => self.open.retain(|id| id != asked && !others.contains(id)),
            ServerFrame::Reply { asked, .. } => self.open.retain(|id| id != asked),
            ServerFrame::Unknown { id } | ServerFrame::Refused { id: Some(id), .. } => {
                self.open.retain(|open| open != id);
                self.unadmitted.retain(|say| said(say) != Some(id));
            }
            _ => {}
        }
    }

    /// Sends again what may not have arrived, and asks what became of unanswered messages.
    async fn ask(&mut self) -> Result<(), ClientError> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SILENCE {
            return Err(ClientError::Silent);
        }
        self.ask_at = Instant::now() + ASK;
        for say in self.unadmitted.clone() {
            self.write(&say).await?;
        }
        for id in self.open.clone() {
            self.write(&ClientFrame::Open { id }).await?;
        }
        Ok(())
    }

    /// Waits, for ten seconds at most, until the server has noted all confirmations, also across a restart of it.
    pub(crate) async fn settle(&mut self) -> Result<(), ClientError> {
        let settled = async {
            while !self.unnoted.is_empty() {
                self.next().await?;
            }
            Ok(())
        };
        // If a confirmation is lost, the room's next client is shown the same again.
        time::timeout(SETTLE, settled).await.unwrap_or(Ok(()))
    }

    /// Waits for the server to return. The first call returns [`Shown::Lost`], the next one [`Shown::Back`].
    async fn reconnect(&mut self) -> Result<Shown, ClientError> {
        if !self.lost {
            self.lost = true;
            return Ok(Shown::Lost);
        }
        let until = Instant::now() + RETURN;
        self.link = loop {
            match connect(&self.socket, &self.opening).await {
                Ok(link) => break link,
                Err(version @ ClientError::Version(_)) => return Err(version),
                Err(_) if Instant::now() >= until => return Err(ClientError::Gone),
                Err(_) => time::sleep(PAUSE).await,
            }
        };
        (self.broken, self.lost, self.silent_since) = (false, false, None);
        for txn in self.unnoted.clone() {
            self.write(&ClientFrame::Shown { txn }).await?;
        }
        self.ask().await?;
        Ok(Shown::Back)
    }
}

fn said(say: &ClientFrame) -> Option<&EventId> {
    match say {
        ClientFrame::Say { id, .. } | ClientFrame::Stop { id } => Some(id),
        ClientFrame::Open { .. } | ClientFrame::Shown { .. } => None,
    }
}

/// Returns the transaction id that a frame needs confirmed.
fn txn_of(frame: &ServerFrame) -> Option<&String> {
    match frame {
        ServerFrame::Answer { txn, .. } | ServerFrame::Reply { txn, .. } | ServerFrame::File { txn, .. } => Some(txn),
        _ => None,
    }
}

async fn connect(socket: &Path, opening: &str) -> Result<Link, ClientError> {
    let (incoming, mut outgoing, hello) = reach(socket).await?;
    if hello.protocol != PROTOCOL {
        return Err(ClientError::Version(hello.version));
    }
    outgoing.send(opening.to_owned()).await?;
    Ok((incoming, outgoing))
}

/// Returns where a file is saved. The name contains the transaction id, so that a second delivery replaces the first.
fn path_of(folder: &Path, txn: &str, name: &str) -> PathBuf {
    // The name comes from the sandbox, so nothing of it may be a path.
    let name: String = name
        .chars()
        .map(|letter| if letter.is_alphanumeric() || ".-_ ".contains(letter) { letter } else { '_' })
        .take(100)
        .collect();
    folder.join(format!("{}-{}", txn.get(..8).unwrap_or(txn), name.trim_start_matches('.')))
}

async fn save(folder: &Path, path: &Path, data: &str) -> Result<(), ClientError> {
    let bytes = BASE64.decode(data).map_err(|error| std::io::Error::other(error.to_string()))?;
    fs::create_dir_all(folder).await?;
    Ok(fs::write(path, bytes).await?)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::{super::Hello, *};

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_a_question_and_says_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello = serde_json::to_string(&Hello::ours()).unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{hello}\n").as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut client = Client::connect(&socket, "{}".into(), folder.path().into()).await.unwrap();
        let before = Instant::now();
        client.say("hello".into()).await.unwrap();
        assert!(matches!(client.next().await, Err(ClientError::Silent)));
        assert!(before.elapsed() >= SILENCE, "it had its time: {:?}", before.elapsed());
        server.abort();
    }
}
