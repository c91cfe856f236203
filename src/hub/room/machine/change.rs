//! Edits and redactions. They count only if they come from the sender of the message.

use std::mem;

use super::{
    super::{
        doing::Doing,
        event::Action,
        meaning::{Change, Entry, Found, Target},
    },
    Machine, Out, Phase,
};
use crate::{
    hub::{Ending, Live},
    ids::EventId,
    store::Standing,
};

impl Machine {
    /// Handles a change: a message that waits is changed or dropped, a running turn is told, an answered message
    /// stays, but the bots that can forget it do when it is taken back.
    pub(super) fn change(&mut self, entry: &Entry, change: &Change, out: &mut Out) {
        let mut phase = mem::take(&mut self.phase);
        match &change.found {
            Found::Locked if change.text.is_none() => {
                out.push(Action::Unlock { target: change.target.clone(), change: entry.event.clone() });
            }
            Found::Nothing | Found::Locked => out.push(Action::Done(entry.event.clone())),
            Found::Message(target) => self.change_message(&mut phase, entry, change, target, out),
        }
        self.phase = phase;
    }

    fn change_message(&mut self, phase: &mut Phase, entry: &Entry, change: &Change, target: &Target, out: &mut Out) {
        let done = || Action::Done(entry.event.clone());
        let under_way = self.orders.contains_key(&change.target)
            || matches!(&*phase, Phase::Ordering(order) if *order == change.target);
        match (&target.standing, &mut *phase) {
            (Standing::Claimed(turn), Phase::Turn(running)) if *turn == running.turn.id => {
                if change.stops || change.takes_back(&running.turn.asked) {
                    self.stop_turn(running, vec![entry.event.clone()], out);
                } else {
                    out.push(told_turn(entry, change, target));
                }
            }
            // The message was handed to the turn, which has not read it yet.
            (Standing::Waiting, Phase::Turn(running)) if running.has(&change.target) => {
                if change.stops {
                    self.stop_turn(running, vec![entry.event.clone(), change.target.clone()], out);
                } else {
                    out.push(told_turn(entry, change, target));
                }
            }
            // If an order that runs became work, it would be answered twice.
            (Standing::Waiting, _) if under_way && change.text.is_some() => out.push(done()),
            (Standing::PassedOver, _) if change.text.is_none() => out.push(done()),
            // A bot may want what nobody wanted before.
            (Standing::Waiting | Standing::PassedOver, _) => {
                match (&change.text, &target.edited) {
                    (Some(_), Some(body)) => {
                        self.offer_again(&change.target, phase, out);
                        // It may be a stop or an order now, so the journal is read for these again.
                        (self.looked, self.unlooked) = (0, true);
                        out.push(Action::Rewrite {
                            target: change.target.clone(),
                            body: body.clone(),
                            change: entry.event.clone(),
                        });
                    }
                    (Some(_), None) => out.push(done()),
                    (None, _) => {
                        self.drop_waiting(&change.target, phase, out);
                        let (target, thread) = (change.target.clone(), target.thread.clone());
                        out.push(Action::Drop { target, thread, change: entry.event.clone() });
                    }
                }
                if matches!(&*phase, Phase::Waiting(first) if first.event == change.target) {
                    // The message is read again, since its new text may mean something else.
                    *phase = Phase::Between;
                }
            }
            (Standing::Claimed(_) | Standing::Done, _) if change.text.is_none() => {
                out.push(Action::Forget { target: change.target.clone(), change: entry.event.clone() });
            }
            (Standing::Claimed(_) | Standing::Done, _) => out.push(done()),
        }
    }

    /// Offers a waiting message that is edited to the running turn again, since its new text may mean something else:
    /// perhaps no bot wants it now, or it was an order for which later messages waited. A fetch for it begins anew.
    fn offer_again(&mut self, event: &EventId, phase: &mut Phase, out: &mut Out) {
        if let Phase::Turn(running) = phase {
            running.offer_again();
            if self.fetching.take_if(|entry| entry.event == *event).is_some() {
                out.push(Action::DropFetch);
            }
        }
    }

    /// Stops what was prepared for a message that was redacted, and takes back the notice that it waits, if one was
    /// shown.
    fn drop_waiting(&mut self, event: &EventId, phase: &mut Phase, out: &mut Out) {
        let fetching = self.fetching.take_if(|entry| entry.event == *event).is_some();
        if fetching {
            out.push(Action::DropFetch);
        }
        let saved = self.fetched.take_if(|(of, _)| of == event).is_some();
        if let Phase::Turn(running) = phase {
            // What came after it may be handed over now.
            running.offering = true;
            return;
        }
        let queued = matches!(&self.doing, Doing::Queued { asked, .. } if asked == event);
        if queued {
            out.push(Action::Show(Live::Ended { ending: Ending::Stopped }));
        }
        if fetching || saved || queued {
            self.doing = Doing::Nothing;
        }
    }
}

/// Returns the action that tells the running turn of a change.
fn told_turn(entry: &Entry, change: &Change, target: &Target) -> Action {
    Action::Tell { event: entry.event.clone(), text: change.told(&entry.sender, &target.words) }
}
