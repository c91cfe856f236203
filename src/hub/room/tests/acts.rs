//! What the world does when the machine asks for it, and the checks that must hold at every step.

use super::*;

impl World {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Next => self.answered(Event::Next(self.next())),
            Action::Look { after } => self.answered(Event::Saw(self.next_after(after))),
            Action::LookForWork { after } => {
                let room = self.memory.steering.len() < STEER;
                self.answered(Event::Work(room.then(|| self.next_after(after)).flatten()));
            }
            Action::Permit(_) => {
                let before = if self.memory.permitted { None } else { self.before };
                self.memory.permitted = before.is_none();
                self.answered(Event::Queued(before.map(|before| QueuePlace { before, held: false })));
            }
            Action::Release => self.memory.permitted = false,
            Action::Open(opening) => {
                assert!(self.turns.values().all(|turn| !turn.open), "two turns at the same time");
                let asked = opening.entry.event;
                let turn = self.row(&asked).waits().then(|| {
                    let id = TurnId(format!("turn of {asked}"));
                    self.note(format!("open {asked}"));
                    let stored = Stored { bot: opening.bot, asked: asked.clone(), open: true, answers: 0, left: false };
                    assert!(self.turns.insert(id.clone(), stored).is_none(), "{asked} is answered twice");
                    self.claim(&id, std::slice::from_ref(&asked));
                    self.claim(&id, &opening.others);
                    self.memory.turn = Some(id.clone());
                    self.turn(&id)
                });
                self.answered(Event::Opened(turn));
            }
            Action::Resume { turn, stop } => {
                let open = self.turns[&turn.id].open;
                (self.memory.turn, self.memory.stopped) = (open.then(|| turn.id.clone()), open && stop);
                self.note(format!("resume {}", turn.asked));
                self.answered(Event::Opened(open.then_some(turn)));
            }
            Action::Start { turn, .. } => {
                assert!(self.memory.permitted || self.memory.stopped, "a turn without a permit");
                assert!(!std::mem::replace(&mut self.memory.works, true), "two bots work");
                self.note(format!("start {}", self.turns[&turn].asked));
            }
            Action::HandOver { event, text, .. } => {
                assert!(!self.memory.stopped, "{event} is handed to a turn that was stopped");
                let seq = self.row(&event).seq;
                assert!(seq > self.memory.handed, "{event} is handed over again, or too late");
                self.memory.handed = seq;
                let bot = self.memory.turn.as_ref().map(|turn| self.turns[turn].bot.clone());
                let holds_up = |row: &Row| matches!(Self::meaning(row), Meaning::Order(order) if order.between_turns && Some(&order.bot) == bot.as_ref());
                let ahead = self.rows.iter().find(|row| row.seq < seq && row.waits() && holds_up(row));
                assert!(ahead.is_none(), "{event} is handed over before {ahead:?}");
                self.note(format!("hand over {event}: {text}"));
                self.memory.steering.push_back(event);
            }
            Action::Tell { event, .. } => {
                self.note(format!("tell {event}"));
                if self.memory.steering.len() < STEER {
                    self.memory.steering.push_back(event);
                }
            }
            Action::Claim { turn, events } => {
                let names: Vec<_> = events.iter().map(EventId::as_str).collect();
                self.note(format!("claim {}", names.join(" ")));
                self.claim(&turn, &events);
            }
            Action::Stop => {
                self.note("stop".into());
                self.memory.stopped = true;
            }
            Action::Answer { turn, end, .. } => {
                let how = match &end {
                    End::Outcome(outcome) => format!("{:?}", outcome.ending),
                    other => format!("{other:?}"),
                };
                self.note(format!("answer {}: {how}", turn.asked));
                let stored = self.turns.get_mut(&turn.id).unwrap();
                stored.answers += usize::from(std::mem::take(&mut stored.open));
                let Memory { machine, events, fetching, orders, permitted, .. } = std::mem::take(&mut self.memory);
                self.memory = Memory { machine, events, fetching, orders, permitted, ..Memory::default() };
            }
            Action::CarryOut { event, doing, .. } => {
                let doing = match doing {
                    Doing::Nothing => "nothing",
                    Doing::Fetching { .. } => "fetching",
                    Doing::Queued { .. } => "waiting",
                    Doing::Working { .. } => "working",
                };
                self.note(format!("carry out {event} while {doing}"));
                self.memory.orders.push(event);
            }
            Action::Fetch { event, .. } => {
                self.note(format!("fetch {event}"));
                self.memory.fetching = Some(event);
            }
            Action::DropFetch => {
                self.note("drop the file".into());
                self.memory.fetching = None;
            }
            Action::Acknowledge { entry, .. } => {
                self.note(format!("acknowledge {}", entry.event));
                self.reply(&entry.event);
            }
            Action::Reply { event, .. } => {
                self.note(format!("reply {event}"));
                self.reply(&event);
            }
            Action::NothingToStop { event, .. } => {
                self.note(format!("nothing to stop {event}"));
                self.reply(&event);
            }
            Action::Done(event) | Action::PassOver(event) => self.done(&event),
            Action::Unlock { change, .. } => self.done(&change),
            Action::Rewrite { target, body, change } => {
                let text = body.as_str().unwrap().to_owned();
                self.note(format!("rewrite {target}: {text}"));
                let row = self.row_mut(&target);
                if row.waits() {
                    match &mut row.sent {
                        Sent::Text(old) | Sent::File { caption: old } => *old = text,
                        other => panic!("{other:?} has no text"),
                    }
                }
                self.done(&change);
            }
            Action::Drop { target, change, .. } => {
                self.note(format!("drop {target}"));
                if self.row(&target).waits() {
                    self.row_mut(&target).dropped = true;
                    self.done(&target);
                    self.done(&change);
                }
            }
            Action::Forget { target, change } => {
                self.note(format!("forget {target}"));
                self.done(&change);
            }
            Action::Show(Live::Queued { asked, before, .. }) => self.note(format!("{asked} waits behind {before}")),
            Action::Show(Live::Ended { .. }) => self.note("waits no more".into()),
            Action::Show(_) | Action::Enclose { .. } => {}
        }
    }
}
