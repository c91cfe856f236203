//! The task that fetches a message's file and the message to which it replies. It may be dropped at any time, since
//! the message waits in the journal until its result is stored.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, error_span};

use super::{brought::Brought, meaning::Work, quote::quote, upload::upload};
use crate::{
    bots::Bot,
    hub::AccountHub,
    ids::{Address, EventId, SPANS},
    strings,
};

/// The running task.
pub(super) struct Bringing {
    /// Names the room and the message that brings it.
    span: Span,
    task: AbortOnDropHandle<Result<Brought, String>>,
}

impl Bringing {
    /// Starts fetching what comes along with a message.
    pub(super) fn begin(hub: &AccountHub, address: &Address, event: &EventId, bot: Arc<dyn Bot>, work: Work) -> Self {
        let span = error_span!(target: SPANS, parent: &address.span(), "file", %event);
        let (hub, address, event) = (hub.clone(), address.clone(), event.clone());
        let bringing = async move { bring(&hub, &address, event, &*bot, work).await };
        let task = AbortOnDropHandle::new(tokio::spawn(bringing.instrument(span.clone())));
        Self { span, task }
    }

    /// Waits for the result. The error is a sentence that tells the person that their file could not be saved.
    pub(super) async fn ended(&mut self) -> Result<Brought, String> {
        (&mut self.task).await.unwrap_or_else(|panic| {
            let _bringing = self.span.enter();
            tracing::error!(error = %panic, "what a message brings along ended by a panic");
            Err(strings::rooms::INTERNAL.to_owned())
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
        brought.saved = Some(strings::files::saved(&upload.path, upload.unshown.as_deref()));
        brought.add_file(upload);
    }
    Ok(brought)
}
