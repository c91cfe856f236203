//! The rules, step by step and at random.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const IDLE: Duration = Duration::from_mins(10);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A machine with a clock that only moves when it is told to.
struct Lab {
    machine: Machine,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Self { machine: Machine::new(Rules::usual(Some(IDLE))), now: Instant::now() }
    }

    fn warm() -> Self {
        Self { machine: Machine::new(Rules::usual(None)), now: Instant::now() }
    }

    /// Lets time pass, and the machine notice it.
    fn after(&mut self, time: Duration) -> Vec<Act> {
        self.now += time;
        self.machine.tick(self.now)
    }

    fn want(&mut self, who: Who) -> Vec<Act> {
        self.machine.want(who, None, self.now)
    }

    fn ended(&mut self, failure: Failure) -> Vec<Act> {
        self.machine.ended(failure, self.now)
    }

    /// Starts it for one who asks, until it answers.
    fn up(mut self) -> Self {
        assert_eq!(self.want(1), [Act::Start]);
        assert_eq!(self.machine.healthy(self.now), [Act::Restore]);
        assert_eq!(self.machine.restored(self.now), [Act::Admit(vec![1])]);
        self
    }

    fn is_asleep(&self) -> bool {
        self.machine.state() == State::Asleep
    }
}

fn crash() -> Failure {
    Failure::Ended("exit status: 1".to_owned())
}

#[test]
fn it_is_started_by_the_first_who_asks_and_all_who_wait_are_let_in() {
    let mut lab = Lab::new();
    assert_eq!(lab.machine.begin(lab.now), []);
    assert_eq!(lab.want(1), [Act::Start]);
    assert_eq!(lab.want(2), []);
    assert_eq!(lab.machine.healthy(lab.now), [Act::Restore]);
    assert_eq!(lab.want(3), [], "it waits for the conversation to be back");
    lab.machine.done(2, lab.now);
    assert_eq!(lab.machine.restored(lab.now), [Act::Admit(vec![1, 3])], "who has gone is not let in");
    assert_eq!(lab.want(4), [Act::Admit(vec![4])]);
}

#[test]
fn it_sleeps_once_nobody_has_asked_for_long_and_saves_before() {
    let mut lab = Lab::new().up();
    assert_eq!(lab.after(IDLE * 3), [], "somebody is answered all the time");
    lab.machine.done(1, lab.now);
    assert_eq!(lab.after(IDLE.saturating_sub(seconds(1))), []);
    assert_eq!(lab.after(seconds(1)), [Act::Save]);
    assert_eq!(lab.machine.saved(lab.now), [Act::Terminate]);
    assert_eq!(lab.after(seconds(5)), [Act::Kill], "it had its time to end");
    assert_eq!(lab.ended(crash()), []);
    assert!(lab.is_asleep());
    assert_eq!(lab.machine.why(), None, "that it ended was asked for");
}

#[test]
fn who_comes_while_it_is_saved_keeps_it_and_who_comes_while_it_stops_starts_it_again() {
    let mut lab = Lab::new().up();
    lab.machine.done(1, lab.now);
    assert_eq!(lab.after(IDLE), [Act::Save]);
    assert_eq!(lab.want(2), []);
    assert_eq!(lab.machine.saved(lab.now), [Act::Admit(vec![2])]);
    lab.machine.done(2, lab.now);
    assert_eq!(lab.after(IDLE), [Act::Save]);
    assert_eq!(lab.after(seconds(20)), [Act::Terminate], "what cannot be saved in time is not");
    assert_eq!(lab.want(3), []);
    assert_eq!(lab.ended(crash()), [Act::Start]);
}

#[test]
fn a_start_that_takes_too_long_is_killed_and_tried_again() {
    let mut lab = Lab::new();
    lab.want(1);
    assert_eq!(lab.after(seconds(59)), []);
    assert_eq!(lab.after(seconds(1)), [Act::Kill]);
    assert_eq!(lab.machine.healthy(lab.now), [], "it comes too late");
    assert_eq!(lab.ended(crash()), []);
    assert_eq!(lab.machine.why(), Some(&Failure::Slow));
    assert_eq!(lab.after(seconds(5)), [Act::Start], "the one who waits is still there");
}

