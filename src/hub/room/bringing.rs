//! What a message brings along, its file and the message to which it replies, on its way to the model: a task that may
//! be dropped at any time, since the message waits in the journal until what came of it is stored.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{meaning::Work, quote::quote, upload::upload};
use crate::{
    bots::{Bot, Upload},
    hub::AccountHub,
    ids::{Address, EventId},
    llm::Part,
    strings,
};

/// What came along.
#[derive(Clone, Debug, Default)]
pub(super) struct Brought {
    /// What the person is told of the message's own file.
    pub(super) saved: Option<String>,
    /// What the model is told of all that.
    notes: Vec<String>,
    /// What the model is shown of it.
    pub(super) pictures: Vec<Part>,
}

impl Brought {
    /// Returns a message's words with what came along behind them.
    pub(super) fn behind(&self, words: &str) -> String {
        let words = Some(words).filter(|words| !words.trim().is_empty());
        let all: Vec<_> = words.into_iter().chain(self.notes.iter().map(String::as_str)).collect();
        all.join("\n\n")
    }

    /// Takes in a file that lies in the sandbox.
    pub(super) fn take(&mut self, upload: Upload) {
        self.notes.push(upload.text);
        self.pictures.extend(upload.picture);
    }

    /// Takes in what the model is to know.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// What comes along, under way.
pub(super) struct Bringing {
    /// The message that brings it.
    event: EventId,
    task: AbortOnDropHandle<Result<Brought, String>>,
}

impl Bringing {
    /// Begins to fetch what comes along with a message.
    pub(super) fn begin(hub: &AccountHub, address: &Address, event: &EventId, bot: Arc<dyn Bot>, work: Work) -> Self {
        let (hub, address, sent) = (hub.clone(), address.clone(), event.clone());
        let bringing = async move { bring(&hub, &address, sent, &*bot, work).await };
        Self { event: event.clone(), task: AbortOnDropHandle::new(tokio::spawn(bringing)) }
    }

    /// Waits for what came of it, or for a sentence to the person: their file is not there.
    pub(super) async fn ended(&mut self) -> Result<Brought, String> {
        (&mut self.task).await.unwrap_or_else(|panic| {
            tracing::error!(event = %self.event, error = %panic, "what a message brings along ended by a panic");
            Err(strings::INTERNAL.to_owned())
        })
    }
}

async fn bring(
    hub: &AccountHub,
    address: &Address,
    event: EventId,
    bot: &dyn Bot,
    work: Work,
) -> Result<Brought, String> {
    let Work { about, file, .. } = work;
    let mut brought = Brought::default();
    if let Some(about) = about {
        quote(hub, address, bot, about, &mut brought).await;
    }
    if let Some(file) = file {
        let upload = upload(hub, address, bot, event, file, false).await?;
        brought.saved = Some(strings::saved(&upload.path, upload.unshown.as_deref()));
        brought.take(upload);
    }
    Ok(brought)
}
