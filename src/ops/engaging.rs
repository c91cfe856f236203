//! Lets exobot speak up by itself, where that is enabled: looks at its rooms now and then, and asks its model when the rules
//! say so.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time;

use crate::{
    bots::{
        Policy,
        chat::Source,
        exobot::{self, Crossing, Enabled, Engagement, Lately, Next, Said},
    },
    hub::{AccountHub, Heard},
    ids::{self, RoomKey},
    llm::{Chunk, Message, Meter},
    store::StoreError,
};

/// How often its rooms are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The newest events of a room that are looked at.
const EVENTS: usize = 100;
/// The most tokens of what it says, and how long that may take.
const TOKENS: u64 = 100;
const TIME: Duration = Duration::from_mins(1);

/// What it needs to speak up.
pub(super) struct Speaker {
    hub: AccountHub,
    source: Arc<dyn Source>,
    policy: Policy,
    enabled: Enabled,
    /// The conversations with other bots. None outlives the program: it is no loss.
    crossings: HashMap<RoomKey, Crossing>,
}

impl Speaker {
    /// Returns one that says what a source's model does, in the rooms of an account.
    pub(super) fn new(hub: AccountHub, source: Arc<dyn Source>, policy: Policy, enabled: Enabled) -> Self {
        Self { hub, source, policy, enabled, crossings: HashMap::new() }
    }

    /// Looks at its rooms until it is dropped.
    pub(super) async fn run(mut self) {
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let rooms = match self.hub.rooms().await {
                Ok(rooms) => rooms,
                Err(error) => {
                    tracing::warn!(%error, "exobot's rooms cannot be looked at");
                    continue;
                }
            };
            // One after another: it has one model, and these can wait.
            for room in rooms {
                if !self.is_allowed(&room) {
                    continue;
                }
                if let Err(error) = self.look_at(&room).await {
                    tracing::warn!(%error, "a room cannot be looked at");
                }
            }
        }
    }

    /// Returns whether a room in which it is, is listed. Where aliases lead is not known here, so that with one the account's
    /// own care, which leaves rooms that are not listed, has to do.
    fn is_allowed(&self, room: &RoomKey) -> bool {
        self.policy.opens(room.as_str(), &[room.as_str()])
    }

    async fn look_at(&mut self, room: &RoomKey) -> Result<(), StoreError> {
        let now = self.hub.clock().millis();
        let heard = self.hub.heard_lately(room, EVENTS).await?;
        let people: Vec<_> = heard.iter().filter(|heard| self.policy.hears(&heard.sender)).map(said).collect();
        let bots: Vec<_> = heard.iter().filter(|heard| self.policy.overhears(&heard.sender)).map(said).collect();
        if let Some(mut crossing) = self.crossings.remove(room) {
            match crossing.next(&bots, &people, now) {
                Next::Wait => drop(self.crossings.insert(room.clone(), crossing)),
                Next::Answer => return self.cross(room, crossing).await,
                Next::Over => tracing::info!(room = room.as_str(), "exobot's conversation with another bot is over"),
            }
            return Ok(());
        }
        let lately = self.lately(room, now).await?;
        if let Some(why) = exobot::due(self.enabled, &people, lately, now) {
            // Before the model is asked, so that a model that fails is not asked again and again.
            for what in [name(why), SPOKE] {
                self.hub.note(&key(what, room), &now.to_string()).await?;
            }
            let Some(words) = self.words(&exobot::request(why, &people)).await else { return Ok(()) };
            tracing::info!(?why, room = room.as_str(), "exobot speaks up");
            return self.hub.tell(room, ids::random(16), words).await;
        }
        let crossed = if self.enabled.cross { self.noted(CROSSED, room).await? } else { return Ok(()) };
        let Some(partner) = exobot::partner(&bots, &people, crossed, now) else { return Ok(()) };
        self.hub.note(&key(CROSSED, room), &now.to_string()).await?;
        tracing::info!(partner, room = room.as_str(), "exobot begins a conversation with another bot");
        self.cross(room, Crossing::new(partner, now)).await
    }

    /// Says the next thing to another bot, if the model has something to say.
    async fn cross(&mut self, room: &RoomKey, mut crossing: Crossing) -> Result<(), StoreError> {
        let words = self.words(&crossing.request()).await;
        // The model has taken its time.
        let now = self.hub.clock().millis();
        let Some(words) = words.and_then(|words| crossing.say(&words, now)) else { return Ok(()) };
        let partner = crossing.partner.clone();
        self.crossings.insert(room.clone(), crossing);
        self.hub.call(room, ids::random(16), words, partner).await
    }

    /// Asks the model; returns what it has to say.
    async fn words(&self, request: &[Message]) -> Option<String> {
        let ready = self.source.ready(&|_| {}).await;
        let ready = ready.map_err(|why| tracing::info!("exobot does not speak up: {why}")).ok()?;
        let (meter, mut ignore) = (Meter::new(1), |_: Chunk| {});
        let asking = ready.model.complete(request, &[], Some(TOKENS), &meter, &mut ignore);
        match time::timeout(TIME, asking).await {
            Ok(Ok(answer)) => exobot::spoken(&answer.message.text).map(str::to_owned),
            Ok(Err(error)) => {
                tracing::info!(%error, "exobot does not speak up");
                None
            }
            Err(_) => None,
        }
    }

    /// Returns what it did in a room before. A room that it sees for the first time is noted.
    async fn lately(&self, room: &RoomKey, now: i64) -> Result<Lately, StoreError> {
        let spoke = if let Some(spoke) = self.noted(SPOKE, room).await? {
            spoke
        } else {
            self.hub.note(&key(SPOKE, room), &now.to_string()).await?;
            now
        };
        Ok(Lately {
            interjected: self.noted(name(Engagement::Interject), room).await?,
            seeded: self.noted(name(Engagement::Seed), room).await?.unwrap_or(spoke),
            revived: self.noted(name(Engagement::Revive), room).await?,
            spoke,
        })
    }

    async fn noted(&self, what: &str, room: &RoomKey) -> Result<Option<i64>, StoreError> {
        let noted = self.hub.noted(&key(what, room)).await?;
        Ok(noted.and_then(|at| at.parse().ok()))
    }
}

