//! The sandbox's side of an HTTP connection: heads and bodies in, answers out, all of it bounded in size and time.
//!
//! It must not know policy, or what is upstream. `web`, `git` and `models` serve their requests with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{Method, Response, StatusCode, body::Body, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use super::{
    body::{BadBody, Decoded, Decoder, Part},
    denial::{self, Denial},
    head::{self, BadHead, Framing, Head, MAX_HEAD},
};

/// How much is read at a time.
const PIECE: usize = 16 * 1024;

/// What is taken of a sandbox that goes on sending after a refusal, in bytes and time.
const LINGER: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The connection is of no more use, and nobody is left to tell.
#[derive(Debug, thiserror::Error)]
#[error("the connection ended")]
pub(super) struct Gone;

impl From<std::io::Error> for Gone {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl From<tokio::time::error::Elapsed> for Gone {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self
    }
}

/// Splits a connection into its two directions.
pub(super) fn split(stream: UnixStream, idle: Duration) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let reader = Reader { half: read, buffer: BytesMut::new(), idle, meter: Arc::default() };
    (reader, Writer { half: write, idle, begun: false, meter: Arc::default() })
}

/// What comes from the sandbox.
pub(super) struct Reader {
    half: OwnedReadHalf,
    /// Read, but not used yet: at most a head and a piece.
    buffer: BytesMut,
    idle: Duration,
    /// Bytes of the present request's body.
    meter: Arc<AtomicU64>,
}

impl Reader {
    /// Reads the next request's head. `None`: the sandbox has ended the connection, or said nothing for `quiet`.
    /// From its first byte on a head has `limit` to become whole.
    pub(super) async fn head(&mut self, quiet: Duration, limit: Duration) -> Option<Result<Head, Denial>> {
        self.meter = Arc::default();
        if self.buffer.is_empty() && !matches!(timeout(quiet, self.fill()).await, Ok(Ok(1..))) {
            return None;
        }
        match timeout(limit, self.rest_of_head()).await {
            Ok(Ok(head)) => Some(head.map_err(Denial::Head)),
            Ok(Err(Gone)) => None,
            Err(_) => Some(Err(Denial::Slow)),
        }
    }

    async fn rest_of_head(&mut self) -> Result<Result<Head, BadHead>, Gone> {
        let mut searched = 0;
        loop {
            if let Some(end) = head::end(&self.buffer, searched) {
                return Ok(head::parse(&self.buffer.split_to(end)));
            }
            if self.buffer.len() >= MAX_HEAD {
                return Ok(Err(BadHead::TooLarge));
            }
            searched = self.buffer.len();
            if self.fill().await? == 0 {
                return Err(Gone);
            }
        }
    }

    /// Moves a request's body into `parts`, to its end. It ends early, in vain, when nobody wants the parts any more.
    pub(super) async fn pump(&mut self, framing: Framing, parts: mpsc::Sender<Part>) -> Result<(), Denial> {
        let mut decoder = Decoder::new(framing);
        loop {
            let part = match decoder.decode(&mut self.buffer)? {
                Decoded::Data(data) => {
                    self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
                    Part::Data(data)
                }
                Decoded::End => {
                    // Whoever took all the bytes that he wanted need not hear that there are no more.
                    let _ = parts.send(Part::End).await;
                    return Ok(());
                }
                Decoded::More => match timeout(self.idle, self.fill()).await {
                    Ok(Ok(1..)) => continue,
                    _ => return Err(Denial::Body(BadBody)),
                },
            };
            if parts.send(part).await.is_err() {
                return Err(Denial::Body(BadBody));
            }
        }
    }

    /// Reads the present request's body to its end. `grow` is asked before each piece whether so many bytes more may be
    /// kept.
    pub(super) async fn whole<R: From<BadBody>>(
        &mut self,
        framing: Framing,
        mut grow: impl FnMut(usize) -> Result<(), R>,
    ) -> Result<Bytes, R> {
        let (mut decoder, mut body) = (Decoder::new(framing), BytesMut::new());
        loop {
            match decoder.decode(&mut self.buffer)? {
                Decoded::Data(data) => {
                    grow(data.len())?;
                    self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
                    body.extend_from_slice(&data);
                }
                Decoded::End => return Ok(body.freeze()),
                Decoded::More => match timeout(self.idle, self.fill()).await {
                    Ok(Ok(1..)) => {}
                    _ => return Err(BadBody.into()),
                },
            }
        }
    }