#[test]
fn what_dies_is_started_again_after_pauses_that_grow_and_given_up_after_five() {
    let mut lab = Lab::warm();
    assert_eq!(lab.machine.begin(lab.now), [Act::Start], "it is kept warm");
    for pause in [5, 10, 20, 40] {
        assert_eq!(lab.ended(crash()), []);
        assert_eq!(lab.after(seconds(pause).saturating_sub(Duration::from_millis(1))), [], "{pause}");
        assert_eq!(lab.after(Duration::from_millis(1)), [Act::Start], "{pause}");
    }
    assert_eq!(lab.ended(crash()), [Act::Report(crash())]);
    assert_eq!(lab.want(7), [Act::Refuse(vec![7], Unready::Degraded(Some(crash())))]);
    assert_eq!(lab.after(seconds(300)), [Act::Start]);
    assert_eq!(lab.ended(crash()), [], "the operator is told once");
    assert_eq!(lab.after(seconds(300)), [Act::Start]);
    lab.machine.healthy(lab.now);
    lab.machine.restored(lab.now);
    assert_eq!(lab.after(seconds(60)), []);
    assert_eq!(lab.machine.why(), None, "it has been healthy");
    assert_eq!(lab.ended(crash()), []);
    assert_eq!(lab.after(seconds(5)), [Act::Start], "the pauses begin anew");
}

#[test]
fn without_a_question_nobody_starts_it_again_but_its_failures_count_on() {
    let mut lab = Lab::new().up();
    lab.machine.done(1, lab.now);
    assert_eq!(lab.ended(crash()), []);
    assert_eq!(lab.after(seconds(5)), []);
    assert!(lab.is_asleep());
    assert_eq!(lab.want(2), [Act::Start]);
    assert_eq!(lab.ended(crash()), []);
    assert_eq!(lab.machine.deadline(), Some(lab.now + seconds(10)));
}

#[test]
fn who_would_wait_long_is_told_at_once() {
    let mut lab = Lab::new();
    lab.want(1);
    for pause in [5, 10, 20] {
        assert_eq!(lab.ended(crash()), []);
        assert_eq!(lab.after(seconds(pause)), [Act::Start]);
    }
    assert_eq!(lab.ended(crash()), [Act::Refuse(vec![1], Unready::BackingOff(seconds(40)))]);
    assert_eq!(lab.want(2), [Act::Refuse(vec![2], Unready::BackingOff(seconds(40)))]);
    lab.after(seconds(15));
    assert_eq!(lab.want(3), []);
    assert_eq!(lab.after(seconds(25)), [Act::Start]);
}

#[test]
fn what_does_not_mend_itself_is_not_tried_five_times() {
    for failure in [Failure::Illegal, Failure::NoModel("it is empty".to_owned()), Failure::NotStarted("no".to_owned())]
    {
        let mut lab = Lab::new();
        lab.want(1);
        let refused = Act::Refuse(vec![1], Unready::Degraded(Some(failure.clone())));
        assert_eq!(lab.ended(failure.clone()), [refused, Act::Report(failure.clone())]);
        lab.after(seconds(299));
        assert!(matches!(lab.want(2)[..], [Act::Refuse(..)]));
        lab.after(seconds(1));
        assert_eq!(lab.want(3), [Act::Start], "whoever mends it need not restart the server");
    }
}

#[test]
fn what_dies_of_a_saved_conversation_gets_it_no_more() {
    let mut lab = Lab::new();
    lab.want(1);
    lab.machine.healthy(lab.now);
    assert_eq!(lab.ended(crash()), [Act::Forget]);
    assert_eq!(lab.after(seconds(5)), [Act::Start]);
    lab.machine.healthy(lab.now);
    assert_eq!(lab.after(seconds(20)), [Act::Forget, Act::Admit(vec![1])], "nor does one that hangs over it");
}

#[test]
fn a_machine_that_is_short_declines_and_lets_the_model_go() {
    let mut lab = Lab::new();
    let pressure = Pressure::Memory;
    let refused = |who| Act::Refuse(vec![who], Unready::Pressed(pressure));
    assert_eq!(lab.machine.want(1, Some(pressure), lab.now), [refused(1)]);
    assert!(lab.is_asleep());
    let mut lab = lab.up();
    assert_eq!(lab.machine.want(2, Some(pressure), lab.now), [refused(2)], "somebody is being answered");
    lab.machine.done(1, lab.now);
    assert_eq!(lab.machine.want(3, Some(pressure), lab.now), [Act::Save, refused(3)]);
}

