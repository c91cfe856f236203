//! The ledger: whoever asks a model reserves tokens first, and settles what was used.
//!
//! Both who ask come here, the orchestrator and, for coding agents, the gateway's door to models. A request holds the
//! most that it may use (its prompt, and the longest answer), against the day of its room and of the person whose
//! message it serves. It goes out while there is anything left beside what others hold, so that however many are sent
//! at once, a limit is passed by what one of them holds and no more. The store keeps what is held and what was used,
//! across a crash. Each request reserves by itself, so one to another model, after a fallback, is checked anew.
//!
//! A day is UTC's. Money is only shown: what was used, at the prices that the operator has set. It must not know protocols,
//! nor what a turn or an agent is.

mod price;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

pub(crate) use self::price::{Cost, Prices};
pub use crate::store::{DayLimits, Tokens};
pub(crate) use crate::store::{DaySums, ORCHESTRATOR, Spender, Spending, Whose};
use crate::{
    ids::Address,
    metrics::{self, AGENTS, Use},
    store::{Store, StoreError, Verdict},
    strings::budgets,
    text,
};

/// Bytes of text that a token takes, roughly; only where nobody has counted.
pub const BYTES_PER_TOKEN: u64 = 4;
/// Tokens that are held for an answer whose length nobody has bounded.
const USUAL_ANSWER: u64 = 16_384;
/// The most tokens that are held for an answer: no model gives a longer one, and a larger bound must not keep others
/// waiting.
const LONGEST_ANSWER: u64 = 131_072;
/// How long a request waits for others to be settled, where what they hold may be all that is left.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most rooms whose warnings are kept until a turn there ends.
const ROOMS: usize = 1000;

/// What the operator has set.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// How many tokens a day has.
    pub limits: DayLimits,
    /// What models cost.
    pub prices: Prices,
    /// Who may allow more, as people are told.
    pub admins: Vec<String>,
}

/// The ledger. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rules: Rules,
    /// Warnings that were not put under an answer yet.
    warnings: Mutex<HashMap<Address, Vec<String>>>,
}

/// Why a request is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The day's tokens are used up. The sentence says whose, until when, and who may allow more.
    #[error("{0}")]
    Over(String),
    /// Requests under way may use all that is left, and go on for long.
    #[error("{0}")]
    Busy(String),
    /// The store could not count the tokens.
    #[error("{}", budgets::UNCOUNTED)]
    Uncounted,
}

impl Ledger {
    /// Returns the ledger of a store.
    pub fn new(store: Store, rules: Rules) -> Self {
        AGENTS.add(ORCHESTRATOR);
        Self { inner: Arc::new(Inner { store, rules, warnings: Mutex::default() }) }
    }

    /// Returns the store in which it counts.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Returns what the operator has set.
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// Reserves tokens for a request: `asked` for its prompt, as far as they can be told before, and as many as its answer
    /// may have, where that is bounded. It waits a while where requests under way may use all that is left.
    ///
    /// # Errors
    ///
    /// The day's tokens are used up, or cannot be counted.
    pub async fn reserve(&self, spender: Spender, asked: u64, answer: Option<u64>) -> Result<Reservation, Refused> {
        let most = asked.saturating_add(answer.unwrap_or(USUAL_ANSWER).min(LONGEST_ANSWER));
        let mut waited_for = None;
        let holding = async {
            loop {
                // Listening before it asks, it misses none that is settled in between.
                let mut settled = std::pin::pin!(self.inner.store.settled().notified());
                settled.as_mut().enable();
                let verdict = self.inner.store.hold(spender.clone(), self.inner.rules.limits, asked, most).await;
                match verdict {
                    Ok(Verdict::Held { id, near }) => return Ok(self.held(&spender, id, asked, near)),
                    Ok(Verdict::Over(whose, limit)) => return Err(Refused::Over(self.over(&spender, whose, limit))),
                    Ok(Verdict::Wait(whose, limit)) => waited_for = Some((whose, limit)),
                    Err(error) => {
                        tracing::warn!(%error, "tokens cannot be counted, so no request is sent");
                        return Err(Refused::Uncounted);
                    }
                }
                settled.await;
            }
        };
        let held = timeout(PATIENCE, holding).await;
        held.unwrap_or_else(|_| {
            let whose = waited_for.map_or(Whose::Room, |(whose, _)| whose);
            Err(Refused::Busy(budgets::busy(whose == Whose::Room)))
        })
    }

