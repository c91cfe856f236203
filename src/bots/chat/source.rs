//! Where a chat bot's model comes from.

use futures_util::{FutureExt, future::BoxFuture};

use crate::llm::Model;

/// Gives a model that answers now. It may take its time for that, such as for loading one, or refuse.
///
/// Object-safe. May be called concurrently; may be dropped at any time.
pub trait Source: Send + Sync {
    /// Returns a model, which answers for as long as its guard is kept. `tell` takes plain sentences for the person who waits.
    ///
    /// # Errors
    ///
    /// No model answers now: one plain sentence for that person.
    fn ready<'a>(&'a self, tell: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Ready, Refused>>;

    /// Returns whether its models see pictures.
    fn sees(&self) -> bool;
}

/// A model that answers now.
pub struct Ready {
    /// The model.
    pub model: Model,
    /// What people read of it under an answer, such as `groq/llama-3.3-70b`.
    pub label: String,
    /// Dropped once it is not needed any more.
    pub guard: Box<dyn Send + Sync>,
}

/// Why no model answers now: one plain sentence for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// One model, which is always there.
pub struct Fixed {
    model: Model,
    label: String,
}

impl Fixed {
    /// Returns a model under the label that people read.
    pub fn new(model: Model, label: impl Into<String>) -> Self {
        Self { model, label: label.into() }
    }
}

impl Source for Fixed {
    fn ready<'a>(&'a self, _: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Ready, Refused>> {
        let ready = Ready { model: self.model.clone(), label: self.label.clone(), guard: Box::new(()) };
        async move { Ok(ready) }.boxed()
    }

    fn sees(&self) -> bool {
        self.model.vision()
    }
}
