//! Shortens what a command wrote: runs of lines that say little each (tests that passed, steps of a build, a progress
//! bar, the same line again) become a count, and what is still too long loses its middle but for the lines that look
//! like errors.
//!
//! Pure: clean text in, clean text out. Lines that look like errors are never folded. Called by `output`.

use std::{
    collections::HashSet,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::text;

/// So many lines of a kind in a row are folded, and so many of them stay at each end.
const RUN: usize = 8;
const KEPT: usize = 2;
/// So many lines in a row that differ in their numbers alone are folded: a short table is worth reading.
const COUNTED_RUN: usize = 16;
/// The same line so many times in a row is told once.
const REPEATS: usize = 4;
/// Folding must save more bytes than this, or the count takes more room than the lines.
const LEAST_GAIN: usize = 64;
/// The longest line that may be folded: no step of a build is longer.
const LINE: usize = 1000;
/// The most characters of a line from the middle that is shown since it looks like an error, and the most such lines.
const ERROR_CHARS: usize = 200;
const ERRORS: usize = 10;

/// Text made shorter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// Whether something is missing that no count in the text tells.
    pub(super) cut: bool,
}

/// The kind of a line that says little. A run of lines of one kind becomes a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A test that passed.
    Passed,
    /// A step of a build or an installation.
    Step,
    /// A state of something that goes on, with the hash of what stays in it.
    Counted(u64),
}

/// Folds runs of lines that say little each.
pub(super) fn fold(text: &str) -> Shown {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut short = Shown { text: String::with_capacity(text.len()), cut: false };
    let mut at = 0;
    while at < lines.len() {
        let same = lines[at..].iter().take_while(|line| **line == lines[at]).count();
        if same >= REPEATS && (same - 1) * (lines[at].len() + 1) > LEAST_GAIN {
            let more = same - 1;
            _ = writeln!(short.text, "{}\n[… the line above {more} times more …]", lines[at]);
            at += same;
            continue;
        }
        let run = match kind(lines[at]) {
            Some(first) => lines[at..].iter().take_while(|line| kind(line) == Some(first)).count(),
            None => 0,
        };
        let least = if matches!(kind(lines[at]), Some(Kind::Counted(_))) { COUNTED_RUN } else { RUN };
        let gone = lines.get(at + KEPT..(at + run).saturating_sub(KEPT)).unwrap_or_default();
        if run >= least && gone.iter().map(|line| line.len() + 1).sum::<usize>() > LEAST_GAIN {
            let what = match kind(lines[at]) {
                Some(Kind::Passed) => "more that passed",
                Some(Kind::Step) => "more steps like these",
                _ => "more that differ in their numbers",
            };
            for line in &lines[at..at + KEPT] {
                _ = writeln!(short.text, "{line}");
            }
            _ = writeln!(short.text, "[… {} {what} …]", gone.len());
            for line in &lines[at + run - KEPT..at + run] {
                _ = writeln!(short.text, "{line}");
            }
            short.cut = true;
            at += run;
            continue;
        }
        // The next look begins behind a run that is too short to be folded, or the work would grow with its square.
        for line in &lines[at..at + run.max(1)] {
            _ = writeln!(short.text, "{line}");
        }
        at += run.max(1);
    }
    // Each line was written with an end, the last one had none.
    short.text.pop();
    short
}

/// Returns a text in at most `limit` bytes: its beginning, its end, and between them the lines of the rest that look
/// like errors.
pub(super) fn fit(text: &str, limit: usize) -> Shown {
    if text.len() <= limit {
        return Shown { text: text.to_owned(), cut: false };
    }
    let (head, tail) = text.split_at(text.floor_char_boundary(text.len() / 2));
    joined(head, 0, tail, limit)
}

/// Returns the two ends of an output of which `hidden` bytes between them are not at hand, in at most `limit` bytes, as
/// [`fit`] does.
pub(super) fn joined(head: &str, hidden: u64, tail: &str, limit: usize) -> Shown {
    let (head, tail) = (head.strip_suffix('\n').unwrap_or(head), tail);
    let size = head.len() as u64 + hidden + tail.len() as u64;
    let mark = |cut: u64| format!("\n{}\n", text::cut_mark(cut));
    // The mark is longest where all is cut.
    let Some(room) = limit.checked_sub(mark(size).len()) else {
        return Shown { text: tail_of(tail, limit).to_owned(), cut: true };
    };
    if hidden > 0 && head.len() + tail.len() <= room {
        return Shown { text: format!("{head}{}{tail}", mark(hidden)), cut: true };
    }
    let ends = |room: usize| (head_of(head, room * 2 / 5), tail_of(tail, room - room * 2 / 5));
    let (first, last) = ends(room);
    let found = errors(&head[first.len()..], &tail[..tail.len() - last.len()], room / 5);
    let (first, last) = if found.is_empty() { (first, last) } else { ends(room - found.len()) };
    let cut = size - (first.len() + last.len()) as u64;
    Shown { text: format!("{first}{}{found}{last}", mark(cut)), cut: true }
}

