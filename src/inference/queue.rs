//! Who is answered by a server that holds few models at a time: the rules. Does no I/O.
//!
//! Requests for a model that is loaded go at once, so that those for one model go together. One that has to be loaded
//! waits until its victims are idle; once it has waited for [`FAIR`], later requests for these wait behind it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How long later requests for loaded models may go before one that waits for another model.
pub(super) const FAIR: Duration = Duration::from_secs(10);

/// How much a server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Models at a time; 0: any number.
    pub(super) models: usize,
    /// Bytes that they take together; `None`: that is not counted.
    pub(super) bytes: Option<u64>,
}

/// A model as the queue counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    /// Its name at the server.
    pub(super) model: String,
    /// The bytes that it takes; `None`: nobody knows, and it counts as all there are.
    pub(super) bytes: Option<u64>,
    /// Whether it stays loaded.
    pub(super) pinned: bool,
}

#[derive(Debug)]
struct Resident {
    weight: Weight,
    in_use: usize,
    used: Instant,
    /// It is loaded and does not answer: it is to be loaded again before anybody asks it.
    broken: bool,
}

struct Waiting<T> {
    weight: Weight,
    since: Instant,
    who: T,
}

/// A server's queue. `T` is who waits.
pub(super) struct Queue<T> {
    room: Room,
    loaded: Vec<Resident>,
    loading: Option<Weight>,
    waiting: VecDeque<Waiting<T>>,
}

/// A model that is to be loaded now, and those that have to go before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) model: String,
    pub(super) evict: Vec<String>,
}

/// What is to be done now.
pub(super) struct Step<T> {
    /// Who may ask, and which model.
    pub(super) go: Vec<(T, String)>,
    /// Who waits for a model that will never fit beside the pinned ones.
    pub(super) no_room: Vec<T>,
    /// What is to be loaded. The queue counts it as loading until [`Queue::ended`].
    pub(super) load: Option<Load>,
}

