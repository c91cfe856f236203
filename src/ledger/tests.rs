//! The ledger on a real store: what many reserve at once, what a crash leaves, what a day has.

use std::{collections::BTreeMap, mem, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    store::{Durability, Sum},
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
/// Noon.
const NOON: i64 = 12 * 60 * 60 * 1000;

fn open(folder: &Path, clock: &Clock) -> Store {
    Store::open(&folder.join("db"), Durability::Normal, clock.clone()).unwrap()
}

fn spender(room: &str, person: &str) -> Spender {
    let (agent, model) = (ORCHESTRATOR.to_owned(), "m".to_owned());
    Spender { address: Address::of_first(room), person: Some(person.to_owned()), agent, model }
}

fn rules(room: Option<u64>, person: Option<u64>) -> Rules {
    let admins = vec!["@ann:a.org".to_owned()];
    Rules { limits: DayLimits { room, person }, admins, ..Rules::default() }
}

fn used(input: u64) -> Tokens {
    Tokens { input, ..Tokens::default() }
}

async fn soon<F: Future>(what: F) -> F::Output {
    timeout(LIMIT, what).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_warned_of_at_its_end_stopped_and_goes_on_when_more_is_allowed_or_it_is_over() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(NOON + 40_000));
    let ledger = Ledger::new(open(folder.path(), &clock), rules(Some(1000), Some(2000)));
    let (here, there) = (spender("!here", "@ben:a.org"), spender("!there", "@ben:a.org"));
    let spend = async |who: &Spender, tokens| {
        let mut reservation = ledger.reserve(who.clone(), 10, Some(10)).await?;
        let warnings = mem::take(&mut reservation.warnings);
        reservation.settle(used(tokens));
        Ok::<_, Refused>(warnings)
    };
    assert_eq!(spend(&here, 799).await, Ok(vec![]));
    assert_eq!(spend(&here, 1).await, Ok(vec![]));
    assert_eq!(spend(&here, 1).await, Ok(vec!["This room has used 80 % of its 1k tokens of today.".to_owned()]));
    assert_eq!(spend(&here, 199).await, Ok(vec![]), "it is told once");
    let over = "This room has used its 1k tokens of today (ROOM_DAILY_TOKENS). It goes on in 12 h, at midnight UTC; or write \
                “go on” once `@ann:a.org` has allowed more with `!budget 2k`.";
    assert_eq!(spend(&here, 1).await, Err(Refused::Over(over.to_owned())));
    let told = ledger.take_warnings(&here.address);
    assert_eq!((told.len(), ledger.take_warnings(&here.address).len()), (1, 0));

    assert_eq!(spend(&there, 600).await, Ok(vec![]), "another room has its own");
    let near = "`@ben:a.org` has used 80 % of the 2k tokens that a person has today.";
    assert_eq!(spend(&there, 300).await, Ok(vec![near.to_owned()]));
    ledger.store().allow_room(&here.address, 1600).await.unwrap();
    assert_eq!(spend(&here, 100).await, Ok(vec![near.to_owned()]), "of a person's day each room is told");
    let whose =
        |refused| matches!(refused, Err(Refused::Over(why)) if why.starts_with("`@ben:a.org` has used the 2k tokens"));
    assert!(whose(spend(&here, 1).await));
    assert_eq!(spend(&spender("!here", "@cyd:a.org"), 1).await, Ok(vec![]), "somebody else may go on");
    let people = ledger.store().allow_people(&here.address, 5000).await.unwrap();
    assert_eq!(people, ["@ben:a.org", "@cyd:a.org"]);
    assert_eq!(spend(&here, 499).await, Ok(vec![]));
    assert!(
        matches!(spend(&here, 1).await, Err(Refused::Over(why)) if why.contains("its 2k tokens")),
        "1600 is the room's"
    );

    let today = ledger.today(&here.address, "@ben:a.org").await.unwrap();
    let standing = |used, limit| Standing { used, held: 0, limit: Some(limit) };
    assert_eq!(today, Today { room: standing(1600, 1600), person: standing(2499, 5000) });
    clock.advance(NOON);
    assert_eq!(spend(&here, 1).await, Ok(vec![]), "the next day");
    // What is settled is written in the order of all writes, and so before this.
    ledger.store().note("coder", "barrier", "").await.unwrap();
    let today = ledger.today(&here.address, "@ben:a.org").await.unwrap();
    assert_eq!(today, Today { room: standing(1, 1000), person: standing(1, 2000) }, "what was allowed was for a day");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_what_others_hold_goes_on_when_they_are_settled() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(NOON));
    let ledger = Ledger::new(open(folder.path(), &clock), rules(Some(100), None));
    let first = ledger.reserve(spender("!r", "p"), 50, Some(1000)).await.unwrap();
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.reserve(spender("!r", "p"), 1, None).await }
    });
    let other = soon(ledger.reserve(spender("!s", "p"), 1, None)).await;
    assert!(other.is_ok(), "another room does not wait");
    assert!(!waiting.is_finished());
    first.settle(used(60));
    let second = soon(waiting).await.unwrap().unwrap();
    // Dropped, it counts for what was asked.
    drop(second);
    ledger.store().take_turn().await.unwrap();
    let today = ledger.today(&Address::of_first("!r"), "p").await.unwrap();
    assert_eq!(today.room, Standing { used: 61, held: 0, limit: Some(100) });
}

