//! What a run shows, when it is given up, and what it comes to: each case in a run that is fed by hand.

use super::{
    patience::{FLOOD, FLOOD_LINES, GRACE, REFUSED},
    *,
};
use crate::{coding_agents::Profiles, sandbox::Exit};

const SILENCE: Duration = Duration::from_mins(5);
const SECOND: Duration = Duration::from_secs(1);
const STARTED: &str = r#"{"type":"system","subtype":"init","session_id":"a","model":"m"}"#;
const DONE: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"All done.","usage":{"input_tokens":900,"output_tokens":100}}"#;
const RETRY: &str = r#"{"type":"system","subtype":"retry","data":{"reason":"429 slow down"}}"#;

fn tool(id: &str, name: &str, input: &str) -> String {
    format!(
        r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"{id}","name":"{name}","input":{input}}}],"usage":{{"input_tokens":70000,"output_tokens":500}}}}}}"#
    )
}

fn result(id: &str) -> String {
    format!(
        r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"{id}","is_error":false}}]}}}}"#
    )
}

fn agent(name: &str) -> Arc<CodingAgent> {
    Arc::clone(Profiles::new([].into_iter()).of(name).unwrap())
}

fn run(lines: &[&str]) -> (Run, Instant) {
    let now = Instant::now();
    let mut run = Run::new(agent("qwen"), SILENCE, now);
    for line in lines {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    (run, now)
}

fn verdict(lines: &[&str], exit: &Exit) -> String {
    let (run, now) = run(lines);
    run.outcome(Some(exit), false, now).verdict
}

#[test]
fn the_room_sees_the_agent_its_tool_its_list_time_and_tokens() {
    let (mut run, now) = run(&[STARTED]);
    assert_eq!(run.lines(now + SECOND), "Qwen Code · begins · 0:01");
    let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"in_progress"},{"content":"test","status":"pending"}]}"#;
    for line in [tool("1", "todo_write", todos), tool("2", "write_file", r#"{"file_path":"/workspace/src/login.rs"}"#)]
    {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    assert_eq!(
        run.lines(now + 72 * SECOND),
        "Qwen Code · write file src/login.rs · 1:12 · 141k tokens\n1/3 ▸ write ☐ test"
    );
}

#[test]
fn success_is_a_good_exit_and_a_result_that_says_so() {
    let (done, now) = run(&[STARTED, "Warning: x", DONE]);
    let outcome = done.outcome(Some(&Exit::Code(0)), false, now);
    let tokens = Tokens { input: 900, output: 100 };
    let (said, summary) = ("done".to_owned(), "All done.".to_owned());
    let (noise, session, told) = (Vec::new(), Some("a".to_owned()), Vec::new());
    let (stalled, todo, record) = (false, String::new(), "0:00 Warning: x".to_owned());
    assert_eq!(
        outcome,
        Outcome { ok: true, verdict: said, summary, noise, tokens, tools: 0, session, stalled, todo, told, record }
    );

    assert_eq!(verdict_of(&[STARTED, DONE], 1), "failed with exit code 1, although it calls itself done");
    assert_eq!(verdict_of(&[STARTED], 0), "ended without a result: whether it did its work is not known");
    assert_eq!(verdict_of(&[STARTED, &DONE[..40]], 0), "ended without a result: whether it did its work is not known");
    assert_eq!(verdict_of(&[STARTED], 53), "failed with exit code 53: it reached its limit of turns");
    let failed = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"error":{"message":"400 no"}}"#;
    assert_eq!(verdict_of(&[STARTED, failed], 0), "failed, by its own word (400 no)");
    assert_eq!(verdict_of(&[STARTED, failed], 1), "failed with exit code 1 (400 no)");
    assert!(verdict(&["sh: qwen: not found"], &Exit::Code(127)).contains("no program `qwen`"));
    assert!(verdict(&[], &Exit::NotStarted("no such file".into())).contains("no program `qwen`"));
    for (exit, says) in [
        (Exit::TimedOut, "CODING_TIMEOUT_SECONDS"),
        (Exit::OutOfMemory, "SANDBOX_MEMORY"),
        (Exit::DiskFull, "SANDBOX_DISK"),
        (Exit::Signal(9), "ended by signal 9"),
        (Exit::Killed, "ended from outside"),
    ] {
        assert!(verdict(&[STARTED, DONE], &exit).contains(says), "{exit:?}");
    }
    let (stopped, now) = run(&[STARTED]);
    assert_eq!(stopped.outcome(Some(&Exit::Killed), true, now).verdict, "stopped by the person");
}

#[test]
fn a_plan_or_a_review_without_a_word_is_none() {
    let mute = DONE.replace("All done.", "");
    for (result, ok) in [(DONE, true), (&*mute, false)] {
        let (run, now) = run(&[STARTED, result]);
        let mut outcome = run.outcome(Some(&Exit::Code(0)), false, now);
        assert!(outcome.ok && !outcome.stalled);
        outcome.must_say_something();
        assert_eq!((outcome.ok, outcome.stalled), (ok, !ok), "{}", outcome.verdict);
    }
}

fn verdict_of(lines: &[&str], code: i32) -> String {
    verdict(lines, &Exit::Code(code))
}

/// Wherever a server is lost, and however the output came: the next one that goes on from the stored place sees each
/// event once.
#[test]
fn a_run_goes_on_from_any_place_as_if_nothing_had_been() {
    let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"pending"}]}"#;
    let qwen = [
        STARTED.to_owned(),
        "Warning: x".to_owned(),
        tool("1", "todo_write", todos),
        result("1"),
        tool("2", "write_file", r#"{"file_path":"/workspace/ä.rs"}"#),
        result("2"),
        tool("3", "run_shell_command", r#"{"command":"make"}"#),
        DONE.to_owned(),
    ];
    let gemini = [
        r#"{"type":"init","session_id":"a","model":"m"}"#,
        r#"{"type":"tool_use","tool_name":"read_file","tool_id":"1","parameters":{"file_path":"a"}}"#,
        r#"{"type":"tool_result","tool_id":"1","status":"success","output":"x"}"#,
        r#"{"type":"message","role":"assistant","content":"All ","delta":true}"#,
        r#"{"type":"message","role":"assistant","content":"done.","delta":true}"#,
        r#"{"type":"result","status":"success","stats":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}"#,
    ];
    let now = Instant::now();
    for (agent, output) in [("qwen", qwen.join("\n") + "\n"), ("gemini", gemini.join("\n") + "\n")] {
        let (output, agent) = (output.as_bytes(), self::agent(agent));
        let mut whole = Run::new(Arc::clone(&agent), SILENCE, now);
        whole.take(output, now);
        let (standing, lines) = (whole.standing(output.len() as u64), whole.lines(now));
        let outcome = whole.outcome(Some(&Exit::Code(0)), false, now);
        assert!(outcome.ok && outcome.summary == "All done.", "{outcome:?}");
        for cut in 0..=output.len() {
            let mut before = Run::new(Arc::clone(&agent), SILENCE, now);
            before.take(&output[..cut], now);
            let stored = serde_json::to_string(&before.standing(cut as u64)).unwrap();
            let stored: Standing = serde_json::from_str(&stored).unwrap();
            let from = stored.place() as usize;
            assert!(from <= cut && (from == 0 || output[from - 1] == b'\n'), "{from} of {cut}");
            let mut after = Run::going_on(Arc::clone(&agent), SILENCE, now, now, stored);
            after.take(&output[from..], now);
            assert_eq!(after.standing(output.len() as u64), standing, "cut at {cut}");
            assert_eq!(after.lines(now), lines);
            assert_eq!(after.outcome(Some(&Exit::Code(0)), false, now), outcome);
        }
    }
}

#[test]
fn a_standard_error_that_is_apart_tells_what_went_wrong_too() {
    let (mut run, now) = run(&[STARTED]);
    run.complain(b"Error: no key\n\n    at async Client.ask (file:///x.js:1:2)\n  in x\n", now);
    let noise = run.outcome(Some(&Exit::Code(1)), false, now).noise;
    assert_eq!(noise, ["Error: no key", "in x"], "without the stack of a program");
}

#[test]
fn what_went_wrong_is_in_the_last_lines() {
    let lines: Vec<String> = (0..9).map(|n| format!("Error {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (run, now) = run(&lines);
    assert_eq!(run.outcome(Some(&Exit::Code(1)), false, now).noise, lines[4..]);
}

#[test]
fn a_silent_run_is_given_up_and_one_that_works_is_not() {
    let (mut run, now) = run(&[STARTED]);
    assert!(!run.give_up(now + SILENCE - SECOND));
    let later = now + SILENCE - SECOND;
    run.take(tool("1", "run_shell_command", r#"{"command":"make"}"#).as_bytes(), later);
    run.take(b"\nnoise is no sign of life\n", later + SILENCE);
    assert!(!run.give_up(later + 2 * SILENCE), "its tool works");
    run.take(format!("{}\n", result("1")).as_bytes(), later + 2 * SILENCE);
    assert!(!run.give_up(later + 3 * SILENCE - SECOND));
    assert!(run.give_up(later + 3 * SILENCE) && !run.give_up(later + 4 * SILENCE), "once");
    assert_eq!(run.outcome(Some(&Exit::Killed), false, now).verdict, "ended: nothing was heard of it for 5 min");
}

#[test]
fn a_model_that_refuses_is_silence_and_ends_the_run_sooner() {
    let (mut run, now) = run(&[STARTED, RETRY]);
    run.take(format!("{RETRY}\n").as_bytes(), now + 50 * SECOND);
    assert!(run.lines(now).contains("its model refuses: 429 slow down"), "{}", run.lines(now));
    assert!(!run.give_up(now + 59 * SECOND) && run.give_up(now + REFUSED));
    assert_eq!(
        run.outcome(Some(&Exit::Killed), false, now).verdict,
        "ended: its model refuses every request (429 slow down)"
    );
}

#[test]
fn the_door_s_news_are_signs_of_life_unless_they_are_refusals() {
    let now = Instant::now();
    let mut run = Run::new(agent("gemini"), SILENCE, now);
    let used = |requests, refused| Wire {
        requests,
        tokens: Tokens { input: 80 * requests, output: 4 },
        refused,
        cause: if refused > 0 { "429 from generativelanguage.googleapis.com".to_owned() } else { String::new() },
        ..Wire::default()
    };
    let later = now + SILENCE - SECOND;
    run.look(used(1, 0), later);
    assert!(!run.give_up(later + SILENCE - SECOND));
    assert_eq!(run.lines(now), "Gemini CLI · begins · 0:00 · 84 tokens");
    run.look(used(1, 0), later + SILENCE - SECOND);
    assert!(run.give_up(later + SILENCE), "the same again is no news");

    let mut run = Run::new(agent("gemini"), SILENCE, now);
    run.look(used(1, 1), now);
    run.look(used(2, 0), now + 30 * SECOND);
    run.look(used(3, 1), now + 40 * SECOND);
    assert!(!run.give_up(now + 99 * SECOND) && run.give_up(now + 100 * SECOND));
    assert!(run.outcome(Some(&Exit::Killed), false, now).verdict.contains("429 from generativelanguage"));
}

#[test]
fn a_run_that_was_silent_or_refused_is_for_another_to_go_on_with() {
    let stalled = |(run, now): (Run, Instant), exit| run.outcome(Some(&exit), false, now).stalled;
    let given_up = |lines: &[&str]| {
        let (mut run, now) = run(lines);
        assert!(run.give_up(now + SILENCE));
        (run, now)
    };
    let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"in_progress"},{"content":"test","status":"pending"}]}"#;
    let (silent, now) = given_up(&[STARTED, &tool("1", "todo_write", todos), &result("1")]);
    let outcome = silent.outcome(Some(&Exit::Killed), false, now);
    assert!(outcome.stalled);
    assert_eq!(outcome.todo, "- [x] read\n- [ ] write (begun)\n- [ ] test");
    assert!(stalled(given_up(&[STARTED, RETRY]), Exit::Killed));
    assert!(!stalled(given_up(&[STARTED, DONE]), Exit::Killed), "it calls itself done");
    // Gemini CLI ends by itself.
    let failed = r#"{"type":"result","status":"error","error":{"message":"429"}}"#;
    let gemini = |refused| {
        let mut run = Run::new(agent("gemini"), SILENCE, now);
        run.look(Wire { requests: 2, refused, ..Wire::default() }, now);
        run.take(format!("{failed}\n").as_bytes(), now);
        (run, now)
    };
    assert!(stalled(gemini(2), Exit::Code(173)));
    assert!(!stalled(gemini(0), Exit::Code(144)) && !stalled(gemini(2), Exit::OutOfMemory));
    let (stopped, now) = given_up(&[STARTED]);
    assert!(!stopped.outcome(Some(&Exit::Killed), true, now).stalled);
}

#[test]
fn a_word_waits_until_no_tool_works() {
    let (mut run, now) = run(&[STARTED]);
    assert!(!run.hears(now), "its session may hold nothing yet");
    run.take(format!("{}\n", tool("1", "run_shell_command", r#"{"command":"make"}"#)).as_bytes(), now);
    assert!(!run.hears(now + SECOND));
    assert!(run.lines(now).starts_with("Qwen Code · run shell command make · gets your word after this step · 0:00"));
    run.take(format!("{}\n", result("1")).as_bytes(), now);
    assert!(run.hears(now + SECOND) && run.session() == Some("a"));

    run.goes_on(vec!["anna: in blue".to_owned()], now);
    assert_eq!(run.lines(now), "Qwen Code · was told “anna: in blue” · 0:00 · 71k tokens");
    assert!(!run.hears(now), "it has done nothing with the last one yet");
    for line in [STARTED, DONE] {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    assert!(!run.hears(now + SECOND), "it has said its last");
    assert!(!run.hears(now + 2 * WORD_WAITS) && run.deadline() > Some(now + 2 * WORD_WAITS), "and that stays so");
    let outcome = run.outcome(Some(&Exit::Code(0)), false, now);
    assert_eq!((outcome.ok, outcome.tools, outcome.told), (true, 1, vec!["anna: in blue".to_owned()]));
    assert_eq!(outcome.record, "0:00 run shell command make\n0:00 was told “anna: in blue”");
}

#[test]
fn a_word_that_has_waited_for_long_is_told_all_the_same() {
    let (mut run, now) = run(&[STARTED, &tool("1", "run_shell_command", "{}")]);
    assert!(!run.hears(now) && run.deadline() == Some(now + WORD_WAITS));
    assert!(!run.hears(now + WORD_WAITS - SECOND) && run.hears(now + WORD_WAITS));
    run.goes_on(vec!["in blue".to_owned()], now);
    assert!(run.outcome(Some(&Exit::Code(1)), false, now).told.is_empty(), "its process has not begun");
}

#[test]
fn an_answer_that_is_being_said_is_a_sign_of_life_long_before_it_is_counted() {
    let now = Instant::now();
    let mut run = Run::new(agent("gemini"), SILENCE, now);
    let said = |heard, refused| Wire { requests: 1, refused, heard, ..Wire::default() };
    let nearly = Duration::from_secs(299);
    for heard in 0..10 {
        let later = now + nearly * heard;
        run.look(said(heard.into(), 1), later);
        assert!(!run.give_up(later + REFUSED - SECOND), "an answer comes after all: {heard}");
    }
    assert!(run.give_up(now + nearly * 9 + SILENCE));
}

#[test]
fn a_run_without_tokens_is_ended_at_once_and_says_so_however_it_ended() {
    for exit in [Exit::Killed, Exit::Code(1)] {
        let (mut run, now) = run(&[STARTED]);
        run.look(Wire { requests: 1, over: true, ..Wire::default() }, now);
        assert!(run.deadline().is_some_and(|deadline| deadline <= now));
        assert!(run.give_up(now) && !run.give_up(now), "once");
        run.look(Wire { refused: 1, over: true, ..Wire::default() }, now);
        let outcome = run.outcome(Some(&exit), false, now);
        assert_eq!(outcome.verdict, "ended: today's tokens are used up");
        assert!(!outcome.stalled, "nobody else has any");
    }
    let (mut run, now) = run(&[STARTED, DONE]);
    run.look(Wire { over: true, ..Wire::default() }, now);
    assert!(run.outcome(Some(&Exit::Code(0)), false, now).ok, "what it wanted beside its work changes nothing");
}

#[test]
fn a_run_that_has_told_its_end_has_to_end() {
    let (mut run, now) = run(&[STARTED, DONE]);
    assert!(run.give_up(now + SILENCE));
    assert_eq!(
        run.outcome(Some(&Exit::Killed), false, now).verdict,
        "ended: nothing was heard of it for 5 min, although it calls itself done"
    );
}

#[test]
fn a_run_that_may_stay_is_ended_after_its_result_which_counts() {
    let now = Instant::now();
    let told = |ok: bool| {
        let mut run = Run::new(agent("claude"), SILENCE, now);
        let result = if ok { DONE.to_owned() } else { DONE.replace("false", "true") };
        run.take(format!("{STARTED}\n{result}\n").as_bytes(), now);
        assert!(!run.give_up(now + GRACE - SECOND) && run.deadline() == Some(now + GRACE));
        assert!(run.give_up(now + GRACE));
        run
    };
    let outcome = told(true).outcome(Some(&Exit::Killed), false, now);
    assert!(outcome.ok && outcome.verdict == "done" && !outcome.stalled, "{outcome:?}");
    let outcome = told(false).outcome(Some(&Exit::Killed), false, now);
    assert_eq!((outcome.ok, &*outcome.verdict), (false, "failed, by its own word (All done.)"));
    assert!(!told(true).outcome(Some(&Exit::Killed), true, now).ok, "a person has stopped it");
    let mut silent = Run::new(agent("claude"), SILENCE, now);
    assert!(!silent.give_up(now + GRACE), "it has told nothing");
}

#[test]
fn a_flood_is_ended() {
    let (mut run, now) = run(&[STARTED]);
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..65 {
        run.take(&piece, now);
        assert!(!run.give_up(now) || run.written > FLOOD);
    }
    assert_eq!(run.outcome(Some(&Exit::Killed), false, now).verdict, "ended: it writes without end");
}

#[test]
fn lines_without_end_are_ended_sooner() {
    let (mut run, now) = run(&[STARTED]);
    run.take("y\n".repeat(FLOOD_LINES as usize).as_bytes(), now);
    assert!(!run.give_up(now));
    run.take(b"y\n", now);
    assert!(run.give_up(now));
}

const LIMIT: Duration = Duration::from_mins(30);
const CANCELLED: &str = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"error":{"message":"Operation cancelled."},"usage":{"input_tokens":400,"output_tokens":1}}"#;

/// A run whose process stays, at work.
fn staying(lines: &[&str]) -> (Run, Instant) {
    let now = Instant::now();
    let mut run = Run::new(agent("qwen"), SILENCE, now).staying(LIMIT, true);
    for line in lines {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    (run, now)
}

#[test]
fn a_process_that_stays_is_left_after_a_good_answer_and_ended_after_a_bad_one() {
    let (mut run, now) = staying(&[STARTED, &tool("1", "write_file", "{}"), &result("1")]);
    assert!(!run.rests());
    run.take(format!("{DONE}\n").as_bytes(), now);
    assert!(run.rests() && !run.give_up(now + LIMIT), "nothing ends it any more");
    assert!(!run.hears(now), "it has said its last");
    let outcome = run.outcome(None, false, now);
    assert_eq!((outcome.ok, &*outcome.verdict, &*outcome.summary), (true, "done", "All done."));
    assert_eq!(outcome.tokens, Tokens { input: 70_000, output: 500 }, "its result counts those of earlier runs too");

    let (mut run, now) = staying(&[STARTED, &DONE.replace("false", "true")]);
    assert!(!run.rests() && run.deadline() == Some(now) && run.give_up(now));
    let outcome = run.outcome(Some(&Exit::Killed), false, now);
    assert_eq!((outcome.ok, &*outcome.verdict), (false, "failed, by its own word (All done.)"));
}

#[test]
fn a_process_that_stays_and_is_not_left_is_ended_with_its_answer() {
    let now = Instant::now();
    let mut run = Run::new(agent("qwen"), SILENCE, now).staying(LIMIT, false);
    run.take(format!("{STARTED}\n{DONE}\n").as_bytes(), now);
    assert!(!run.rests() && run.give_up(now));
    assert!(run.outcome(Some(&Exit::Killed), false, now).ok);
}

#[test]
fn a_word_cuts_short_what_a_process_that_stays_does_and_its_answer_counts() {
    let (mut run, now) = staying(&[STARTED, &tool("1", "write_file", "{}"), &result("1")]);
    assert!(run.hears(now));
    run.asked_again(vec!["in blue".to_owned()], now);
    assert!(!run.hears(now), "it has done nothing with the last one yet");
    run.take(format!("{CANCELLED}\n").as_bytes(), now);
    assert!(!run.rests() && !run.give_up(now), "that is no end");
    assert!(run.clone().outcome(Some(&Exit::Code(1)), false, now).told.is_empty(), "it has not begun with it");
    for line in [STARTED, &tool("2", "write_file", "{}"), &result("2")] {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    assert!(!run.was_asked_more() && run.hears(now));
    run.take(format!("{DONE}\n").as_bytes(), now);
    assert!(run.rests());
    let outcome = run.outcome(None, false, now);
    assert_eq!((outcome.ok, outcome.tools, outcome.told), (true, 2, vec!["in blue".to_owned()]));
}

/// A word may come too late to cut anything short: then there are two answers, and the last one counts.
#[test]
fn a_word_that_crosses_the_answer_is_a_question_of_its_own() {
    let (mut run, now) = staying(&[STARTED, &tool("1", "write_file", "{}"), &result("1")]);
    run.asked_again(vec!["in blue".to_owned()], now);
    for line in [DONE, STARTED] {
        run.take(format!("{line}\n").as_bytes(), now);
        assert!(!run.rests(), "{line}");
    }
    run.take(format!("{}\n", DONE.replace("All done.", "In blue.")).as_bytes(), now);
    assert!(run.rests() && run.outcome(None, false, now).summary == "In blue.");
}

/// The server was lost after a word was written and before that was kept.
#[test]
fn what_a_process_was_asked_while_nobody_looked_shows() {
    let (run, now) = staying(&[STARTED, &tool("1", "write_file", "{}"), &result("1")]);
    let stored = serde_json::to_string(&run.standing(0)).unwrap();
    let stored: Standing = serde_json::from_str(&stored).unwrap();
    let mut run = Run::going_on(agent("qwen"), SILENCE, now, now, stored).staying(LIMIT, false);
    for line in [CANCELLED, STARTED, DONE] {
        run.take(format!("{line}\n").as_bytes(), now);
    }
    assert!(run.was_asked_more() && run.rests());
    run.asked_again(vec!["in blue".to_owned()], now);
    assert!(!run.was_asked_more() && run.rests(), "it has answered that already");
}

#[test]
fn a_process_that_stays_is_held_to_its_run_s_time() {
    let (mut run, now) = staying(&[STARTED]);
    for minute in 0..30 {
        let later = now + Duration::from_mins(minute);
        run.take(format!("{}\n", result("1")).as_bytes(), later);
        assert!(!run.give_up(later), "{minute}");
    }
    assert!(run.deadline() == Some(now + LIMIT) && run.give_up(now + LIMIT));
    let verdict = run.outcome(Some(&Exit::Killed), false, now).verdict;
    assert_eq!(verdict, "ended: it was not done within CODING_TIMEOUT_SECONDS");
}
