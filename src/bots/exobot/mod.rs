//! exobot: a chat bot whose model sleeps on this machine until somebody asks.

mod crossing;
mod engaging;
mod ui;

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};

use super::chat::{Mode, Ready, Refused, Source};
use crate::inference::engine::Engine;

pub use crossing::{Crossing, Next, partner};
pub use engaging::{Enabled, Engagement, Lately, Said, due, request, spoken};
pub use ui::pages;

/// What its model is told before every conversation. Short, since each token of it costs a small machine time.
pub const SYSTEM_PROMPT: &str = "You are exobot, an assistant in a chat room. Answer briefly and plainly.";

/// Returns its modes, the usual one first.
pub fn modes() -> Vec<Mode> {
    let mode = |word, max_tokens, seconds, history_turns| Mode {
        word,
        max_tokens,
        time: Duration::from_secs(seconds),
        history_turns,
        // A short answer has no room for thoughts.
        thinks: history_turns > 0,
    };
    vec![
        mode("normal", 250, 70, 0),
        mode("ultrafast", 40, 25, 0),
        mode("fast", 100, 40, 0),
        mode("reason", 350, 90, 2),
        mode("deepreason", 600, 180, 2),
    ]
}

/// The model of an engine, which is woken for each answer.
pub struct Sleeper {
    engine: Engine,
}

impl Sleeper {
    /// Returns the model of an engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

impl Source for Sleeper {
    fn ready<'a>(&'a self, tell: &'a (dyn Fn(String) + Send + Sync)) -> BoxFuture<'a, Result<Ready, Refused>> {
        async move {
            let lease = self.engine.wake(tell).await.map_err(|why| Refused(why.to_string()))?;
            Ok(Ready { model: lease.model.clone(), label: lease.label.clone(), guard: Box::new(lease) })
        }
        .boxed()
    }

    fn sees(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::engine::LONGEST_ANSWER;

    #[test]
    fn no_mode_asks_for_more_than_the_server_gives() {
        for mode in modes() {
            assert!(mode.max_tokens <= LONGEST_ANSWER, "{}", mode.word);
            assert_eq!(mode.history_turns > 0, mode.word.ends_with("reason"), "{}", mode.word);
        }
    }
}
