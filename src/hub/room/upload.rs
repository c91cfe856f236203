//! Brings a file that somebody sent into the room's sandbox.

use std::time::Duration;

use tokio::{sync::oneshot, time};

use super::meaning::FileSent;
use crate::{
    bots::{Bot, SentFile, Upload},
    hub::{AccountHub, Fetch, FetchFile, NotFetched},
    ids::{Address, EventId},
    strings, text,
};

/// The largest file that people may send, in bytes.
const LARGEST: u64 = 32 << 20;
/// How long the chat protocol may take to fetch one.
const FETCHING: Duration = Duration::from_mins(2);

/// Fetches and saves the file of an event. `again` says that the file was sent earlier: what the sandbox already has
/// of it stays as it is. The error is a sentence to the sender.
pub(super) async fn upload(
    hub: &AccountHub,
    address: &Address,
    bot: &dyn Bot,
    event: EventId,
    file: FileSent,
    again: bool,
) -> Result<Upload, String> {
    let name = text::one_line(&file.name, 100);
    let too_large =
        |size: u64| Err(strings::files::too_large(&name, &text::human_bytes(size), &text::human_bytes(LARGEST)));
    if let Some(size) = file.size.filter(|size| *size > LARGEST) {
        return too_large(size);
    }
    let (done, fetched) = oneshot::channel();
    let fetch = Fetch::File(FetchFile { source: file.source, limit: LARGEST, done });
    let fetched = async {
        hub.inner.ports.fetch(&address.room, fetch).await;
        fetched.await.ok()
    };
    let bytes = match time::timeout(FETCHING, fetched).await {
        Ok(Some(Ok(bytes))) => bytes,
        Ok(Some(Err(NotFetched::TooLarge(size)))) => return too_large(size),
        Ok(Some(Err(NotFetched::Failed(cause)))) => return Err(strings::files::not_saved(&name, &cause)),
        Ok(None) | Err(_) => return Err(strings::files::not_fetched(&name)),
    };
    let sent = SentFile { event, name: file.name, mime: file.mime, again };
    let saved = bot.keep_file(address, &sent, bytes.into()).await;
    saved.inspect_err(|told| tracing::warn!(%told, "a file was not saved"))
}
