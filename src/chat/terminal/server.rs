//! The server's side: which clients sit in which room, and what was shown to them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LinesCodec},
    sync::CancellationToken,
};

use super::frame::{CLIENT_LINE, MESSAGE, Say, ServerFrame};
use crate::{
    hub::{Body, CODER, Delivery, Hub, Inbound, Live, LiveIn, Outbound, Sent, Undelivered},
    ids::{EventId, RoomKey},
    store::Address,
};

/// Frames that may wait for a slow client; what does not fit of the live ones is dropped.
const BACKLOG: usize = 512;
/// Clients at once.
const CLIENTS: usize = 64;

/// The terminal's rooms. Cheap to clone.
#[derive(Clone, Default)]
pub struct Terminal {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Counts clients, to tell them apart.
    next: u64,
    clients: HashMap<u64, Client>,
    /// What was sent and not yet confirmed, by transaction id.
    unconfirmed: HashMap<String, Unconfirmed>,
}

struct Unconfirmed {
    room: RoomKey,
    done: oneshot::Sender<Result<Sent, Undelivered>>,
}

struct Client {
    room: RoomKey,
    frames: mpsc::Sender<ServerFrame>,
}

impl Terminal {
    /// Shows something to the clients in a room.
    pub fn show(&self, live: LiveIn) {
        self.state().send(&live.address.room, &ServerFrame::Live { live: live.live });
    }

    /// Serves one client in one room, as `sender`, until it hangs up. Its first frame was read by the caller.
    pub async fn serve<R, W>(
        &self,
        hub: &Hub,
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
        let (frames, mut queue) = mpsc::channel(BACKLOG);
        let Some(id) = self.state().join(room.clone(), frames.clone()) else {
            let _ = send(&mut outgoing, &refused("Too many terminals are open. Close one and try again.")).await;
            return;
        };
        let address = Address { bot: CODER.into(), room };
        hub.reachable(&address).await;
        loop {
            let frame = tokio::select! {
                () = cancel.cancelled() => break,
                Some(frame) = queue.recv() => frame,
                line = incoming.next() => match line {
                    None => break,
                    Some(Err(error)) => {
                        let _ = send(&mut outgoing, &refused(&format!("That could not be read: {error}."))).await;
                        break;
                    }
                    Some(Ok(line)) => match self.take(hub, &address.room, &sender, &line).await {
                        Some(answer) => answer,
                        None => continue,
                    },
                },
            };
            if send(&mut outgoing, &frame).await.is_err() {
                break;
            }
        }
        self.state().leave(id);
    }

    /// Does what a client's line says; returns what to tell it.
    async fn take(&self, hub: &Hub, room: &RoomKey, sender: &str, line: &str) -> Option<ServerFrame> {
        let (event, body) = match serde_json::from_str(line) {
            Err(error) => return Some(refused(&format!("That is no frame of this protocol: {error}."))),
            Ok(Say::Shown { txn }) => {
                let shown = self.state().unconfirmed.remove(&txn)?;
                let (noted, is_noted) = oneshot::channel();
                shown.done.send(Ok(Sent { event: EventId(txn.clone()), noted })).ok()?;
                return is_noted.await.ok().map(|()| ServerFrame::Noted { txn });
            }
            Ok(Say::Say { text, .. }) if text.len() > MESSAGE => {
                let text = format!("The message has {} KiB; {} KiB can be taken.", text.len() >> 10, MESSAGE >> 10);
                return Some(refused(&text));
            }
            Ok(Say::Say { id, text }) => (id, Body::Said { text, thread: None }),
            Ok(Say::Stop { id }) => (id, Body::Stop),
        };
        let inbound = Inbound { room: room.clone(), event: event.clone(), sender: sender.to_owned(), body };
        Some(match hub.admit(vec![inbound], None).await {
            Ok(_) => ServerFrame::Admitted { id: event },
            Err(error) => refused(&error.to_string()),
        })
    }

    /// Hands something to the clients in a room, of which one must confirm it.
    pub fn deliver(&self, delivery: Delivery) {
        let Delivery { txn, address, outbound, data, done, .. } = delivery;
        let frame = match outbound {
            Outbound::Answer { text, footer, ending, asked, .. } => {
                ServerFrame::Answer { txn: txn.clone(), text, footer, ending, asked }
            }
            Outbound::Reply { text, asked, .. } => ServerFrame::Reply { txn: txn.clone(), text, asked },
            Outbound::Notice { text } => {
                let shown = self.state().send(&address.room, &ServerFrame::Live { live: Live::Notice { text } });
                return if shown { confirm(done, txn) } else { drop(done.send(Err(Undelivered))) };
            }
            // What a terminal shows of a turn's progress ends with the turn.
            Outbound::Closing { .. } => return confirm(done, txn),
            Outbound::File { name, mime, .. } => {
                let data = BASE64.encode(data.unwrap_or_default());
                ServerFrame::File { txn: txn.clone(), name, mime, data }
            }
        };
        let mut state = self.state();
        if state.send(&address.room, &frame) {
            state.unconfirmed.insert(txn, Unconfirmed { room: address.room, done });
        } else {
            let _ = done.send(Err(Undelivered));
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn join(&mut self, room: RoomKey, frames: mpsc::Sender<ServerFrame>) -> Option<u64> {
        if self.clients.len() >= CLIENTS {
            return None;
        }
        self.next += 1;
        self.clients.insert(self.next, Client { room, frames });
        Some(self.next)
    }

    fn leave(&mut self, id: u64) {
        let Some(left) = self.clients.remove(&id) else { return };
        // What nobody is left to confirm goes back to the outbox, which sends it to the room's next client.
        if !self.clients.values().any(|client| client.room == left.room) {
            self.unconfirmed.retain(|_, unconfirmed| unconfirmed.room != left.room);
        }
    }

    /// Sends a frame to all clients of a room; tells whether there was one to take it.
    fn send(&self, room: &RoomKey, frame: &ServerFrame) -> bool {
        let mut taken = false;
        for client in self.clients.values().filter(|client| client.room == *room) {
            taken |= client.frames.try_send(frame.clone()).is_ok();
        }
        taken
    }
}

/// Confirms what needs no client.
fn confirm(done: oneshot::Sender<Result<Sent, Undelivered>>, txn: String) {
    let (noted, _) = oneshot::channel();
    let _ = done.send(Ok(Sent { event: EventId(txn), noted }));
}

fn refused(text: &str) -> ServerFrame {
    ServerFrame::Refused { text: text.to_owned() }
}

async fn send<W: AsyncWrite + Unpin>(
    outgoing: &mut FramedWrite<W, LinesCodec>,
    frame: &ServerFrame,
) -> anyhow::Result<()> {
    outgoing.send(serde_json::to_string(frame)?).await?;
    Ok(())
}
