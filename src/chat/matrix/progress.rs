//! The text of a turn's progress message: takes the turn's [`Live`] events and returns a few lines of Markdown.
//!
//! Pure: the time is passed in, and `pace.rs` decides when to send. Most of the text comes from a sandbox, or from a
//! model that a stranger may influence, so all of it is cleaned, cut and kept from acting as markup.

mod line;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use self::line::{around, code, prose};
use crate::{
    bots::QueuePlace,
    hub::{Ending, Live},
    strings::commands,
    text,
};

/// After this time any turn is worth a progress message, so [`Progress::worth`] is asked again then.
pub(super) const QUICK: Duration = Duration::from_secs(2);
/// The most lines below the first.
const LINES: usize = 6;
/// The most of these for running calls, including a line for those that have none.
const RUNNING: usize = 4;
/// Running calls that are followed; further ones are only counted.
const FOLLOWED: usize = 32;
/// The most characters of a line after its mark.
const WIDTH: usize = 180;
/// The most characters of what a call does, and of the model's words in the first line.
const BRIEF: usize = 80;
/// The most bytes of an answer that is shown as it comes: an edit holds its text four times.
const DRAFT: usize = 8 << 10;
/// A line break that starts no new paragraph.
const BREAK: &str = "  \n";

/// A turn's progress. Bounded: it keeps a few short lines.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the turn began to wait or to run.
    started: Instant,
    /// Its place in the queue; `None` while it runs.
    queued: Option<QueuePlace>,
    /// Whether something was shown that must not go unseen: a queue, a notice.
    told: bool,
    /// Calls that have begun.
    tools: u32,
    /// The first line of the model's current message.
    words: Words,
    /// The answer so far, if it is shown as it comes.
    draft: Option<String>,
    /// Running calls, oldest first, at most [`FOLLOWED`].
    running: Vec<Running>,
    /// The last calls and sentences as finished lines, oldest first.
    done: VecDeque<String>,
}

/// The first line of the model's current message. It is shown once it is whole, not word by word.
#[derive(Debug)]
enum Words {
    /// The part that has come; may be empty.
    Growing(String),
    /// The whole line.
    Whole(String),
}

#[derive(Debug)]
struct Running {
    call: String,
    /// The tool's name, for the first line.
    name: String,
    /// What it does; may be empty.
    detail: String,
    /// Its newest line of output; may be empty.
    output: String,
    /// A second line that a coding agent shows beside its output, such as its list of tasks; may be empty.
    beside: String,
}

