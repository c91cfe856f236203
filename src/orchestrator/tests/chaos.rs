//! Random turns: whatever models, tools, people and crashes do, in whatever order, the harness's checks hold at every
//! step, the turn ends with exactly one answer, and the number of requests is bounded.

use proptest::prelude::*;

use super::*;

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Happening {
    Text(u8),
    Empty(Finish),
    Calls(Vec<u8>, Finish),
    ModelFails(u8),
    Piece(u16),
    ToolEnds {
        which: u8,
        size: u16,
        kind: u8,
    },
    Said,
    /// A running call asks for what was said.
    Takes(u8),
    TimeUp,
    Stop,
    /// The process dies now; `true`: before the intents of the running calls were stored.
    Crash(bool),
    /// The process dies within the next event's actions, after so many of them.
    CrashWithin(u8),
    Late,
}

fn finish() -> impl Strategy<Value = Finish> {
    prop_oneof![4 => Just(Finish::ToolCalls), 2 => Just(Finish::Stop), 1 => Just(Finish::Length), 1 => Just(Finish::Filtered)]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => any::<u8>().prop_map(Happening::Text),
        1 => finish().prop_map(Happening::Empty),
        14 => (prop::collection::vec(any::<u8>(), 1..24), finish()).prop_map(|(calls, finish)| Happening::Calls(calls, finish)),
        1 => any::<u8>().prop_map(Happening::ModelFails),
        2 => any::<u16>().prop_map(Happening::Piece),
        30 => (any::<u8>(), 0..20_000_u16, any::<u8>()).prop_map(|(which, size, kind)| Happening::ToolEnds { which, size, kind }),
        6 => Just(Happening::Said),
        6 => any::<u8>().prop_map(Happening::Takes),
        1 => Just(Happening::TimeUp),
        1 => Just(Happening::Stop),
        1 => any::<bool>().prop_map(Happening::Crash),
        2 => any::<u8>().prop_map(Happening::CrashWithin),
        1 => Just(Happening::Late),
    ]
}

fn call(kind: u8) -> (&'static str, &'static str) {
    match kind % 8 {
        0 => ("read_file", r#"{"path":"a"}"#),
        1 => ("run_command", r#"{"command":"ls"}"#),
        2 => ("edit_file", r#"{"path":"a.rs"}"#),
        3 => ("run_tests", "{}"),
        4 => ("no such tool", "{}"),
        5 => ("run_command", r#"{"command":"#),
        6 => ("", "[]"),
        _ => ("read_file", ""),
    }
}

fn play(play: &mut Play, events: &mut u32, happening: Happening) {
    let asked = play.asked.is_some();
    match happening {
        Happening::Text(kind) if asked => {
            play.text(["Done.", "Not yet.", "✅ tests pass", "I cannot."][usize::from(kind % 4)]);
        }
        Happening::Empty(finish) if asked => play.reply(AssistantMessage::default(), finish, None),
        Happening::Calls(calls, finish) if asked => {
            let calls: Vec<_> = calls.into_iter().map(call).collect();
            play.reply(calling(&calls), finish, None);
        }
        Happening::ModelFails(kind) if asked => play.fails(match kind % 6 {
            0 | 1 => Remedy::Nothing,
            2 => shorter(),
            3 => Remedy::NoPictures,
            4 => Remedy::ShorterAnswer(None),
            _ => Remedy::Unknown,
        }),
        Happening::Piece(size) if asked => {
            play.piece(&"again ".repeat(usize::from(size % 1000)));
            // A request that was broken off is gone in the driver too; the harness sees the cancel.
        }
        Happening::ToolEnds { which, size, kind } if !play.running.is_empty() => {
            let which = usize::from(which) % play.running.len();
            let call = play.running[which].id.clone();
            let text = "o".repeat(usize::from(size));
            let result = match kind % 5 {
                0 => edited("a.rs"),
                1 => tested(kind > 100),
                2 => bad(&text),
                3 => CallResult {
                    pictures: vec![Part::Image { mime: "image/png".into(), data: "a".into() }],
                    ..good("a picture")
                },
                _ => good(&text),
            };
            play.feed(Event::ToolDone { call, result });
        }
        Happening::Said if play.machine.listens() => {
            *events += 1;
            play.said(&format!("e{events}"), "and this");
        }
        Happening::Takes(which) if !play.running.is_empty() => {
            play.takes(usize::from(which) % play.running.len());
        }
        Happening::TimeUp => play.feed(Event::TimeUp),
        Happening::Stop => play.feed(Event::Stop),
        Happening::Crash(early) => {
            if early {
                play.running.clear();
            }
            play.crash();
        }
        Happening::CrashWithin(actions) => play.dies_after = Some(usize::from(actions % 6)),
        Happening::Late => {
            play.feed(Event::ToolDone { call: "late".into(), result: good("late") });
            if play.answer.is_none() {
                play.feed(Event::Takes("late".into()));
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_turn_ends_with_one_answer_and_a_sound_history(
        happenings in prop::collection::vec(happening(), 0..120),
        window in prop_oneof![Just(6_000_u64), Just(30_000), Just(200_000)],
        rounds in 1_u32..12,
    ) {
        let limits = TurnLimits { rounds, ..TurnLimits::default() };
        let mut turn = Play::with(limits, window, vec![]);
        let (mut crashes, mut events) = (0, 0);
        for happening in happenings {
            if turn.answer.is_some() {
                break;
            }
            crashes += u32::from(matches!(happening, Happening::Crash(_) | Happening::CrashWithin(_)));
            play(&mut turn, &mut events, happening);
        }
        // From here on the model calls without end and the tools end: the limits alone lead it to an answer.
        let mut steps = 0;
        while turn.answer.is_none() {
            steps += 1;
            prop_assert!(steps < 1000, "it goes on for ever: {}", turn.log);
            if turn.asked.is_some() {
                turn.calls(&[("read_file", &format!(r#"{{"path":"{steps}"}}"#))]);
            } else {
                turn.result(good(&steps.to_string()));
            }
        }
        // Rounds, summaries, overflows, the wrapping up twice, shorter answers, one guess, and one more for each time that
        // pictures were taken out; a crash repeats at most the request that it cut off, and its relief.
        let most = rounds + 6 + 3 + 2 + 2 + 1 + turn.rebased + crashes * 2 + crashes * 9;
        prop_assert!(turn.requests <= most, "{} requests", turn.requests);
        // Each word is in the turn once, or waits for the next turn; a line tells of each word that a call was given.
        let claimed: Vec<_> = turn.stored.iter().filter_map(|line| Some(line.word()?.event)).collect();
        let waiting = turn.unclaimed.iter().map(|message| message.event.clone());
        let all: std::collections::BTreeSet<_> = claimed.iter().cloned().chain(waiting).collect();
        prop_assert_eq!(all.len(), claimed.len() + turn.unclaimed.len());
        prop_assert_eq!(all.len(), events as usize + 1);
        let given: std::collections::BTreeSet<_> = turn.passed.iter().collect();
        prop_assert_eq!(given.len(), turn.passed.len(), "nothing is given twice");
        // After the answer nothing moves.
        for event in [Event::Stop, Event::TimeUp, Event::Said(said("late", "late"))] {
            prop_assert!(turn.machine.handle(event).is_empty());
        }
        // The next turn finds a history that every provider takes.
        let mut room = turn.context.clone();
        room.push(turn.answer().line.clone());
        let next = Play::with(TurnLimits::default(), 200_000, room);
        prop_assert!(next.asked.is_some());
    }
}
