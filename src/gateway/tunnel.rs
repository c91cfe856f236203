//! CONNECT: the server name in the ClientHello must be the host that was asked for; then bytes are copied both ways.
//!
//! It must not decide which hosts are allowed: `web` has decided that and connected before.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use super::{
    audit::Passage,
    downstream::{Reader, Writer},
    hello::{self, Hello},
    hosts::Host,
};

/// Bytes that are copied at a time.
const PIECE: usize = 32 * 1024;

/// The response to a CONNECT that is allowed.
pub(super) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The fatal alert `unrecognized_name`, so that TLS clients report more than a lost connection.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Confirms the CONNECT, checks the server name in the ClientHello, and copies until both sides have ended.
pub(super) async fn run(
    mut reader: Reader,
    mut writer: Writer,
    upstream: TcpStream,
    host: &Host,
    passage: &mut Passage,
    (limit, idle): (Duration, Duration),
) {
    if writer.raw(ESTABLISHED).await.is_err() {
        return passage.closed("ended by the sandbox");
    }
    match timeout(limit, check_name(&mut reader, host)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => {
            let _ = writer.raw(&UNRECOGNIZED_NAME).await;
            return passage.closed(why);
        }
        Err(_) => return passage.closed("closed: no ClientHello in time"),
    }
    let (mut from_sandbox, early) = reader.into_parts();
    let mut to_sandbox = writer.into_half();
    let (mut from_upstream, mut to_upstream) = upstream.into_split();
    let clock = Activity::new();
    let copying = async {
        let up = async {
            if write(&mut to_upstream, &early, &clock, &passage.up).await.is_ok() {
                copy(&mut from_sandbox, &mut to_upstream, &clock, &passage.up).await;
            }
        };
        tokio::join!(up, copy(&mut from_upstream, &mut to_sandbox, &clock, &passage.down));
    };
    tokio::select! {
        () = copying => {}
        () = clock.quiet_for(idle) => passage.closed("closed: idle"),
    }
}

/// Reads the ClientHello and compares its server name; leaves it in the reader.
async fn check_name(reader: &mut Reader, host: &Host) -> Result<(), &'static str> {
    loop {
        match hello::parse(reader.buffered()) {
            Ok(Hello::Partial { needed }) => {
                if !reader.fill_to(needed).await.is_ok_and(|whole| whole) {
                    return Err("closed: no ClientHello");
                }
            }
            Ok(Hello::Whole { server_name }) => {
                return match (host, server_name) {
                    (Host::Name(host), Some(name)) if *host == name => Ok(()),
                    // Clients send no server name if they were given an address.
                    (Host::Address(_), None) => Ok(()),
                    (_, None) => Err("closed: no server name in the ClientHello"),
                    (_, Some(_)) => Err("closed: another server name in the ClientHello"),
                };
            }
            Err(_) => return Err("closed: no acceptable ClientHello"),
        }
    }
}

/// Copies one direction to its end, then shuts that direction down.
async fn copy<R, W>(from: &mut R, to: &mut W, clock: &Activity, count: &AtomicU64)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        clock.touch();
        if write(to, &piece[..length], clock, count).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn write<W: AsyncWrite + Unpin>(
    to: &mut W,
    bytes: &[u8],
    clock: &Activity,
    count: &AtomicU64,
) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    clock.touch();
    Ok(())
}

/// When bytes last moved in either direction.
struct Activity {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `idle`.
    async fn quiet_for(&self, idle: Duration) {
        loop {
            let until = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