/// Returns the lines that look like errors, each once, under a heading; nothing if there are none, and never more than
/// `room` bytes.
fn errors(first: &str, second: &str, room: usize) -> String {
    const HEADING: &str = "[lines of them that look like errors:]\n";
    const END: &str = "…\n";
    let mut seen = HashSet::new();
    let mut found = String::new();
    for line in first.lines().chain(second.lines()).filter(|line| is_error(line)) {
        let line = text::one_line(line, ERROR_CHARS);
        let size = HEADING.len() + found.len() + line.len() + 1 + END.len();
        if size > room || seen.len() == ERRORS {
            break;
        }
        if seen.insert(line.clone()) {
            _ = writeln!(found, "{line}");
        }
    }
    if found.is_empty() { found } else { format!("{HEADING}{found}{END}") }
}

/// Returns whole lines from the start of `text`, or as much of its first line as fits.
fn head_of(text: &str, limit: usize) -> &str {
    let end = text.floor_char_boundary(limit);
    match text[..end].rfind('\n') {
        Some(at) if at > end / 2 => &text[..at],
        _ => &text[..end],
    }
}

/// Returns whole lines from the end of `text`, or as much of its last line as fits.
fn tail_of(text: &str, limit: usize) -> &str {
    let start = text.ceil_char_boundary(text.len().saturating_sub(limit));
    match text[start..].find('\n') {
        Some(at) if start > 0 && at < limit / 2 => &text[start + at + 1..],
        _ => &text[start..],
    }
}

/// Returns the kind of a line that says little; `None` if the line may say more.
fn kind(line: &str) -> Option<Kind> {
    if line.len() > LINE {
        return None;
    }
    let line = line.trim();
    if passed(line) {
        return Some(Kind::Passed);
    }
    let step = STEPS.iter().any(|step| line.starts_with(step)) || is_numbered(line);
    if !(step || line.contains('%') || line.contains(':')) || is_error(line) || is_warning(line) {
        return None;
    }
    if step { Some(Kind::Step) } else { counted(line).map(Kind::Counted) }
}

/// Returns whether a line is a test runner's word that one test, or one file of them, passed.
fn passed(line: &str) -> bool {
    const BEGINNINGS: [&str; 9] =
        ["--- PASS: ", "=== RUN ", "=== PAUSE ", "=== CONT ", "PASS [", "PASS ", "✓ ", "✔ ", "√ "];
    let digit = |text: &str| text.trim_start().starts_with(|c: char| c.is_ascii_digit());
    BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))
        || line.ends_with("... ok")
        || line.contains("::") && line.contains(" PASSED")
        || line.strip_prefix("ok ").is_some_and(|rest| rest.starts_with(" \t") || digit(rest))
        // `tests/test_a.py ....... [ 12%]`: what fails is a letter there.
        || line.split_once(".py ").is_some_and(|(_, rest)| {
            rest.starts_with('.') && rest.ends_with("%]") && !rest.contains(|c: char| c.is_alphabetic())
        })
}

/// Returns whether a line begins with how far a build is: `[12/345] `, `[ 12%] `, `(3/40) `.
fn is_numbered(line: &str) -> bool {
    let Some(rest) = line.strip_prefix(['[', '(']) else { return false };
    let Some((number, rest)) = rest.split_once([']', ')']) else { return false };
    let is_number = |text: &str| !text.is_empty() && text.trim().bytes().all(|byte| byte.is_ascii_digit());
    let counts = match number.split_once('/') {
        Some((done, all)) => is_number(done) && is_number(all),
        None => number.strip_suffix('%').is_some_and(is_number),
    };
    counts && rest.starts_with(' ')
}

/// Returns the hash of what stays in a line that tells a share or bears a time; `None` for any other line.
fn counted(line: &str) -> Option<u64> {
    let bytes = line.as_bytes();
    let share = bytes.windows(2).any(|two| two[0].is_ascii_digit() && two[1] == b'%');
    let clock = |eight: &[u8]| {
        eight.iter().enumerate().all(|(at, byte)| if at % 3 == 2 { *byte == b':' } else { byte.is_ascii_digit() })
    };
    if !share && !bytes.windows(8).any(clock) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    let mut in_number = false;
    for c in line.chars() {
        let bar = matches!(c, '#' | '=' | '>' | '-' | '.' | ' ' | '━' | '╸' | '╺' | '\u{2580}'..='\u{259f}');
        // What is written together with a number is its unit, which changes as the number grows.
        in_number = c.is_ascii_digit() || in_number && c.is_alphanumeric();
        if !bar && !in_number {
            c.hash(&mut hasher);
        }
    }
    Some(hasher.finish())
}

