//! Who may allow what.
//!
//! What cannot be undone (a push, a comment, a host that a sandbox reaches) is decided here, in code: by who spoke in the
//! turn, what the model has read since, what was granted to the room, and what somebody has said yes to. [`decide`] holds
//! the rule and `act` its table; [`Rights`] brings the facts together. The gateway, tools and orders ask; none of them
//! decides by itself. It must not know chat protocols, nor how anything is done.

mod act;
mod asking;
mod card;
mod granted;
mod history;
mod repository;
mod role;
mod task;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use self::card::DETAILS;
pub use self::{
    act::{Act, Subject},
    asking::{Answered, Board},
    granted::{Grant, Lasts},
    history::{Decision, Why},
    repository::Repository,
    role::{Listed, Role, Roles, is_meant},
    task::Task,
};
use self::{
    asking::Desk,
    granted::Granted,
    history::{Cover, History, decide},
    task::Tasks,
};
use crate::{
    audit::{Audit, Deed},
    clock::Lasting,
    ids::{Address, CallId, TurnId, is_at_github},
    store::{CardState, Store, StoreError, StoredCard},
    strings::rights,
};

/// Nobody is asked with less than this part of a question's time, the rest of which went by behind another card.
const LEAST: u32 = 3;

/// Decides what may be done. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Rights {
    inner: Arc<Inner>,
    audit: Audit,
}

struct Inner {
    store: Store,
    roles: Roles,
    time: Lasting,
    granted: Granted,
    /// What rooms are for.
    tasks: Tasks,
    /// The turn that is open in each room.
    turns: Mutex<HashMap<Address, TurnNow>>,
    desk: Desk,
}

/// A turn that is open.
struct TurnNow {
    turn: TurnId,
    /// The calls that run, each with what it does in a line.
    calls: Vec<(CallId, String)>,
}

/// A question: may this be done?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Names it within its turn; the same when it is asked again after a crash: a call's id, a host.
    pub key: String,
    /// What is to be done.
    pub act: Act,
    /// The same in one line that people read, with all that a yes is about: a push with its commits and its size.
    pub what: String,
    /// Who wants it and what for, in one line: a command, an agent.
    pub why: String,
    /// What a yes is about in more lines, which are shown as a quotation; empty if `what` says all.
    pub details: String,
    /// Who of those that may answer may do so.
    pub answerer: Answerer,
    /// Whether it is what the room's task is for ([`Task`]).
    pub for_task: bool,
}

/// Who of those that may answer a question may do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// Each of them.
    #[default]
    Anybody,
    /// Who has spoken in the turn.
    Asker,
    /// Who has not.
    Another,
}

/// Why something is not done. `Display` is a sentence for the model, and for whoever reads what the sandbox prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody has spoken in the turn who may not ask for it.
    #[error("{}", rights::not_for_guests(.0))]
    Asker(String),
    /// No turn is open, so nobody asks for it.
    #[error("{}", rights::nobody_asks(.0))]
    NobodyAsks(String),
    /// Somebody has to say yes, and cannot be asked now.
    #[error("{}", rights::unasked(.0))]
    Unasked(String),
    /// Somebody was asked and said no.
    #[error("{}", rights::refused(.0))]
    Denied(String),
    /// Nobody has answered in time.
    #[error("{}", rights::unanswered(.0))]
    Unanswered(String),
    /// It was stopped before anybody answered.
    #[error("{}", rights::stopped(.0))]
    Stopped(String),
    /// Somebody lesser has spoken after the yes.
    #[error("{}", rights::overtaken(.0))]
    Overtaken(String),
    /// The facts cannot be read.
    #[error("{}", rights::UNKNOWN)]
    Unknown,
}

/// A turn that is open, as long as this lives; what was granted for it ends with it.
pub struct OpenTurn {
    rights: Rights,
    at: Address,
    turn: TurnId,
}

/// A call that runs, as long as this lives.
pub struct RunningCall {
    rights: Rights,
    at: Address,
    call: CallId,
}

impl Rights {
    /// Returns the rights of a store, of whose grants none counts before [`Rights::load`].
    pub fn new(store: Store, roles: Roles) -> Self {
        let time = store.lasting().clone();
        let (granted, tasks, turns, desk) = (Granted::default(), Tasks::default(), Mutex::default(), Desk::default());
        let inner = Arc::new(Inner { store, roles, time, granted, tasks, turns, desk });
        Self { inner, audit: Audit::default() }
    }

    /// Reads what was granted before. What has ended meanwhile is deleted.
    pub async fn load(&self) -> Result<(), StoreError> {
        let Inner { store, time, granted, tasks, .. } = &*self.inner;
        store.end_grants(time.now()).await?;
        granted.load(store.grants().await?);
        tasks.load(store.tasks().await?);
        Ok(())
    }

    /// Returns who is who.
    pub fn roles(&self) -> &Roles {
        &self.inner.roles
    }

    /// Notes that a turn is open in a room until the returned value is dropped.
    #[must_use]
    pub fn begin(&self, at: &Address, turn: &TurnId) -> OpenTurn {
        self.turns().insert(at.clone(), TurnNow { turn: turn.clone(), calls: vec![] });
        OpenTurn { rights: self.clone(), at: at.clone(), turn: turn.clone() }
    }

