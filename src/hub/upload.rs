//! A file on its way from the chat protocol into the room's sandbox, as a task that may be dropped at any time: its
//! event waits in the journal until what came of it is stored.

use std::time::Duration;

use tokio::{sync::oneshot, time};
use tokio_util::task::AbortOnDropHandle;

use super::{Fetch, Hub, NotFetched, meaning::FileSent};
use crate::{
    bots::{Sent, Upload},
    ids::EventId,
    store::Address,
    strings, text,
};

/// No file that people send may be larger, in bytes.
const LARGEST: u64 = 32 << 20;
/// How long the chat protocol has to fetch one.
const FETCHING: Duration = Duration::from_mins(2);

/// A file under way.
pub(super) struct Uploading {
    /// The event by which it came.
    pub(super) event: EventId,
    task: AbortOnDropHandle<Result<Upload, String>>,
}

impl Uploading {
    /// Begins to fetch and save a file.
    pub(super) fn begin(hub: &Hub, address: &Address, event: &EventId, file: FileSent) -> Self {
        let (hub, address, sent) = (hub.clone(), address.clone(), event.clone());
        let work = async move { upload(&hub, address, sent, file).await };
        Self { event: event.clone(), task: AbortOnDropHandle::new(tokio::spawn(work)) }
    }

    /// Waits for what came of it: the file in the sandbox, or a sentence for the person.
    pub(super) async fn ended(&mut self) -> Result<Upload, String> {
        (&mut self.task).await.unwrap_or_else(|panic| {
            tracing::error!(event = %self.event, error = %panic, "saving a file ended by a panic");
            Err(strings::INTERNAL.to_owned())
        })
    }
}

async fn upload(hub: &Hub, address: Address, event: EventId, file: FileSent) -> Result<Upload, String> {
    let name = text::one_line(&file.name, 100);
    let too_large =
        |size: u64| Err(strings::file_too_large(&name, &text::human_bytes(size), &text::human_bytes(LARGEST)));
    if let Some(size) = file.size.filter(|size| *size > LARGEST) {
        return too_large(size);
    }
    let (done, fetched) = oneshot::channel();
    let at = Address { room: hub.inner.homes.current(&address.room), bot: address.bot.clone() };
    let fetch = Fetch { address: at, source: file.source, limit: LARGEST, done };
    let fetched = async {
        hub.inner.fetches.send(fetch).await.ok()?;
        fetched.await.ok()
    };
    let bytes = match time::timeout(FETCHING, fetched).await {
        Ok(Some(Ok(bytes))) => bytes,
        Ok(Some(Err(NotFetched::TooLarge(size)))) => return too_large(size),
        Ok(Some(Err(NotFetched::Failed(cause)))) => return Err(strings::file_not_saved(&name, &cause)),
        Ok(None) | Err(_) => return Err(strings::file_not_fetched(&name)),
    };
    let sent = Sent { event, name: file.name, mime: file.mime };
    let saved = hub.inner.coder.save(&address, &sent, bytes).await;
    saved.map_err(|cause| {
        tracing::warn!(room = %address.room, event = %sent.event, %cause, "a file was not saved");
        strings::file_not_saved(&name, &cause)
    })
}