/// Returns whether a line looks like an error.
fn is_error(line: &str) -> bool {
    const WORDS: [&str; 20] = [
        "error",
        "fail",
        "fatal",
        "panic",
        "exception",
        "traceback",
        "denied",
        "cannot",
        "can't",
        "not found",
        "no such",
        "undefined",
        "unresolved",
        "abort",
        "killed",
        "segmentation",
        "assert",
        "timed out",
        "refused",
        "unable",
    ];
    let line = line.to_ascii_lowercase();
    WORDS.iter().any(|word| line.contains(word))
}

fn is_warning(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["warn", "deprecated", "vulnerabilities", "conflict"].iter().any(|word| line.contains(word))
}

/// The beginnings of the lines by which builds and installations tell each of their steps.
const STEPS: [&str; 41] = [
    "Compiling ",
    "Checking ",
    "Downloading ",
    "Downloaded ",
    "Fresh ",
    "Adding ",
    "Updating ",
    "Locking ",
    "Building ",
    "Collecting ",
    "Using cached ",
    "Requirement already satisfied: ",
    "Preparing metadata",
    "Getting requirements",
    "Installing ",
    "Created wheel for ",
    "Stored in directory",
    "Get:",
    "Hit:",
    "Ign:",
    "Selecting previously unselected package ",
    "Preparing to unpack ",
    "Unpacking ",
    "Setting up ",
    "Processing triggers for ",
    "inflating: ",
    "extracting: ",
    "creating: ",
    "[INFO] Downloading from ",
    "[INFO] Downloaded from ",
    "Downloading from ",
    "Downloaded from ",
    "go: downloading ",
    "npm http ",
    "npm timing ",
    "Resolving ",
    "Fetching ",
    "Linking ",
    "Copying ",
    "Pulling ",
    "Extracting ",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn many(lines: usize, line: impl Fn(usize) -> String) -> String {
        (0..lines).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_passing_test_run_is_a_few_lines() {
        for (line, of) in [
            ("test store::tests::case_7 ... ok", "cargo"),
            ("tests/test_shop.py::test_case[7] PASSED                      [  7%]", "pytest"),
            ("test_error_7 (tests.test_shop.Shop.test_error_7) ... ok", "unittest"),
            ("--- PASS: TestCase7 (0.00s)", "go"),
            ("  ✓ adds the item of number 7 to the cart (3 ms)", "jest"),
            ("ok 7 - adds the item of number 7", "tap"),
            ("        PASS [   0.007s] shop cart::tests::case_7", "nextest"),
            ("tests/test_shop_7.py .......................     [ 50%]", "pytest's dots"),
        ] {
            let run = many(100, |number| line.replace('7', &number.to_string()));
            let folded = fold(&format!("begins\n{run}\n100 passed in 0.3 s"));
            let lines: Vec<&str> = folded.text.lines().collect();
            assert_eq!(lines.len(), 7, "{of}: {}", folded.text);
            assert_eq!((lines[0], lines[3], lines[6]), ("begins", "[… 96 more that passed …]", "100 passed in 0.3 s"));
            assert!(folded.cut);
        }
    }

    #[test]
    fn what_failed_stands_among_what_passed() {
        let run = many(60, |number| format!("test case_{number} ... {}", if number == 30 { "FAILED" } else { "ok" }));
        let folded = fold(&run).text;
        assert!(folded.contains("test case_30 ... FAILED") && folded.len() < 400, "{folded}");
    }

    #[test]
    fn steps_and_bars_are_counted() {
        let build = many(80, |number| format!("   Compiling crate-{number} v1.0.{number}"));
        assert!(fold(&build).text.contains("[… 76 more steps like these …]"));
        let warned = build.replace("Compiling crate-40", "Compiling warning-40");
        assert!(fold(&warned).text.contains("Compiling warning-40"));
        let cmake = many(80, |number| format!("[{number:>3}%] Building CXX object src/file_{number}.o"));
        assert!(fold(&cmake).text.contains("[… 76 more steps like these …]"));
        let bar =
            many(80, |number| format!("{number:>3}% [{}{}] {number}.4MB", "#".repeat(number), " ".repeat(80 - number)));
        assert!(fold(&bar).text.contains("[… 76 more that differ in their numbers …]"), "{}", fold(&bar).text);
        let polls = many(40, |number| format!("12:00:{number:02} GET /health 200 {number}ms"));
        assert!(fold(&polls).text.contains("[… 36 more that differ in their numbers …]"));
    }

    #[test]
    fn the_same_line_is_told_once_and_nothing_is_lost_by_it() {
        let folded = fold(&format!("a\n{}end", "retrying in a second\n".repeat(50)));
        let text = "a\nretrying in a second\n[… the line above 49 times more …]\nend";
        assert_eq!(folded, Shown { text: text.into(), cut: false });
    }

    #[test]
    fn what_people_ask_for_is_not_folded() {
        for text in [
            many(200, |number| format!("{number},{},{}", number * 3, number * 7)),
            many(200, |number| format!("-rw-r--r-- 1 agent agent {number} Nov 29 20:48 file_{number}.rs")),
            many(200, |number| format!("src/a.rs:{number}:    let value_{} = {number};", number * 31 % 17)),
            many(12, |number| format!("{}: {number}%", 2000 + number)),
            many(200, |number| format!("{number} file{number}.txt")),
            "a\n\n\n\n\n\nb".to_owned(),
            "    0,\n".repeat(5),
        ] {
            assert_eq!(fold(&text), Shown { text: text.clone(), cut: false });
        }
    }

    #[test]
    fn an_error_in_the_middle_is_seen() {
        let log = many(2000, |number| match number {
            1000 | 1010 => "src/main.rs:12: error: expected `;`".to_owned(),
            1020 => format!("FAILED {}", "x".repeat(5000)),
            number => format!("line {number} of what nobody reads"),
        });
        let shown = fit(&log, 4000);
        assert!(shown.cut && shown.text.len() <= 4000);
        assert!(shown.text.starts_with("line 0 of") && shown.text.ends_with("\nline 1999 of what nobody reads"));
        assert_eq!(shown.text.matches("error: expected").count(), 1, "{}", shown.text);
        assert!(shown.text.contains("\nFAILED xxx") && shown.text.contains("bytes cut] …\n[lines of them"));
        let joined = joined("one\nerror: two\n", 90_000, "three\nend", 4000);
        assert!(joined.text.starts_with("one\nerror: two\n… [90000 bytes cut] …\nthree\nend"), "{}", joined.text);
    }

    /// What commands write: runs of lines of each kind, and anything between them.
    fn output() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "[a-z]{1,9}::[a-z]{1,9} PASSED +\\[ [0-9]{1,2}%\\]".boxed(),
            "test [a-z]{1,9} \\.\\.\\. (ok|FAILED)".boxed(),
            "   Compiling [a-z]{1,9} v[0-9]\\.[0-9]".boxed(),
            "[0-9]{1,2}% [#]{0,9} [0-9]{1,3}kB".boxed(),
            "(error|warning): [a-zé]{1,20}".boxed(),
            "[ -~é世]{0,60}".boxed(),
            Just("the same line over and over".to_owned()).boxed(),
        ];
        proptest::collection::vec((line, 1_usize..40), 0..20).prop_map(|runs| {
            let lines = runs.into_iter().flat_map(|(line, times)| vec![line; times]);
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    proptest! {
        #[test]
        fn folding_keeps_errors_and_ends_and_is_done_once(text in output()) {
            let folded = fold(&text);
            prop_assert!(folded.text.len() <= text.len());
            let kept: HashSet<&str> = folded.text.split('\n').collect();
            for line in text.split('\n').filter(|line| is_error(line) && !passed(line.trim())) {
                prop_assert!(kept.contains(line), "{line:?}");
            }
            prop_assert!(kept.contains(text.split('\n').next_back().unwrap()) && kept.contains(text.split('\n').next().unwrap()));
            if !folded.cut {
                let lines: HashSet<&str> = text.split('\n').collect();
                prop_assert!(lines.is_subset(&kept));
            }
            prop_assert_eq!(&fold(&folded.text).text, &folded.text);
        }

        #[test]
        fn what_is_cut_fits_and_keeps_its_end(text in output(), limit in 300_usize..4000) {
            let shown = fit(&text, limit);
            prop_assert!(shown.text.len() <= limit, "{} > {limit}", shown.text.len());
            prop_assert_eq!(shown.cut, text.len() > limit);
            let last = text.split('\n').next_back().unwrap();
            prop_assert!(shown.text.ends_with(last));
            prop_assert_eq!(&fit(&shown.text, limit).text, &shown.text);
        }

        #[test]
        fn anything_is_cut_to_size(head in any::<String>(), tail in any::<String>(), hidden in any::<u32>(), limit in 0_usize..400) {
            prop_assert!(joined(&head, hidden.into(), &tail, limit).text.len() <= limit);
            prop_assert!(fit(&head, limit).text.len() <= limit);
            let folded = fold(&head);
            prop_assert_eq!(&fold(&folded.text).text, &folded.text);
        }
    }
}
