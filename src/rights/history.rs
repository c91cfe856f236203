//! Who has spoken, and what was read, since somebody entitled has said yes; and what follows from it. Pure.
//!
//! A turn has the rights of the least entitled person who spoke in it. What comes from outside (the result of a tool, a
//! file, a quoted message) was written by anybody, and the model may follow it: from then on no word of a person counts as
//! a yes any more that was not given to the very act, or granted to the room before.

use super::{
    act::{Act, Needs},
    role::Role,
};

/// What bears on the rights of a turn, with regard to one act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// The least entitled of all who spoke in the turn.
    least: Option<Role>,
    /// What happened since somebody of a role, or of a higher one, said yes to the act; one for each [`Role`].
    since: [Since; 3],
}

/// What happened since a yes, or since the turn began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Since {
    /// Whether there was a yes.
    confirmed: bool,
    /// The least entitled of those who spoke.
    least: Option<Role>,
    /// Whether anything came from outside.
    outside: bool,
}

impl History {
    /// Adds that somebody spoke.
    pub(super) fn spoke(&mut self, role: Role) {
        let leasts = self.since.iter_mut().map(|since| &mut since.least);
        for least in leasts.chain([&mut self.least]) {
            *least = Some(least.map_or(role, |least| least.min(role)));
        }
    }

    /// Adds that the model was shown what somebody else may have written.
    pub(super) fn read_outside(&mut self) {
        for since in &mut self.since {
            since.outside = true;
        }
    }

    /// Adds that somebody said yes to the act. Whether they may is decided with the act.
    pub(super) fn confirmed(&mut self, by: Role) {
        for since in &mut self.since[..=by as usize] {
            *since = Since { confirmed: true, ..Since::default() };
        }
    }
}

/// What grants say of an act, at the time of the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cover {
    /// The act itself is granted.
    pub(super) act: bool,
    /// Its repository is granted for reading, at least.
    pub(super) subject: bool,
}

/// What becomes of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done now.
    Allowed,
    /// Somebody of this role or a higher one has to say yes first.
    Ask(Role),
    /// Nobody is asked.
    Refused(Why),
}

/// Why nobody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody has spoken in the turn who may not even ask for it; the role is the least that may.
    Asker(Role),
    /// Nobody asks for anything: no turn is open.
    NobodyAsks,
}

/// Returns the least role whose yes an act needs; `grantor` is the least that may grant in the room.
fn answers(act: &Act, cover: Cover, grantor: Role) -> Role {
    match act.row().needs {
        Needs::GrantorOrGranted if cover.subject => Role::User,
        Needs::GrantorOrGranted | Needs::Grantor => grantor,
        Needs::User => Role::User,
        Needs::Admin => Role::Admin,
    }
}

