//! The server's side of the terminal protocol: which clients are in which room, and what was shown to them.
//!
//! What must reach a room goes to all its clients, and is delivered once one of them has confirmed it. A client that
//! was away loses nothing: it asks what became of its messages ([`ClientFrame::Open`]) and is told from the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex as Lock, broadcast, broadcast::error::RecvError, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LinesCodec},
    sync::CancellationToken,
};

use super::frame::{CLIENT_LINE, ClientFrame, MESSAGE, ServerFrame};
use crate::{
    hub::{AccountHub, Became, Body, Delivery, Inbound, Inbox, Live, LiveIn, Outbound, Part, Sent, Undelivered},
    ids::{EventId, RoomKey},
    store::StoreError,
    strings::terminals,
};

/// Frames that may be queued for a slow client; live frames beyond that are dropped.
const BACKLOG: usize = 512;
/// The most clients that may be connected at the same time.
const CLIENTS: usize = 64;
/// How long a client that is turned away has to read the reason.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The terminals' rooms. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Terminal {
    state: Arc<Mutex<TerminalState>>,
    /// Held while a confirmation is stored, so that a second client that confirms the same delivery is answered after
    /// that.
    noting: Arc<Lock<()>>,
}

#[derive(Default)]
struct TerminalState {
    /// The number of the next client.
    next: u64,
    clients: HashMap<u64, Client>,
    /// Deliveries that were sent and not confirmed yet, by transaction id.
    unconfirmed: HashMap<String, Unconfirmed>,
}

struct Unconfirmed {
    room: RoomKey,
    done: oneshot::Sender<Result<Sent, Undelivered>>,
}

struct Client {
    room: RoomKey,
    frames: mpsc::Sender<ServerFrame>,
    /// Ends the connection.
    hang_up: CancellationToken,
}

/// A client's place in a room, for as long as this lives.
struct Seat {
    terminal: Terminal,
    id: u64,
    frames: mpsc::Sender<ServerFrame>,
    hang_up: CancellationToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.terminal.state().leave(self.id);
    }
}

