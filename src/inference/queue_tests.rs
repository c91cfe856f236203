use proptest::prelude::*;

use super::*;

fn weight(model: &str) -> Weight {
    Weight { model: model.to_owned(), bytes: Some(10), pinned: false }
}

fn queue(models: usize, bytes: Option<u64>) -> (Queue<u32>, Instant) {
    let now = Instant::now();
    let mut queue = Queue::default();
    queue.sync(Room { models, bytes }, vec![], now);
    (queue, now)
}

fn step(queue: &mut Queue<u32>, now: Instant) -> (Vec<u32>, Option<(String, Vec<String>)>) {
    let step = queue.step(now, |_| true);
    (step.go.into_iter().map(|(who, _)| who).collect(), step.load.map(|load| (load.model, load.evict)))
}

fn load(model: &str, evict: &[&str]) -> (String, Vec<String>) {
    (model.to_owned(), evict.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn requests_for_one_model_go_together_and_the_other_model_waits_until_it_is_idle() {
    let (mut queue, now) = queue(1, None);
    for who in 0..6 {
        queue.enter(weight(if who % 2 == 0 { "a" } else { "b" }), who, now);
    }
    assert_eq!(step(&mut queue, now), (vec![], Some(load("a", &[]))));
    assert_eq!(step(&mut queue, now), (vec![], None), "one load at a time");
    queue.ended(true, None, now);
    assert_eq!(step(&mut queue, now), (vec![0, 2, 4], None), "b is not loaded while a is in use");
    queue.release("a", now);
    queue.release("a", now);
    assert_eq!(step(&mut queue, now), (vec![], None));
    queue.release("a", now);
    assert_eq!(step(&mut queue, now), (vec![], Some(load("b", &["a"]))));
    queue.ended(true, None, now);
    assert_eq!(step(&mut queue, now), (vec![1, 3, 5], None));
}

#[test]
fn whoever_has_waited_long_is_not_overtaken_any_more() {
    let (mut queue, now) = queue(1, None);
    queue.sync(queue.room, vec![weight("a")], now);
    queue.enter(weight("a"), 0, now);
    queue.enter(weight("b"), 1, now);
    assert_eq!(step(&mut queue, now), (vec![0], None));
    queue.enter(weight("a"), 2, now + FAIR / 2);
    assert_eq!(step(&mut queue, now + FAIR / 2), (vec![2], None), "a later one goes before for a while");
    queue.enter(weight("a"), 3, now + FAIR);
    assert_eq!(step(&mut queue, now + FAIR), (vec![], None), "and then waits, too");
    queue.release("a", now + FAIR);
    queue.release("a", now + FAIR);
    assert_eq!(step(&mut queue, now + FAIR), (vec![], Some(load("b", &["a"]))));
    queue.ended(true, None, now + FAIR);
    assert_eq!(step(&mut queue, now + FAIR), (vec![1], None));
    queue.release("b", now + FAIR);
    assert_eq!(step(&mut queue, now + FAIR), (vec![], Some(load("a", &["b"]))));
}

#[test]
fn memory_and_pins_decide_who_goes() {
    let (mut queue, now) = queue(0, Some(30));
    let old = now.checked_sub(Duration::from_secs(9)).unwrap();
    queue.sync(queue.room, vec![weight("old")], old);
    queue.sync(queue.room, vec![weight("old"), Weight { pinned: true, ..weight("pinned") }, weight("new")], now);
    queue.enter(weight("d"), 0, now);
    assert_eq!(step(&mut queue, now), (vec![], Some(load("d", &["old"]))), "the one used least lately");
    queue.ended(true, None, now);
    assert_eq!(step(&mut queue, now).0, [0]);
    queue.enter(Weight { bytes: Some(20), ..weight("e") }, 1, now);
    assert_eq!(step(&mut queue, now), (vec![], None), "d is in use, and new alone is too little");
    queue.enter(Weight { bytes: None, ..weight("huge") }, 2, now);
    let told = queue.step(now, |_| true);
    assert_eq!((told.no_room, told.load), (vec![2], None), "what fills all does not fit beside a pinned one");
    queue.release("d", now);
    assert_eq!(step(&mut queue, now), (vec![], Some(load("e", &["new", "d"]))));
}

#[test]
fn a_failed_load_is_told_to_those_who_waited_for_it_alone_and_the_old_one_may_be_back() {
    let (mut queue, now) = queue(1, None);
    queue.sync(queue.room, vec![weight("a")], now);
    queue.enter(weight("b"), 0, now);
    assert_eq!(step(&mut queue, now), (vec![], Some(load("b", &["a"]))));
    queue.enter(weight("a"), 1, now);
    queue.enter(weight("b"), 2, now);
    assert_eq!(step(&mut queue, now), (vec![], None));
    assert_eq!(queue.ended(false, Some(weight("a")), now), [0, 2]);
    assert_eq!(step(&mut queue, now), (vec![1], None));
}

#[test]
fn a_model_that_is_broken_is_loaded_again_once_nobody_asks_it() {
    let (mut queue, now) = queue(2, None);
    queue.sync(queue.room, vec![weight("a")], now);
    queue.enter(weight("a"), 0, now);
    queue.enter(weight("a"), 1, now);
    assert_eq!(step(&mut queue, now), (vec![0, 1], None));
    queue.broken("a");
    queue.release("a", now);
    queue.enter(weight("a"), 2, now);
    assert_eq!(step(&mut queue, now), (vec![], None), "somebody may still be answered");
    queue.release("a", now);
    assert_eq!(step(&mut queue, now), (vec![], Some(load("a", &["a"]))));
    queue.ended(true, None, now);
    assert_eq!(step(&mut queue, now), (vec![2], None));
}

proptest! {
    /// Whatever happens: no model in use is unloaded, the room is kept, nobody is lost, and all are answered in the end.
    #[test]
    fn nobody_is_lost_and_nothing_in_use_goes(
        models in 1usize..3,
        actions in prop::collection::vec((0u8..6, 0usize..4), 1..200),
    ) {
        let (mut queue, mut now) = queue(models, None);
        let names = ["a", "b", "c", "d"];
        let (mut entered, mut answered) = (0_u32, 0_u32);
        let mut using: Vec<String> = Vec::new();
        let mut loading: Option<String> = None;
        let mut resident: Vec<String> = Vec::new();
        let tail = std::iter::repeat_n([(1_u8, 0_usize), (2, 0), (5, 0)], 1000).flatten();
        for (action, which) in actions.into_iter().chain(tail) {
            match action {
                0 => {
                    queue.enter(weight(names[which]), entered, now);
                    entered += 1;
                }
                1 if !using.is_empty() => {
                    let model = using.swap_remove(which % using.len());
                    queue.release(&model, now);
                }
                2 => if let Some(model) = loading.take() {
                    resident.push(model);
                    prop_assert!(queue.ended(true, None, now).is_empty());
                },
                3 => queue.broken(names[which]),
                4 => now += Duration::from_secs(4),
                _ => {}
            }
            let step = queue.step(now, |_| true);
            prop_assert!(step.no_room.is_empty());
            for (_, model) in step.go {
                prop_assert!(resident.contains(&model), "{model} is asked and not loaded");
                answered += 1;
                using.push(model);
            }
            if let Some(load) = step.load {
                prop_assert!(loading.is_none(), "one load at a time");
                for victim in &load.evict {
                    prop_assert!(!using.contains(victim), "{victim} is in use");
                }
                resident.retain(|model| !load.evict.contains(model));
                prop_assert!(resident.len() < models, "{resident:?} and {}", load.model);
                loading = Some(load.model);
            }
        }
        prop_assert_eq!(entered, answered);
    }
}