/// However many ask at once, one request goes past the end, by no more than it holds.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_rooms_with_ten_requests_each_of_one_person_pass_the_limit_by_one_request_at_most() {
    const MOST: u64 = 100 + 900;
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(NOON));
    let ledger = Ledger::new(open(folder.path(), &clock), rules(None, Some(50_000)));
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..300_u64 {
        let ledger = ledger.clone();
        asking.spawn(async move {
            let reserved = ledger.reserve(spender(&format!("!{}", number % 30), "p"), 100, Some(900)).await;
            reserved.map(|reservation| reservation.settle(used(MOST - number % 7))).is_ok()
        });
    }
    let sent = soon(asking.join_all()).await.into_iter().filter(|sent| *sent).count();
    ledger.store().take_turn().await.unwrap();
    let person = ledger.today(&Address::of_first("!0"), "p").await.unwrap().person;
    assert!(person.held == 0 && (50_000..50_000 + MOST).contains(&person.used), "{person:?}");
    assert!((50..=52).contains(&sent), "{sent}");
}

/// Something that happens to the ledger of two rooms and two persons.
#[derive(Clone, Debug)]
enum Act {
    Hold {
        room: usize,
        person: usize,
        asked: u64,
        answer: u64,
    },
    /// A request under way has used so many hundredths of what it holds.
    Settle {
        which: prop::sample::Index,
        share: u64,
    },
    /// The process is killed, and begins again.
    Crash,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..2_usize, 0..3_usize, 0..400_u64, 0..400_u64)
            .prop_map(|(room, person, asked, answer)| Act::Hold { room, person, asked, answer }),
        4 => (any::<prop::sample::Index>(), 0..=100_u64).prop_map(|(which, share)| Act::Settle { which, share }),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is held is what is under way; what was used is what was settled; and no limit is passed by more than one request
    /// holds.
    #[test]
    fn sums_are_right_and_limits_hold_whatever_happens(acts in prop::collection::vec(acts(), 1..60)) {
        const ROOMS: [&str; 2] = ["!a", "!b"];
        const PEOPLE: [Option<&str>; 3] = [Some("p"), Some("q"), None];
        let limits = DayLimits { room: Some(1500), person: Some(1000) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(NOON));
            let mut store = open(folder.path(), &clock);
            // The tokens used and held, by room and by person.
            let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            let mut under_way: Vec<(i64, Vec<&str>, u64, u64)> = vec![];
            for act in acts {
                match act {
                    Act::Hold { room, person, asked, answer } => {
                        let (room, person, most) = (ROOMS[room], PEOPLE[person], asked + answer);
                        let who = Spender {
                            person: person.map(str::to_owned), ..spender(room, "")
                        };
                        let bounds: Vec<_> = [(room, 1500)].into_iter().chain(person.map(|person| (person, 1000))).collect();
                        let sum = |name: &str| sums.get(name).copied().unwrap_or_default();
                        let over = bounds.iter().any(|(name, limit)| sum(name).0 >= *limit);
                        let full = bounds.iter().any(|(name, limit)| sum(name).0 + sum(name).1 >= *limit);
                        match store.hold(who, limits, asked, most).await.unwrap() {
                            Verdict::Held { id, .. } => {
                                prop_assert!(!full && !over);
                                let names: Vec<_> = bounds.iter().map(|(name, _)| *name).collect();
                                for name in &names {
                                    sums.entry(name).or_default().1 += most;
                                }
                                under_way.push((id, names, asked, most));
                            }
                            Verdict::Wait(..) => prop_assert!(full && !over),
                            Verdict::Over(..) => prop_assert!(over),
                        }
                    }
                    Act::Settle { which, share } if !under_way.is_empty() => {
                        let (id, names, _, most) = under_way.swap_remove(which.index(under_way.len()));
                        let used_now = most * share / 100;
                        store.settle(id, used(used_now));
                        // The second time it counts for nothing.
                        store.settle(id, used(used_now));
                        for name in names {
                            let sum = sums.get_mut(name).unwrap();
                            *sum = (sum.0 + used_now, sum.1 - most);
                        }
                    }
                    Act::Settle { .. } => {}
                    Act::Crash => {
                        drop(store);
                        store = open(folder.path(), &clock);
                        for (_, names, asked, most) in under_way.drain(..) {
                            for name in names {
                                let sum = sums.get_mut(name).unwrap();
                                *sum = (sum.0 + asked, sum.1 - most);
                            }
                        }
                    }
                }
                store.take_turn().await.unwrap();
                for (name, (used, held)) in &sums {
                    let (room, person) = if name.starts_with('!') { (*name, "-") } else { ("-", *name) };
                    let DaySums { room: of_room, person: of_person } =
                        store.day_sums(&Address::of_first(room), person).await.unwrap();
                    let (Sum { used: is_used, held: is_held, .. }, limit) =
                        if person == "-" { (of_room, 1500) } else { (of_person, 1000) };
                    prop_assert_eq!((is_used, is_held), (*used, *held), "{}", name);
                    prop_assert!(used + held < limit + 800, "{} is at {} + {}", name, used, held);
                }
            }
            Ok(())
        })?;
    }
}