    /// Ends when the sandbox ends the connection. What it sends until then is kept for the next request.
    pub(super) async fn hang_up(&mut self) {
        while self.buffer.len() < MAX_HEAD {
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Returns the count of the present request's body.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.meter)
    }

    /// Reads until there are `count` bytes; false if the connection ends before.
    pub(super) async fn fill_to(&mut self, count: usize) -> Result<bool, Gone> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what still comes after a refusal, and throws it away: a connection that is closed with bytes unread is
    /// reset, and the reset can overtake the words.
    pub(super) async fn linger(&mut self) {
        let taking = async {
            let mut taken = 0;
            self.buffer.clear();
            while let Ok(length @ 1..) = self.fill().await {
                self.buffer.clear();
                taken += length;
                if taken > LINGER {
                    return;
                }
            }
        };
        // Whoever sends on for longer is not listening.
        let _ = timeout(LINGER_TIME, taking).await;
    }

    /// Returns what is read but not used.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Gives up HTTP: returns the raw half and what was read of it already.
    pub(super) fn into_parts(self) -> (OwnedReadHalf, BytesMut) {
        (self.half, self.buffer)
    }

    async fn fill(&mut self) -> Result<usize, Gone> {
        self.buffer.reserve(PIECE);
        let mut piece = (&mut self.half).take(PIECE as u64);
        Ok(piece.read_buf(&mut self.buffer).await?)
    }
}

/// How an answer is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The request was a HEAD, so the answer has no body whatever its head says.
    pub(super) head_only: bool,
    /// The client understands chunks.
    pub(super) http11: bool,
    /// The connection may go on after this answer.
    pub(super) keep_alive: bool,
}

impl Manner {
    /// The manner in which `head` wants to be answered.
    pub(super) fn of(head: &Head) -> Self {
        Self { head_only: head.method == Method::HEAD, http11: head.http11, keep_alive: head.keep_alive }
    }
}

/// What goes to the sandbox.
pub(super) struct Writer {
    half: OwnedWriteHalf,
    idle: Duration,
    /// Whether an answer to the present request has begun.
    begun: bool,
    /// Bytes of the present answer's body.
    meter: Arc<AtomicU64>,
}

impl Writer {
    /// Makes ready for the next request's answer.
    pub(super) fn next(&mut self) {
        self.begun = false;
        self.meter = Arc::default();
    }

    /// Returns the count of the present answer's body.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.meter)
    }

    /// Writes bytes as they are.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        Ok(timeout(self.idle, self.half.write_all(bytes)).await??)
    }

    /// Tells the sandbox that nothing more comes.
    pub(super) async fn end(&mut self) {
        // A sandbox that is away already needs not be told.
        let _ = timeout(self.idle, self.half.shutdown()).await;
    }

    /// Gives up HTTP.
    pub(super) fn into_half(self) -> OwnedWriteHalf {
        self.half
    }

    /// Writes a refusal, unless an answer has begun; the connection must be closed afterwards.
    pub(super) async fn refuse(&mut self, denial: &Denial, head_only: bool) -> Result<(), Gone> {
        if self.begun {
            return Err(Gone);
        }
        self.begun = true;
        let body = format!("{denial}\n");
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{}: 1\r\nConnection: close\r\n\r\n",
            denial.status().as_u16(),
            denial.reason(),
            body.len(),
            denial::MARK
        );
        self.raw(head.as_bytes()).await?;
        if !head_only {
            self.raw(body.as_bytes()).await?;
        }
        let _ = timeout(self.idle, self.half.shutdown()).await?;
        Ok(())
    }

    /// Writes an answer whose headers are already those for the sandbox. Returns whether the connection may go on.
    pub(super) async fn respond<B>(&mut self, response: Response<B>, manner: Manner) -> Result<bool, Gone>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.begun = true;
        let (parts, mut body) = response.into_parts();
        let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = body.size_hint().exact();
        let chunked = !bodiless && !manner.head_only && length.is_none() && manner.http11;
        let delimited = bodiless || manner.head_only || length.is_some() || chunked;
        let keep_alive = manner.keep_alive && delimited;

        let mut head = Vec::with_capacity(1024);
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(parts.status.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(parts.status.canonical_reason().unwrap_or("Unknown").as_bytes());
        head.extend_from_slice(b"\r\n");
        let mut line = |name: &[u8], value: &[u8]| {
            for part in [name, b": ", value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        };
        for (name, value) in &parts.headers {
            line(name.as_str().as_bytes(), value.as_bytes());
        }
        match length {
            // What the head of an answer to HEAD says of the length is kept as it came.
            _ if bodiless || manner.head_only => {}
            Some(length) => line(header::CONTENT_LENGTH.as_str().as_bytes(), length.to_string().as_bytes()),
            None if chunked => line(header::TRANSFER_ENCODING.as_str().as_bytes(), b"chunked"),
            None => {}
        }
        if !keep_alive {
            line(header::CONNECTION.as_str().as_bytes(), b"close");
        }
        head.extend_from_slice(b"\r\n");
        self.raw(&head).await?;
        if manner.head_only || bodiless {
            return Ok(keep_alive);
        }
        while let Some(frame) = timeout(self.idle, body.frame()).await? {
            // An upstream that breaks off must not look like one that has ended: no last chunk, no keep-alive.
            let Ok(data) = frame.map_err(|_| Gone)?.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            if chunked {
                self.raw(format!("{:x}\r\n", data.len()).as_bytes()).await?;
            }
            self.raw(&data).await?;
            if chunked {
                self.raw(b"\r\n").await?;
            }
            self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if chunked {
            self.raw(b"0\r\n\r\n").await?;
        }
        Ok(keep_alive)
    }
}
