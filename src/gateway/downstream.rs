//! The sandbox's side of an HTTP connection: reads heads and bodies, writes responses, all bounded in size and time.
//!
//! It must not know policy or what is upstream. `web`, `git` and `models` serve their requests with it.

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

/// Bytes that are read at a time.
const PIECE: usize = 16 * 1024;

/// After a refusal, so many bytes are still read and dropped, for at most this time.
const LINGER: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The connection failed, so nobody is left to be told.
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

/// Reads from the sandbox.
pub(super) struct Reader {
    half: OwnedReadHalf,
    /// What was read and not used yet: at most a head and a piece.
    buffer: BytesMut,
    idle: Duration,
    /// Bytes of the current request's body.
    meter: Arc<AtomicU64>,
}

impl Reader {
    /// Reads the next request's head. `None` means that the sandbox has closed the connection, or has sent nothing
    /// for `quiet`. From its first byte on, a head has `limit` to arrive.
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

    /// Sends a request's body to `parts`, to its end. Fails early if the receiver is dropped.
    pub(super) async fn pump(&mut self, framing: Framing, parts: mpsc::Sender<Part>) -> Result<(), Denial> {
        let mut decoder = Decoder::new(framing);
        loop {
            let part = match decoder.decode(&mut self.buffer)? {
                Decoded::Data(data) => {
                    self.meter.fetch_add(data.len() as u64, Ordering::Relaxed);
                    Part::Data(data)
                }
                Decoded::End => {
                    // A receiver that took all bytes need not hear of the end.
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

    /// Reads the whole body of the current request. Before each piece, `grow` is asked whether so many more bytes may
    /// be kept.
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

    /// Returns when the sandbox closes the connection. What it sends until then is kept for the next request.
    pub(super) async fn hang_up(&mut self) {
        while self.buffer.len() < MAX_HEAD {
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Returns the byte count of the current request's body.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.meter)
    }

    /// Reads until `count` bytes are buffered; returns `false` if the connection ends before.
    pub(super) async fn fill_to(&mut self, count: usize) -> Result<bool, Gone> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads and drops what still comes after a refusal. A connection that is closed with unread bytes is reset, and
    /// the reset can arrive before the response.
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
        // A sandbox that sends for longer does not read the response anyway.
        let _ = timeout(LINGER_TIME, taking).await;
    }

    /// Returns what was read and not used yet.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Ends the use as HTTP: returns the raw half and what was read and not used.
    pub(super) fn into_parts(self) -> (OwnedReadHalf, BytesMut) {
        (self.half, self.buffer)
    }

    /// Returns once the sandbox has closed its direction. What comes before that is kept for the next read, as far as a piece.
    pub(super) async fn closed(&mut self) {
        while self.buffer.len() < PIECE {
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn fill(&mut self) -> Result<usize, Gone> {
        self.buffer.reserve(PIECE);
        let mut piece = (&mut self.half).take(PIECE as u64);
        Ok(piece.read_buf(&mut self.buffer).await?)
    }
}

/// How a response is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The request was a HEAD, so the response has no body whatever its head says.
    pub(super) head_only: bool,
    /// The client understands chunked bodies (HTTP/1.1).
    pub(super) http11: bool,
    /// The connection may be kept open after this response.
    pub(super) keep_alive: bool,
}

impl Manner {
    /// Returns how `head` is to be answered.
    pub(super) fn of(head: &Head) -> Self {
        Self { head_only: head.method == Method::HEAD, http11: head.http11, keep_alive: head.keep_alive }
    }
}

/// Writes to the sandbox.
pub(super) struct Writer {
    half: OwnedWriteHalf,
    idle: Duration,
    /// Whether the response to the current request has begun.
    begun: bool,
    /// Bytes of the current response's body.
    meter: Arc<AtomicU64>,
}

impl Writer {
    /// Prepares for the next request's response.
    pub(super) fn next(&mut self) {
        self.begun = false;
        self.meter = Arc::default();
    }

    /// Returns the byte count of the current response's body.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.meter)
    }

    /// Writes bytes as they are.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        Ok(timeout(self.idle, self.half.write_all(bytes)).await??)
    }

    /// Closes the sandbox's reading direction.
    pub(super) async fn end(&mut self) {
        // The sandbox may be gone already.
        let _ = timeout(self.idle, self.half.shutdown()).await;
    }

    /// Ends the use as HTTP: returns the raw half.
    pub(super) fn into_half(self) -> OwnedWriteHalf {
        self.half
    }

    /// Writes a refusal, unless a response has begun. The connection must be closed afterwards.
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

    /// Writes a response whose headers are final. Returns whether the connection may be kept open.
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
            // The response to a HEAD keeps the length that its head states.
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
            // If the upstream breaks off, that must not look like an end: no last chunk, no keep-alive.
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
