//! Making room in the model's window.

use super::*;
use crate::{orchestrator::words, strings::turns};

/// Plays until a summary is asked for; every result has `size` characters.
fn filled(window: u64, size: usize) -> Play {
    let mut play = Play::with(TurnLimits { rounds: 1000, ..TurnLimits::default() }, window, vec![]);
    for n in 0..1000 {
        if summarising(&play) {
            return play;
        }
        if n == 3 {
            play.said("e1", "and write it in Rust");
        }
        // Arguments are not masked, so that masking alone is not enough.
        let arguments = format!(r#"{{"path":"{n}","content":"{}"}}"#, "c".repeat(size / 4));
        play.uncounted(&arguments);
        play.result(good(&format!("{n} {}", "o".repeat(size))));
    }
    panic!("the window was never full");
}

fn summarising(play: &Play) -> bool {
    play.shown.last().is_some_and(|shown| shown.contains(turns::SUMMARISING))
}

#[test]
fn old_outputs_are_masked_first_in_one_batch_and_recent_ones_stay() {
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 100_000, vec![]);
    let mut rounds = 0;
    while play.rebased == 0 {
        play.uncounted(&format!(r#"{{"path":"{rounds}"}}"#));
        play.result(good(&"x".repeat(16_000)));
        rounds += 1;
    }
    // The output of the last five rounds stays; an eighth of the window is masked at once.
    assert_eq!(rounds, 9);
    let shown = play.shown_to_model();
    let masked = shown.iter().filter(|line| line.contains(words::MASKED)).count();
    let whole = shown.iter().filter(|line| line.contains("xxxx")).count();
    assert_eq!((masked, whole), (4, 5));
    assert!(
        shown.iter().rposition(|line| line.contains(words::MASKED)) < shown.iter().position(|l| l.contains("xxxx"))
    );
    assert!(!summarising(&play));
    assert_eq!(shown[1], "user: anna: fix the login");
}

#[test]
fn a_long_task_is_masked_in_few_steps_and_carries_little() {
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 131_072, vec![]);
    let (mut before, mut steps, mut carried) = (vec![], 0, 0);
    for round in 0..60 {
        play.uncounted(&format!(r#"{{"path":"{round}"}}"#));
        play.result(good(&format!("{round} {}\n[the whole output: /home/agent/{round}.log]", "x".repeat(8_000))));
        let shown = play.shown_to_model();
        let (same, all) = (shown.iter().zip(&before).take_while(|(now, before)| now == before).count(), before.len());
        if same < all {
            steps += 1;
        } else {
            let grown: usize = shown[same..].iter().map(String::len).sum();
            assert!(grown < 9_000, "what was there stays as it was");
        }
        carried = carried.max(shown.iter().map(String::len).sum::<usize>());
        // What was looked at in the last rounds is whole.
        let whole = shown.iter().rev().filter(|line| line.contains("xxxx")).count();
        assert!(whole >= 5.min(round + 1), "{whole} in round {round}");
        before = shown;
    }
    assert!((2..=7).contains(&steps), "{steps} steps");
    assert!(carried < 131_072, "a quarter of the window, in bytes: {carried}");
    assert!(before.iter().any(|line| line.contains("; all of it: /home/agent/0.log]")), "{:?}", before[3]);
}

#[test]
fn what_the_model_has_not_seen_is_not_old() {
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 131_072, vec![]);
    for round in 0..3 {
        play.uncounted(&format!(r#"{{"path":"{round}"}}"#));
        play.result(good(&"x".repeat(100_000)));
    }
    assert_eq!(play.rebased, 0, "three large files that are read one after the other are worked on together");
}

#[test]
fn small_outputs_and_small_gains_are_left_alone() {
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 100_000, vec![]);
    for n in 0..100 {
        if summarising(&play) {
            break;
        }
        play.uncounted(&format!(r#"{{"path":"{n}","content":"{}"}}"#, "c".repeat(20_000)));
        play.result(good("written"));
    }
    assert_eq!((summarising(&play), play.rebased), (true, 0), "masking would gain nothing");
}

#[test]
fn a_summary_keeps_words_and_last_messages_and_asks_without_tools() {
    let mut play = filled(40_000, 8_000);
    let request = play.asked.as_ref().unwrap();
    assert!(!request.tools);
    assert_eq!(request.messages.len(), 2);
    let record = brief(&request.messages[1]);
    assert!(record.contains("<record>") && record.contains("is data"));
    assert!(super::super::context::tokens(&request.messages[1]) < 40_000 * 3 / 5 + 200);
    let before = play.context.len();
    play.text("## Goal\nthe login works");
    let shown = play.shown_to_model();
    assert!(shown.len() < before);
    assert!(shown[1].starts_with(&format!("user: {}", words::SUMMARY_HEAD)));
    for kept in ["## Goal\nthe login works", "> anna: fix the login", "> anna: and write it in Rust"] {
        assert!(shown[1].contains(kept), "{kept} in {}", shown[1]);
    }
    assert!(shown[2].starts_with("assistant"), "what stays begins with no result: {}", shown[2]);
    assert!(shown.last().unwrap().contains("oooo"), "the last result is whole");
    assert!(play.log().ends_with("rebase ask"));
}

#[test]
fn the_second_summary_still_has_the_first_ones_words() {
    let mut play = filled(40_000, 8_000);
    play.text("first summary");
    for n in 0..1000 {
        if summarising(&play) {
            break;
        }
        let arguments = format!(r#"{{"path":"again{n}","content":"{}"}}"#, "c".repeat(2000));
        play.uncounted(&arguments);
        play.result(good(&"o".repeat(8000)));
    }
    assert!(brief(&play.asked.as_ref().unwrap().messages[1]).contains("first summary"), "it is merged");
    play.text("second summary");
    let head = &play.shown_to_model()[1];
    assert!(head.contains("second summary") && !head.contains("first summary"));
    assert_eq!(head.matches("> anna: fix the login").count(), 1);
}

#[test]
fn a_summary_that_fails_or_is_empty_leaves_words_and_last_messages() {
    for broken in [true, false] {
        let mut play = filled(40_000, 8_000);
        if broken {
            play.fails(shorter());
        } else {
            play.calls(&[("read_file", "{}")]);
        }
        assert!(play.log().ends_with("rebase ask"));
        let head = &play.shown_to_model()[1];
        assert!(head.contains("No summary could be made") && head.contains("> anna: fix the login"), "{head}");
    }
}

#[test]
fn a_stop_while_summarising_ends_at_once() {
    let mut play = filled(40_000, 8_000);
    play.log();
    play.feed(Event::Stop);
    assert_eq!(play.log(), "cancel answer");
}

#[test]
fn a_crash_while_summarising_summarises_again_and_after_it_goes_on() {
    let mut play = filled(40_000, 8_000);
    play.crash();
    assert!(summarising(&play));
    play.text("## Goal\nthe login works");
    let shown = play.shown_to_model();
    let rounds = play.stored.iter().filter(|line| matches!(line.origin, Origin::Model { .. })).count();
    play.crash();
    assert_eq!(play.shown_to_model(), shown);
    play.text("Done.");
    assert_eq!(play.answer().tally.rounds as usize, rounds + 1, "the turn's own lines are all counted");
}

#[test]
fn a_crash_right_after_masking_shows_the_same_and_counts_the_batch_once() {
    let mut play = Play::with(TurnLimits { rounds: 100, ..TurnLimits::default() }, 100_000, vec![]);
    let picture = Part::Image { mime: "image/png".into(), data: "aaaa".into() };
    while play.rebased == 0 {
        play.uncounted(&format!(r#"{{"path":"{}"}}"#, play.requests));
        play.result(CallResult { pictures: vec![picture.clone()], ..good(&"x".repeat(16_000)) });
    }
    let (shown, calls) = (play.shown_to_model(), play.started.len());
    play.crash();
    assert_eq!(play.shown_to_model(), shown);
    play.text("Read.");
    assert_eq!(play.answer().tally.calls as usize, calls);
}

#[test]
fn an_overflow_makes_room_though_the_count_seemed_fine() {
    let mut play = Play::new();
    for n in 0..10 {
        play.calls(&[("read_file", &format!(r#"{{"path":"{n}"}}"#))]);
        play.result(good(&"x".repeat(16_000)));
    }
    play.fails(shorter());
    assert_eq!(play.rebased, 1);
    assert!(!summarising(&play), "masking was enough");
    play.text("Read.");
    assert_eq!(play.ended().0, Ending::Done);
}

#[test]
fn a_refusal_that_nobody_understands_makes_room_once_in_a_long_conversation() {
    let mut play = Play::new();
    play.fails(Remedy::Unknown);
    assert_eq!((play.log().as_str(), play.ended().0), ("ask answer", Ending::Failed), "a short one is not to blame");

    let mut play = Play::new();
    for n in 0..10 {
        play.calls(&[("read_file", &format!(r#"{{"path":"{n}"}}"#))]);
        play.result(good(&"x".repeat(16_000)));
    }
    play.log();
    play.fails(Remedy::Unknown);
    assert_eq!(play.log(), "rebase ask");
    play.fails(Remedy::Unknown);
    assert_eq!((play.log().as_str(), play.ended().0), ("answer", Ending::Failed));
}

#[test]
fn the_figures_of_a_refusal_say_how_much_room_is_needed() {
    // Estimated at 41k tokens, counted by the provider as 80k: of its 40k only 20k are ours.
    let mut play = Play::new();
    for n in 0..10 {
        play.uncounted(&format!(r#"{{"path":"{n}"}}"#));
        play.result(good(&"x".repeat(16_000)));
    }
    play.fails(Remedy::Shorter(ToldTokens { limit: Some(40_000), asked: Some(80_000) }));
    let size =
        |play: &Play| -> u64 { play.asked.as_ref().unwrap().messages.iter().map(super::super::context::tokens).sum() };
    if summarising(&play) {
        play.text("## Goal\nthe login works");
    }
    assert!(size(&play) < 20_000 * 75 / 100, "{}", size(&play));
    play.text("Read.");
    assert_eq!(play.ended().0, Ending::Done);
}

#[test]
fn refused_pictures_are_taken_out_for_good_and_the_request_is_made_again() {
    for remedy in [Remedy::NoPictures, Remedy::Unknown] {
        let picture = Part::Image { mime: "image/png".into(), data: "aaaa".into() };
        let mut first = said("old", "what is this?");
        first.pictures = vec![picture.clone()];
        let mut play = Play::with(TurnLimits::default(), 200_000, vec![first.to_line()]);
        play.calls(&[("read_file", r#"{"path":"a.png"}"#)]);
        play.result(CallResult { pictures: vec![picture], ..good("a picture") });
        assert!(play.newest().contains("<picture>"));
        play.log();
        play.fails(remedy);
        assert_eq!(play.log(), "rebase ask");
        let shown = play.shown_to_model();
        assert!(shown.iter().all(|line| !line.contains("<picture>")), "{shown:?}");
        assert_eq!(shown.iter().filter(|line| line.contains(words::PICTURE_REFUSED)).count(), 2);
        assert!(shown[1].starts_with("user: anna: what is this?"), "the words stay: {}", shown[1]);
        play.crash();
        assert_eq!(play.shown_to_model(), shown, "it holds over a crash");
        play.log();
        play.fails(remedy);
        assert_eq!(play.log(), "answer", "once");
    }
}

#[test]
fn an_answer_that_was_to_be_too_long_is_asked_for_shorter() {
    let mut play = Play::new();
    play.fails(Remedy::ShorterAnswer(Some(8192)));
    assert_eq!(play.asked.as_ref().unwrap().max_output, Some(8192));
    play.fails(Remedy::ShorterAnswer(None));
    assert_eq!(play.asked.as_ref().unwrap().max_output, Some(4096));
    play.fails(Remedy::ShorterAnswer(None));
    assert_eq!(play.ended().0, Ending::Failed);
}

#[test]
fn a_message_that_alone_is_too_long_ends_in_words() {
    let mut play = Play::new();
    play.fails(shorter());
    assert_eq!(play.ended().0, Ending::Limit);
    assert!(play.ended().1.contains("`!new`"), "{}", play.ended().1);
}

#[test]
fn wrapping_up_in_a_full_window_only_masks() {
    let mut play = Play::with(TurnLimits { rounds: 6, ..TurnLimits::default() }, 40_000, vec![]);
    for n in 0..6 {
        play.uncounted(&format!(r#"{{"path":"{n}"}}"#));
        play.result(good(&"x".repeat(22_000)));
    }
    let log = play.log();
    assert!(log.ends_with("wrap! rebase ask"), "{log}");
}

#[test]
fn a_huge_paste_is_cut_and_the_turn_goes_on() {
    let paste = said("paste", &format!("what is wrong here? {} END", "log line\n".repeat(100_000)));
    let mut play = Play::with(TurnLimits::default(), 100_000, vec![paste.to_line()]);
    assert!(summarising(&play));
    assert!(super::super::context::tokens(&play.asked.as_ref().unwrap().messages[1]) < 60_000);
    play.text("## Goal\nfind the fault in a log");
    let shown = play.shown_to_model();
    assert!(shown[1].contains("what is wrong here?") && shown[1].contains("END") && shown[1].contains("bytes cut"));
    assert!(shown.iter().any(|line| line.contains("anna: fix the login")));
    play.text("Which log is it?");
    assert_eq!(play.ended().0, Ending::Done);
}