impl Progress {
    /// Returns the progress of a turn that begins, or begins to wait, `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            queued: None,
            told: false,
            tools: 0,
            words: Words::Growing(String::new()),
            draft: None,
            running: Vec::new(),
            done: VecDeque::new(),
        }
    }

    /// Takes an event. Returns whether the text of [`Progress::text`] has changed, apart from the time.
    pub(super) fn update(&mut self, live: &Live, now: Instant) -> bool {
        if let Live::Queued { before, held, .. } = live {
            self.told = true;
            let place = QueuePlace { before: *before, held: *held };
            return self.queued.replace(place) != Some(place);
        }
        if let Live::Told { .. } = live
            && self.queued.is_some()
        {
            return false; // from a program of an earlier turn that still runs
        }
        let waited = self.queued.take().is_some();
        let changed = match live {
            Live::Started { .. } => {
                self.started = now;
                true
            }
            // These are shown by reactions, or by the closing text.
            Live::Queued { .. } | Live::Heard { .. } | Live::Seen { .. } | Live::Ended { .. } => false,
            Live::Thinking => {
                matches!(std::mem::replace(&mut self.words, Words::Growing(String::new())), Words::Whole(_))
            }
            Live::Draft { text } => self.draft.replace(text.clone()).as_ref() != Some(text),
            Live::Text { delta } => self.words.grow(delta),
            Live::ToolStarted { call, name, detail } => {
                self.words.end();
                self.tools = self.tools.saturating_add(1);
                if self.running.len() < FOLLOWED {
                    self.running.push(Running {
                        call: call.clone(),
                        name: text::one_line(&name.replace('_', " "), BRIEF),
                        detail: text::one_line(detail, BRIEF),
                        output: String::new(),
                        beside: String::new(),
                    });
                }
                true
            }
            Live::ToolOutput { call, line } => {
                let (line, beside) = line.split_once('\n').unwrap_or((line, ""));
                let [line, beside] = [line, beside].map(|line| text::one_line(line, WIDTH / 2));
                let is_newest = self.running.last().is_some_and(|running| running.call == *call);
                match self.running.iter_mut().find(|running| running.call == *call) {
                    Some(running) if !line.is_empty() => {
                        let changed = running.output != line || is_newest && running.beside != beside;
                        (running.output, running.beside) = (line, beside);
                        changed
                    }
                    _ => false,
                }
            }
            Live::Told { line } => {
                let line = text::one_line(line, WIDTH / 2);
                match self.running.last_mut() {
                    _ if line.is_empty() => false,
                    // The line most likely comes from a program that the newest call has started.
                    Some(running) => std::mem::replace(&mut running.output, line.clone()) != line,
                    None => {
                        self.note(format!("▸ {}", code(&line)));
                        true
                    }
                }
            }
            Live::ToolEnded { call, summary, ok } => {
                let at = self.running.iter().position(|running| running.call == *call);
                let detail = at.map(|at| self.running.remove(at).detail).unwrap_or_default();
                let mark = if *ok { '✓' } else { '✗' };
                self.note(format!("{mark} {}", around(summary, &detail, WIDTH)));
                true
            }
            Live::Notice { text } => {
                self.told = true;
                self.note(format!("ℹ️ {}", prose(text, WIDTH)));
                true
            }
        };
        changed || waited
    }

    /// Returns whether the turn is worth a progress message; a quick answer should leave none behind. Once `true`, it
    /// stays `true`. Without an event it becomes `true` [`QUICK`] after the start.
    pub(super) fn worth(&self, now: Instant) -> bool {
        self.tools > 0
            || self.told
            || self.draft.as_ref().is_some_and(|draft| !draft.trim().is_empty())
            || now.duration_since(self.started) >= QUICK
    }

    /// Returns whether an answer is shown as it comes.
    pub(super) fn is_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// Returns whether the message is sent as a reply: it becomes the answer, or says which place its question has, while others
    /// wait beside it.
    pub(super) fn is_reply(&self) -> bool {
        self.is_draft() || self.queued.is_some()
    }

    /// Returns the message's text `now`, as Markdown: at most seven lines of at most 200 characters, or the beginning of the
    /// answer.
    pub(super) fn text(&self, now: Instant) -> String {
        match self.queued {
            Some(QueuePlace { held: true, .. }) => return format!("⏳ {}", commands::HELD),
            Some(QueuePlace { before: 0, .. }) => return "⏳ next in line".to_owned(),
            Some(QueuePlace { before, .. }) => return format!("⏳ {before} before this one"),
            None => {}
        }
        if let Some(draft) = &self.draft {
            return self.answering(draft, now);
        }
        let mut lines = vec![self.head(now)];
        let running = self.running();
        lines.extend(self.done.iter().skip((self.done.len() + running.len()).saturating_sub(LINES)).cloned());
        lines.extend(running);
        lines.join(BREAK)
    }

    /// Returns an answer that is not whole yet. Before its first word it tells that the model thinks, and since when.
    fn answering(&self, draft: &str, now: Instant) -> String {
        if draft.trim().is_empty() {
            let seconds = now.duration_since(self.started).as_secs();
            let head = format!("💭 thinking … {seconds} s");
            return self.done.iter().cloned().chain([head]).collect::<Vec<_>>().join(BREAK);
        }
        let begins = &draft[..draft.floor_char_boundary(DRAFT)];
        format!("{} …", begins.trim_end())
    }

    /// Returns the first line: what the turn does now, the number of calls, the time.
    fn head(&self, now: Instant) -> String {
        let doing = match (&self.words, self.running.last()) {
            (Words::Whole(words), _) => prose(words, BRIEF),
            (Words::Growing(_), Some(running)) => prose(&running.name, BRIEF),
            (Words::Growing(_), None) => "thinking …".to_owned(),
        };
        let tools = match self.tools {
            0 => String::new(),
            1 => " · 1 tool".to_owned(),
            tools => format!(" · {tools} tools"),
        };
        format!("⚙️ {doing}{tools} · {}", text::stopwatch(now.duration_since(self.started)))
    }

    /// Returns a line for each running call, for the newest ones if there are too many, and the second line of the
    /// newest.
    fn running(&self) -> Vec<String> {
        let all = self.running.len();
        let hidden = if all > RUNNING { all - (RUNNING - 1) } else { 0 };
        let rest = (hidden > 0).then(|| format!("▸ {hidden} more"));
        let beside = self.running.last().filter(|running| !running.beside.is_empty());
        let beside = beside.map(|running| format!("· {}", code(&running.beside)));
        rest.into_iter().chain(self.running.iter().skip(hidden).map(Running::line)).chain(beside).collect()
    }

    fn note(&mut self, line: String) {
        if self.done.len() == LINES {
            self.done.pop_front();
        }
        self.done.push_back(line);
    }
}