#[test]
fn it_ends_with_the_program() {
    let mut lab = Lab::new().up();
    assert_eq!(lab.machine.end(lab.now), [Act::Save]);
    assert_eq!(lab.want(2), [Act::Refuse(vec![2], Unready::Ending)]);
    assert_eq!(lab.after(seconds(1)), [Act::Terminate], "there is little time");
    assert_eq!(lab.ended(crash()), []);
    assert!(lab.machine.is_over());

    let mut lab = Lab::new();
    lab.want(1);
    let refused = Act::Refuse(vec![1], Unready::Ending);
    assert_eq!(lab.machine.end(lab.now), [refused, Act::Terminate]);
    assert_eq!(lab.ended(crash()), [], "it is not started again");
    assert!(lab.machine.is_over());
}

/// What may happen to a machine.
#[derive(Clone, Copy, Debug)]
enum Step {
    Want { short: bool },
    Done(usize),
    Healthy,
    Restored,
    Saved,
    Ended { stays: bool },
    Pass(u64),
    Press,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|short| Step::Want { short }),
        4 => (0..8_usize).prop_map(Step::Done),
        4 => Just(Step::Healthy),
        4 => Just(Step::Restored),
        2 => Just(Step::Saved),
        3 => prop::bool::weighted(0.2).prop_map(|stays| Step::Ended { stays }),
        6 => (0..700_u64).prop_map(Step::Pass),
        1 => Just(Step::Press),
    ]
}

/// Plays the driver's part: knows whether there is a child, and what each who asked was told.
#[derive(Default)]
struct World {
    has_child: bool,
    /// `None`: they wait; `Some(true)`: they were let in.
    told: BTreeMap<Who, Option<bool>>,
}

impl World {
    fn carry_out(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Start => assert!(!std::mem::replace(&mut self.has_child, true), "two at the same time"),
                Act::Restore | Act::Save | Act::Terminate | Act::Kill => assert!(self.has_child, "{act:?} for none"),
                Act::Forget | Act::Report(_) => {}
                Act::Admit(all) => {
                    assert!(self.has_child, "they are let in to nobody");
                    for who in all {
                        assert_eq!(self.told.insert(who, Some(true)), Some(None), "{who} is told once");
                    }
                }
                Act::Refuse(all, _) => {
                    for who in all {
                        assert_eq!(self.told.insert(who, Some(false)), Some(None), "{who} is told once");
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn there_is_one_child_at_most_and_everybody_is_told_once(warm: bool,
        steps in prop::collection::vec(step(), 0..120)) {
        let mut lab = if warm { Lab::warm() } else { Lab::new() };
        let (mut world, mut next) = (World::default(), 0);
        world.carry_out(lab.machine.begin(lab.now));
        for step in steps {
            let now = lab.now;
            let acts = match step {
                Step::Want { short } => {
                    next += 1;
                    world.told.insert(next, None);
                    lab.machine.want(next, short.then_some(Pressure::Load), now)
                }
                Step::Done(at) => {
                    let who = world.told.keys().nth(at).copied();
                    if let Some(who) = who {
                        lab.machine.done(who, now);
                        world.told.remove(&who);
                    }
                    vec![]
                }
                // The driver tells none of these without a child.
                Step::Healthy if world.has_child => lab.machine.healthy(now),
                Step::Restored if world.has_child => lab.machine.restored(now),
                Step::Saved if world.has_child => lab.machine.saved(now),
                Step::Ended { stays } if world.has_child => {
                    world.has_child = false;
                    lab.machine.ended(if stays { Failure::Illegal } else { crash() }, now)
                }
                Step::Pass(time) => lab.after(seconds(time)),
                Step::Press => lab.machine.press(now),
                _ => vec![],
            };
            world.carry_out(acts);
            prop_assert!(lab.machine.deadline().is_none_or(|due| due >= now) || matches!(step, Step::Done(_) | Step::Pass(_)));
        }
        // However it stands, all who wait are told within bounded time, and the child goes.
        for _ in 0..40 {
            let acts = if matches!(lab.machine.state(), State::Stopping { killed: true, .. }) {
                world.has_child = false;
                lab.ended(crash())
            } else {
                lab.after(seconds(400))
            };
            world.carry_out(acts);
        }
        prop_assert!(world.told.values().all(Option::is_some), "{:?}", lab.machine);
        world.carry_out(lab.machine.end(lab.now));
        for _ in 0..4 {
            let acts = if matches!(lab.machine.state(), State::Stopping { killed: true, .. }) {
                world.has_child = false;
                lab.ended(crash())
            } else {
                lab.after(seconds(400))
            };
            world.carry_out(acts);
        }
        prop_assert!(lab.machine.is_over(), "{:?}", lab.machine);
        prop_assert!(!world.has_child);
    }
}
