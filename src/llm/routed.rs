//! What everybody else calls a model: one at a fixed address, or one whose server is chosen anew for each request.
//!
//! Who chooses is given from outside ([`Route`]), since a registry of servers is nothing that this folder knows.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    error::LlmError,
    message::{Chunk, Completion, Message, ToolSpec},
    meter::Meter,
    model::{ModelSettings, One},
    servers::Listed,
    window::Window,
};

/// A model. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Model {
    which: Which,
}

#[derive(Clone)]
enum Which {
    One(One),
    Routed(Arc<dyn Route>),
}

/// Chooses which model answers a request.
pub trait Route: Send + Sync {
    /// Returns the name that the operator wrote.
    fn name(&self) -> &str;

    /// Begins with a request.
    fn begin(&self) -> Box<dyn Choice + '_>;

    /// Returns the model that would probably answer, as far as that is known without asking anybody.
    fn likely(&self) -> Option<Model>;
}

/// The choice for one request.
pub trait Choice: Send {
    /// Returns who answers, at first and after each one that has `failed`; `None` if that was the last.
    fn next<'a>(&'a mut self, failed: Option<&'a LlmError>) -> BoxFuture<'a, Option<Result<Chosen, LlmError>>>;
}

/// A model that answers as long as its guard is kept.
pub struct Chosen {
    /// The model.
    pub model: Model,
    /// Dropped once it has answered.
    pub guard: Box<dyn Send>,
}

impl Model {
    /// Makes a model from its settings; sends nothing yet.
    pub fn new(settings: ModelSettings) -> Result<Self, LlmError> {
        Ok(Self { which: Which::One(One::new(settings)?) })
    }

    /// Returns a model whose server is chosen for each request.
    pub fn routed(route: Arc<dyn Route>) -> Self {
        Self { which: Which::Routed(route) }
    }

    /// Returns the model string as the operator wrote it.
    pub fn name(&self) -> &str {
        match &self.which {
            Which::One(one) => one.name(),
            Which::Routed(route) => route.name(),
        }
    }

    /// Returns whether it sees pictures.
    pub fn vision(&self) -> bool {
        match &self.which {
            Which::One(one) => one.vision(),
            Which::Routed(route) => route.likely().is_some_and(|model| model.vision()),
        }
    }

    /// Returns the size of its context in tokens.
    pub fn context_window(&self) -> u64 {
        self.window().tokens
    }

    /// Returns the size of its context, and where that is known from.
    pub fn window(&self) -> Window {
        match &self.which {
            Which::One(one) => one.window(),
            Which::Routed(route) => route.likely().map_or_else(Window::of_a_local_server, |model| model.window()),
        }
    }

    /// Asks its server for the size of its context, if it can be asked and was not asked lately. Takes at most two
    /// seconds; may be dropped.
    pub async fn ask_window(&self) {
        match &self.which {
            Which::One(one) => one.ask_window().await,
            Which::Routed(route) => {
                if let Some(model) = route.likely() {
                    Box::pin(model.ask_window()).await;
                }
            }
        }
    }

    /// Asks the model to continue `messages`. Pieces are passed to `on_chunk` as they come; the whole answer is
    /// returned.
    ///
    /// An answer that fails for a reason that passes (429, 5xx, a lost connection, a stream that breaks off or is empty) is
    /// asked for again, after words too: nothing was done on it yet, and [`Chunk::Restart`] takes back what was shown. An
    /// answer that grows beyond all bounds is cut off as [`Finish::Length`](super::Finish::Length). What all that has used
    /// beside the completion's own usage is on the `meter`.
    pub async fn complete(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        max_output: Option<u64>,
        meter: &Meter,
        on_chunk: &mut (dyn FnMut(Chunk) + Send),
    ) -> Result<Completion, LlmError> {
        let route = match &self.which {
            Which::One(one) => return one.complete(messages, tools, max_output, meter, on_chunk).await,
            Which::Routed(route) => route,
        };
        let (mut choice, mut failed) = (route.begin(), None);
        loop {
            let chosen = match choice.next(failed.as_ref()).await {
                Some(chosen) => chosen?,
                None => return Err(failed.unwrap_or(LlmError::Cut)),
            };
            let mut shown = false;
            let mut show = |chunk| {
                shown |= !matches!(chunk, Chunk::Reasoning);
                on_chunk(chunk);
            };
            let asked = Box::pin(chosen.model.complete(messages, tools, max_output, meter, &mut show)).await;
            match asked {
                Err(error) if error.is_passing() => {
                    tracing::warn!(model = self.name(), server = chosen.model.name(), %error, "another server may answer");
                    failed = Some(error);
                    if shown {
                        on_chunk(Chunk::Restart);
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Looks whether its endpoint can be reached, takes the key and has the model, by its list of models, which costs nothing.
    pub async fn look_up(&self) -> Listed {
        match &self.which {
            Which::One(one) => one.look_up().await,
            Which::Routed(route) => match route.likely() {
                Some(model) => Box::pin(model.look_up()).await,
                None => Listed::HasOthers,
            },
        }
    }

    /// Asks for a single token, once, to check address, key and model. Returns how long it took.
    pub async fn probe(&self) -> Result<Duration, LlmError> {
        match &self.which {
            Which::One(one) => one.probe().await,
            Which::Routed(route) => match route.begin().next(None).await {
                Some(chosen) => Box::pin(chosen?.model.probe()).await,
                None => Err(LlmError::Cut),
            },
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::One(one) => one.fmt(f),
            Which::Routed(route) => write!(f, "Model({})", route.name()),
        }
    }
}
