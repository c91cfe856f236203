//! The way to the control socket of the server that runs: who asks there is greeted first, or told in a sentence why nobody is.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time,
};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError};

use super::frame::{Hello, SERVER_LINE};

/// How long a server may take to send its greeting after the connection was made.
const GREETING: Duration = Duration::from_secs(5);

/// The directory of the settings of a service of root's.
const SERVICE: &str = "/etc/matrix-agent";

/// What is read from a server.
pub(crate) type Incoming = FramedRead<OwnedReadHalf, LinesCodec>;
/// What is written to a server.
pub(crate) type Outgoing = FramedWrite<OwnedWriteHalf, LinesCodec>;

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    /// Nothing answers on the control socket.
    #[error("No server runs here: nobody answers at {}. Start it with `matrix-agent run`{}", .0.display(), of_service())]
    NoServer(PathBuf),
    /// The socket may not be opened.
    #[error(
        "This user may not ask the server at {}. Run this as the server's user, or as root (`sudo matrix-agent …`).",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// It takes a connection and does not greet.
    #[error(
        "The server runs and does not answer: it is stopped, hangs, or this machine is overloaded. Its log (`journalctl -u matrix-agent`) may \
         say why; if it stays so, start it again."
    )]
    Silent,
    /// The socket failed.
    #[error("The connection to the server failed: {0}.")]
    Io(#[from] io::Error),
    /// The greeting cannot be read.
    #[error("The server sent something that cannot be read: {0}.")]
    Line(#[from] LinesCodecError),
    /// The greeting is none.
    #[error("The server sent something that cannot be read: {0}.")]
    Greeting(#[from] serde_json::Error),
}

/// Returns the end of a sentence about a server that was not found: this machine may have one as a service, whose settings this user
/// may not read.
fn of_service() -> &'static str {
    let is_other = !nix::unistd::geteuid().is_root() && Path::new(SERVICE).exists();
    if is_other { ", or ask the one of root's service with `sudo matrix-agent …`." } else { "." }
}

/// Connects to the server's socket, and returns the connection with its greeting.
pub(crate) async fn reach(socket: &Path) -> Result<(Incoming, Outgoing, Hello), Unreached> {
    let stream = connect(socket).await?;
    let (read, write) = stream.into_split();
    let mut incoming = FramedRead::new(read, LinesCodec::new_with_max_length(SERVER_LINE));
    match time::timeout(GREETING, incoming.next()).await {
        Err(_) => Err(Unreached::Silent),
        // It was about to end.
        Ok(None) => Err(Unreached::NoServer(socket.to_owned())),
        Ok(Some(line)) => {
            let hello = serde_json::from_str(&line?)?;
            Ok((incoming, FramedWrite::new(write, LinesCodec::new()), hello))
        }
    }
}

/// Connects to a socket, whoever listens there.
pub(crate) async fn connect(socket: &Path) -> Result<UnixStream, Unreached> {
    UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Unreached::NoServer(socket.to_owned()),
        io::ErrorKind::PermissionDenied => Unreached::Forbidden(socket.to_owned()),
        // So many wait for it that no more may.
        io::ErrorKind::WouldBlock => Unreached::Silent,
        _ => Unreached::Io(error),
    })
}
