//! The ways a turn may go, one by one.

use std::time::Duration;

use super::*;
use crate::{
    ledger::Cost,
    orchestrator::{proof::Proof, words},
    strings::turns,
};

const LS: (&str, &str) = ("run_command", r#"{"command":"ls"}"#);
const READ: (&str, &str) = ("read_file", r#"{"path":"a"}"#);

#[test]
fn a_plain_answer_is_one_request() {
    let mut play = Play::new();
    assert_eq!(play.armed, Some(TurnLimits::default().time));
    play.piece("It ");
    play.piece("works");
    play.text("It works");
    assert_eq!(play.log(), "ask answer");
    assert_eq!(play.ended(), (Ending::Done, "It works"));
    assert_eq!(play.shown, ["Thinking", "Text(\"It \")", "Text(\"works\")"]);
    assert_eq!(play.answer().tally.tokens(), 1010);
}

#[test]
fn tools_and_model_take_turns_and_everything_is_kept_before_the_next_step() {
    let mut play = Play::new();
    play.step(LS.0, LS.1, good("a b"));
    play.calls(&[READ, READ, LS, READ]);
    assert_eq!(play.log(), "ask model run result ask model run run");
    play.result(good("1"));
    play.result(good("2"));
    assert_eq!(play.log(), "result result run");
    play.result(good("3"));
    play.result(good("4"));
    assert_eq!(play.log(), "result run result ask");
    let shown = ["c0: 1", "c1: 2", "c2: 3", "c3: 4"];
    assert_eq!(play.shown_to_model()[5..], shown);
    play.text("All read.");
    let tally = &play.answer().tally;
    assert_eq!((tally.rounds, tally.calls, tally.tokens()), (3, 5, 3030));
}

#[test]
fn results_reach_the_model_in_the_order_of_the_calls() {
    let mut play = Play::new();
    play.calls(&[READ, READ]);
    let second = play.running[1].id.clone();
    play.feed(Event::ToolDone { call: second, result: good("second") });
    play.result(good("first"));
    assert_eq!(play.shown_to_model()[3..], ["c0: first", "c1: second"]);
}

#[test]
fn pictures_follow_after_all_results() {
    let mut play = Play::new();
    play.calls(&[READ, READ]);
    let picture = Part::Image { mime: "image/png".into(), data: "aaaa".into() };
    play.result(CallResult { pictures: vec![picture], ..good("a picture") });
    play.result(good("text"));
    assert_eq!(
        play.shown_to_model()[3..],
        [
            "c0: a picture",
            "c1: text",
            "user: [matrix-agent] The pictures of the calls above, in their order: <picture>"
        ]
    );
}

#[test]
fn what_is_said_meanwhile_follows_after_the_batch() {
    let mut play = Play::new();
    play.calls(&[READ, READ]);
    play.result(good("1"));
    play.said("e1", "in German, please");
    assert_eq!(play.log(), "ask model run run result", "not within the batch");
    play.result(good("2"));
    assert_eq!(play.log(), "result person ask");
    assert_eq!(play.newest(), "user: anna: in German, please");
    assert_eq!(play.shown[play.shown.len() - 2..], ["Seen(EventId(\"e1\"))", "Thinking"]);
}

#[test]
fn what_is_said_while_the_model_answers_is_left_for_the_next_turn() {
    let mut play = Play::new();
    play.said("e1", "wait");
    play.text("Here you are.");
    assert_eq!(play.log(), "ask answer", "unclaimed: the hub makes a turn of it");
}

#[test]
fn what_is_said_as_a_limit_is_reached_is_left_for_the_next_turn() {
    let mut play = Play::with(TurnLimits { rounds: 1, ..TurnLimits::default() }, 200_000, vec![]);
    play.calls(&[LS]);
    play.said("e1", "and the logout");
    play.result(good("1"));
    play.text("Half.");
    assert_eq!(play.log(), "ask model run result wrap! ask answer", "nobody could act on it any more");
}

#[test]
fn a_running_call_takes_what_is_said_and_the_model_sees_it_after_the_result() {
    let mut play = Play::new();
    play.calls(&[LS]);
    assert_eq!(play.takes(0), None, "nothing was said yet");
    play.said("e1", "in blue");
    play.said("e2", "no, in red");
    assert_eq!((play.takes(0).as_deref(), play.takes(0).as_deref(), play.takes(0)), (Some("e1"), Some("e2"), None));
    assert_eq!(play.log(), "ask model run taken taken");
    assert_eq!(play.shown[play.shown.len() - 2..], ["Seen(EventId(\"e1\"))", "Seen(EventId(\"e2\"))"]);
    play.said("e3", "and quickly");
    play.result(good("Told: in red."));
    assert_eq!(play.log(), "result person ask", "what it has not taken stays a word to the turn");
    let shown = ["c0: Told: in red.", "user: anna: in blue", "user: anna: no, in red", "user: anna: and quickly"];
    assert_eq!(play.shown_to_model()[3..], shown);
}

#[test]
fn what_a_call_has_taken_is_its_own_across_a_crash() {
    let mut play = Play::new();
    play.calls(&[LS]);
    play.said("e1", "in blue");
    play.takes(0);
    play.said("e2", "and quickly");
    play.crash();
    let given: Vec<_> = play.running[0].taken.iter().map(|word| (word.event.as_str(), word.text.as_str())).collect();
    assert_eq!(given, [("e1", "anna: in blue")]);
    assert_eq!(play.takes(0).as_deref(), Some("e2"), "the other one comes again, and only that");
    play.result(good("Told."));
    assert_eq!(play.shown_to_model()[3..], ["c0: Told.", "user: anna: in blue", "user: anna: and quickly"]);
    assert_eq!(play.log(), "ask model run taken crash look-up taken result ask");
}

#[test]
fn a_call_that_does_not_run_takes_nothing() {
    let mut play = Play::new();
    play.calls(&[LS, LS]);
    play.said("e1", "in blue");
    let ended = play.running[0].id.clone();
    play.result(good("1"));
    play.feed(Event::Takes(ended));
    assert_eq!(play.log(), "ask model run result run");
    play.result(good("2"));
    assert_eq!(play.log(), "result person ask");
}

#[test]
fn a_stop_keeps_what_a_call_has_taken_and_leaves_the_rest() {
    let mut play = Play::new();
    play.calls(&[LS]);
    play.said("e1", "in blue");
    play.takes(0);
    play.said("e2", "and quickly");
    play.feed(Event::Stop);
    assert_eq!(play.log(), "ask model run taken cancel result answer");
    assert_eq!(play.unclaimed.len(), 1, "the hub knows what to do with it");
}

#[test]
fn only_so_much_steering_is_taken_in() {
    let mut play = Play::new();
    for n in 0..16 {
        assert!(play.machine.listens());
        play.said(&format!("e{n}"), "more");
    }
    assert!(!play.machine.listens());
}

#[test]
fn a_stop_answers_every_call_and_ends_at_once() {
    let mut play = Play::new();
    play.calls(&[READ, LS, READ]);
    play.log();
    play.feed(Event::Stop);
    assert_eq!(play.log(), "cancel result result result answer");
    let kept: Vec<_> = play.stored[2..].iter().map(|line| brief(&line.message)).collect();
    assert_eq!(kept[0], format!("c0: {}", words::CALL_STOPPED));
    assert_eq!(kept[1], format!("c1: {}", words::CALL_STOPPED_EARLY));
    assert_eq!(play.ended(), (Ending::Stopped, turns::STOPPED));
    play.feed(Event::TimeUp);
    play.feed(Event::Stop);
    assert_eq!(play.log(), "", "a second answer would be one too many");
}

#[test]
fn a_stop_while_the_model_is_asked_ends_at_once() {
    let mut play = Play::new();
    play.feed(Event::Stop);
    assert_eq!(play.log(), "ask cancel answer");
}

#[test]
fn after_the_last_round_the_model_wraps_up() {
    let mut play = Play::with(TurnLimits { rounds: 2, ..TurnLimits::default() }, 200_000, vec![]);
    play.step(LS.0, LS.1, good("1"));
    play.step(READ.0, READ.1, good("2"));
    assert_eq!(play.log(), "ask model run result ask model run result wrap! ask");
    assert!(play.newest().contains("the limit of 2 turns"), "{}", play.newest());
    assert_eq!(play.armed, Some(Duration::from_mins(1)));
    play.text("Half of it is done.");
    assert_eq!(play.ended(), (Ending::Limit, "Half of it is done."));
}

#[test]
fn who_cannot_wrap_up_is_ended_with_a_plain_sentence() {
    let plain =
        "I stopped at the limit of 1 turns. What was done so far stays in the workspace; write “go on” to continue.";
    let wrapping = || {
        let mut play = Play::with(TurnLimits { rounds: 1, ..TurnLimits::default() }, 200_000, vec![]);
        play.step(LS.0, LS.1, good("1"));
        play.log();
        play
    };
    let mut play = wrapping();
    play.calls(&[LS]);
    play.calls(&[LS]);
    assert_eq!(play.log(), "ask-bare answer", "calls in it never run");
    assert_eq!(play.ended(), (Ending::Limit, plain));

    let mut play = wrapping();
    play.fails(Remedy::Nothing);
    assert_eq!(play.ended(), (Ending::Limit, plain));

    let mut play = wrapping();
    play.feed(Event::TimeUp);
    assert_eq!((play.log().as_str(), play.ended()), ("cancel answer", (Ending::Limit, plain)));

    let mut play = wrapping();
    play.reply(AssistantMessage { text: "Done half.".into(), ..calling(&[LS]) }, Finish::ToolCalls, None);
    assert_eq!(play.ended(), (Ending::Limit, "Done half."));
}

#[test]
fn time_ends_the_batch_and_then_wraps_up() {
    let mut play = Play::new();
    play.calls(&[LS, LS]);
    play.log();
    play.feed(Event::TimeUp);
    assert_eq!(play.log(), "cancel result result wrap! ask");
    assert!(play.newest().contains("the time limit of 35 min"), "{}", play.newest());
    play.text("The build was too slow.");
    assert_eq!(play.ended().0, Ending::Limit);
}

#[test]
fn tokens_are_a_limit_and_are_guessed_where_the_provider_does_not_count() {
    let limits = TurnLimits { tokens: 5000, ..TurnLimits::default() };
    let mut play = Play::with(limits, 200_000, vec![]);
    for _ in 0..100 {
        let path = format!(r#"{{"path":"{}{}"}}"#, "x".repeat(2000), play.requests);
        play.reply(calling(&[("read_file", &path)]), Finish::ToolCalls, None);
        play.result(good("ok"));
        if play.log().contains("wrap!") {
            break;
        }
    }
    assert_eq!(play.requests, 5);
    assert!(play.newest().contains("5k tokens"), "{}", play.newest());
}

#[test]
fn a_model_that_cannot_be_reached_ends_the_turn_in_words() {
    let mut play = Play::new();
    play.fails(Remedy::Nothing);
    assert_eq!(play.ended(), (Ending::Failed, "The model cannot be reached."));
    let mut play = Play::new();
    play.step(LS.0, LS.1, good("1"));
    play.fails(Remedy::Nothing);
    let text = "The model cannot be reached.\n\nWhat was done so far stays in the workspace.";
    assert_eq!(play.ended(), (Ending::Failed, text));
}

#[test]
fn what_the_program_says_never_becomes_the_models_words() {
    type End = fn(&mut Play);
    let told: [(&str, End); 4] = [
        (words::NOTE_FAILED, |play| play.fails(Remedy::Nothing)),
        (words::NOTE_STOPPED, |play| play.feed(Event::Stop)),
        (words::NOTE_LIMIT, |play| play.fails(shorter())),
        (words::NOTE_FAILED, |play| play.reply(AssistantMessage::default(), Finish::Filtered, None)),
    ];
    for (note, end) in told {
        let mut play = Play::with(TurnLimits::default(), 200_000, vec![said("old", &"words ".repeat(400)).to_line()]);
        // A request that is too long is tried again while there is something to leave out.
        while play.answer.is_none() {
            if play.asked.as_ref().is_some_and(|request| !request.tools) {
                play.text("a summary");
            } else {
                end(&mut play);
            }
        }
        let line = play.answer().line.clone();
        assert_eq!(brief(&line.message), format!("user: {note}"));
        assert!(!note.contains("model cannot be reached"), "{note}");
    }
}

#[test]
fn failures_that_an_older_version_stored_as_the_models_words_are_shown_as_notes() {
    let old = |text: &str, ending: Ending, model: &str| Line {
        message: Message::Assistant(AssistantMessage {
            text: text.into(),
            model: model.into(),
            ..AssistantMessage::default()
        }),
        origin: Origin::Final { ending },
    };
    let failed = "The model's provider refused the key. Check LLM_API_KEY. It said: “Incorrect API key provided”";
    let play = Play::with(
        TurnLimits::default(),
        200_000,
        vec![
            old(failed, Ending::Failed, ""),
            old("Stopped. What was done so far stays in the workspace.", Ending::Stopped, ""),
            old("I stopped at the limit of 25 turns. What was done …", Ending::Limit, ""),
            old("Half of it is done.", Ending::Limit, "openai/gpt-5"),
            old("All of it is done.", Ending::Done, "openai/gpt-5"),
        ],
    );
    assert_eq!(
        play.shown_to_model()[1..6],
        [
            format!("user: {}", words::NOTE_FAILED),
            format!("user: {}", words::NOTE_STOPPED),
            format!("user: {}", words::NOTE_LIMIT),
            "assistant: Half of it is done.[0]".to_owned(),
            "assistant: All of it is done.[0]".to_owned(),
        ]
    );
}

#[test]
fn a_withheld_answer_says_so() {
    let mut play = Play::new();
    play.reply(AssistantMessage::default(), Finish::Filtered, None);
    assert_eq!(play.ended(), (Ending::Failed, turns::FILTERED));
    let mut play = Play::new();
    play.reply(calling(&[LS]), Finish::Filtered, None);
    assert_eq!((play.started.len(), play.ended().0), (0, Ending::Failed));
}

#[test]
fn circles_are_nudged_then_ended() {
    let mut play = Play::new();
    for _ in 0..4 {
        play.step(LS.0, LS.1, good("the same"));
    }
    assert!(play.log().contains("model run result stuck! ask model run result ask"));
    play.step(LS.0, LS.1, good("the same"));
    assert_eq!(play.log(), "model run result wrap! ask");
    play.text("I am going in circles: the file is not there.");
    assert_eq!(play.ended().0, Ending::Limit);
}

/// The result of a call that only waited.
fn waits(text: &str) -> CallResult {
    let facts = CallFacts { waits: true, ..CallFacts::default() };
    CallResult { facts, ..good(text) }
}

#[test]
fn a_build_that_is_waited_for_is_no_circle() {
    let look = ("run_command", r#"{"job":"job-1"}"#);
    let mut play = Play::new();
    for _ in 0..12 {
        play.step(look.0, look.1, waits("job-1 is running. Its output so far:\n(no output)"));
    }
    // What is done beside a wait is none, either.
    for _ in 0..6 {
        play.calls(&[look, LS]);
        play.result(waits("job-1 is running. Its output so far:\n(no output)"));
        play.result(good("the same"));
    }
    assert!(!play.log().contains('!'));
    play.crash();
    play.step(look.0, look.1, waits("job-1 is running. Its output so far:\n(no output)"));
    assert_eq!(play.log(), "crash ask model run result ask");
    // To look again and again at a job that has ended is a circle.
    for _ in 0..5 {
        play.step(look.0, look.1, good("job-1 has ended."));
    }
    assert!(play.log().contains("stuck!"));
}

#[test]
fn a_server_that_is_waited_for_may_be_asked_again() {
    let (wait, ask) = (("run_command", r#"{"job":"job-1"}"#), ("run_command", r#"{"command":"curl -sf localhost"}"#));
    let mut play = Play::new();
    for _ in 0..6 {
        play.step(ask.0, ask.1, bad("exit code: 7"));
        play.step(wait.0, wait.1, waits("job-1 is still running"));
    }
    assert!(!play.log().contains('!'));
    // Without a wait between it is a circle, whatever runs.
    for _ in 0..5 {
        play.step(ask.0, ask.1, bad("exit code: 7"));
    }
    assert!(play.log().contains("wrap!"));
}

#[test]
fn calls_that_never_can_run_end_the_turn() {
    let mut play = Play::new();
    for _ in 0..2 {
        play.calls(&[("no_such_tool", "{}")]);
        play.calls(&[("run_command", "{")]);
    }
    assert_eq!(play.log(), "ask model ask model ask model ask model wrap! ask");
    assert_eq!(play.started.len(), 0);
}

#[test]
fn too_many_calls_are_answered_but_not_run() {
    let mut play = Play::new();
    play.calls(&vec![READ; 50]);
    assert_eq!(play.running.len(), 16);
    while !play.running.is_empty() {
        play.result(good("ok"));
    }
    assert!(play.newest().contains("too many calls at once (16 at most)"));
    assert_eq!(play.shown_to_model().len(), 3 + 50);
}

#[test]
fn late_and_foreign_events_change_nothing() {
    let mut play = Play::new();
    play.calls(&[LS]);
    let call = play.running[0].id.clone();
    play.log();
    play.feed(Event::ToolDone { call: "stranger".into(), result: good("?") });
    play.feed(Event::Chunk(Chunk::Text("late".into())));
    let completion =
        Completion { message: calling(&[LS]), finish: Finish::Stop, usage: None, reasoning: String::new() };
    for request in [0, 1, 7] {
        play.asked = None;
        play.feed(Event::ModelDone { request, completion: completion.clone() });
        play.feed(Event::ModelFailed { request, remedy: shorter(), why: String::new() });
    }
    assert_eq!(play.log(), "");
    play.result(good("1"));
    assert_eq!(play.log(), "result ask");
    assert!(play.machine.handle(Event::ToolDone { call, result: good("again") }).is_empty());
}

#[test]
fn a_crash_at_each_step_goes_on_from_the_last_line() {
    let mut play = Play::new();
    play.crash();
    play.calls(&[READ, READ, LS]);
    play.result(good("1"));
    assert_eq!(play.log(), "ask crash ask model run run result");
    play.crash();
    assert_eq!(play.log(), "crash look-up", "the second read has an intent; the command waits for it");
    assert_eq!(play.running[0].resumed.as_deref(), Some("boot"));
    play.result(bad("unknown: the sandbox was started again"));
    play.crash();
    assert_eq!(play.log(), "result run crash look-up");
    play.result(good("3"));
    play.crash();
    play.text("Done.");
    assert_eq!(play.log(), "result ask crash ask answer");
    let tally = &play.answer().tally;
    assert_eq!((tally.rounds, tally.calls, tally.tokens()), (2, 3, 2020), "counts survive");
}

#[test]
fn a_crash_between_call_and_intent_runs_the_call() {
    let mut play = Play::new();
    play.calls(&[LS]);
    play.running.clear();
    play.crash();
    assert_eq!(play.log(), "ask model run crash run");
    assert_eq!(play.started[0].id, play.started[1].id, "under the same id");
}

#[test]
fn a_crash_does_not_forget_what_must_not_run() {
    let mut play = Play::new();
    play.reply(calling(&[LS, LS]), Finish::Length, None);
    play.stored.truncate(2);
    play.context.truncate(2);
    play.crash();
    assert_eq!(play.log(), "ask model ask crash ask");
    assert_eq!(play.newest(), format!("c1: {}", words::CALL_CUT_OFF));
}

#[test]
fn a_crash_within_wrapping_up_wraps_up() {
    let mut play = Play::with(TurnLimits { rounds: 1, ..TurnLimits::default() }, 200_000, vec![]);
    play.step(LS.0, LS.1, good("1"));
    play.armed = None;
    play.crash();
    assert_eq!(play.armed, Some(Duration::from_mins(1)));
    play.text("Half.");
    assert_eq!(play.log(), "ask model run result wrap! ask crash ask answer");
    assert_eq!(play.ended().0, Ending::Limit);
}

#[test]
fn the_nudges_are_not_lost_in_a_crash_nor_said_twice() {
    let mut play = Play::new();
    for _ in 0..3 {
        play.step(LS.0, LS.1, good("the same"));
    }
    play.log();
    // The process died between the result and the word.
    for lines in [&mut play.stored, &mut play.context] {
        assert!(matches!(lines.pop().unwrap().origin, Origin::Program { note: Note::Stuck }));
    }
    play.last = None;
    play.crash();
    assert_eq!(play.log(), "crash stuck! ask");
    play.crash();
    assert_eq!(play.log(), "crash ask");
}

#[test]
fn the_footer_tells_files_and_tests() {
    let mut play = Play::new();
    play.step("edit_file", r#"{"path":"src/login.rs"}"#, edited("src/login.rs"));
    play.step("run_tests", "{}", tested(true));
    play.text("Login works again.");
    let tally = &play.answer().tally;
    assert_eq!((tally.edits.len(), tally.edits[0].added, tally.proof), (1, 12, Proof::Green));
    let footer = crate::orchestrator::footer::footer(tally, Cost::default(), Duration::from_secs(72));
    assert_eq!(footer, "src/login.rs +12 −3 · 3 turns · 2 tools · 3k tokens · 1:12");
}

#[test]
fn what_a_command_wrote_is_shown_without_its_escapes() {
    let mut play = Play::new();
    play.text("\u{1b}[31mred\u{1b}[0m\u{7}");
    assert_eq!(play.ended().1, "red");
    let mut play = Play::new();
    play.text("\u{1b}[0m");
    assert_eq!(play.log(), "ask empty! ask", "nothing that anybody would see");
}

#[test]
fn a_step_costs_little_however_long_the_conversation() {
    let long: Vec<Line> = (0..400).map(|n| said(&n.to_string(), &"words ".repeat(100)).to_line()).collect();
    let mut play = Play::with(TurnLimits { rounds: 1000, ..TurnLimits::default() }, 1_000_000, long);
    let place = |play: &Play| Arc::as_ptr(&play.asked.as_ref().unwrap().messages);
    let before = place(&play);
    play.step(READ.0, READ.1, good("1"));
    assert_eq!(place(&play), before, "the 240 KB were not copied");
    let began = std::time::Instant::now();
    for n in 0..1000 {
        drop(play.machine.handle(Event::Chunk(Chunk::Text(format!("piece {n} ")))));
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?} for 1000 pieces", began.elapsed());
}

const IN_TEXT: &str = r#"<tool_call>{"name": "run_command", "arguments": {"command": "ls"}}</tool_call>"#;

#[test]
fn a_call_written_as_text_is_sent_back_once_and_never_run() {
    let mut play = Play::new();
    play.text(IN_TEXT);
    assert_eq!(play.log(), "ask in-text! ask");
    assert_eq!(
        play.shown_to_model()[2],
        format!("user: {}", words::CALL_IN_TEXT),
        "the slip itself is not shown again"
    );
    // The count survives a crash.
    play.crash();
    play.text(IN_TEXT);
    assert!(play.started.is_empty());
    assert_eq!(play.ended().0, Ending::Failed);
    assert!(play.ended().1.contains("calls no tools") && play.ended().1.contains("LLM_MODEL"), "{}", play.ended().1);

    let mut play = Play::new();
    play.text(IN_TEXT);
    play.step("run_command", r#"{"command":"ls"}"#, good("a"));
    play.text(&format!("Qwen writes {IN_TEXT} then."));
    assert_eq!(play.ended().0, Ending::Done);

    // Wrapping up, it is no answer either.
    let mut play = Play::with(TurnLimits { rounds: 1, ..TurnLimits::default() }, 200_000, vec![]);
    play.step("read_file", r#"{"path":"a"}"#, good("1"));
    play.text(IN_TEXT);
    play.text(IN_TEXT);
    assert_eq!(play.ended().0, Ending::Limit);
    assert!(play.ended().1.starts_with("I stopped at"), "{}", play.ended().1);
}

#[test]
fn a_call_that_the_provider_could_not_read_is_told_to_the_model() {
    let mut play = Play::new();
    let slip = |play: &mut Play| {
        let message = AssistantMessage { text: "missing properties: 'command'".into(), ..AssistantMessage::default() };
        play.reply(message, Finish::BadCall, None);
    };
    slip(&mut play);
    assert_eq!(play.log(), "ask empty! ask");
    assert!(play.newest().contains("missing properties: 'command'"), "{}", play.newest());
    slip(&mut play);
    slip(&mut play);
    assert_eq!(play.ended(), (Ending::Failed, turns::BAD_CALLS));

    let mut play = Play::with(TurnLimits { rounds: 1, ..TurnLimits::default() }, 200_000, vec![]);
    play.step("read_file", r#"{"path":"a"}"#, good("1"));
    slip(&mut play);
    play.text("Read.");
    assert_eq!(play.ended(), (Ending::Limit, "Read."));
}

#[test]
fn text_of_a_try_that_broke_off_is_taken_back() {
    let mut play = Play::new();
    play.piece("Half an a");
    play.feed(Event::Chunk(Chunk::Restart));
    // What was said before does not count against the new try.
    play.piece(&"ha".repeat(1000));
    play.feed(Event::Chunk(Chunk::Restart));
    play.piece("The answer.");
    let thinking = || "Thinking".to_owned();
    let text = |text: &str| format!("Text({text:?})");
    let expected =
        [thinking(), text("Half an a"), thinking(), text(&"ha".repeat(1000)), thinking(), text("The answer.")];
    assert_eq!(play.shown, expected);
    play.text("The answer.");
    assert_eq!(play.ended(), (Ending::Done, "The answer."));
}

#[test]
fn reasoning_alone_is_an_answer_that_is_marked() {
    let reply = |finish| {
        let mut play = Play::new();
        let request = play.asked.as_ref().unwrap().number;
        let message = AssistantMessage::default();
        let completion = Completion { message, finish, usage: None, reasoning: " It is 42.\n".into() };
        play.feed(Event::ModelDone { request, completion });
        play
    };
    let play = reply(Finish::Stop);
    let Message::Assistant(kept) = &play.answer().line.message else { panic!("an answer of the model") };
    assert_eq!(kept.text, "It is 42.", "that it is marked is no word of the model");
    assert_eq!(play.ended(), (Ending::Done, &*format!("{}It is 42.", turns::ONLY_THOUGHT)));
    // Cut off in its thoughts, it is asked to think less.
    assert!(reply(Finish::Length).newest().contains("Think less"));
}
