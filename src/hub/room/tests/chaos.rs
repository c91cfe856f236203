//! Random rooms: whatever people say, in whatever order files, permits, orders and turns come and go, and wherever the
//! process is killed, each message is answered once. The world's own checks hold at every step.

use proptest::prelude::*;

use super::*;

/// One thing that may happen.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Somebody says something; `true`: and the actor is told.
    Said(u8, bool),
    File(bool),
    Edited(u8, u8),
    Redacted(u8),
    Rung,
    FileComes(bool),
    BotReads,
    TurnEnds,
    OrderEnds(u8, bool),
    MovesUp(Option<usize>),
    Left,
    /// Within the actions that come next.
    Crash(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (any::<u8>(), any::<bool>()).prop_map(|(what, rung)| Happening::Said(what, rung)),
        3 => any::<bool>().prop_map(Happening::File),
        3 => any::<(u8, u8)>().prop_map(|(which, what)| Happening::Edited(which, what)),
        3 => any::<u8>().prop_map(Happening::Redacted),
        2 => Just(Happening::Rung),
        4 => any::<bool>().prop_map(Happening::FileComes),
        6 => Just(Happening::BotReads),
        5 => Just(Happening::TurnEnds),
        5 => (any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(which, panics)| Happening::OrderEnds(which, panics)),
        4 => prop::option::of(0..3_usize).prop_map(Happening::MovesUp),
        1 => Just(Happening::Left),
        4 => (0..12_u8).prop_map(Happening::Crash),
    ]
}

fn text(what: u8) -> &'static str {
    const TEXTS: [&str; 10] =
        ["fix it", "and that", "!stop", "!status", "!new", "/ask", "/now", "/between", "nothing", "go on"];
    TEXTS[usize::from(what) % TEXTS.len()]
}

fn happens(world: &mut World, happening: Happening) {
    let name = format!("e{}", world.rows.len());
    let pick = |world: &World, which: u8| {
        let at = usize::from(which) % world.rows.len().max(1);
        world.rows.get(at).map(|row| row.event.clone())
    };
    match happening {
        Happening::Said(what, rung) => {
            world.sends("anna", &name, Sent::Text(text(what).into()));
            if rung {
                world.ring();
            }
        }
        Happening::File(words) => {
            world.sends_file(&name, if words { "read this" } else { "" });
        }
        Happening::Edited(which, what) => {
            if let Some(target) = pick(world, which) {
                world.edits(&name, target.as_str(), text(what));
            }
        }
        Happening::Redacted(which) => {
            if let Some(target) = pick(world, which) {
                world.redacts(&name, target.as_str());
            }
        }
        Happening::Rung => drop(world.ring()),
        Happening::FileComes(there) if world.memory.fetching.is_some() => {
            if there {
                world.file_comes();
            } else {
                world.fetch_ends(Err("gone".into()));
            }
        }
        Happening::BotReads if world.memory.works && !world.memory.steering.is_empty() => drop(world.bot_reads()),
        Happening::TurnEnds if world.memory.works => drop(world.turn_ends()),
        Happening::OrderEnds(which, panics) if !world.memory.orders.is_empty() => {
            let order = world.memory.orders[usize::from(which) % world.memory.orders.len()].clone();
            world.order_ends(order.as_str(), panics);
        }
        Happening::MovesUp(before) => drop(world.moves_up(before)),
        Happening::Left => {
            world.is_left();
            world.ring();
        }
        Happening::Crash(after) => world.crash_in = Some(after.into()),
        _ => {}
    }
}

/// Lets everything under way come to its end.
fn settle(world: &mut World) {
    world.crash_in = None;
    world.ring();
    world.moves_up(None);
    for _ in 0..1000 {
        if world.memory.fetching.is_some() {
            world.file_comes();
        } else if let Some(order) = world.memory.orders.first().cloned() {
            world.order_ends(order.as_str(), false);
        } else if world.memory.works && !world.memory.steering.is_empty() && !world.memory.stopped {
            world.bot_reads();
        } else if world.memory.works {
            world.turn_ends();
        } else {
            return;
        }
    }
    panic!("the room never comes to rest");
}

fn each_is_answered_once(world: &World) {
    assert!(world.memory.machine.is_idle(), "{:?}", world.memory.machine);
    for (id, turn) in &world.turns {
        assert_eq!((turn.open, turn.answers), (false, usize::from(!turn.left)), "{id}: {turn:?}");
    }
    for row in &world.rows {
        let changes = matches!(row.sent, Sent::Edit { .. } | Sent::Redaction { .. });
        let nothing = matches!(World::meaning(row), Meaning::Nothing);
        let once = match &row.standing {
            Standing::Waiting => false,
            Standing::Claimed(_) => row.replies == 0 && !row.dropped,
            Standing::Done | Standing::PassedOver => {
                row.replies + usize::from(row.dropped) == usize::from(!changes && !nothing) || row.dropped
            }
        };
        assert!(once, "{row:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_message_is_answered_once(happenings in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::new();
        for happening in happenings {
            happens(&mut world, happening);
        }
        settle(&mut world);
        each_is_answered_once(&world);
    }
}