/// What a model does, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The model's name at the server.
    pub model: String,
    /// Requests that it answers.
    pub answering: usize,
    /// Requests that wait for it, and for how long the first has.
    pub waiting: Option<(usize, Duration)>,
    /// Whether it is being loaded.
    pub loading: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { room: Room::default(), loaded: vec![], loading: None, waiting: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Takes in what the server says that it has loaded. What is in use stays until it is given back.
    pub(super) fn sync(&mut self, room: Room, loaded: Vec<Weight>, now: Instant) {
        self.room = room;
        if self.loading.is_some() {
            return;
        }
        self.loaded.retain(|known| known.in_use > 0 || loaded.iter().any(|weight| weight.model == known.weight.model));
        for known in &mut self.loaded {
            known.broken |= !loaded.iter().any(|weight| weight.model == known.weight.model);
        }
        for weight in loaded {
            match self.loaded.iter_mut().find(|known| known.weight.model == weight.model) {
                Some(known) => known.weight = weight,
                None => self.loaded.push(Resident { weight, in_use: 0, used: now, broken: false }),
            }
        }
    }

    /// Returns whether a model is being loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    pub(super) fn enter(&mut self, weight: Weight, who: T, now: Instant) {
        self.waiting.push_back(Waiting { weight, since: now, who });
    }

    /// Gives a model back that somebody was allowed to ask.
    pub(super) fn release(&mut self, model: &str, now: Instant) {
        if let Some(known) = self.loaded.iter_mut().find(|known| known.weight.model == model) {
            known.in_use = known.in_use.saturating_sub(1);
            known.used = now;
        }
    }

    /// Notes that a model does not answer although it is loaded.
    pub(super) fn broken(&mut self, model: &str) {
        if let Some(known) = self.loaded.iter_mut().find(|known| known.weight.model == model) {
            known.broken = true;
        }
    }

    /// Notes how a load has ended: with the models that the server holds now, and if it has failed, returns those who
    /// waited for it.
    pub(super) fn ended(&mut self, loaded: bool, brought_back: Option<Weight>, now: Instant) -> Vec<T> {
        let Some(weight) = self.loading.take() else { return vec![] };
        let mut failed = Vec::new();
        if !loaded {
            let (gone, stay): (VecDeque<_>, VecDeque<_>) =
                self.waiting.drain(..).partition(|waiting| waiting.weight.model == weight.model);
            self.waiting = stay;
            failed = gone.into_iter().map(|waiting| waiting.who).collect();
        }
        for weight in loaded.then_some(weight).into_iter().chain(brought_back) {
            self.loaded.retain(|known| known.weight.model != weight.model);
            self.loaded.push(Resident { weight, in_use: 0, used: now, broken: false });
        }
        failed
    }

    /// Returns what is to be done now. `alive` tells who still waits.
    pub(super) fn step(&mut self, now: Instant, alive: impl Fn(&T) -> bool) -> Step<T> {
        self.waiting.retain(|waiting| alive(&waiting.who));
        let mut step = Step { go: vec![], no_room: vec![], load: None };
        let mut stay = VecDeque::new();
        // Models to which nobody goes any more, for the sake of somebody who has waited long.
        let mut closed: Vec<String> = Vec::new();
        let mut first = None;
        for waiting in std::mem::take(&mut self.waiting) {
            let model = &waiting.weight.model;
            let ready = self.loaded.iter_mut().find(|known| known.weight.model == *model && !known.broken);
            match ready {
                Some(known) if !closed.contains(model) => {
                    known.in_use += 1;
                    known.used = now;
                    step.go.push((waiting.who, model.clone()));
                }
                Some(_) => stay.push_back(waiting),
                None if self.loading.as_ref().is_some_and(|loading| loading.model == *model) => stay.push_back(waiting),
                None => match self.victims(&waiting.weight) {
                    None => step.no_room.push(waiting.who),
                    Some(victims) => {
                        if now.duration_since(waiting.since) >= FAIR {
                            closed.extend(victims.iter().cloned());
                        }
                        first.get_or_insert((waiting.weight.clone(), victims));
                        stay.push_back(waiting);
                    }
                },
            }
        }
        self.waiting = stay;
        if let Some((weight, _)) = first.filter(|_| self.loading.is_none()) {
            // Who has just gone may have made a victim busy.
            let victims = self.victims(&weight).unwrap_or_default();
            let busy =
                |model: &String| self.loaded.iter().any(|known| known.weight.model == *model && known.in_use > 0);
            if !victims.iter().any(busy) {
                self.loaded.retain(|known| !victims.contains(&known.weight.model));
                step.load = Some(Load { model: weight.model.clone(), evict: victims });
                self.loading = Some(weight);
            }
        }
        step
    }

    /// Returns which models have to go before this one fits, the idle ones and those used least lately first; `None` if it
    /// does not fit beside the pinned ones.
    fn victims(&self, wanted: &Weight) -> Option<Vec<String>> {
        let (again, others): (Vec<_>, Vec<_>) =
            self.loaded.iter().partition(|known| known.weight.model == wanted.model);
        let mut victims: Vec<_> = again.iter().map(|known| known.weight.model.clone()).collect();
        let mut others: Vec<_> = others.into_iter().collect();
        others.sort_by_key(|known| (known.weight.pinned, known.in_use > 0, known.used));
        let mut left = others.len();
        for known in &others {
            if self.fits(wanted, &others[others.len() - left..]) {
                return Some(victims);
            }
            if known.weight.pinned {
                return None;
            }
            victims.push(known.weight.model.clone());
            left -= 1;
        }
        Some(victims)
    }

    fn fits(&self, wanted: &Weight, beside: &[&Resident]) -> bool {
        if beside.is_empty() {
            return true;
        }
        let bytes = || {
            let all = self.room.bytes?;
            let each = [wanted].into_iter().chain(beside.iter().map(|known| &known.weight));
            Some(each.map(|weight| weight.bytes.unwrap_or(all)).fold(0, u64::saturating_add) <= all)
        };
        (self.room.models == 0 || beside.len() < self.room.models) && bytes().unwrap_or(true)
    }

    /// Returns what each model does.
    pub(super) fn standing(&self, now: Instant) -> Vec<Standing> {
        let loading = self.loading.iter().map(|weight| weight.model.as_str());
        let names = self.loaded.iter().map(|known| known.weight.model.as_str()).chain(loading.clone());
        let mut all: Vec<Standing> = Vec::new();
        for name in names.chain(self.waiting.iter().map(|waiting| waiting.weight.model.as_str())) {
            if all.iter().any(|standing| standing.model == name) {
                continue;
            }
            let known = self.loaded.iter().find(|known| known.weight.model == name);
            let mine: Vec<_> = self.waiting.iter().filter(|waiting| waiting.weight.model == name).collect();
            all.push(Standing {
                model: name.to_owned(),
                answering: known.map_or(0, |known| known.in_use),
                waiting: mine.first().map(|first| (mine.len(), now.duration_since(first.since))),
                loading: loading.clone().any(|loading| loading == name),
            });
        }
        all
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