impl Words {
    /// Appends a piece of text; returns whether the line has just become whole.
    fn grow(&mut self, delta: &str) -> bool {
        let Self::Growing(line) = self else { return false };
        for c in delta.chars() {
            if c == '\n' && !line.trim().is_empty() || line.len() >= 2 * BRIEF {
                return self.end();
            }
            line.push(c);
        }
        false
    }

    /// Takes what has come as the whole line; returns whether that changes what is shown.
    fn end(&mut self) -> bool {
        let Self::Growing(line) = self else { return false };
        // The marks of Markdown headings, lists and emphasis mean nothing in a status line.
        let line = text::one_line(&line.replace(['*', '`'], ""), 2 * BRIEF);
        let line = line.trim_start_matches(['#', '>', '-', ' ']).trim_end_matches([':', '.', '…', ' ']);
        let whole = !line.is_empty();
        *self = if whole { Self::Whole(line.to_owned()) } else { Self::Growing(String::new()) };
        whole
    }
}

impl Running {
    fn line(&self) -> String {
        let what = match &*self.detail {
            "" => prose(&self.name, BRIEF),
            // A path or a port alone does not tell what is done with it, so the tool's name is added; a command line
            // does.
            word if !word.contains(' ') => format!("{} {}", prose(&self.name, BRIEF / 4), code(word)),
            line => code(line),
        };
        if self.output.is_empty() { format!("▸ {what}") } else { format!("▸ {what}: {}", code(&self.output)) }
    }
}

