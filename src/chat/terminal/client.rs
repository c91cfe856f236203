//! The client's side: speaks for a person at the terminal, outlives the server's restarts, shows everything once.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    fs,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{self, Instant},
};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};

use super::frame::{Hello, PROTOCOL, SERVER_LINE, Say, ServerFrame};
use crate::ids::{self, EventId};

/// A server that was there and is gone may take this long to come back.
const RETURN: Duration = Duration::from_mins(1);
/// The pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the end of a client waits for its last confirmations.
const SETTLE: Duration = Duration::from_secs(10);
/// A server greets within this time.
const GREETING: Duration = Duration::from_secs(5);

/// Why a terminal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the control socket.
    #[error("No server answers at {}. Start one with `matrix-agent run`.", .0.display())]
    NoServer(PathBuf),
    /// It went away and did not return.
    #[error(
        "The server went away and did not return within a minute. What you asked is in its journal: it is answered when it starts again."
    )]
    Gone,
    /// The server is another program's version.
    #[error(
        "The server is matrix-agent {0} and speaks another protocol than this program. Restart the server, or use the same version."
    )]
    Version(String),
    /// The socket failed.
    #[error("The connection to the server failed: {0}.")]
    Io(#[from] std::io::Error),
    /// A frame was too long, or no text.
    #[error("The server sent something that cannot be read: {0}.")]
    Line(#[from] tokio_util::codec::LinesCodecError),
    /// A frame was no frame.
    #[error("The server sent something that cannot be read: {0}.")]
    Frame(#[from] serde_json::Error),
}

/// What the client has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A frame. A file's `data` is the path under which it was saved.
    Frame(ServerFrame),
    /// The server went away; the client waits for it.
    Lost,
    /// The server is back.
    Back,
    /// All that was confirmed is noted.
    Settled,
}

/// A person at a terminal, in one room.
pub struct Client {
    socket: PathBuf,
    opening: String,
    /// Where files are saved.
    files: PathBuf,
    link: Link,
    /// Said and not yet admitted: said again after a restart; the journal takes each once.
    unadmitted: Vec<Say>,
    /// What was shown: it is not shown again when its confirmation was lost.
    shown: HashSet<String>,
    /// What was shown and is not noted by the server yet.
    unnoted: HashSet<String>,
    /// The server is away, and it was told.
    lost: bool,
}

type Link = (FramedRead<OwnedReadHalf, LinesCodec>, FramedWrite<OwnedWriteHalf, LinesCodec>);

impl Client {
    /// Connects to the server at `socket`. `opening` is the line that asks it for a chat; files are saved in `files`.
    pub async fn connect(socket: &Path, opening: String, files: PathBuf) -> Result<Self, ClientError> {
        let link = connect(socket, &opening).await?;
        Ok(Self {
            socket: socket.to_owned(),
            opening,
            files,
            link,
            unadmitted: Vec::new(),
            shown: HashSet::new(),
            unnoted: HashSet::new(),
            lost: false,
        })
    }

    /// Says something; returns the id under which it is answered.
    pub async fn say(&mut self, text: String) -> Result<EventId, ClientError> {
        let id = EventId(ids::random(12));
        self.send(Say::Say { id: id.clone(), text }).await?;
        Ok(id)
    }

    /// Stops the running turn.
    pub async fn stop(&mut self) -> Result<(), ClientError> {
        self.send(Say::Stop { id: EventId(ids::random(12)) }).await
    }

    async fn send(&mut self, say: Say) -> Result<(), ClientError> {
        let line = serde_json::to_string(&say)?;
        self.unadmitted.push(say);
        // A broken connection shows itself in `next`, which says it again.
        let _ = self.link.1.send(line).await;
        Ok(())
    }

    /// Confirms that a frame was shown, so that it is not sent again.
    pub async fn confirm(&mut self, frame: &ServerFrame) -> Result<(), ClientError> {
        let (ServerFrame::Answer { txn, .. } | ServerFrame::Reply { txn, .. } | ServerFrame::File { txn, .. }) = frame
        else {
            return Ok(());
        };
        self.shown.insert(txn.clone());
        self.unnoted.insert(txn.clone());
        self.confirm_txn(txn.clone()).await
    }

    async fn confirm_txn(&mut self, txn: String) -> Result<(), ClientError> {
        let line = serde_json::to_string(&Say::Shown { txn })?;
        let _ = self.link.1.send(line).await;
        Ok(())
    }

    /// Returns what comes next to be shown. Safe to be cancelled and called again.
    pub async fn next(&mut self) -> Result<Shown, ClientError> {
        loop {
            let Some(Ok(line)) = self.link.0.next().await else { return self.reconnect().await };
            let mut frame: ServerFrame = serde_json::from_str(&line)?;
            match &mut frame {
                ServerFrame::Noted { txn } => {
                    self.unnoted.remove(txn);
                    if self.unnoted.is_empty() {
                        return Ok(Shown::Settled);
                    }
                    continue;
                }
                ServerFrame::Admitted { id } => self.unadmitted.retain(|say| said(say) != Some(id)),
                ServerFrame::Answer { txn, .. } | ServerFrame::Reply { txn, .. } | ServerFrame::File { txn, .. }
                    if self.shown.contains(txn) =>
                {
                    let txn = txn.clone();
                    self.confirm_txn(txn).await?;
                    continue;
                }
                ServerFrame::File { name, data, txn, .. } => {
                    *data = save(&self.files, txn, name, data).await?.display().to_string();
                }
                _ => {}
            }
            return Ok(Shown::Frame(frame));
        }
    }

    /// Waits until the server has noted all that was shown, across a restart of it; but not for ever.
    pub async fn settle(&mut self) -> Result<(), ClientError> {
        let settled = async {
            while !self.unnoted.is_empty() {
                self.next().await?;
            }
            Ok(())
        };
        // Not noted in that time: the room's next client may be shown it again.
        time::timeout(SETTLE, settled).await.unwrap_or(Ok(()))
    }

    /// Waits for the server to return. Tells first that it is lost, then, when called again, that it is back.
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
        self.lost = false;
        for say in &self.unadmitted {
            let line = serde_json::to_string(say)?;
            let _ = self.link.1.send(line).await;
        }
        Ok(Shown::Back)
    }
}

