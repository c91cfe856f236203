//! Tables of what goes on beside a turn and before it: orders, other bots, files, the queue for a permit.

use super::{
    rules::{Step, holds},
    *,
};

#[test]
fn orders_beside_a_turn_and_between_turns() {
    let begun: Step = (|w| w.says("a", "fix it"), &["open a", "start a"]);
    holds(
        "of the turn's bot",
        &[
            begun,
            (|w| w.says("o", "!status"), &["carry out o while working"]),
            (|w| w.says("n", "!new"), &[]),
            (|w| w.order_ends("o", false), &[]),
            (|w| w.turn_ends(), &["answer a: Done", "carry out n while nothing"]),
            (|w| w.says("b", "and that"), &[]),
            (|w| w.order_ends("n", false), &["open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
    holds(
        "between two messages",
        &[
            begun,
            (|w| w.says("n", "!new"), &[]),
            (|w| w.says("b", "for the new conversation"), &[]),
            (|w| w.turn_ends(), &["answer a: Done", "carry out n while nothing"]),
            (|w| w.order_ends("n", false), &["open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
    holds(
        "edited into something else before it was carried out",
        &[
            begun,
            (|w| w.says("n", "!new"), &[]),
            (|w| w.says("b", "and that"), &[]),
            (
                |w| w.edits("e", "n", "this too"),
                &["rewrite n: this too", "hand over n: this too", "hand over b: and that"],
            ),
            (|w| w.bot_reads(), &[]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "taken back before it was carried out",
        &[
            begun,
            (|w| w.says("n", "!new"), &[]),
            (|w| w.says("b", "and that"), &[]),
            (|w| w.redacts("r", "n"), &["drop n", "hand over b: and that"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "of another bot",
        &[
            begun,
            (|w| w.says("n", "/between"), &["carry out n while working"]),
            (|w| w.order_ends("n", false), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "one that is slower than the turn",
        &[
            begun,
            (|w| w.says("o", "!status"), &["carry out o while working"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
            (|w| w.order_ends("o", false), &[]),
        ],
    );
    holds(
        "one that panics",
        &[(|w| w.says("o", "!status"), &["carry out o while nothing"]), (|w| w.order_ends("o", true), &["reply o"])],
    );
}

#[test]
fn work_of_another_bot_waits() {
    holds(
        "for the turn",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.says("b", "/ask something"), &[]),
            (|w| w.says("c", "and that"), &["hand over c: and that"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done", "open b", "start b"]),
            (|w| w.turn_ends(), &["answer b: Done"]),
        ],
    );
}

#[test]
fn a_file_is_fetched_before_its_words() {
    holds(
        "with a question",
        &[
            (|w| w.sends_file("a", "read this"), &["fetch a"]),
            (|w| w.says("b", "quickly"), &[]),
            (|w| w.file_comes(), &["open a", "start a", "hand over b: quickly"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds("alone", &[(|w| w.sends_file("a", ""), &["fetch a"]), (|w| w.file_comes(), &["acknowledge a"])]);
    holds(
        "that cannot be had",
        &[
            (|w| w.sends_file("a", "read this"), &["fetch a"]),
            (|w| w.fetch_ends(Err("It is gone.".into())), &["reply a"]),
        ],
    );
    holds(
        "during a turn",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.sends_file("f", "with this"), &["fetch f"]),
            (|w| w.says("b", "quickly"), &[]),
            (|w| w.edits("e", "f", "or with that"), &["drop the file", "rewrite f: or with that", "fetch f"]),
            (|w| w.file_comes(), &["hand over f: or with that", "hand over b: quickly"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "nobody wants it any more, and it cannot be had",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.sends_file("f", "with this"), &["fetch f"]),
            (|w| w.edits("e", "f", "nothing"), &["drop the file", "rewrite f: nothing"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "taken back during a turn",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (|w| w.sends_file("f", "with this"), &["fetch f"]),
            (|w| w.says("b", "quickly"), &[]),
            (|w| w.redacts("r", "f"), &["drop the file", "drop f", "hand over b: quickly"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
}

#[test]
fn the_queue_for_a_permit_is_shown() {
    holds(
        "a new turn",
        &[
            (
                |w| {
                    w.before = Some(2);
                    w.says("a", "fix it")
                },
                &["a waits behind 2"],
            ),
            (|w| w.moves_up(Some(2)), &[]),
            (|w| w.moves_up(Some(0)), &["a waits behind 0"]),
            (|w| w.says("o", "!status"), &["carry out o while waiting"]),
            (|w| w.order_ends("o", false), &[]),
            (|w| w.moves_up(None), &["open a", "start a"]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
    holds(
        "a resumed one, which takes what is said meanwhile",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (
                |w| {
                    w.before = Some(1);
                    w.crash()
                },
                &["resume a", "a waits behind 1"],
            ),
            (|w| w.says("b", "and that"), &["hand over b: and that"]),
            (|w| w.moves_up(None), &["start a"]),
            (|w| w.bot_reads(), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
}

#[test]
fn what_nobody_can_work_with_is_answered_too() {
    holds(
        "a voice message",
        &[
            (|w| w.says("a", "fix it"), &["open a", "start a"]),
            (
                |w| {
                    w.sends("anna", "v", Sent::Voice);
                    w.ring()
                },
                &["reply v"],
            ),
            (|w| w.says("n", "nothing"), &[]),
            (|w| w.turn_ends(), &["answer a: Done"]),
        ],
    );
}
