//! Small bots, as anybody could write one: they answer with what they were told.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use matrix_agent::{
    bots::{
        Bot, Enclosure, Ending, Intent, Order, Outcome, People, Permits, Places, Policy, Progress, Said, SentFile,
        Taken, TurnJob, Upload, UserMessage,
    },
    ids::{Address, BotName},
    store::Store,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// A bot that repeats what it was told.
pub(super) struct Small {
    name: BotName,
    policy: Policy,
    permits: Permits,
    store: Store,
    /// What a message means to it.
    means: fn(&str) -> Option<Intent>,
    /// It panics over the next message that it is asked about.
    panics: AtomicBool,
}

impl Small {
    pub(super) fn new(name: &str, people: People, store: &Store, means: fn(&str) -> Option<Intent>) -> Self {
        let policy = Policy::new(people, Places::Anywhere);
        let permits = Permits::new(2);
        Self { name: name.into(), policy, permits, store: store.clone(), means, panics: AtomicBool::new(false) }
    }

    /// Lets it panic over the next message.
    pub(super) fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    /// What it was told in this turn, as its conversation has it.
    async fn told(&self, job: &TurnJob) -> Vec<String> {
        let history = self.store.history(&job.at).await.unwrap();
        let own = history.iter().filter(|entry| entry.turn.as_ref() == Some(&job.turn));
        own.filter_map(|entry| Some(entry.message["told"].as_str()?.to_owned())).collect()
    }

    async fn work(&self, mut job: TurnJob) -> Outcome {
        // Who is told to wait does so until somebody says something else.
        if self.told(&job).await.iter().any(|told| told.contains("wait")) {
            tokio::select! {
                () = job.stop.cancelled() => return Outcome::plain(Ending::Stopped, "Stopped."),
                said = job.steering.recv() => if let Some(said) = said {
                    let (address, event) = (&job.at.address, said.event.clone());
                    self.store.steer_turn(address, &job.turn, event.clone(), self.line(&said)).await.unwrap();
                    job.progress.send(Progress::Seen(event)).await.unwrap();
                },
            }
        }
        // Who asks a deaf bot can only change the question while it is answered.
        if self.told(&job).await.iter().any(|told| told.starts_with("deaf")) {
            while job.steering.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        let mut text = format!("{} heard: {}", self.name, self.told(&job).await.join(" + "));
        if text.contains("send a file") {
            let (stored, taken) = oneshot::channel();
            let (name, mime, data) = ("a.txt".to_owned(), "text/plain".to_owned(), Bytes::from_static(b"text"));
            let (key, enclosure) = ("file".to_owned(), Enclosure::File { name, mime, data });
            job.progress.send(Progress::Enclosure { key, enclosure, stored }).await.unwrap();
            if taken.await == Ok(Taken::NotHere) {
                text.push_str(" (no files here)");
            }
        }
        Outcome { line: Some(json!({ "answered": text })), ..Outcome::plain(Ending::Done, text) }
    }
}

impl Bot for Small {
    fn name(&self) -> &BotName {
        &self.name
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn owns_sandbox(&self) -> bool {
        false
    }

    fn intent(&self, said: &Said<'_>) -> Option<Intent> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "it was told to panic");
        (self.means)(said.text)
    }

    fn greeting(&self) -> Option<String> {
        Some(format!("{} is here.", self.name))
    }

    fn line(&self, message: &UserMessage) -> Value {
        json!({ "told": message.text })
    }

    fn stopped(&self) -> Outcome {
        Outcome::plain(Ending::Stopped, "Stopped.")
    }

    fn turn(&self, job: TurnJob) -> BoxFuture<'_, Option<Outcome>> {
        async move {
            // Nobody has told it to; the room must not wait for ever.
            if self.told(&job).await.iter().any(|told| told.contains("give up")) {
                return None;
            }
            let abandon = job.abandon.clone();
            abandon.run_until_cancelled(self.work(job)).await
        }
        .boxed()
    }

    fn meanwhile(&self, order: &Order) -> Option<String> {
        order.text.starts_with("slow").then(|| "It takes a while.".to_owned())
    }

    fn carry_out(&self, order: Order) -> BoxFuture<'_, String> {
        async move { format!("{} did: {}", self.name, order.text) }.boxed()
    }

    fn keep_file<'a>(&'a self, _: &'a Address, sent: &'a SentFile, _: Bytes) -> BoxFuture<'a, Result<Upload, String>> {
        let kept =
            Upload { path: sent.name.clone(), text: format!("file {}", sent.name), picture: None, unshown: None };
        async move { Ok(kept) }.boxed()
    }

    fn left_running<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Option<String>> {
        async { None }.boxed()
    }

    fn let_go<'a>(&'a self, _: &'a Address, _: bool) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}