    /// Returns whether a grant covers an act. Waits for nothing.
    pub fn covers(&self, at: &Address, act: &Act) -> bool {
        self.cover(at, act).act
    }

    fn cover(&self, at: &Address, act: &Act) -> Cover {
        act.subject().map_or_else(Cover::default, |subject| {
            let open = self.turns().get(at).map(|now| now.turn.clone());
            self.inner.granted.cover(at, &subject, act.writes(), self.inner.time.now(), open.as_ref())
        })
    }

    /// Returns the same, noting deeds in a log.
    #[must_use]
    pub(crate) fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Notes what was done in a room, with the turn that is open there.
    pub(crate) fn note(&self, at: &Address, deed: Deed) {
        let turn = self.turns().get(at).map(|now| now.turn.to_string()).unwrap_or_default();
        self.audit.note(Deed { room: at.to_string(), turn, ..deed });
    }

    /// Notes that a call of the room's turn runs, and what it does, until the returned value is dropped.
    #[must_use]
    pub fn begin_call(&self, at: &Address, call: &CallId, line: String) -> RunningCall {
        if let Some(now) = self.turns().get_mut(at) {
            now.calls.push((call.clone(), line));
        }
        RunningCall { rights: self.clone(), at: at.clone(), call: call.clone() }
    }

