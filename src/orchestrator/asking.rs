//! One request to the model: its tokens are reserved before it is sent, and settled however it ends, also when it is
//! dropped in the middle.
//!
//! Knows no rule of a turn; called by the driver.

use std::{mem, sync::Arc};

use crate::{
    crash,
    ledger::{Ledger, Refused, Reservation, Spender, Tokens},
    llm::{Completion, LlmError, Meter, Model, ToolSpec, Usage},
};

use super::{
    chunks::Chunks,
    event::Request,
    progress::{Outflow, Progress},
};

/// What every request of a turn is sent with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) model: Model,
    pub(super) ledger: Ledger,
    pub(super) spender: Spender,
    pub(super) specs: Arc<[ToolSpec]>,
    /// Receives the text that the model streams.
    pub(super) chunks: Arc<Chunks>,
    /// Receives warnings for the room, such as that most of the day's tokens are used.
    pub(super) outflow: Arc<Outflow>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The ledger did not allow its tokens, so it was not sent.
    Refused(Refused),
    /// It failed for good: retries are behind it.
    Failed(LlmError),
}

/// The number of a request, and its answer or the reason that it has none.
pub(super) type Ended = (u32, Result<Completion, Unanswered>);

/// Tokens that are held for a request under way. Dropping this settles them, so that a request that is cancelled
/// counts, too.
struct Sent {
    reservation: Option<Reservation>,
    meter: Meter,
    /// The tokens that the provider has reported; none until the answer is whole.
    told: Usage,
}

impl Asking {
    /// Reserves the request's tokens, sends it, and waits for its answer.
    pub(super) async fn ask(self, request: Request) -> Ended {
        let Request { number, messages, asked, tools, max_output } = request;
        let mut reservation = match self.ledger.reserve(self.spender, asked, max_output).await {
            Ok(reservation) => reservation,
            Err(refused) => return (number, Err(Unanswered::Refused(refused))),
        };
        for warning in mem::take(&mut reservation.warnings) {
            self.outflow.push(Progress::Notice(warning));
        }
        let mut sent = Sent { reservation: Some(reservation), meter: Meter::new(asked), told: Usage::default() };
        let tools = if tools { &self.specs[..] } else { &[] };
        let mut show = |chunk| self.chunks.push(chunk);
        let ended = self.model.complete(&messages, tools, max_output, &sent.meter, &mut show).await;
        if let Ok(Completion { usage: Some(usage), .. }) = &ended
            && usage.input > 0
        {
            sent.told = *usage;
        }
        drop(sent);
        crash::point("asked");
        (number, ended.map_err(Unanswered::Failed))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut usage = self.told;
        usage += self.meter.untold();
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(tokens_of(usage));
        }
    }
}

/// Returns what a model has used as the ledger counts it.
pub(super) fn tokens_of(Usage { input, cached, output }: Usage) -> Tokens {
    Tokens { input, cached, output }
}
