//! A proxy before a homeserver that notes when bytes pass: what a program adds is seen from outside of it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Answers to `/sync` of which the time is kept.
const KEPT: usize = 64;

/// When things passed.
#[derive(Clone, Default)]
pub struct Stamps {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// The bytes of the last answers to `/sync`, the newest last.
    synced: VecDeque<Instant>,
    /// The first message sent since this was looked at.
    sent: Option<Instant>,
}

impl Stamps {
    /// Starts the proxy; returns its address.
    pub async fn proxy(&self, homeserver: &str) -> String {
        let to: SocketAddr = homeserver.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stamps = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // It is restarted, or gone at the end.
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let syncing = Arc::new(Mutex::new(false));
                tokio::spawn(carry(from_client, to_server, stamps.clone(), Arc::clone(&syncing), true));
                tokio::spawn(carry(from_server, to_client, stamps.clone(), syncing, false));
            }
        });
        format!("http://{address}")
    }

    /// When the last answer to `/sync` before `then` was through.
    pub fn synced_before(&self, then: Instant) -> Option<Instant> {
        self.inner.lock().unwrap().synced.iter().rev().find(|at| **at <= then).copied()
    }

    /// When a message was sent first since the last call.
    pub fn take_sent(&self) -> Option<Instant> {
        self.inner.lock().unwrap().sent.take()
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, stamps: Stamps, syncing: Arc<Mutex<bool>>, asks: bool) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..read];
        let has = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
        if asks {
            *syncing.lock().unwrap() = bytes.starts_with(b"GET /_matrix/client/") && has(b"/sync?");
            if bytes.starts_with(b"PUT ") && has(b"/send/m.room.") {
                stamps.inner.lock().unwrap().sent.get_or_insert_with(Instant::now);
            }
        } else if *syncing.lock().unwrap() {
            let mut inner = stamps.inner.lock().unwrap();
            inner.synced.push_back(Instant::now());
            if inner.synced.len() > KEPT {
                inner.synced.pop_front();
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
