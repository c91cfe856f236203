//! The twelve mistakes that coding agents make most, each with the test that it is not made here. The third (inherited
//! pipes hang a command) belongs to sandboxd and the eighth (fuzzy edits corrupt) to the tools; here stands what the
//! turn does when such a call does not end or is refused.

use super::*;
use crate::{
    orchestrator::{proof::Proof, words},
    strings::turns,
};

#[test]
fn m01_no_call_stays_unanswered_and_a_broken_history_is_mended_on_load() {
    let broken = vec![
        said("a", "hi").to_line(),
        Line {
            message: Message::Assistant(calling(&[("read_file", "{}"), ("read_file", "{}")])),
            origin: Origin::Model { calls: vec!["x".into(), "y".into()], refused: vec![], usage: Usage::default() },
        },
    ];
    // The harness checks every request; this one would be rejected by strict providers.
    let mut play = Play::with(TurnLimits::default(), 200_000, broken);
    assert_eq!(play.shown_to_model()[3], format!("c0: {}", words::CALL_LOST));
    play.calls(&[("read_file", "{}")]);
    play.feed(Event::Stop);
    assert_eq!(play.ended().0, Ending::Stopped);
}

#[test]
fn m02_compaction_ends_after_two_weak_ones_and_never_follows_an_answer() {
    // The window is so small that what must stay fills it: no summary helps.
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 400, vec![]);
    let mut summaries = 0;
    for round in 0..100 {
        if play.answer.is_some() {
            break;
        }
        if play.shown.last().is_some_and(|shown| shown.contains(turns::SUMMARISING)) {
            summaries += 1;
            play.text(&"long ".repeat(8000));
        } else {
            play.uncounted(&format!(r#"{{"path":"{round}"}}"#));
            play.result(good(&"output ".repeat(150)));
        }
    }
    assert_eq!(summaries, 2);
    assert_eq!(play.ended().0, Ending::Limit);
    assert!(play.ended().1.contains("context window"), "{}", play.ended().1);

    let mut play = Play::with(TurnLimits::default(), 8_000, vec![]);
    play.reply(AssistantMessage { text: "Done.".into(), ..AssistantMessage::default() }, Finish::Stop, usage(7_900));
    assert_eq!(play.log(), "ask answer", "a full window after the answer is the next turn's matter");
}

#[test]
fn m03_a_call_that_never_ends_is_ended_by_the_turns_time() {
    let mut play = Play::new();
    play.calls(&[("run_command", r#"{"command":"sleep inf &"}"#)]);
    play.feed(Event::TimeUp);
    assert_eq!(play.log(), "ask model run cancel result wrap! ask");
    assert!(play.shown_to_model()[3].contains(words::CALL_TIME));
}

#[test]
fn m04_empty_answers_are_nudged_twice_and_never_end_in_silence() {
    let mut play = Play::new();
    for text in ["", "  \n", ""] {
        play.text(text);
    }
    assert_eq!(play.log(), "ask empty! ask empty! ask answer");
    assert_eq!(play.ended(), (Ending::Failed, turns::NO_ANSWER));
    let mut play = Play::new();
    play.text("");
    play.text("Sorry. Here it is.");
    assert_eq!(play.ended(), (Ending::Done, "Sorry. Here it is."));
}

#[test]
fn m05_calls_that_were_cut_off_or_do_not_parse_never_run() {
    let mut play = Play::new();
    let complete = ("run_command", r#"{"command":"rm -rf build"}"#);
    play.reply(calling(&[complete, ("run_command", r#"{"command":"rm -rf /workspa"#)]), Finish::Length, usage(10));
    play.calls(&[("run_command", r#"{"command":"rm -rf /workspa"#)]);
    assert_eq!(play.log(), "ask model ask model ask");
    assert!(play.started.is_empty(), "not even the complete one: the message was cut off");
    assert!(play.shown_to_model()[3].contains("smaller pieces"));
    assert!(play.newest().contains("EOF while parsing a string"));
}

#[test]
fn m06_done_is_checked_against_the_last_test_run_and_the_last_edit() {
    let edit = |play: &mut Play| play.step("edit_file", r#"{"path":"a.rs"}"#, edited("a.rs"));
    let mut play = Play::new();
    play.step("run_tests", "{}", tested(false));
    edit(&mut play);
    play.log();
    play.text("Fixed, all tests pass.");
    assert_eq!(play.log(), "model prove! ask");
    assert!(play.newest().contains("red"), "{}", play.newest());
    play.text("Fixed, all tests pass!");
    assert_eq!(play.log(), "answer", "once a turn; then the footer says it");
    assert_eq!(play.answer().tally.proof, Proof::Red);

    let mut play = Play::new();
    play.step("run_tests", "{}", tested(true));
    edit(&mut play);
    play.text("Done.");
    assert!(play.newest().contains("edited after the last test run"));
    play.step("run_tests", "{}", tested(true));
    play.text("Done.");
    assert_eq!((play.ended(), play.answer().tally.proof), ((Ending::Done, "Done."), Proof::Green));

    let mut play = Play::new();
    edit(&mut play);
    play.text("I changed a.rs; the tests were not run.");
    assert_eq!((play.ended().0, play.answer().tally.proof), (Ending::Done, Proof::Unverified), "honest: no nudge");
}

#[test]
fn m06_a_claim_is_sent_back_across_a_crash_and_not_beyond_the_limit() {
    let mut play = Play::new();
    play.step("edit_file", r#"{"path":"a.rs"}"#, edited("a.rs"));
    play.text("Done.");
    // The process died between the claim and the word.
    for lines in [&mut play.stored, &mut play.context] {
        assert!(matches!(lines.pop().unwrap().origin, Origin::Program { note: Note::Unproven }));
    }
    play.log();
    play.last = None;
    play.crash();
    assert_eq!(play.log(), "crash prove! ask");

    let mut play = Play::with(TurnLimits { rounds: 2, ..TurnLimits::default() }, 200_000, vec![]);
    play.step("edit_file", r#"{"path":"a.rs"}"#, edited("a.rs"));
    play.text("Done.");
    assert_eq!(play.ended(), (Ending::Done, "Done."), "no round is left to run tests in");
}

#[test]
fn m07_nothing_volatile_stands_before_the_end_of_the_prompt() {
    let prompt = crate::orchestrator::prompt::system(true, "2026-11-21");
    assert_eq!(prompt.find("2026"), Some(prompt.len() - "2026-11-21.".len()));
    // That a context only grows is asserted at each request of each test here.
    let mut play = Play::new();
    play.step("read_file", "{}", good("1"));
    play.said("e1", "also this");
    play.step("read_file", r#"{"path":"b"}"#, good("2"));
    assert_eq!(play.shown_to_model().len(), 7);
}

#[test]
fn m08_a_refused_edit_is_no_edit() {
    let mut play = Play::new();
    play.step("edit_file", r#"{"path":"a.rs"}"#, bad("Not edited: the text is there twice."));
    play.text("It could not be changed.");
    assert_eq!((play.answer().tally.proof, play.answer().tally.edits.len()), (Proof::None, 0));
}

#[test]
fn m09_rules_survive_a_summary() {
    let rule = "anna: never touch the billing folder";
    let history = vec![said("a", "never touch the billing folder").to_line()];
    let mut play = Play::with(TurnLimits::default(), 20_000, history);
    for n in 0..100 {
        if play.shown.last().is_some_and(|shown| shown.contains(turns::SUMMARISING)) {
            break;
        }
        play.uncounted(&format!(r#"{{"path":"{n}","content":"{}"}}"#, "c".repeat(2000)));
        play.result(good(&"output ".repeat(900)));
    }
    play.text("## Goal\nfix the login");
    let shown = play.shown_to_model();
    assert_eq!(shown[0], "system: system", "the standing rules are never summarised");
    assert!(shown[1].contains(rule) && shown[1].contains("AGENTS.md") && shown[1].contains("## Goal"), "{}", shown[1]);
    assert!(shown[1].contains("anna: fix the login"));
}

#[test]
fn m10_what_the_provider_wants_back_is_stored_and_sent_back() {
    let mut play = Play::new();
    let mut message = calling(&[("read_file", "{}")]);
    message.echo.insert("reasoning_content".into(), "because".into());
    message.calls[0].extra = Some(serde_json::json!({"google": {"thought_signature": "abc"}}));
    play.reply(message.clone(), Finish::ToolCalls, usage(10));
    play.result(good("1"));
    play.crash();
    assert_eq!(play.asked.as_ref().unwrap().messages[2], Message::Assistant(message));
}

#[test]
fn m11_a_small_output_cap_grows_and_does_not_loop() {
    let mut play = Play::with(TurnLimits { max_output: Some(1000), ..TurnLimits::default() }, 200_000, vec![]);
    let mut caps = vec![];
    for n in 0..4 {
        caps.push(play.asked.as_ref().unwrap().max_output.unwrap());
        play.reply(calling(&[("edit_file", &format!(r#"{{"path":"{n}"#))]), Finish::Length, usage(10));
    }
    assert_eq!(caps, [1000, 2000, 4000, 8000]);
    assert_eq!(play.log(), "ask model ask model ask model ask model wrap! ask");
}

#[test]
fn m12_usage_from_before_a_compaction_is_not_trusted_and_only_an_overflow_is_one() {
    let mut play = Play::with(TurnLimits { rounds: 50, ..TurnLimits::default() }, 100_000, vec![]);
    for n in 0..9 {
        play.calls(&[("read_file", &format!(r#"{{"path":"{n}"}}"#))]);
        play.result(good(&"x".repeat(30_000)));
    }
    play.reply(calling(&[("read_file", r#"{"path":"z"}"#)]), Finish::ToolCalls, usage(80_000));
    play.result(good("small"));
    assert_eq!(play.rebased, 1, "masked once");
    play.crash();
    assert_eq!(play.rebased, 1, "80k tokens were counted before; they no longer hold");

    let mut play = Play::new();
    play.fails(Remedy::Nothing);
    assert_eq!((play.rebased, play.ended().0), (0, Ending::Failed), "a rate limit is no overflow");
}