fn said(say: &Say) -> Option<&EventId> {
    match say {
        Say::Say { id, .. } | Say::Stop { id } => Some(id),
        Say::Shown { .. } => None,
    }
}

async fn connect(socket: &Path, opening: &str) -> Result<Link, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|_| ClientError::NoServer(socket.to_owned()))?;
    let (read, write) = stream.into_split();
    let mut incoming = FramedRead::new(read, LinesCodec::new_with_max_length(SERVER_LINE));
    let mut outgoing = FramedWrite::new(write, LinesCodec::new());
    let greeting = time::timeout(GREETING, incoming.next()).await.ok().flatten();
    let Some(greeting) = greeting else { return Err(ClientError::NoServer(socket.to_owned())) };
    let hello: Hello = serde_json::from_str(&greeting?)?;
    if hello.protocol != PROTOCOL {
        return Err(ClientError::Version(hello.version));
    }
    outgoing.send(opening.to_owned()).await?;
    Ok((incoming, outgoing))
}

/// Saves a file under a name that its transaction id makes its own, so that a second delivery replaces the first.
async fn save(folder: &Path, txn: &str, name: &str, data: &str) -> Result<PathBuf, ClientError> {
    let bytes = BASE64.decode(data).map_err(|error| std::io::Error::other(error.to_string()))?;
    // The name comes from the sandbox: nothing of it may be a path.
    let name: String = name
        .chars()
        .map(|letter| if letter.is_alphanumeric() || ".-_ ".contains(letter) { letter } else { '_' })
        .take(100)
        .collect();
    fs::create_dir_all(folder).await?;
    let path = folder.join(format!("{}-{}", txn.get(..8).unwrap_or(txn), name.trim_start_matches('.')));
    fs::write(&path, bytes).await?;
    Ok(path)
}
