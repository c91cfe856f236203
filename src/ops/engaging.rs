//! Lets exobot speak up by itself, where that is enabled: looks at its rooms now and then, and asks its model when the rules
//! say so.

use std::time::Duration;

use tokio::time;

use crate::{
    bots::{
        Policy,
        exobot::{self, Enabled, Engagement, Lately, Said},
    },
    hub::AccountHub,
    ids::{self, RoomKey},
    inference::engine::Engine,
    llm::{Chunk, Meter},
    store::StoreError,
};

/// How often its rooms are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// The newest events of a room that are looked at.
const EVENTS: usize = 60;
/// The most tokens of what it says, and how long that may take.
const TOKENS: u64 = 100;
const TIME: Duration = Duration::from_mins(1);

/// What it needs to speak up.
pub(super) struct Speaker {
    pub(super) hub: AccountHub,
    pub(super) engine: Engine,
    pub(super) policy: Policy,
    pub(super) enabled: Enabled,
}

impl Speaker {
    /// Looks at its rooms until it is dropped.
    pub(super) async fn run(self) {
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
            for room in rooms.into_iter().filter(|room| self.is_allowed(room)) {
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

    async fn look_at(&self, room: &RoomKey) -> Result<(), StoreError> {
        let now = self.hub.clock().millis();
        let lately = self.lately(room, now).await?;
        let heard = self.hub.heard_lately(room, EVENTS).await?;
        let heard = heard.iter().filter(|heard| self.policy.hears(&heard.sender));
        let said: Vec<_> = heard.map(|heard| Said { sender: &heard.sender, text: &heard.text, at: heard.at }).collect();
        let Some(why) = exobot::due(self.enabled, &said, lately, now) else { return Ok(()) };
        // Before the model is asked, so that a model that fails is not asked again and again.
        for what in [name(why), SPOKE] {
            self.hub.note(&key(what, room), &now.to_string()).await?;
        }
        match self.words(why, &said).await {
            Some(words) => {
                tracing::info!(?why, room = room.as_str(), "exobot speaks up");
                self.hub.tell(room, ids::random(16), words).await
            }
            None => Ok(()),
        }
    }

    /// Asks the model; returns what it has to say.
    async fn words(&self, why: Engagement, said: &[Said<'_>]) -> Option<String> {
        let lease =
            self.engine.wake(&|_| {}).await.map_err(|why| tracing::info!("exobot does not speak up: {why}")).ok()?;
        let (request, meter) = (exobot::request(why, said), Meter::new(1));
        let mut ignore = |_: Chunk| {};
        let asking = lease.model.complete(&request, &[], Some(TOKENS), &meter, &mut ignore);
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

/// Notes when it spoke up at all.
const SPOKE: &str = "spoke";

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
