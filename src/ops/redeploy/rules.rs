//! The rules of a replacement: what is done next, whatever became of the last step. Pure.
//!
//! What is live changes in `Switch` and `Back` alone. Each step may be done twice: a process that was killed in one begins it
//! again, and one that was killed in it too often gives up in favour of the old program.

use crate::updates::{Outcome, Record, Step};

/// How often a step that changes nothing that is live is begun.
const TRIES: u32 = 3;
/// How often the switch is begun: whoever was killed at it twice goes back.
const SWITCHES: u32 = 2;
/// How often it is tried to go back.
const BACKS: u32 = 5;

/// Notes that a process takes up what another one has left.
pub(super) fn taken_up(record: &mut Record) {
    record.begun += 1;
    let cut = || "it was cut off again and again".to_owned();
    match record.step {
        Step::Build | Step::Try if record.begun > TRIES => end(record, Outcome::Kept { why: cut() }),
        Step::Switch | Step::Await if record.begun > SWITCHES => back(record, cut()),
        _ => {}
    }
}

/// Notes that it cannot be kept that a step is begun. Returns whether another one comes in its place: nothing that is live is changed
/// without a record, and a change that was begun with one is brought to its end.
pub(super) fn unrecorded(record: &mut Record, why: String) -> bool {
    match record.step {
        Step::Build | Step::Try => end(record, Outcome::Kept { why }),
        Step::Switch if record.begun == 1 => end(record, Outcome::Kept { why }),
        Step::Switch => back(record, why),
        Step::Await | Step::Back | Step::Ended => return false,
    }
    true
}

/// Notes what became of a step.
pub(super) fn done(record: &mut Record, result: Result<(), String>) {
    match (record.step, result) {
        (Step::Build, Ok(())) => begin(record, Step::Try),
        (Step::Try, Ok(())) => begin(record, Step::Switch),
        (Step::Switch, Ok(())) => begin(record, Step::Await),
        (Step::Await, Ok(())) => end(record, Outcome::Done { note: None }),
        (Step::Build | Step::Try, Err(why)) => end(record, Outcome::Kept { why }),
        (Step::Switch | Step::Await, Err(why)) => back(record, why),
        (Step::Back, Ok(())) => {
            let why = record.why.clone().unwrap_or_default();
            end(record, Outcome::Back { why });
        }
        (Step::Back, Err(_)) if record.begun < BACKS => record.begun += 1,
        (Step::Back, Err(now)) => {
            let why = format!("{}; {now}", record.why.clone().unwrap_or_default());
            end(record, Outcome::Stuck { why });
        }
        (Step::Ended, _) => {}
    }
}

fn begin(record: &mut Record, step: Step) {
    (record.step, record.begun) = (step, 1);
}

fn back(record: &mut Record, why: String) {
    begin(record, Step::Back);
    record.why = Some(why);
}

fn end(record: &mut Record, outcome: Outcome) {
    begin(record, Step::Ended);
    record.outcome = Some(outcome);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::updates::{Request, Wanted};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Program {
        Old,
        New,
    }

    /// A machine with a program on its disk, and one that serves.
    #[derive(Debug)]
    struct Machine {
        installed: Program,
        serves: Option<Program>,
    }

    /// What happens at a step: how much of it is done, and whether the process is killed behind that.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Good,
        Bad,
        KilledBefore,
        KilledAfter,
        /// The disk takes no record of it, and it is good if it is begun all the same.
        Unrecorded,
    }

    impl Machine {
        /// Does a step; `None`: the process was killed in it.
        fn work(&mut self, step: Step, fate: Fate) -> Option<Result<(), String>> {
            if matches!(fate, Fate::KilledBefore) {
                return None;
            }
            let good = !matches!(fate, Fate::Bad);
            match step {
                Step::Build | Step::Try | Step::Ended => {}
                // A switch that fails has come to any point.
                Step::Switch => (self.installed, self.serves) = (Program::New, None),
                Step::Await if good => self.serves = Some(self.installed),
                Step::Await => self.serves = None,
                Step::Back if good => (self.installed, self.serves) = (Program::Old, Some(Program::Old)),
                Step::Back => (self.installed, self.serves) = (Program::Old, None),
            }
            match fate {
                Fate::KilledAfter => None,
                _ => Some(if good { Ok(()) } else { Err("bad".into()) }),
            }
        }
    }

    fn record() -> Record {
        let request = Request { id: "r".into(), wanted: Wanted::Back, tell: vec![] };
        let (commit, subject, from, old) = (String::new(), String::new(), String::new(), "old".into());
        let (new, image, over_matrix, why, outcome) = (None, None, vec![], None, None);
        Record {
            request,
            commit,
            subject,
            from,
            step: Step::Build,
            begun: 1,
            old,
            new,
            image,
            over_matrix,
            why,
            outcome,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        /// Whatever fails and wherever it is killed: it ends, and what it says is so.
        #[test]
        fn it_ends_with_a_program_that_serves(
            fates in prop::collection::vec(
                prop_oneof![4 => Just(Fate::Good), 2 => Just(Fate::Bad), 1 => Just(Fate::KilledBefore),
                    1 => Just(Fate::KilledAfter), 1 => Just(Fate::Unrecorded)],
                0..30,
            ),
        ) {
            let mut fates = fates.into_iter().chain(std::iter::repeat(Fate::Good));
            let mut machine = Machine { installed: Program::Old, serves: Some(Program::Old) };
            let mut record = record();
            let mut steps = 0;
            while record.step != Step::Ended {
                steps += 1;
                prop_assert!(steps < 100, "it does not end: {record:?}");
                let fate = fates.next().unwrap_or(Fate::Good);
                if matches!(fate, Fate::Unrecorded) && unrecorded(&mut record, "the disk is full".into()) {
                    continue;
                }
                match machine.work(record.step, fate) {
                    Some(result) => done(&mut record, result),
                    None => taken_up(&mut record),
                }
            }
            let (installed, serves) = match record.outcome {
                Some(Outcome::Done { .. }) => (Program::New, Some(Program::New)),
                Some(Outcome::Kept { .. } | Outcome::Back { .. }) => (Program::Old, Some(Program::Old)),
                Some(Outcome::Stuck { .. }) => (Program::Old, None),
                None => panic!("it ended without an outcome"),
            };
            prop_assert_eq!((machine.installed, machine.serves), (installed, serves), "{:?}", record.outcome);
        }
    }

    #[test]
    fn what_fails_before_the_switch_changes_nothing_and_what_fails_behind_it_goes_back() {
        for (fails, goes_back) in [(Step::Build, false), (Step::Try, false), (Step::Switch, true), (Step::Await, true)]
        {
            let (mut record, mut seen) = (record(), vec![]);
            while record.step != Step::Ended {
                seen.push(record.step);
                let result = if record.step == fails { Err("it is broken".to_owned()) } else { Ok(()) };
                done(&mut record, result);
            }
            assert_eq!(seen.contains(&Step::Back), goes_back, "{seen:?}");
            let why = "it is broken".to_owned();
            let outcome = if goes_back { Outcome::Back { why } } else { Outcome::Kept { why } };
            assert_eq!(record.outcome, Some(outcome));
        }
    }
}