/// Decides about an act. `grantor` is the least role that may grant in the room.
pub(super) fn decide(history: &History, act: &Act, cover: Cover, grantor: Role) -> Decision {
    let row = act.row();
    let needed = answers(act, cover, grantor);
    match history.least {
        Some(least) if least < row.asks => return Decision::Refused(Why::Asker(row.asks)),
        // What was granted to a room is open to what runs there by itself, too.
        None if !cover.act => return Decision::Refused(Why::NobodyAsks),
        _ => {}
    }
    let since = history.since[needed as usize];
    let nobody_lesser = since.least.is_none_or(|least| least >= needed);
    let own_word = row.own_word && since.least.is_some() && !since.outside;
    if cover.act || nobody_lesser && (since.confirmed || own_word) { Decision::Allowed } else { Decision::Ask(needed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::repository::Repository, *};

    fn acts() -> Vec<Act> {
        let site = || Repository::parse("acme/site").unwrap();
        vec![
            Act::Read(site()),
            Act::Push(site()),
            Act::PullRequest(site()),
            Act::Comment(site()),
            Act::Host("example.org".into()),
            Act::Grant,
            Act::Implement,
            Act::SelfUpdate,
        ]
    }

    #[derive(Clone, Copy, Debug)]
    enum Happened {
        Spoke(Role),
        Outside,
        Confirmed(Role),
    }

    fn told(all: &[Happened]) -> History {
        let mut history = History::default();
        for happened in all {
            match happened {
                Happened::Spoke(role) => history.spoke(*role),
                Happened::Outside => history.read_outside(),
                Happened::Confirmed(by) => history.confirmed(*by),
            }
        }
        history
    }

    fn happened() -> impl Strategy<Value = Happened> {
        let role = || prop::sample::select(vec![Role::Guest, Role::User, Role::Admin]);
        prop_oneof![
            4 => role().prop_map(Happened::Spoke),
            2 => Just(Happened::Outside),
            2 => role().prop_map(Happened::Confirmed),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

        /// Looked at from its end, as a person would who reads the room: the last yes, and who came after it.
        #[test]
        fn nothing_is_allowed_after_the_word_of_somebody_lesser(
            all in prop::collection::vec(happened(), 0..12),
            act in prop::sample::select(acts()),
            (granted, readable) in any::<(bool, bool)>(),
            admins in any::<bool>(),
        ) {
            let grantor = if admins { Role::Admin } else { Role::User };
            let writes = act.writes();
            let may_be_granted = act.subject().is_some();
            let cover = Cover { act: granted && may_be_granted, subject: may_be_granted && (granted || readable) };
            let needed = match act {
                Act::SelfUpdate => Role::Admin,
                Act::Implement => Role::User,
                _ if writes && cover.subject => Role::User,
                _ => grantor,
            };
            let speakers = |some: &[Happened]| -> Vec<Role> {
                some.iter().filter_map(|it| if let Happened::Spoke(role) = it { Some(*role) } else { None }).collect()
            };
            let decision = decide(&told(&all), &act, cover, grantor);
            let last = all.iter().rposition(|it| matches!(it, Happened::Confirmed(by) if *by >= needed));
            let behind = &all[last.map_or(0, |at| at + 1)..];
            if decision == Decision::Allowed && !cover.act {
                prop_assert!(speakers(behind).iter().all(|role| *role >= needed), "a lesser author: {:?}", all);
                if last.is_none() {
                    // Without a yes it was their own word, and nothing else was read.
                    prop_assert!(!behind.iter().any(|it| matches!(it, Happened::Outside)), "outside: {:?}", all);
                    prop_assert!(!speakers(behind).is_empty() && matches!(act, Act::PullRequest(_) | Act::Comment(_)));
                }
            }
            if speakers(&all).contains(&Role::Guest) {
                prop_assert!(matches!(decision, Decision::Refused(_)), "a guest in the turn: {:?}", all);
            }
            if let Decision::Ask(role) = decision {
                prop_assert!(role == needed && role > Role::Guest);
            }
        }
    }

    #[test]
    fn the_word_of_an_entitled_person_is_a_yes_until_something_else_is_read() {
        use Happened::{Confirmed, Outside, Spoke};
        let comment = &acts()[3];
        let (none, readable) = (Cover::default(), Cover { act: false, subject: true });
        let whole = Cover { act: true, subject: true };
        for (all, cover, decision) in [
            (&[Spoke(Role::Admin)][..], none, Decision::Allowed),
            (&[Spoke(Role::Admin), Outside], none, Decision::Ask(Role::Admin)),
            (&[Spoke(Role::Admin), Outside, Confirmed(Role::Admin)], none, Decision::Allowed),
            (&[Spoke(Role::Admin), Confirmed(Role::Admin), Spoke(Role::User)], none, Decision::Ask(Role::Admin)),
            (&[Spoke(Role::Admin), Outside, Confirmed(Role::User)], none, Decision::Ask(Role::Admin)),
            (&[Spoke(Role::Admin), Spoke(Role::User)], none, Decision::Ask(Role::Admin)),
            (&[Spoke(Role::User), Outside], readable, Decision::Ask(Role::User)),
            (&[Spoke(Role::User), Outside], whole, Decision::Allowed),
            (&[Spoke(Role::User), Spoke(Role::Guest)], whole, Decision::Refused(Why::Asker(Role::User))),
            (&[], none, Decision::Refused(Why::NobodyAsks)),
            (&[], whole, Decision::Allowed),
        ] {
            assert_eq!(decide(&told(all), comment, cover, Role::Admin), decision, "{all:?} {cover:?}");
        }
    }

    #[test]
    fn the_program_is_replaced_only_at_an_administrators_yes() {
        use Happened::{Confirmed, Spoke};
        let decided = |all: &[Happened]| decide(&told(all), &Act::SelfUpdate, Cover::default(), Role::User);
        assert_eq!(decided(&[Spoke(Role::User)]), Decision::Refused(Why::Asker(Role::Admin)));
        assert_eq!(decided(&[Spoke(Role::Admin)]), Decision::Ask(Role::Admin));
        assert_eq!(decided(&[Spoke(Role::Admin), Confirmed(Role::Admin)]), Decision::Allowed);
    }
}