impl Terminal {
    /// Passes what comes from the hub to the clients, until `cancel`.
    pub(crate) async fn run(self, mut inbox: Inbox, mut live: broadcast::Receiver<LiveIn>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(delivery) = inbox.deliveries.recv() => self.deliver(delivery),
                // A client sends no files, so there is nothing to fetch.
                Some(fetch) = inbox.fetches.recv() => drop(fetch),
                seen = live.recv() => match seen {
                    Ok(live) => self.show(live),
                    Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "terminals were not shown all progress"),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Shows a live event to the clients in its room.
    fn show(&self, live: LiveIn) {
        self.state().show(&live.address.room, &ServerFrame::Live { live: live.live });
    }

    /// Serves one client in one room, as `sender`, until it hangs up. Its first frame was read by the caller.
    pub(crate) async fn serve<R, W>(
        &self,
        hub: &AccountHub,
        room: RoomKey,
        sender: String,
        mut incoming: FramedRead<R, LinesCodec>,
        mut outgoing: FramedWrite<W, LinesCodec>,
        cancel: CancellationToken,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        incoming.decoder_mut().clone_from(&LinesCodec::new_with_max_length(CLIENT_LINE));
        let Some((seat, mut queue)) = self.join(room.clone()) else {
            let full = refused(None, terminals::FULL);
            let _ = timeout(LAST_WORDS, send(&mut outgoing, &full)).await;
            return;
        };
        let address = hub.address(room);
        hub.reachable(&address.room).await;
        let writing = async {
            while let Some(frame) = queue.recv().await {
                if send(&mut outgoing, &frame).await.is_err() {
                    return;
                }
            }
        };
        // Reading and writing run at the same time, because a client that sends something long may not read
        // meanwhile.
        let reading = async {
            while let Some(line) = incoming.next().await {
                let line = match line {
                    Ok(line) => line,
                    Err(error) => return Some(refused(None, &terminals::unreadable(&error.to_string()))),
                };
                for frame in self.handle(hub, &address.room, &sender, &line).await {
                    if seat.frames.send(frame).await.is_err() {
                        return None;
                    }
                }
            }
            None
        };
        let last = tokio::select! {
            () = cancel.cancelled() => None,
            () = seat.hang_up.cancelled() => None,
            () = writing => None,
            last = reading => last,
        };
        if let Some(last) = last {
            let _ = timeout(LAST_WORDS, send(&mut outgoing, &last)).await;
        }
    }

    fn join(&self, room: RoomKey) -> Option<(Seat, mpsc::Receiver<ServerFrame>)> {
        let (frames, queue) = mpsc::channel(BACKLOG);
        let hang_up = CancellationToken::new();
        let client = Client { room, frames: frames.clone(), hang_up: hang_up.clone() };
        let id = self.state().join(client)?;
        Some((Seat { terminal: self.clone(), id, frames, hang_up }, queue))
    }

    /// Handles a client's line; returns the frames to send it.
    async fn handle(&self, hub: &AccountHub, room: &RoomKey, sender: &str, line: &str) -> Vec<ServerFrame> {
        let (event, body) = match serde_json::from_str(line) {
            Err(error) => return vec![refused(None, &terminals::no_frame(&error.to_string()))],
            Ok(ClientFrame::Shown { txn }) => return self.confirmed(hub, room, txn).await.into_iter().collect(),
            Ok(ClientFrame::Open { id }) => {
                return became(hub, room, &id).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "what became of a message cannot be told");
                    vec![ServerFrame::Open { id }]
                });
            }
            Ok(ClientFrame::Say { id, text }) if text.trim().is_empty() => {
                return vec![refused(Some(id), terminals::BLANK)];
            }
            Ok(ClientFrame::Say { id, text }) if text.len() > MESSAGE => {
                let text = terminals::message_too_long(text.len().div_ceil(1 << 10), MESSAGE >> 10);
                return vec![refused(Some(id), &text)];
            }
            Ok(ClientFrame::Say { id, text }) => (id, Body::said(text)),
            Ok(ClientFrame::Stop { id }) => (id, Body::Stop),
        };
        let (room, sender) = (room.clone(), sender.to_owned());
        let inbound = Inbound { room, event: event.clone(), sender, body, sealed: None };
        vec![match hub.admit(vec![inbound], None).await {
            Ok(_) => ServerFrame::Admitted { id: event },
            Err(error) => not_taken(event, &error),
        }]
    }

    /// Handles a client's confirmation. Each client is told once it is stored, whoever confirmed first, and also when it
    /// has asked for what the outbox has yet to deliver.
    async fn confirmed(&self, hub: &AccountHub, room: &RoomKey, txn: String) -> Option<ServerFrame> {
        let _one_at_a_time = self.noting.lock().await;
        let unconfirmed = self.state().unconfirmed.remove(&txn);
        if let Some(unconfirmed) = unconfirmed {
            let (noted, is_noted) = oneshot::channel();
            let sent = Sent { event: EventId(txn.clone()), noted };
            if unconfirmed.done.send(Ok(sent)).is_ok() && is_noted.await.is_ok() {
                return Some(ServerFrame::Noted { txn });
            }
        }
        match hub.was_shown(room, &txn).await {
            Ok(true) => Some(ServerFrame::Noted { txn }),
            Ok(false) => None,
            Err(error) => {
                tracing::error!(%error, "what a terminal has shown cannot be noted; it comes again");
                None
            }
        }
    }

    /// Sends a delivery to the clients in its room, of which one must confirm it.
    fn deliver(&self, delivery: Delivery) {
        let Delivery { txn, address, outbound, data, done, .. } = delivery;
        if let Outbound::Notice { text, .. } = outbound {
            let shown = self.state().show(&address.room, &ServerFrame::Live { live: Live::Notice { text } });
            return if shown { confirm(done, txn) } else { drop(done.send(Err(Undelivered))) };
        }
        let Some(frame) = frame(Part { txn: txn.clone(), outbound, data }) else { return confirm(done, txn) };
        let mut state = self.state();
        if state.send(&address.room, &frame) {
            state.unconfirmed.insert(txn, Unconfirmed { room: address.room, done });
        } else {
            let _ = done.send(Err(Undelivered));
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, TerminalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TerminalState {
    fn join(&mut self, client: Client) -> Option<u64> {
        if self.clients.len() >= CLIENTS {
            return None;
        }
        // Deliveries that no client has confirmed are dropped here; the outbox sends them again, to the new client too.
        self.unconfirmed.retain(|_, unconfirmed| unconfirmed.room != client.room);
        self.next += 1;
        self.clients.insert(self.next, client);
        Some(self.next)
    }

    fn leave(&mut self, id: u64) {
        let Some(left) = self.clients.remove(&id) else { return };
        // With no client left to confirm them, the room's deliveries go back to the outbox for the next client.
        if !self.clients.values().any(|client| client.room == left.room) {
            self.unconfirmed.retain(|_, unconfirmed| unconfirmed.room != left.room);
        }
    }

    /// Shows a frame to all clients of a room whose queues have space; returns whether there was one.
    fn show(&self, room: &RoomKey, frame: &ServerFrame) -> bool {
        let mut taken = false;
        for client in self.clients.values().filter(|client| client.room == *room) {
            taken |= client.frames.try_send(frame.clone()).is_ok();
        }
        taken
    }

    /// Sends a frame that nobody may miss to all clients of a room; returns whether one took it. A client that is too
    /// slow for it is disconnected: it comes back and asks.
    fn send(&self, room: &RoomKey, frame: &ServerFrame) -> bool {
        let mut taken = false;
        for client in self.clients.values().filter(|client| client.room == *room) {
            if client.frames.try_send(frame.clone()).is_ok() {
                taken = true;
            } else {
                client.hang_up.cancel();
            }
        }
        taken
    }
}

/// Returns frames that tell what became of a client's message.
async fn became(hub: &AccountHub, room: &RoomKey, id: &EventId) -> Result<Vec<ServerFrame>, StoreError> {
    Ok(match hub.became(room, id).await? {
        Became::Unknown => vec![ServerFrame::Unknown { id: id.clone() }],
        Became::Open => vec![ServerFrame::Open { id: id.clone() }],
        Became::Answered(parts) => parts.into_iter().filter_map(frame).map(|frame| answering(frame, id)).collect(),
    })
}

/// Returns a part of an answer as a frame; `None` if a terminal does not show it.
fn frame(part: Part) -> Option<ServerFrame> {
    let Part { txn, outbound, data } = part;
    Some(match outbound {
        Outbound::Answer { text, footer, ending, asked, others, .. } => {
            ServerFrame::Answer { txn, text, footer, ending, asked, others }
        }
        Outbound::Reply { text, asked, .. } => ServerFrame::Reply { txn, text, asked },
        Outbound::File { name, mime, .. } => {
            ServerFrame::File { txn, name, mime, data: data.map(|data| BASE64.encode(data)) }
        }
        // What a terminal shows of a turn's progress ends with the turn.
        Outbound::Notice { .. } | Outbound::Closing { .. } | Outbound::Log { .. } => return None,
    })
}

/// Returns an answer that names the message among those it answers; earlier versions did not store that.
fn answering(mut frame: ServerFrame, id: &EventId) -> ServerFrame {
    if let ServerFrame::Answer { asked, others, .. } = &mut frame
        && asked != id
        && !others.contains(id)
    {
        others.push(id.clone());
    }
    frame
}

/// Confirms a delivery that needs no client to show it.
fn confirm(done: oneshot::Sender<Result<Sent, Undelivered>>, txn: String) {
    let (noted, _) = oneshot::channel();
    let _ = done.send(Ok(Sent { event: EventId(txn), noted }));
}

/// Tells why a message could not be stored. Unlike the server's own work it is not tried again.
fn not_taken(id: EventId, error: &StoreError) -> ServerFrame {
    match error {
        StoreError::Full => refused(Some(id), terminals::DISK_FULL),
        error => refused(Some(id), &error.to_string()),
    }
}

fn refused(id: Option<EventId>, text: &str) -> ServerFrame {
    ServerFrame::Refused { id, text: text.to_owned() }
}

async fn send<W: AsyncWrite + Unpin>(
    outgoing: &mut FramedWrite<W, LinesCodec>,
    frame: &ServerFrame,
) -> anyhow::Result<()> {
    outgoing.send(serde_json::to_string(frame)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_disk_keeps_from_being_taken_is_to_be_sent_again() {
        let told = |error| match not_taken("e".into(), &error) {
            ServerFrame::Refused { id: Some(_), text } => text,
            other => panic!("{other:?}"),
        };
        let text = told(StoreError::Full);
        assert!(text.contains("send it again") && !text.contains("by itself"), "{text}");
        assert_eq!(told(StoreError::Closed), StoreError::Closed.to_string());
    }
}
