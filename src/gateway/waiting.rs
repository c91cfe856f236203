//! What a room is asked while connections wait. Each question is asked once, however many connections wait for its answer, and goes
//! on without them: programs give up and try again long before a person has read it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Link;
use crate::rights::{Question, Rights};

/// Questions of a room that may wait for their answers at a time, and connections that may wait for them.
const MOST: usize = 16;

/// The questions of a room. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// By what they ask for.
    asked: Arc<Mutex<HashMap<String, watch::Receiver<Option<bool>>>>>,
    /// Permits for connections.
    held: Arc<Semaphore>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { asked: Arc::default(), held: Arc::new(Semaphore::new(MOST)) }
    }
}

impl Waiting {
    /// Returns where the answer to a question will be, which `ask` asks unless it is being asked; `None`: too many are.
    fn join<F>(&self, what: &str, cancel: &CancellationToken, ask: F) -> Option<watch::Receiver<Option<bool>>>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let mut asked = self.lock();
        if let Some(answer) = asked.get(what) {
            return Some(answer.clone());
        }
        if asked.len() >= MOST {
            return None;
        }
        let (told, answer) = watch::channel(None);
        asked.insert(what.to_owned(), answer.clone());
        let ended = Ended { waiting: self.clone(), what: what.to_owned() };
        let cancel = cancel.clone();
        // It ends with its question's limit. A server that ends leaves the card open, for the one that comes back.
        tokio::spawn(async move {
            let said = cancel.run_until_cancelled(ask).await;
            drop(ended);
            told.send_replace(Some(said.unwrap_or(false)));
        });
        Some(answer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<bool>>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees a question's place, also if asking panics.
struct Ended {
    waiting: Waiting,
    what: String,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.what);
    }
}

/// Asks a room, and returns whether somebody who may has said yes.
pub(super) async fn permits(link: &Link<'_>, rights: &Rights, question: Question) -> bool {
    let (rights, address, limit) = (rights.clone(), link.address.clone(), link.policy.limits.ask);
    let Ok(_held) = link.slot.waiting.held.try_acquire() else { return false };
    let what = question.what.clone();
    let ask = async move {
        let what = question.what.clone();
        // Nothing withdraws the question but its turn's end: whoever asked may have gone, and come again.
        let permitted = rights.permit(&address, question, limit, &CancellationToken::new()).await;
        if let Err(refusal) = &permitted {
            tracing::info!(room = %address, what, why = ?refusal, "what was asked for stays closed");
        }
        permitted.is_ok()
    };
    let Some(mut answer) = link.slot.waiting.join(&what, link.cancel, ask) else { return false };
    let said = answer.wait_for(Option::is_some).await;
    said.is_ok_and(|said| *said == Some(true))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_question_is_asked_once_and_its_place_is_free_afterwards() {
        let (waiting, cancel) = (Waiting::default(), CancellationToken::new());
        let (say, said) = tokio::sync::oneshot::channel();
        let mut first = waiting.join("a", &cancel, async { said.await.unwrap() }).unwrap();
        drop(first.clone());
        let mut second = waiting.join("a", &cancel, async { panic!("it is asked already") }).unwrap();
        for number in 1..MOST {
            assert!(waiting.join(&number.to_string(), &cancel, pending()).is_some());
        }
        assert!(waiting.join("one more", &cancel, pending()).is_none());
        say.send(true).unwrap();
        for answer in [&mut first, &mut second] {
            assert_eq!(*answer.wait_for(Option::is_some).await.unwrap(), Some(true));
        }
        let mut next = waiting.join("one more", &cancel, pending()).expect("a free place");
        cancel.cancel();
        assert_eq!(*next.wait_for(Option::is_some).await.unwrap(), Some(false));
        let mut panicked =
            Waiting::default().join("a", &CancellationToken::new(), async { panic!("on purpose") }).unwrap();
        assert!(panicked.wait_for(Option::is_some).await.is_err(), "whoever waits is told");
    }
}