/// Notes when it spoke up to people.
const SPOKE: &str = "spoke";
/// Notes when it began to talk with another bot.
const CROSSED: &str = "cross";

fn said(heard: &Heard) -> Said<'_> {
    Said { sender: &heard.sender, text: &heard.text, at: heard.at }
}

fn name(why: Engagement) -> &'static str {
    match why {
        Engagement::Interject => "interject",
        Engagement::Seed => "seed",
        Engagement::Revive => "revive",
    }
}

fn key(what: &str, room: &RoomKey) -> String {
    format!("exobot/{what}/{}", room.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, http::header::CONTENT_TYPE, routing::post};
    use serde_json::json;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        bots::{
            People, Places,
            chat::{ChatBot, Fixed, Means, Settings},
        },
        clock::Clock,
        hub::{Account, Body, Delivery, Features, Inbound, Inbox, Keeper, Outbound, Port, Retention, Rooms, Sent},
        ids::EventId,
        llm::{Model, ModelSettings},
        pictures::Gallery,
        store::{Durability, Store},
    };

    const ROOMS: Rooms = Rooms {
        prefix: "!",
        local: false,
        features: Features { edits: true, files: false, threads: false, reactions: false, rooms: false },
    };
    const LIMIT: Duration = Duration::from_secs(20);
    const ROOM: &str = "!one:a.org";
    const BOT: &str = "@qwen:a.org";

    /// Returns a model that says these words one after another, again and again.
    async fn model(words: &'static [&'static str]) -> Model {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let next = Arc::new(AtomicUsize::new(0));
        let answer = move || {
            let words = words[next.fetch_add(1, Ordering::Relaxed) % words.len()];
            let chunk = json!({"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": "stop"}]});
            async move {
                (
                    [(CONTENT_TYPE, "text/event-stream")],
                    format!(
                        "data: {chunk}

data: [DONE]

"
                    ),
                )
            }
        };
        let app = Router::new().route("/v1/chat/completions", post(answer));
        tokio::spawn(axum::serve(listener, app).into_future());
        Model::new(ModelSettings { base_url: Some(url), ..ModelSettings::new("llama-cpp/tiny", "key".into()) }).unwrap()
    }

    /// exobot's account in one room.
    struct Desk {
        speaker: Speaker,
        inbox: Inbox,
        clock: Clock,
        tasks: TaskTracker,
        cancel: CancellationToken,
        events: u32,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        async fn open(enabled: Enabled, words: &'static [&'static str]) -> Self {
            let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(1_800_000_000_000));
            let store = Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap();
            let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
            let gallery = Gallery::new(folder.path().join("pictures"));
            let retention = Retention { files: LIMIT, rows: Duration::from_hours(1_000) };
            let neighbours = crate::bots::Neighbours::default();
            let means = Means { store: store.clone(), gallery: gallery.clone(), neighbours };
            let keeper =
                Keeper::start(store.clone(), None, gallery, retention, tasks.clone(), cancel.clone()).await.unwrap();
            let bots = vec![BOT.to_owned()];
            let anywhere = Policy::new(People::Everybody, Places::Anywhere);
            let policy = Policy { ignored: bots.clone(), overheard: bots, ..anywhere };
            let source: Arc<dyn Source> = Arc::new(Fixed::new(model(words).await, "tiny"));
            let bot = ChatBot::new(Settings::new("exobot", policy.clone(), "exobot"), Arc::clone(&source), means);
            let (port, inbox) = Port::new(ROOMS, 16);
            let account = Account { name: "exobot".into(), bots: vec![Arc::new(bot)], ports: vec![port], rights: None };
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await.unwrap();
            hub.joined(&ROOM.into(), &"$joined".into(), false).await.unwrap();
            let speaker = Speaker::new(hub, source, policy, enabled);
            Self { speaker, inbox, clock, tasks, cancel, events: 0, _folder: folder }
        }

        async fn say(&mut self, sender: &str, text: &str) {
            self.events += 1;
            let (event, body) = (EventId(format!("${}", self.events)), Body::said(text));
            let inbound = Inbound { room: ROOM.into(), event, sender: sender.into(), body, sealed: None };
            self.speaker.hub.admit(vec![inbound], None).await.unwrap();
        }

        /// Looks at the room after so many seconds; returns whether a conversation goes on then.
        async fn after(&mut self, seconds: i64) -> bool {
            self.clock.advance(seconds * 1_000);
            self.speaker.look_at(&ROOM.into()).await.unwrap();
            self.speaker.crossings.contains_key(&ROOM.into())
        }

        /// Returns what it says next.
        async fn next(&mut self) -> Outbound {
            let delivery = time::timeout(LIMIT, self.inbox.deliveries.recv()).await.expect("a delivery").unwrap();
            let Delivery { txn, outbound, done, .. } = delivery;
            let (noted, _) = tokio::sync::oneshot::channel();
            done.send(Ok(Sent { event: EventId(txn), noted })).unwrap();
            outbound
        }

        /// Ends it; nothing more was to be said.
        async fn end(mut self) {
            self.cancel.cancel();
            self.tasks.close();
            time::timeout(LIMIT, self.tasks.wait()).await.expect("all tasks end");
            assert!(self.inbox.deliveries.try_recv().is_err());
        }
    }

    #[tokio::test]
    async fn it_talks_with_another_bot_for_three_rounds_and_again_six_hours_later() {
        let words =
            &["What colour is best?", "Why is red the best one?", "I see. Thank you, friend!", "And which shape?"];
        let mut desk = Desk::open(Enabled { cross: true, ..Enabled::default() }, words).await;
        assert!(!desk.after(0).await, "there is no other bot");
        desk.say(BOT, "I am here, exobot.").await;
        assert!(desk.after(1).await);
        for (round, answer) in ["Red is.", "It is warm.", "You are welcome."].into_iter().enumerate() {
            let Outbound::Notice { text, card: Some(card) } = desk.next().await else {
                panic!("it calls the other bot")
            };
            assert_eq!(card.calls.as_deref(), Some(BOT));
            assert_eq!(text, format!("[@qwen:a.org](https://matrix.to/#/@qwen:a.org): {}", words[round]));
            assert!(desk.after(1).await);
            desk.say(BOT, &format!("@exobot: {answer}")).await;
            assert!(desk.after(58).await, "it waits");
            assert_eq!(desk.after(1).await, round < 2, "{round}");
        }
        assert!(!desk.after(6 * 3_600 - 181).await);
        assert!(desk.after(1).await, "six hours after the first");
        assert!(matches!(desk.next().await, Outbound::Notice { card: Some(_), .. }));
        assert!(!desk.after(60).await, "there was no answer");
        desk.end().await;
    }

    #[tokio::test]
    async fn all_is_off_and_a_bot_that_calls_it_is_not_answered() {
        let mut desk = Desk::open(Enabled::default(), &["Hello."]).await;
        desk.say(BOT, "exobot: hello?").await;
        for _ in 0..10 {
            assert!(!desk.after(24 * 3_600).await);
        }
        desk.say("@anna:a.org", "exobot: hello?").await;
        let answer = desk.next().await;
        assert!(matches!(&answer, Outbound::Answer { sender, .. } if sender == "@anna:a.org"), "{answer:?}");
        desk.end().await;
    }

    #[tokio::test]
    async fn it_puts_a_word_in_where_people_talk() {
        let mut desk = Desk::open(Enabled { interject: true, ..Enabled::default() }, &["A word."]).await;
        // What was said before it first looked is none of its business.
        desk.say("@bert:a.org", "zero").await;
        desk.after(1).await;
        for (sender, words) in [("@anna:a.org", "one"), (BOT, "two"), ("@bert:a.org", "three")] {
            desk.after(1).await;
            desk.say(sender, words).await;
        }
        desk.after(1).await;
        desk.say("@anna:a.org", "a third message of people").await;
        desk.after(1).await;
        assert!(matches!(desk.next().await, Outbound::Notice { card: None, .. }));
        desk.end().await;
    }
}