    fn held(&self, spender: &Spender, id: i64, asked: u64, near: Vec<(Whose, u64)>) -> Reservation {
        let person = spender.person.as_deref().unwrap_or_default();
        let near = near.into_iter().map(|(whose, limit)| match whose {
            Whose::Room => budgets::room_near(&text::short(limit)),
            Whose::Person => budgets::person_near(person, &text::short(limit)),
        });
        let warnings: Vec<String> = near.collect();
        if !warnings.is_empty() {
            let mut all = self.warnings();
            let known = all.len();
            match all.entry(spender.address.clone()) {
                Entry::Occupied(mut of_room) => of_room.get_mut().extend(warnings.iter().cloned()),
                Entry::Vacant(of_room) if known < ROOMS => drop(of_room.insert(warnings.clone())),
                Entry::Vacant(_) => {}
            }
        }
        let (agent, model) = (spender.agent.clone(), spender.model.clone());
        Reservation { inner: Arc::clone(&self.inner), id: Some(id), agent, model, asked, warnings }
    }

    fn over(&self, spender: &Spender, whose: Whose, limit: u64) -> String {
        // To the minute: nobody waits for it with a stopwatch.
        let left = self.inner.store.clock().left_of_day().as_secs().div_ceil(60);
        let left = text::human_duration(Duration::from_mins(left));
        let (limit, more) = (text::short(limit), text::short(limit.saturating_mul(2)));
        let next = |command: &str| budgets::goes_on(&left, &self.inner.rules.admins, &format!("{command} {more}"));
        match whose {
            Whose::Room => budgets::room_over(&limit, &next("!budget")),
            Whose::Person => {
                let person = spender.person.as_deref().unwrap_or_default();
                budgets::person_over(person, &limit, &next("!budget each"))
            }
        }
    }

    /// Takes the warnings that a room was shown since the last time, to be put under an answer.
    pub fn take_warnings(&self, address: &Address) -> Vec<String> {
        self.warnings().remove(address).unwrap_or_default()
    }

    /// Locks the warnings. No change of them can panic half-way, so a poisoned lock holds a sound table.
    fn warnings(&self) -> MutexGuard<'_, HashMap<Address, Vec<String>>> {
        self.inner.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how a room's day stands, and a person's: what was used and held, each with its limit of today, if it has
    /// one.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn today(&self, address: &Address, person: &str) -> Result<Today, StoreError> {
        let DaySums { room, person } = self.inner.store.day_sums(address, person).await?;
        let limits = self.inner.rules.limits;
        Ok(Today {
            room: Standing { used: room.used, held: room.held, limit: room.allowed.or(limits.room) },
            person: Standing { used: person.used, held: person.held, limit: person.allowed.or(limits.person) },
        })
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

/// How the day of a room and that of a person stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    /// The day of the room.
    pub room: Standing,
    /// The day of the person, over all rooms.
    pub person: Standing,
}

/// How a day stands, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The tokens that were used.
    pub used: u64,
    /// The tokens that are held by requests under way.
    pub held: u64,
    /// The tokens that the day has; `None` if there is no limit.
    pub limit: Option<u64>,
}

/// Tokens that are held for one request. Dropped, it is settled at what was asked: the prompt was read in any case.
#[must_use]
pub struct Reservation {
    inner: Arc<Inner>,
    id: Option<i64>,
    /// Who asks.
    agent: String,
    model: String,
    asked: u64,
    /// What the room is to be told now.
    pub warnings: Vec<String>,
}

impl Reservation {
    /// Counts what was used, and gives back the rest.
    pub fn settle(mut self, tokens: Tokens) {
        self.end(tokens);
    }

    fn end(&mut self, tokens: Tokens) {
        if let Some(id) = self.id.take() {
            let (Tokens { input, cached, output }, Self { agent, model, .. }) = (tokens, &*self);
            let cost = self.inner.rules.prices.cost(model, tokens).dollars();
            metrics::used(Use { agent, model, input, cached, output, cost });
            self.inner.store.settle(id, tokens);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("id", &self.id).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(Tokens { input: self.asked, ..Tokens::default() });
    }
}

#[cfg(test)]
mod tests;