    /// Returns what runs in a room's turn, in a line.
    pub fn running(&self, at: &Address) -> String {
        let turns = self.turns();
        let calls = turns.get(at).into_iter().flat_map(|now| &now.calls);
        calls.map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Decides about an act in a room, by the turn that is open there; nobody is asked.
    pub async fn check(&self, at: &Address, act: &Act) -> Result<Decision, StoreError> {
        let turn = self.turn_at(at).await?;
        self.decided(at, turn.as_ref(), act, false, None).await
    }

    /// Returns `Ok` when something may be done now, after asking a person if need be, for `limit` at most.
    ///
    /// # Errors
    ///
    /// It may not be done, and the sentence says why.
    pub async fn permit(
        &self,
        at: &Address,
        question: Question,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        self.permitted(at, question, limit, cancel).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a right cannot be checked");
            Err(Refusal::Unknown)
        })
    }

    async fn permitted(
        &self,
        at: &Address,
        question: Question,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let deadline = Instant::now() + limit;
        let mut place = None;
        loop {
            let turn = self.turn_at(at).await?;
            let card = match &turn {
                Some(turn) => self.asked(at, turn, &question).await?,
                None => None,
            };
            let state = card.as_ref().map(|card| card.state);
            let what = || question.what.clone();
            let decided = self.decided(at, turn.as_ref(), &question.act, question.for_task, card).await?;
            let needed = match (decided, state) {
                (Decision::Allowed, _) => return Ok(Ok(())),
                (Decision::Refused(Why::Asker(_)), _) => return Ok(Err(Refusal::Asker(what()))),
                (Decision::Refused(Why::NobodyAsks), _) => return Ok(Err(Refusal::NobodyAsks(what()))),
                (Decision::Ask(_), Some(CardState::Yes)) => return Ok(Err(Refusal::Overtaken(what()))),
                (Decision::Ask(_), Some(CardState::No)) => return Ok(Err(Refusal::Denied(what()))),
                (Decision::Ask(_), Some(CardState::Expired)) => return Ok(Err(Refusal::Unanswered(what()))),
                (Decision::Ask(_), Some(CardState::Withdrawn)) => return Ok(Err(Refusal::Stopped(what()))),
                (Decision::Ask(needed), Some(CardState::Open) | None) => needed,
            };
            if cancel.is_cancelled() {
                return Ok(Err(Refusal::Stopped(what())));
            }
            if place.is_none() {
                // One card at a time; what it was about may be allowed when it has ended.
                let free = timeout_at(deadline, self.place(at).acquire_owned());
                place = match cancel.run_until_cancelled(free).await {
                    None => return Ok(Err(Refusal::Stopped(what()))),
                    Some(Ok(Ok(place))) => Some(place),
                    Some(Ok(Err(_)) | Err(_)) => return Ok(Err(Refusal::Unanswered(what()))),
                };
                continue;
            }
            let Some(turn) = turn else { return Ok(Err(Refusal::NobodyAsks(what()))) };
            let left = deadline.saturating_duration_since(Instant::now());
            // Nobody could answer it in so short a time; it may be asked later.
            if left < limit / LEAST {
                return Ok(Err(Refusal::Unasked(what())));
            }
            if self.ask(at, &turn, &question, needed, left, cancel).await? == CardState::Open {
                return Ok(Err(Refusal::Unasked(what())));
            }
        }
    }

    /// Returns the turn that is open in a room: after a crash, also one that is not taken up yet.
    async fn turn_at(&self, at: &Address) -> Result<Option<TurnId>, StoreError> {
        let here = self.turns().get(at).map(|now| now.turn.clone());
        Ok(match here {
            Some(turn) => Some(turn),
            None => self.inner.store.open_turns(at).await?.into_iter().next().map(|open| open.turn),
        })
    }

    async fn decided(
        &self,
        at: &Address,
        turn: Option<&TurnId>,
        act: &Act,
        for_task: bool,
        card: Option<StoredCard>,
    ) -> Result<Decision, StoreError> {
        let history = match turn {
            Some(turn) => self.history(at, turn, card).await?,
            None => History::default(),
        };
        let mut cover = self.cover(at, act);
        if let Some(task) = self.task(at) {
            if matches!(act, Act::Grant | Act::SelfUpdate) {
                return Ok(Decision::Refused(Why::Asker(Role::Admin)));
            }
            // Whoever labelled the issue has said yes to this.
            cover.act |= for_task && turn.is_some() && task.is_about(act);
        }
        Ok(decide(&history, act, cover, self.inner.roles.grantor(at)))
    }

    /// Returns who has spoken in a turn, whether its model has read anything else, and who has said yes by a card.
    async fn history(&self, at: &Address, turn: &TurnId, card: Option<StoredCard>) -> Result<History, StoreError> {
        let mut history = History::default();
        let mut yes = card.filter(|card| card.state == CardState::Yes).and_then(|card| card.by.zip(card.closed));
        if self.inner.store.has_read_more(at, turn).await? {
            history.read_outside();
        }
        for said in self.inner.store.claimed(turn).await? {
            if let Some((by, _)) = yes.take_if(|(_, closed)| *closed <= said.received) {
                history.confirmed(self.inner.roles.of(at, &by));
            }
            history.spoke(self.inner.roles.of(at, &said.sender));
            // Somebody's words come along with it: those of the message to which it replies, or a file's. What is written at
            // GitHub is nobody's word here.
            if said.body["about"].is_string() || said.body["kind"] == "file" || is_at_github(&said.sender) {
                history.read_outside();
            }
        }
        if let Some((by, _)) = yes {
            history.confirmed(self.inner.roles.of(at, &by));
        }
        Ok(history)
    }

    /// Grants something to a room. Whether somebody may is the caller's to ask: [`Roles::grantor`].
    pub async fn grant(
        &self,
        at: &Address,
        subject: Subject,
        writes: bool,
        by: &str,
        lasts: Lasts,
    ) -> Result<Grant, StoreError> {
        let now = self.inner.time.now();
        let grant = Grant::new(subject, writes, by, now, lasts);
        self.inner.store.grant(grant.stored(at), now).await?;
        self.inner.granted.add(at, grant.clone(), now);
        tracing::info!(%by, what = %grant.subject, writes, until = ?grant.until, "something is granted to the room");
        let outcome = if writes { "granted, to write" } else { "granted" };
        self.note(at, Deed::new("grant", grant.subject.to_string(), outcome).by(by));
        Ok(grant)
    }

    /// Takes back what was granted to a room: all about `subject`, or all. Returns how many grants there were.
    pub async fn revoke(&self, at: &Address, subject: Option<&Subject>) -> Result<usize, StoreError> {
        let about = subject.map_or_else(|| "all".to_owned(), ToString::to_string);
        self.note(at, Deed::new("grant", about, "revoked"));
        // In memory first, so that none is in force that is gone from the store.
        self.inner.granted.remove(at, |grant| subject.is_none_or(|subject| grant.subject == *subject));
        self.inner.store.revoke(at, subject.map(granted::names)).await
    }

    /// Returns what is granted to a room, with the time that each has left, if it ends by time.
    pub fn granted(&self, at: &Address) -> Vec<(Grant, Option<Duration>)> {
        let now = self.inner.time.now();
        let left = |until: i64| Duration::from_millis(until.saturating_sub(now).max(0) as u64);
        let open = self.turns().get(at).map(|now| now.turn.clone());
        let all = self.inner.granted.of(at, now, open.as_ref()).into_iter();
        all.map(|grant| (grant.until.map(left), grant)).map(|(left, grant)| (grant, left)).collect()
    }

    /// Returns the rooms to which something is granted, in their order.
    pub(crate) fn rooms_with_grants(&self) -> Vec<Address> {
        let mut rooms = self.inner.granted.rooms();
        rooms.retain(|at| !self.granted(at).is_empty());
        rooms.sort_by_cached_key(ToString::to_string);
        rooms
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<Address, TurnNow>> {
        self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenTurn {
    /// Ends the cards of a turn that has ended for good: nobody needs their answers.
    pub async fn ended(self) {
        self.rights.withdraw(&self.at, &self.turn).await;
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if let Some(now) = self.rights.turns().get_mut(&self.at) {
            now.calls.retain(|(call, _)| *call != self.call);
        }
    }
}

impl Drop for OpenTurn {
    fn drop(&mut self) {
        let Self { rights, at, turn } = self;
        let mut turns = rights.turns();
        if turns.get(at).is_some_and(|now| now.turn == *turn) {
            turns.remove(at);
        }
        drop(turns);
        // The store's rows go at the next start, and by then no turn of this name is open.
        rights.inner.granted.remove(at, |grant| grant.turn.as_ref() == Some(turn));
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights").field("roles", &self.inner.roles).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
