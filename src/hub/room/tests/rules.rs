//! A table for each rule of turns, stops and changes: what is said in a room, step by step, and what the actor does
//! about it.

use super::*;

/// A step, and what is done about it.
pub(super) type Step = (fn(&mut World) -> Vec<String>, &'static [&'static str]);

/// Goes through a table in a new room.
pub(super) fn holds(name: &str, steps: &[Step]) {
    let mut world = World::new();
    for (at, (step, done)) in steps.iter().enumerate() {
        assert_eq!(step(&mut world), *done, "{name}, step {}", at + 1);
    }
    let waiting: Vec<_> = world.rows.iter().filter(|row| row.waits()).map(|row| row.event.as_str()).collect();
    assert!(waiting.is_empty() && world.memory.turn.is_none(), "{name}: {waiting:?} wait still");
}

#[test]
fn one_turn_at_a_time() {
    holds(
        "a question",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
            (|w| w.says("b", "and that"), &["open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
    holds(
        "what the turn has not read begins the next one",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.says("b", "and that"), &["hand over b: and that"]),
            (|w| w.turn_ends(), &["answer a: Done", "open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
    holds(
        "a bot that panics",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (
                |w| {
                    w.memory.works = false;
                    w.happens(Event::Ended(End::NoOutcome))
                },
                &["answer a: NoOutcome"],
            ),
        ],
    );
}

#[test]
fn what_is_said_during_a_turn_steers_it() {
    holds(
        "as much as it takes, in order",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.says("b", "one"), &["hand over b: one"]),
            (|w| w.says("c", "two"), &["hand over c: two"]),
            (|w| w.says("d", "three"), &[]),
            (|w| w.bot_reads(), &["hand over d: three"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "what came together with the question",
        &[
            (
                |w| {
                    w.sends("anna", "a", Sent::Text("fix it".into()));
                    w.says("b", "and that")
                },
                &["open a", "start a", "hand over b: and that"],
            ),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
}

#[test]
fn a_stop_ends_the_turn_and_what_was_said_before_it() {
    holds(
        "a turn",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.says("b", "and that"), &["hand over b: and that"]),
            (|w| w.says("s", "!stop"), &["claim s b", "stop"]),
            (|w| w.says("c", "something else"), &[]),
            (|w| w.turn_ends(), &["answer a: Stopped", "open c", "start c"]),
            (|w| w.turn_ends(), &["answer c: Done"]),
        ],
    );
    holds(
        "one that waits for a permit",
        &[
            (
                |w| {
                    w.before = Some(1);
                    w.says("a", "fix it")
                },
                &["a waits behind 1"],
            ),
            (|w| w.says("b", "and that"), &[]),
            (|w| w.says("s", "!stop"), &["open a", "answer a: Stopped"]),
        ],
    );
    holds(
        "one that waits for its file",
        &[
            (|w| w.sends_file("a", "read this"), &["fetch a"]),
            (|w| w.says("s", "!stop"), &["open a", "answer a: Stopped", "drop the file"]),
        ],
    );
    holds("nothing", &[(|w| w.says("s", "!stop"), &["nothing to stop s"])]);
    holds(
        "all at once",
        &[(
            |w| {
                w.before = Some(1);
                w.sends("anna", "a", Sent::Text("fix it".into()));
                w.says("s", "!stop")
            },
            &["a waits behind 1", "open a", "answer a: Stopped"],
        )],
    );
}

#[test]
fn a_stop_holds_across_a_crash() {
    holds(
        "before the bot has ended",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.says("s", "!stop"), &["claim s", "stop"]),
            (
                |w| {
                    w.before = Some(3);
                    w.crash()
                },
                &["resume a", "start a"],
            ),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "said while the process was away",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (
                |w| {
                    w.sends("anna", "s", Sent::Text("!stop".into()));
                    w.crash()
                },
                &["resume a", "start a", "claim s", "stop"],
            ),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
}

#[test]
fn edits_and_redactions_of_what_waits() {
    let queued: Step = (
        |w| {
            w.before = Some(1);
            w.says("a", "fix it")
        },
        &["a waits behind 1"],
    );
    holds(
        "other words",
        &[
            queued,
            (|w| w.edits("e", "a", "fix that"), &["rewrite a: fix that", "a waits behind 1"]),
            (|w| w.moves_up(None), &["open a", "start a"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "it becomes an order",
        &[
            queued,
            (|w| w.edits("e", "a", "!status"), &["rewrite a: !status", "carry out a while waiting"]),
            (|w| w.order_ends("a", false), &[]),
        ],
    );
    holds("taken back", &[queued, (|w| w.redacts("e", "a"), &["waits no more", "drop a"])]);
    holds(
        "taken back while its file is fetched",
        &[(|w| w.sends_file("a", "read this"), &["fetch a"]), (|w| w.redacts("e", "a"), &["drop the file", "drop a"])],
    );
    holds(
        "not by somebody else",
        &[
            queued,
            (
                |w| {
                    w.sends("bert", "e", Sent::Redaction { target: "a".into() });
                    w.ring()
                },
                &[],
            ),
            (|w| w.moves_up(None), &["open a", "start a"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
}

#[test]
fn edits_and_redactions_during_a_turn() {
    let begun: Step = (|w| w.says("a", "fix it"), &["open a", "start a"]);
    holds(
        "of the question",
        &[
            begun,
            (|w| w.edits("e", "a", "fix that"), &["tell e"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.redacts("r", "a"), &["claim r", "stop"]),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "of what was handed over",
        &[
            begun,
            (|w| w.says("b", "and that"), &["hand over b: and that"]),
            (|w| w.redacts("r", "b"), &["tell r"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "of what was not",
        &[
            begun,
            (|w| w.says("b", "/ask something"), &[]),
            (|w| w.edits("e", "b", "/ask something else"), &["rewrite b: /ask something else"]),
            (|w| w.redacts("r", "b"), &["drop b"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "of what was answered",
        &[
            begun,
            (|w| w.turn_ends(), &["answer a: Done"]),
            (|w| w.redacts("r", "a"), &["forget a"]),
            (|w| w.edits("e", "a", "fix that"), &[]),
        ],
    );
}

#[test]
fn an_edit_into_a_stop_ends_the_turn() {
    let begun: Step = (|w| w.says("a", "fix it"), &["open a", "start a"]);
    let handed: Step = (|w| w.says("b", "and that"), &["hand over b: and that"]);
    holds(
        "of the question",
        &[
            begun,
            handed,
            (|w| w.edits("e", "a", "!stop"), &["claim e", "stop"]),
            (|w| w.turn_ends(), &["answer a: Stopped", "open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
    holds(
        "of what the turn has read",
        &[
            begun,
            handed,
            (|w| w.bot_reads(), &[]),
            (|w| w.edits("e", "b", "!stop"), &["claim e", "stop"]),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "of what was handed over",
        &[
            begun,
            handed,
            (|w| w.edits("e", "b", "!stop"), &["claim e b", "stop"]),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "of what was not",
        &[
            begun,
            handed,
            (|w| w.says("c", "/ask something"), &[]),
            (|w| w.edits("e", "c", "!stop"), &["rewrite c: !stop", "claim c b", "stop"]),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "across a crash",
        &[
            begun,
            (|w| w.edits("e", "a", "!stop"), &["claim e", "stop"]),
            (|w| w.crash(), &["resume a", "start a"]),
            (|w| w.turn_ends(), &["answer a: Stopped"]),
        ],
    );
    holds(
        "of what waits behind another for a permit",
        &[
            (
                |w| {
                    w.before = Some(1);
                    w.says("a", "fix it")
                },
                &["a waits behind 1"],
            ),
            (|w| w.says("b", "and that"), &[]),
            (|w| w.edits("e", "b", "!stop"), &["rewrite b: !stop", "open a", "answer a: Stopped"]),
        ],
    );
    holds("too late", &[begun, (|w| w.turn_ends(), &["answer a: Done"]), (|w| w.edits("e", "a", "!stop"), &[])]);
}