/// Returns the final text of a progress message. `footer` is what the turn used: `7 tools · 1:12`.
pub(super) fn closing(ending: Ending, footer: &str) -> String {
    let end = match ending {
        Ending::Done => "✓ done",
        Ending::Stopped => "■ stopped",
        Ending::Failed => "✗ failed",
        Ending::Limit => "◐ limit",
    };
    let footer = prose(footer, WIDTH);
    if footer.is_empty() { end.to_owned() } else { format!("{end} · {footer}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::EventId;

    fn started(call: &str, name: &str, detail: &str) -> Live {
        Live::ToolStarted { call: call.into(), name: name.into(), detail: detail.into() }
    }

    fn output(call: &str, line: &str) -> Live {
        Live::ToolOutput { call: call.into(), line: line.into() }
    }

    fn ended(call: &str, summary: &str, ok: bool) -> Live {
        Live::ToolEnded { call: call.into(), summary: summary.into(), ok }
    }

    fn text(delta: &str) -> Live {
        Live::Text { delta: delta.into() }
    }

    fn queued(before: usize) -> Live {
        Live::Queued { asked: EventId::from("$a"), thread: None, before, held: false }
    }

    /// Feeds all events and returns the lines after `seconds`.
    fn lines(events: &[Live], seconds: u64) -> Vec<String> {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for live in events {
            progress.update(live, start);
        }
        progress.text(start + Duration::from_secs(seconds)).split(BREAK).map(str::to_owned).collect()
    }

    #[test]
    fn looks_as_designed() {
        let mut events = vec![
            Live::Started { asked: EventId::from("$a"), thread: None },
            Live::Thinking,
            started("1", "run_command", "git clone acme/site"),
            ended("1", "cloned acme/site", true),
            started("2", "edit_file", "/workspace/src/login.rs"),
            ended("2", "edited src/login.rs (+12 −3)", true),
            started("3", "run_command", "cargo test --test a_b | tail"),
            ended("3", "cargo test --test a_b | tail (exit code 1)", false),
            Live::Thinking,
        ];
        let mut below = vec!["✓ cloned `acme/site`", "✓ edited `src/login.rs` (+12 −3)"];
        below.push("✗ `cargo test --test a_b | tail` (exit code 1)");
        assert_eq!(lines(&events, 40), [&["⚙️ thinking … · 3 tools · 0:40"], &below[..]].concat());

        events.extend([text("**Running the"), text(" tests:**\nmore"), started("4", "run_command", "cargo test")]);
        events.extend([output("4", "31 passed …"), output("4", " \x1b[0m"), started("5", "read_file", "src/a_b.rs")]);
        below.extend(["▸ `cargo test`: `31 passed …`", "▸ read file `src/a_b.rs`"]);
        assert_eq!(lines(&events, 42), [&["⚙️ Running the tests · 5 tools · 0:42"], &below[..]].concat());
    }

    #[test]
    fn a_coding_agent_shows_its_list_beside_what_it_does() {
        let mut events = vec![
            Live::Started { asked: EventId::from("$a"), thread: None },
            started("1", "implement", "Add a login page"),
            output("1", "Qwen Code · write file src/login.rs · 1:12 · 84k tokens\n1/3 ▸ write ☐ test"),
        ];
        assert_eq!(
            lines(&events, 75),
            [
                "⚙️ implement · 1 tool · 1:15",
                "▸ `Add a login page`: `Qwen Code · write file src/login.rs · 1:12 · 84k tokens`",
                "· `1/3 ▸ write ☐ test`",
            ]
        );
        events.push(output("1", "Qwen Code · edit src/login.rs · 1:20"));
        assert_eq!(lines(&events, 80)[2..], [""; 0], "it has no list any more");
    }

    #[test]
    fn only_what_changes_the_lines_is_told() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        assert!(!progress.update(&text("\n---\n"), start) && !progress.update(&text("I look "), start));
        assert!(progress.update(&text("at it\n"), start) && progress.text(start).contains("I look at it"));
        assert!(!progress.update(&text("and more\n"), start) && !progress.text(start).contains("more"));
        assert!(progress.update(&Live::Thinking, start) && progress.text(start).contains("thinking"));
        progress.update(&started("1", "t", ""), start);
        assert!(progress.update(&output("1", "x"), start) && !progress.update(&output("1", "x "), start));
    }

    #[test]
    fn what_a_program_tells_stands_beside_the_newest_call() {
        let told = |line: &str| Live::Told { line: line.into() };
        let events = [
            started("1", "implement", ""),
            told("qwen ▸ read_file a.rs"),
            started("2", "run_command", "make all"),
            told("qwen ✓ write_file `b`"),
        ];
        let below = |events: &[Live]| lines(events, 1)[1..].to_vec();
        assert_eq!(below(&events), ["▸ implement: `qwen ▸ read_file a.rs`", "▸ `make all`: `qwen ✓ write_file 'b'`"]);
        assert_eq!(below(&[told("half way"), told(" \x1b[0m")]), ["▸ `half way`"]);
        let (start, mut waiting) = (Instant::now(), Progress::new(Instant::now()));
        assert!(waiting.update(&queued(2), start) && !waiting.update(&told("half way"), start));
        assert_eq!(waiting.text(start), "⏳ 2 before this one");
    }

    #[test]
    fn only_what_takes_its_time_is_worth_a_message() {
        let start = Instant::now();
        let mut quick = Progress::new(start);
        let told = [Live::Thinking, text("Hello.\n"), Live::Ended { ending: Ending::Done }]
            .map(|live| quick.update(&live, start));
        assert_eq!(told, [false, true, false]);
        assert!(!quick.worth(start + Duration::from_millis(1_999)) && quick.worth(start + QUICK));
        for live in [started("1", "run_tests", ""), queued(0), Live::Notice { text: "The model is slow.".into() }] {
            let mut progress = Progress::new(start);
            assert!(progress.update(&live, start) && progress.worth(start), "{live:?}");
        }
    }

    #[test]
    fn a_queued_turn_tells_its_place_until_it_begins() {
        let start = Instant::now();
        let later = start + Duration::from_mins(5);
        let mut progress = Progress::new(start);
        assert!(progress.update(&queued(3), start));
        assert_eq!(progress.text(later), "⏳ 3 before this one");
        assert!(!progress.update(&queued(3), start) && progress.update(&queued(0), start));
        assert_eq!(progress.text(later), "⏳ next in line");
        let held = Live::Queued { asked: EventId::from("$a"), thread: None, before: 0, held: true };
        assert!(progress.update(&held, start), "who is next is told that nobody's turn comes");
        assert!(progress.text(later).contains("no work begins"), "{}", progress.text(later));
        assert!(progress.update(&Live::Started { asked: EventId::from("$a"), thread: None }, later));
        assert_eq!(progress.text(later), "⚙️ thinking … · 0:00", "waiting is not working");
        assert!(progress.worth(later));
    }

    #[test]
    fn what_comes_from_a_sandbox_stays_text() {
        let events = [
            started("1", "run_command", "echo `id` \x1b[31m*x*"),
            output("1", "``` </code><img src=x>\n# no\x07 @room"),
            ended("0", "**bold** [a](http://x) <b> &amp; a_b_c main.rs, 1.5 s", true),
        ];
        assert_eq!(
            lines(&events, 0)[1..],
            [
                "✓ `**bold**` `[a](http://x`) `<b>` `&amp`; `a_b_c` `main.rs`, 1.5 s",
                "▸ `echo 'id' *x*`: `''' </code><img src=x>`",
                "· `# no @room`",
            ]
        );
    }

    #[test]
    fn many_calls_at_once_leave_room_for_what_was_done() {
        let mut events: Vec<_> = (0..40).map(|n| started(&n.to_string(), "t", &format!("call {n}"))).collect();
        events.extend((0..9).map(|n| ended(&n.to_string(), &format!("did {n}"), true)));
        let below = ["✓ did 7", "✓ did 8", "▸ 20 more", "▸ `call 29`", "▸ `call 30`", "▸ `call 31`"];
        assert_eq!(lines(&events, 0)[1..], below);
    }

    #[test]
    fn the_end_says_how_and_what_it_took() {
        assert_eq!(closing(Ending::Done, "7 tools · 1:12"), "✓ done · 7 tools · 1:12");
        assert_eq!(closing(Ending::Stopped, ""), "■ stopped");
        assert_eq!(closing(Ending::Failed, "no `x`\n*"), "✗ failed · no `'x'` `*`");
        assert_eq!(closing(Ending::Limit, "9 tools"), "◐ limit · 9 tools");
    }

    fn live() -> impl Strategy<Value = Live> {
        let line = || prop_oneof![any::<String>(), "[a-z`*_./@ …\\x1b<]{0,300}", "(`[a-z]` ){0,200}"];
        let call = || (0..50_u32).prop_map(|call| call.to_string());
        prop_oneof![
            line().prop_map(|delta| Live::Text { delta }),
            Just(Live::Thinking),
            (call(), line(), line()).prop_map(|(call, name, detail)| Live::ToolStarted { call, name, detail }),
            (call(), line()).prop_map(|(call, line)| Live::ToolOutput { call, line }),
            (call(), line(), any::<bool>()).prop_map(|(call, summary, ok)| Live::ToolEnded { call, summary, ok }),
            line().prop_map(|text| Live::Notice { text }),
            line().prop_map(|line| Live::Told { line }),
            any::<usize>().prop_map(queued),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_happens_it_is_short_clean_and_told_when_it_changes(events in prop::collection::vec(live(), 0..60)) {
            let start = Instant::now();
            let mut progress = Progress::new(start);
            for live in &events {
                let before = progress.text(start);
                let told = progress.update(live, start);
                let text = progress.text(start);
                prop_assert!(told || text == before, "{} became {}", before, text);
                let lines: Vec<_> = text.split(BREAK).collect();
                prop_assert!(lines.len() <= 1 + LINES && progress.done.len() <= LINES);
                for line in lines {
                    prop_assert!(line.chars().count() <= 200, "{}", line);
                    prop_assert!(!line.contains(char::is_control), "{}", line);
                    prop_assert_eq!(line.matches('`').count() % 2, 0, "{}", line);
                }
            }
        }
    }
}
